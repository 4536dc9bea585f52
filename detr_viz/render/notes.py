"""Notes of a run: what its last line and the metadata of its figures say beside the results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from detr_viz.checkpoints.type_names import other_weights
from detr_viz.images.drawn_scenes import CLASSES, ONLY_SHAPES, is_beyond
from detr_viz.render.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.captured import Explanation
    from detr_viz.images.loaded_image import LoadedImage

REPLACED = "which was drawn with other settings"


def is_beyond_models(recipe: Recipe, picture: LoadedImage) -> bool:
    """Whether one of the models knows drawn shapes only, and the picture shows something else."""
    return any(is_beyond(model.class_names, picture.rgb) for model in recipe.models)


def photo_weights(recipe: Recipe) -> str:
    """What to take for photos, instead of those models that know drawn shapes only."""
    return other_weights([m.type for m in recipe.models if tuple(m.class_names) == CLASSES])


def beyond_note(recipe: Recipe) -> str:
    """The last line of a run whose picture the weights cannot know."""
    return f"note: {ONLY_SHAPES}: {photo_weights(recipe)}"


def add_fact(figure: Figure, fact: str) -> None:
    """Add a sentence to the description in the file's metadata."""
    facts = getattr(figure, "facts", {})
    known = facts.get("Description", "")
    figure.facts = {**facts, "Description": f"{known} {fact}." if known else f"{fact}."}


class caught_notes(list[str]):
    """In the block, a warning becomes a note of this list, without a stack line."""

    def __enter__(self) -> caught_notes:
        self._catch = warnings.catch_warnings(record=True)
        self._caught = self._catch.__enter__()
        warnings.simplefilter("always", UserWarning)
        return self

    def __exit__(self, *error: Any) -> None:
        self._catch.__exit__(*error)
        self.extend(dict.fromkeys(str(one.message) for one in self._caught))


def size_notes(explanations: Sequence[Explanation], recipe: Recipe) -> Iterator[str]:
    """A note for each --size that --max-size has lowered."""
    notes: dict[str, None] = {}
    for e, (_, bound) in zip(explanations, recipe.sizes, strict=True):
        short = min(e.input_hw)
        if recipe.size and short < recipe.size:
            notes[f"note: --size {recipe.size} came down to {short}, for --max-size is {bound}"] = (
                None
            )
    yield from notes
