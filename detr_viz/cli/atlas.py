"""The atlas command: what each head does over many images, as a table and a figure a model."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.checkpoints.sources import load, pair
from detr_viz.cli import flags
from detr_viz.cli.arguments import formats
from detr_viz.cli.settings import DEMO_LINE, precise, tell, tell_notes
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.common.files import check_file, replacing
from detr_viz.detections.queries import NoQueryError, check_for, check_syntax, select
from detr_viz.figures.styles import SUFFIXES, PageFormat, Style
from detr_viz.images import collect
from detr_viz.render.paths import check_out

if TYPE_CHECKING:
    from detr_viz.atlas.table import AtlasTable
    from detr_viz.batch.scheduler import Ready
    from detr_viz.batch.worker import Failure
    from detr_viz.batch.worker_process import WorkerProcess
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input
    from detr_viz.render.recipe import Recipe

DESCRIPTION = (
    "What each head does over many images: where it looks around the box of the object, in numbers "
    "(a .csv file a model) and as its mean map (a figure a model)."
)
EPILOG = """\
examples
  %(prog)s --type cd_detr --image folder/ --out atlas/
  %(prog)s --weights detr_resnet50 --image val2017/ --queries score:0.9 --layer all --out atlas/
"""
EXIT_FAILURES = 1  # some images failed
_QUERIES = "score:0.5"
_MOST_FAILURES = 20  # that are said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    flags.add_subject(
        parser,
        "what to look at",
        drawn=False,
        each=("have a table and a figure each", "rows of their own", _QUERIES),
        plot="all",
    )
    add = parser.add_argument_group("what to write").add_argument
    add("--out", metavar="DIR", default="outputs/atlas", help="the folder (default: %(default)s)")
    add(
        "--format",
        type=formats,
        default=(".png",),
        metavar="F",
        help="of the figures, any of png,pdf,svg (default: png)",
    )
    add(
        "--norm",
        choices=("head", "query", "figure"),
        default="query",
        help="head: each panel on a scale of its own; query: each row; figure: all panels "
        "(default: %(default)s)",
    )
    flags.add_page(parser.add_argument_group("how it looks"))
    flags.add_running(parser)
    add = parser.add_argument_group("many images").add_argument
    flags.add_speed(add)


def run(args: argparse.Namespace) -> int:
    """Look at all images; the exit code: 0, 1 where some failed."""
    queries = args.queries or _QUERIES
    check_syntax(queries)
    pairs = pair(args.type, args.weights)
    style = Style(norm=args.norm, cmap=args.cmap)
    page = PageFormat.of(args.preset, args.width, args.dpi)
    out = _checked_out(args)
    os.environ["MPLBACKEND"] = "agg"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in many.py
    if style.cmap:
        from detr_viz.figures.page.paint import colors

        colors(style)
    words = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    images = collect.expand(words, args.image_root, out)
    from detr_viz.atlas import figure
    from detr_viz.batch import worker_process

    team = worker_process.start(args.jobs or worker_process.default_count(args.device))
    try:
        loaded = load(args, pairs)
        if args.weights is None:
            tell(args, DEMO_LINE)
        tell_notes(args, loaded)
        exact, used = precise(args, loaded)
        recipe = _recipe(args, used, queries)
        reader = Reader(used, recipe, exact)
        for book, stem in zip(reader.books, _stems(used), strict=True):
            figure.check(book, style, page)
            for suffix in (".csv", *args.format):
                check_file(out / (stem + suffix), "choose another --out")
        failures = _look_at(args, reader, images, recipe, team)
    finally:
        worker_process.stop(team)
    books = reader.books
    if not any(book.objects for book in books):
        if len(failures) == 1 == len(images):
            raise UserError(failures[0])
        if failures:
            raise UserError(f"no object to sum up: {len(failures)} of {len(images)} images failed")
        raise UserError(
            f"no query answers to {queries!r} in any image: nothing to sum up; choose others with "
            "--queries"
        )
    for book, stem in zip(books, _stems(used), strict=True):
        for line in write(book, out / stem, args.format, style, page):
            tell(args, line)
    if failures:
        print(f"error: {len(failures)} of {len(images)} images failed", file=sys.stderr)
        return EXIT_FAILURES
    return 0


def _checked_out(args: argparse.Namespace) -> Path:
    out = Path(args.out)
    if not args.out:
        raise UserError("--out is empty: give a folder")
    if out.is_file():
        raise UserError(f"--out {out} is a file: give a folder")
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise UserError(f"--out {out} looks like a file: give a folder")
    check_out(str(out), several=True)
    if ".npz" in args.format:
        raise UserError("--format is of the figures: leave npz out")
    return out


def _recipe(args: argparse.Namespace, loaded: Sequence[Detector], queries: str) -> Recipe:
    from detr_viz.explanation.sites import resolve_layers
    from detr_viz.render.recipe import Recipe, of_models

    layer = tuple(args.layer) if isinstance(args.layer, list) else args.layer
    for model in loaded:
        resolve_layers(layer, model.info.num_layers)
        check_for(queries, model.class_names, model.info.num_queries)
    recipe = Recipe(
        models=(),
        plot=args.plot,
        queries=queries,
        layer=layer,
        scale=args.scale,
        size=args.size,
        max_size=args.max_size,
        precision=args.precision,
    )
    return of_models(loaded, recipe)


def _look_at(
    args: argparse.Namespace,
    reader: Reader,
    images: Sequence[Input],
    recipe: Recipe,
    team: list[WorkerProcess],
) -> list[str]:
    """All images through the reader; why some failed."""
    from detr_viz.batch import worker_process
    from detr_viz.batch.scheduler import Item, Pipeline
    from detr_viz.batch.worker import Failure, Setup
    from detr_viz.common.progress import Progress

    device = reader.models[0].device.type
    if not args.jobs:
        team += worker_process.start(worker_process.default_count(device) - len(team))
    for helper in team:
        helper.set_up(Setup(recipe, Path(tempfile.gettempdir())))
    size = args.batch_size or (8 if device == "cuda" else 1)
    items = (Item(i, image.path, image.name) for i, image in enumerate(images))
    failures: list[str] = []
    alone = len(images) == 1  # its failure is the run's
    with Progress(len(images), quiet=args.quiet or alone) as progress:
        reader.say = progress.note
        for item, outcome in Pipeline(team, size).run(items, reader):
            failed = isinstance(outcome, Failure)
            progress.advance(failed=failed)
            if failed:
                named = item.path in outcome.reason
                failures.append(outcome.reason if named else f"{item.path}: {outcome.reason}")
                if len(failures) <= _MOST_FAILURES and not alone:
                    said = f"error: {failures[-1]}"
                    print(said, file=sys.stderr) if args.quiet else progress.note(said)
    return failures


class Reader:
    """The network's part: every image that was read goes into the book of each model.

    reference: the models in float32, where others are used: the first image with a query goes
    through both, and `say` is told how far the maps are apart.
    """

    def __init__(
        self,
        loaded: Sequence[Detector],
        recipe: Recipe,
        reference: Sequence[Detector] | None = None,
    ) -> None:
        from detr_viz.atlas.table import AtlasTable
        from detr_viz.explanation.sites import resolve_layers

        self.models, self._recipe, self._reference = loaded, recipe, reference
        self.say: Callable[[str], None] = lambda line: None
        self.books = [
            AtlasTable(
                f"{model.info.title} ({Path(model.path).name})",
                modes_of_plot(recipe.plot, model.info.modes),
                resolve_layers(recipe.layer, model.info.num_layers),
                model.info.num_heads,
                recipe.scale,
                f"queries {recipe.queries}. weights {Path(model.path).name} sha256 {model.sha256}",
            )
            for model in loaded
        ]

    def __call__(self, batch: Sequence[Ready]) -> list[Failure | None]:
        from detr_viz.batch.worker import failure

        try:
            found = [list(each) for each in self._explained(self.models, batch)]
        except Exception as error:
            if len(batch) == 1:
                return [failure(error)]
            return [made for ready in batch for made in self([ready])]
        return [self._enter(r, e) for r, e in zip(batch, zip(*found, strict=True), strict=True)]

    def _explained(self, models: Sequence[Detector], batch: Sequence[Ready]) -> Iterator[list]:
        from detr_viz.batch.scheduler import stacked
        from detr_viz.explanation.explain_image import explain_batch

        recipe, facts = self._recipe, [ready.pixels.facts for ready in batch]
        for k, model in enumerate(models):
            pixels = stacked(batch, k)
            yield explain_batch(model, facts, pixels, recipe.layer, recipe.size, recipe.max_size)

    def _enter(self, ready: Ready, found: Sequence) -> Failure | None:
        """An image counts for all models or, where one of them fails, for none."""
        from detr_viz.batch.worker import failure

        try:
            chosen = [self._chosen(e) for e in found]
            if self._reference is not None and all(chosen):
                self._compare(ready, found, chosen)
        except Exception as error:
            return failure(error)
        for book, e, queries in zip(self.books, found, chosen, strict=True):
            book.add(e, queries)
        return None

    def _compare(
        self, ready: Ready, found: Sequence[Explanation], chosen: Sequence[list[int]]
    ) -> None:
        from detr_viz.render.write import moved

        reference, self._reference = self._reference, None
        assert reference is not None
        apart = max(
            float(abs(one.maps(*about) - two.maps(*about)).max())
            for book, one, (two,), queries in zip(
                self.books, found, self._explained(reference, [ready]), chosen, strict=True
            )
            for layer, mode in book.tallies
            for about in [(mode, queries, layer, book.scale)]
        )
        what = f"the attention weights of {ready.item.path}"
        self.say(moved(self._recipe.precision, apart, what))

    def _chosen(self, e: Explanation | Exception) -> list[int]:
        if isinstance(e, Exception):
            raise e
        try:
            return select(e, self._recipe.queries)
        except NoQueryError:
            return []


def write(
    book: AtlasTable, stem: Path, suffixes: Sequence[str], style: Style, page_format: PageFormat
) -> Iterator[str]:
    """The table and the figures of a book; yields the lines to print."""
    from detr_viz import figures
    from detr_viz.atlas.figure import atlas_figure
    from detr_viz.atlas.table import COLUMNS
    from detr_viz.batch.index import opened

    if not book.objects:
        yield f"{book.name}: no object in {book.images} images, nothing written"
        return
    path = stem.with_name(f"{stem.name}.csv")
    with replacing(path) as part, opened(part, COLUMNS) as add:
        for row in book.rows():
            add(row)
    yield f"wrote {path}"
    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        figure = atlas_figure(book, style=style, page_format=page_format)
    yield from (f"note: {warning.message}" for warning in caught)
    for suffix in suffixes:
        path = stem.with_name(stem.name + suffix)
        figures.save(figure, path)
        yield f"wrote {path}"


def _stems(loaded: Sequence[Detector]) -> list[str]:
    """The checkpoints' names as those of files, no two the same."""
    named = [re.sub(r"[^\w.-]+", "_", Path(m.path).stem).strip("._") or "model" for m in loaded]
    same = len({name.lower() for name in named}) < len(named)
    return [f"{name}_{i}" if same else name for i, name in enumerate(named, 1)]
