"""All images through the models, by the batch's engine and journal; then the tables.

summary = judge_images(models, recipe, images, options, workers)        # writes verdicts.csv
tables = write_tables(recipe, options)                                  # errors.csv, summary.csv
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.batch.engine import DIGITS
from detr_viz.batch.index import opened, read_index
from detr_viz.batch.local_engine import LocalEngine
from detr_viz.batch.run import Summary as BatchSummary
from detr_viz.batch.run import run_batch
from detr_viz.common.console import short_name
from detr_viz.common.errors import UserError
from detr_viz.common.files import check_file, path_text, replacing
from detr_viz.detections.mistakes import FOUND
from detr_viz.errors.rows import JudgedImage, Verdict, rows_of
from detr_viz.errors.summary import COLUMNS, Summary
from detr_viz.images.onto_picture import onto_picture
from detr_viz.render.paths import OutputPaths

if TYPE_CHECKING:
    from detr_viz.batch.scheduler import Ready
    from detr_viz.batch.worker_process import WorkerProcess
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input
    from detr_viz.render.recipe import Recipe

VERDICTS, ERRORS, SUMMARY = "verdicts.csv", "errors.csv", "summary.csv"
QUERIES = "missed"  # of the recipe: all that `errors` writes depends on what is annotated
_FEW = 5  # names in a message


@dataclass(frozen=True)
class ErrorsOptions:
    """Where the tables go and how the run goes.

    worst       errors with a figure, for each model
    batch_size  images that share a forward pass
    resume      go on where a run with the same settings was stopped
    """

    folder: Path
    worst: int = 0
    batch_size: int = 1
    resume: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class ErrorRow:
    """An error of an image; figure: of the worst, relative to the folder of the tables."""

    image: str
    verdict: Verdict
    recipe: str
    figure: str = ""


def check_outputs(options: ErrorsOptions) -> None:
    """OutputError for a table that cannot be written, before an image is read."""
    for name in (VERDICTS, ERRORS, SUMMARY):
        check_file(options.folder / name, "choose another --out")


def check_classes(images: Sequence[Input], models: Sequence[Detector]) -> Iterator[str]:
    """Notes on annotated classes that a model lacks. UserError where it lacks all of them."""
    names: dict[str, str] = {}
    source = ""
    for image in images:
        if image.annotated is not None:
            names |= {name.casefold(): name for name in image.annotated.names}
            source = source or image.annotated.source
    if not names:
        return
    for model in models:
        known = {name.casefold() for name in model.info.class_names}
        lacking = sorted(name for key, name in names.items() if key not in known)
        some = ", ".join(map(short_name, lacking[:_FEW])) + (", ..." if lacking[_FEW:] else "")
        if len(lacking) == len(names):
            own = ", ".join(map(short_name, model.info.class_names[:_FEW]))
            raise UserError(
                f"none of the {len(names)} class names of {path_text(source)} ({some}) is one of "
                f"{model.info.weights} ({own}, ...): give --classes"
            )
        if lacking:
            count = f"{len(lacking)} of {len(names)} class names of {path_text(source)}"
            yield f"{count} are none of {model.info.weights}: {some}; their objects count as missed"


def names_of(models: Sequence[Detector]) -> list[str]:
    """What the models are called in the tables: their weights, numbered where these are the same"""
    names = [str(model.info.weights) for model in models]
    return [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names, 1)]


def judge_images(
    models: Sequence[Detector],
    recipe: Recipe,
    images: Sequence[Input],
    options: ErrorsOptions,
    workers: Sequence[WorkerProcess],
) -> BatchSummary:
    """Judge all images; the verdicts are in verdicts.csv. recipe: of these models.

    A failure is recorded and the run continues. OutputError where the disk refuses.
    """
    names = names_of(models)

    def judge(ready: Ready, explanations: list[Explanation]) -> JudgedImage:
        facts = onto_picture(ready.pixels.facts, ready.item.annotated)
        if facts.annotated is None:
            why = facts.notes[-1] if facts.notes else "it has no annotated boxes"
            raise UserError(f"{path_text(ready.item.path)}: {why}")
        rows = [
            row
            for e, name in zip(explanations, names, strict=True)
            for row in rows_of(replace(e, image=facts), name, recipe.score)
        ]
        digest = recipe.digest(facts)[:DIGITS]
        return JudgedImage(ready.item.path, tuple(map(tuple, rows)), (), digest)

    paths = OutputPaths(options.folder, suffixes=())
    engine = LocalEngine(models, recipe, paths, workers, options.batch_size, use=judge)
    more = {"resume": options.resume, "quiet": options.quiet}
    return run_batch(engine, recipe, images, paths, kind=JudgedImage, **more)


def verdicts_in(folder: Path) -> Iterator[tuple[str, Verdict, str]]:
    """(image, row, digest of the recipe) of a finished run."""
    for done in read_index(folder / VERDICTS, JudgedImage):
        for row in done.rows:
            yield done.image, Verdict(*row), done.recipe


def summed_up(folder: Path, models: Sequence[str]) -> tuple[dict[str, Summary], list[ErrorRow]]:
    """The counts of each model, and all errors."""
    summaries = {name: Summary(name) for name in models}
    errors = []
    for image, row, recipe in verdicts_in(folder):
        summaries[row.model].add(row)
        if row.kind != FOUND:
            errors.append(ErrorRow(image, row, recipe))
    return summaries, errors


def write_tables(
    folder: Path,
    summaries: Mapping[str, Summary],
    errors: Iterable[ErrorRow],
) -> Iterator[Path]:
    """Write errors.csv and summary.csv; yields their paths."""
    path = folder / ERRORS
    columns = ("image", *Verdict._fields, "figure", "recipe")
    with replacing(path) as part, opened(part, columns) as add:
        for error in errors:
            add((error.image, *error.verdict, error.figure, error.recipe))
    yield path
    path = folder / SUMMARY
    with replacing(path) as part, opened(part, COLUMNS) as add:
        for summary in summaries.values():
            for row in summary.table():
                add(row)
    yield path
