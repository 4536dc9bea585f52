"""--list-queries: the tables of an image's queries, without a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detr_viz.detections.objects import choose, queries_of
from detr_viz.render.notes import beyond_note, is_beyond_models, size_notes
from detr_viz.render.recipe import Recipe
from detr_viz.render.run import explain_one, inputs_of
from detr_viz.render.views.base import Needs
from detr_viz.render.views.head_maps import query_lines

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input


def list_image(
    models: Sequence[Detector], image: Input, recipe: Recipe, all_queries: bool
) -> Iterator[str]:
    """Yields the tables of an image's queries. all_queries: all queries by score."""
    from detr_viz.images.onto_picture import load_annotated

    picture = load_annotated(image.path, image.annotated)
    yield from (f"note: {image.path}: {note}" for note in picture.notes)
    needs = Needs(recipe.layer)
    explanations = explain_one(models, picture, inputs_of(picture, recipe), recipe, needs)
    yield from size_notes(explanations, recipe)
    objects = [] if all_queries else choose(explanations, recipe.queries)
    for k, e in enumerate(explanations):
        ids = e.by_score() if all_queries else queries_of(objects, k)
        yield from query_lines(e, ids, len(explanations) > 1)
    if is_beyond_models(recipe, picture):
        yield beyond_note(recipe)
