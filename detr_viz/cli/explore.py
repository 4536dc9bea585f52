"""The explore command: one page of all images, where a reader points at boxes and queries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.checkpoints.sources import check_sources, named, precise
from detr_viz.checkpoints.type_names import other_weights
from detr_viz.cli import flags, run_flags
from detr_viz.cli.command_words import model_words, program, run_words
from detr_viz.cli.settings import check_truth, images_of, load_models, sources_of
from detr_viz.common import assets
from detr_viz.common.console import say
from detr_viz.common.errors import UserError, report
from detr_viz.common.files import OutputError, check_file, path_text
from detr_viz.detections.queries import DEFAULT, check_for, check_syntax, needs_truth
from detr_viz.images.first_look import check_image
from detr_viz.render.paths import PAGE

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input

DESCRIPTION = (
    "Write one page for a browser: point at a box or at any place of the photo, and see which "
    "queries look there, with every head, mode and layer. It needs no network."
)
EPILOG = """\
examples
  %(prog)s --type cd_detr --open
  %(prog)s --weights detr_resnet50 --image photo.jpg --out photo.html
  %(prog)s --weights model.pth --image val/ --layer all --out val.html
"""
SHORT = {  # of --help
    "--queries": f"kept whatever their score, shown first: {DEFAULT} (default), 17, class:cat",
    "--plot": "the mode that is shown first",
    "--out": "the page (default: outputs/explore.html)",
}
EXIT_FAILURES = 1  # some images failed
_OUT = "outputs/explore.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    each = "are images of their own on the page", "to choose from on the page", DEFAULT
    flags.add_subject(parser, "what to show", drawn=False, each=each)
    add = parser.add_argument_group("what to write").add_argument
    add("--out", metavar="FILE", default=_OUT, help="the page, a .html file (default: %(default)s)")
    add("--open", action="store_true", help="open it in the browser")
    run_flags.add_running(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page; returns the exit code: 0, or 1 where some images failed."""
    queries = DEFAULT if args.queries is None else args.queries
    check_syntax(queries)
    sources = sources_of(args)
    out = _target(args.out)
    words = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    images = images_of(words, args.image_root, None, args.quiet, annotations=args.annotations)
    if needs_truth(queries):
        check_truth(images, f"--queries {queries}", args.quiet)
    check_sources(sources)
    if len(images) == 1:
        check_image(images[0].path)
    loaded = load_models(sources, args.quiet, args.size, args.max_size)
    _, models = precise(loaded, args.precision)
    del loaded
    first = models[0].info
    check_for(queries, first.class_names, first.num_queries, first.anchors)
    parts: list[str] = []
    beyond: list[str] = []  # types of models that know no photos, where one is a photo
    failed = 0
    for image in images:
        try:
            parts += _explained(args, queries, models, model_words(sources), image, beyond)
        except Exception as error:
            if len(images) == 1 or isinstance(error, OutputError):
                raise
            if isinstance(error, UserError) and image.path not in str(error):
                error = UserError(f"{image.path}: {error}")
            report(error, args.traceback)
            failed += 1
    if not parts:
        raise UserError(f"no page: all {len(images)} images failed")
    _write(out, parts)
    if beyond:
        from detr_viz.images.drawn_scenes import ONLY_SHAPES

        say(f"note: {ONLY_SHAPES}: {other_weights(beyond)}", args.quiet)
    say(f"wrote {out} ({_size(out)})", args.quiet)
    if args.open:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    if failed:
        print(f"error: {failed} of {len(images)} images failed", file=sys.stderr)
    return EXIT_FAILURES if failed else 0


def _target(text: str) -> Path:
    """The path of the page. UserError where none can be written there."""
    out = Path(text)
    if not text or text == "-":
        raise UserError(f"--out {text!r} is not a path: give a .html file")
    if out.is_dir() or text.endswith("/"):
        out = out / Path(_OUT).name
    if out.suffix.lower() not in (PAGE, ".htm"):
        raise UserError(f"--out {path_text(text)} is no .html file: give a name such as page.html")
    check_file(out, "choose another --out")
    return out


def _explained(
    args: argparse.Namespace,
    queries: str,
    models: Sequence[Detector],
    words: Sequence[Sequence[str]],
    image: Input,
    beyond: list[str],
) -> Iterator[str]:
    """The data of an image for the page, of each model. beyond: types are added that know none."""
    from detr_viz.detections.queries import NoQueryError, select
    from detr_viz.explanation.explain_image import explain
    from detr_viz.html import measure
    from detr_viz.html.assembly import image_json
    from detr_viz.images.drawn_scenes import is_beyond
    from detr_viz.images.onto_picture import load_onto

    picture = load_onto(image.path, image.annotated)
    for note in picture.notes:
        say(f"note: {image.path}: {note}", args.quiet)
    for model, model_flags in zip(models, words, strict=True):
        with named(model.info.weights, len(models)):
            e = explain(model, picture, layers=args.layer, size=args.size, max_size=args.max_size)
            try:
                ids = select(e, queries, args.score)
            except NoQueryError:  # the page has the best ones
                ids = []
            entry = measure(
                e,
                ids,
                scale=args.scale,
                mode=modes_of_plot(args.plot, e.modes)[0],
                model_words=model_flags,
                run_words=run_words(args),
                least=args.score,
            )
        names = model.info.class_names
        if is_beyond(names, picture.rgb) and model.info.type not in beyond:
            beyond.append(model.info.type)
        yield image_json(entry, picture)


def _write(out: Path, parts: Sequence[str]) -> None:
    from detr_viz.html.assembly import assembled
    from detr_viz.render.saving import save_page

    save_page(assembled(parts, "", program()), out)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
