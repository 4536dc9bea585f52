"""Many images through the models: a table for each model; then tables and figures as files."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.atlas.table import AtlasTable
from detr_viz.attention.terms import modes_of_plot
from detr_viz.batch import worker_process
from detr_viz.batch.explainer import BatchExplainer
from detr_viz.batch.index import opened
from detr_viz.batch.scheduler import Item, Pipeline, Ready
from detr_viz.batch.tasks import Failure, Setup
from detr_viz.common.files import check_file, replacing
from detr_viz.common.progress import Progress
from detr_viz.common.regular import read_regular
from detr_viz.detections.queries import NoQueryError, check_for, select
from detr_viz.explanation.deviation import deviation_note
from detr_viz.figures.styles import DEFAULT_PAGE_FORMAT, DEFAULT_STYLE, PageFormat, Style
from detr_viz.render.file_digests import replaced_by
from detr_viz.render.notes import REPLACED
from detr_viz.render.recipe import Recipe
from detr_viz.render.views.base import Needs

if TYPE_CHECKING:
    from detr_viz.batch.worker_process import WorkerProcess
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input

_MOST_FAILURES = 20  # that are printed


@dataclass(frozen=True)
class AtlasOptions:
    """Where the tables and figures of a run go, and how it runs.

    suffixes    of the figures
    jobs        processes that read; None: what the machine has
    batch_size  images that share a forward pass; None: 1, 8 on a GPU
    """

    folder: Path
    suffixes: tuple[str, ...] = (".png",)
    style: Style = DEFAULT_STYLE
    page_format: PageFormat = DEFAULT_PAGE_FORMAT
    jobs: int | None = None
    batch_size: int | None = None
    quiet: bool = False


class Collector:
    """A table for each model, filled image by image.

    reference: the models in float32, where others are used. The first image with a query goes
    through both, and `say` is called with the distance between their maps.
    """

    def __init__(
        self,
        loaded: Sequence[Detector],
        recipe: Recipe,
        reference: Sequence[Detector] | None = None,
    ) -> None:
        from detr_viz.explanation.sites import resolve_layers

        self._recipe = recipe
        self.say: Callable[[str], None] = lambda line: None
        self.device = loaded[0].device.type
        self.explainer = BatchExplainer(loaded, recipe, Needs(recipe.layer), self._enter, reference)
        self.tables = [
            AtlasTable(
                f"{info.title} ({info.weights})",
                modes_of_plot(recipe.plot, info.modes),
                resolve_layers(recipe.layer, info.num_layers, info.layer_word),
                info.num_heads,
                recipe.scale,
                f"queries {recipe.queries}. weights {info.weights} sha256 {info.sha256}",
                "stage" if info.stages else "layer",
            )
            for info in (model.info for model in loaded)
        ]

    def _enter(self, ready: Ready, explanations: Sequence[Explanation]) -> None:
        """An image counts for all models or, where one of them fails, for none."""
        chosen = [self._chosen(e) for e in explanations]
        if all(chosen) and (exact := self.explainer.exact(ready)) is not None:
            self._compare(ready, explanations, exact, chosen)
        for table, e, queries in zip(self.tables, explanations, chosen, strict=True):
            table.add(e, queries)

    def _compare(
        self,
        ready: Ready,
        explanations: Sequence[Explanation],
        exact: Sequence[Explanation],
        chosen: Sequence[list[int]],
    ) -> None:
        apart = max(
            float(abs(one.maps(*about) - two.maps(*about)).max())
            for table, one, two, queries in zip(
                self.tables, explanations, exact, chosen, strict=True
            )
            for layer, mode in table.statistics
            for about in [(mode, queries, layer, table.scale)]
        )
        what = f"the attention weights of {ready.item.path}"
        self.say(deviation_note(self._recipe.precision, apart, what))

    def _chosen(self, e: Explanation) -> list[int]:
        try:
            return select(e, self._recipe.queries)
        except NoQueryError:
            return []


def checked(
    recipe: Recipe,
    loaded: Sequence[Detector],
    options: AtlasOptions,
    tables: Sequence[AtlasTable],
) -> None:
    """UserError where a figure cannot be drawn or a file written, before an image is read."""
    from detr_viz.atlas import figure

    for model in loaded:
        check_for(
            recipe.queries, model.info.class_names, model.info.num_queries, model.info.anchors
        )
    for table, stem in zip(tables, stems(loaded), strict=True):
        figure.check(table, options.style, options.page_format)
        for suffix in (".csv", *options.suffixes):
            check_file(options.folder / (stem + suffix), "choose another --out")


def collect(
    collector: Collector,
    images: Sequence[Input],
    recipe: Recipe,
    options: AtlasOptions,
    workers: list[WorkerProcess],
) -> list[str]:
    """All images through the collector; returns the errors of those that failed.

    workers: processes that read; it may grow
    """
    if not options.jobs:
        workers += worker_process.start(
            worker_process.default_count(collector.device) - len(workers)
        )
    size = options.batch_size or (8 if collector.device == "cuda" else 1)
    items = (
        Item(i, image.path, image.name, annotated=image.annotated) for i, image in enumerate(images)
    )
    failures: list[str] = []
    alone = len(images) == 1  # its failure is that of the run
    with (
        Progress(len(images), quiet=options.quiet or alone) as progress,
        tempfile.TemporaryDirectory(prefix="detr_viz-") as folder,
    ):
        for worker in workers:
            worker.set_up(Setup(recipe, Path(folder), len(workers)))
        collector.say = progress.note
        for item, outcome in Pipeline(workers, size).run(items, collector.explainer):
            failed = isinstance(outcome, Failure)
            progress.advance(failed=failed)
            if failed:
                named = item.path in outcome.reason
                failures.append(outcome.reason if named else f"{item.path}: {outcome.reason}")
                if len(failures) <= _MOST_FAILURES and not alone:
                    line = f"error: {failures[-1]}"
                    print(line, file=sys.stderr) if options.quiet else progress.note(line)
    return failures


def write(table: AtlasTable, stem: str, options: AtlasOptions) -> Iterator[str]:
    """A model's table and figures; yields the lines to print."""
    from detr_viz import figures
    from detr_viz.atlas.figure import atlas_figure

    if not table.objects:
        yield f"{table.name}: no object in {table.images} images, nothing written"
        return
    path = options.folder / f"{stem}.csv"
    before = read_regular(path) if path.is_file() else None
    with replacing(path) as part, opened(part, table.columns) as add:
        for row in table.rows():
            add(row)
    numbers = path.read_bytes()
    if before not in (None, numbers):
        yield f"replaced {path}, which had other numbers"
    yield f"wrote {path}"
    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        figure = atlas_figure(table, style=options.style, page_format=options.page_format)
    yield from (f"note: {warning.message}" for warning in caught)
    look = repr((options.style, options.page_format, table.name, table.source)).encode()
    digest = hashlib.sha256(look + numbers).hexdigest()
    for suffix in options.suffixes:
        path = options.folder / f"{stem}{suffix}"
        yield from (f"replaced {old}, {REPLACED}" for old in replaced_by(digest, [path]))
        figures.save(figure, path, {"Recipe": digest})
        yield f"wrote {path}"


def stems(loaded: Sequence[Detector]) -> list[str]:
    """File names, without suffix, from the names of the checkpoints; no two are the same."""
    paths = [Path(model.info.path) for model in loaded]
    named = [re.sub(r"[^\w.-]+", "_", path.stem).strip("._") or "model" for path in paths]
    same = len({name.lower() for name in named}) < len(named)
    return [f"{name}_{i}" if same else name for i, name in enumerate(named, 1)]
