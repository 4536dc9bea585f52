"""What views of self-attention share: the explanation, and how far another precision moves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.render.write import moved

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.images.read import LoadedImage
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def self_attention(
    model: LoadedModel, picture: LoadedImage, kind: str, recipe: Recipe
) -> Explanation:
    """With the recipe's layers of "encoder" or "decoder", of the decoder with their outputs."""
    from detr_viz.explanation.explain_image import explain

    layers = [recipe.layer] if isinstance(recipe.layer, str | int) else recipe.layer
    return explain(
        model,
        picture,
        layers=layers if kind == "decoder" else "last",
        sites=[(kind, layer) for layer in layers],
        size=recipe.size,
        max_size=recipe.max_size,
    )


def deviation(
    exact: LoadedModel, e: Explanation, kind: str, rows: Sequence[int], recipe: Recipe
) -> str:
    """In words, how far the weights of these rows lie from those of the model in float32."""
    other = self_attention(exact, e.image, kind, recipe)
    apart = max(
        float(abs(one - two).max())
        for site in e.sites
        if site[0] == kind
        for mode in modes_of_plot(recipe.plot, e.modes)
        for one, two in [[x.attention(site, mode, rows, recipe.scale) for x in (e, other)]]
    )
    return moved(recipe.precision, apart)
