"""--list-queries: the tables of an image's queries, and nothing drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detr_viz.detections.objects import choose, queries_of
from detr_viz.render.recipe import Recipe
from detr_viz.render.run import cut_notes, explain_one, inputs_of
from detr_viz.render.views.base import Needs
from detr_viz.render.views.head_maps import query_lines

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input


def list_image(
    models: Sequence[Detector], image: Input, recipe: Recipe, everything: bool
) -> Iterator[str]:
    """The tables of an image's queries, and nothing drawn. everything: of all queries by score."""
    from detr_viz.images.read import load_image

    picture = load_image(image.path)
    yield from (f"note: {image.path}: {note}" for note in picture.notes)
    needs = Needs(recipe.layer)
    found = explain_one(models, picture, inputs_of(picture, recipe), recipe, needs)
    yield from cut_notes(found, recipe)
    objects = [] if everything else choose(found, recipe.queries)
    for k, e in enumerate(found):
        ids = e.by_score() if everything else queries_of(objects, k)
        yield from query_lines(e, ids, len(found) > 1)
