"""Pages of a run (--format html): measured with the network, written where figures are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.detections.objects import queries_of

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.html.entry import Entry
    from detr_viz.images.loaded_image import LoadedImage
    from detr_viz.render.recipe import Recipe


def entries(
    explanations: Sequence[Explanation], objects: Sequence[SharedObject], recipe: Recipe
) -> tuple[Entry, ...]:
    """What a page shows of each model; () where the recipe asks for no page."""
    if recipe.words is None:
        return ()
    from detr_viz.html import measure
    from detr_viz.render.views.base import resolved

    return tuple(
        measure(
            e,
            queries_of(objects, k),
            scale=recipe.scale,
            mode=modes_of_plot(recipe.plot, e.modes)[0],
            layers=resolved(recipe, e.num_layers),
            model_words=recipe.words[k],
            run_words=recipe.run_words,
            least=recipe.score,
        )
        for k, e in enumerate(explanations)
    )


def page_maker(pages: Sequence[Entry]) -> Callable[[LoadedImage, str], str] | None:
    """A function of the photo and the digest that gives the page; None where there is none."""
    if not pages:
        return None

    def page(picture: LoadedImage, digest: str) -> str:
        from detr_viz.html import document

        return document([(entry, picture) for entry in pages], digest)

    return page
