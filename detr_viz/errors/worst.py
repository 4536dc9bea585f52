"""The worst errors of a model, and their figures: one for each image, with the queries of them.

Missed objects and wrong detections take turns: the largest missed object, the surest detection, the
second largest, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError
from detr_viz.detections.mistakes import MISSED
from detr_viz.errors.run import ErrorRow
from detr_viz.render.paths import OutputPaths

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input
    from detr_viz.render.recipe import Recipe

FOLDER = "worst"


def worst_of(errors: Sequence[ErrorRow], most: int) -> list[ErrorRow]:
    """The worst errors, the worst first; those of queries that can be drawn."""
    missed = [e for e in errors if e.verdict.kind == MISSED and ids_of(e)]
    wrong = [e for e in errors if e.verdict.kind != MISSED]
    missed.sort(key=lambda e: -float(e.verdict.object_share))
    wrong.sort(key=lambda e: -float(e.verdict.score))
    turns = chain.from_iterable(zip_longest(missed, wrong))
    return [error for error in turns if error is not None][:most]


def ids_of(error: ErrorRow) -> list[str]:
    """The queries of an error, each once."""
    row = error.verdict
    return [q for q in dict.fromkeys((row.query, row.looking, row.about)) if q]


def choice_of(errors: Sequence[ErrorRow]) -> str:
    """The queries of an image's errors, in the syntax of --queries."""
    by_kind: dict[str, list[str]] = {}
    for error in errors:
        by_kind.setdefault(error.verdict.kind, []).extend(ids_of(error))
    return "+".join(f"{','.join(dict.fromkeys(ids))}&{kind}" for kind, ids in by_kind.items())


def draw_worst(
    model: Detector,
    recipe: Recipe,
    images: Sequence[Input],
    errors: Sequence[ErrorRow],
    paths: OutputPaths,
) -> Iterator[tuple[Input, list[ErrorRow], list[Path] | UserError]]:
    """Draw a figure for each image with such an error; yields its files, or why there are none.

    recipe: of this model.
    """
    from detr_viz.images.onto_picture import onto_picture
    from detr_viz.images.read import load_image
    from detr_viz.render.run import draw, explain_one, inputs_of, measure, needs_of

    inputs = {image.path: image for image in images}
    by_image: dict[str, list[ErrorRow]] = {}
    for error in errors:
        by_image.setdefault(error.image, []).append(error)
    for path, mine in by_image.items():
        image, one = inputs[path], replace(recipe, queries=choice_of(mine))
        try:
            picture = onto_picture(load_image(path), image.annotated)
            pixels = inputs_of(picture, one)
            explanations = explain_one([model], picture, pixels, one, needs_of(one))
            written = draw(measure(explanations, one), picture, one, paths, image.name)
        except OutputError:
            raise
        except UserError as error:
            yield image, mine, error
        else:
            yield image, mine, [file for view in written for file in view.files]
