"""The command: arguments, dispatch, exit codes. Imports neither torch nor matplotlib."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import detr_viz
from detr_viz import files, models
from detr_viz.errors import EXIT_USER_ERROR, report
from detr_viz.queries import DEFAULT, SYNTAX
from detr_viz.terms import MODES, SCALES

EXIT_INTERRUPTED = 130

# first word -> module with add_arguments(parser) and run(args) -> exit code; without one it renders
SUBCOMMANDS = {"render": "detr_viz.render"}

EPILOG = """\
examples
  %(prog)s --type detr --plot combine
  %(prog)s --type cd_detr --plot position --queries top:3
  %(prog)s --weights detr_resnet50 --image photo.jpg --plot all --out photo.pdf
"""


class OneLineParser(argparse.ArgumentParser):
    """argparse that states a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {message} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def layer(text: str) -> int | str:
    """ "last" or a decoder layer counted from 0, for argparse."""
    if text == "last":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither last nor a layer counted from 0")
    return int(text)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the render command, which is what runs without a subcommand."""
    parser = OneLineParser(
        prog=prog,
        description="Draw each object query's attention heads over the image: what they look at, "
        "and how much of it comes from content and how much from position.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what to draw").add_argument
    add(
        "--type",
        choices=models.names(),
        help="model family member; told by the weights where they tell (default: detr)",
    )
    add(
        "--plot",
        choices=(*MODES, "all"),
        default="combine",
        help="parts of query and key that attend; all stacks the three (default: %(default)s)",
    )
    add("--image", nargs="+", metavar="FILE", help="one or more images (default: a demo scene)")
    add(
        "--weights",
        metavar="W",
        help="checkpoint file, Hugging Face folder, name of --list-models or hf:owner/name "
        "(default: this project's small demo checkpoint)",
    )
    add("--queries", default=DEFAULT, metavar="Q", help=f"{SYNTAX} (default: %(default)s)")
    add(
        "--layer",
        type=layer,
        default="last",
        metavar="N",
        help="decoder layer, counted from 0, or last (default: %(default)s)",
    )
    add(
        "--scale",
        choices=SCALES,
        default="mode",
        help="mode: q and k of the mode attend on their own; layer: at the layer's own scale, "
        "their exact share of combine (default: %(default)s)",
    )

    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="PATH",
        help="a .png, .pdf or .svg file; a folder for several images "
        "(default: outputs/<image>_<type>_<plot>.png)",
    )
    add("--save-maps", action="store_true", help="also write the maps as <figure stem>.npz")
    add("--show", action="store_true", help="open the figures in a window")
    add("--list-queries", action="store_true", help="print the table of queries, draw nothing")

    add = parser.add_argument_group("how to run").add_argument
    add("--size", type=positive, metavar="PX", help="shorter side (default: the model's, else 800)")
    add(
        "--max-size",
        type=positive,
        metavar="PX",
        help="bound on the longer side (default: the model's, else 1333)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network runs (default: %(default)s)",
    )
    add("--classes", metavar="FILE", help="class names, line n names class n (from 0)")
    add("--nheads", type=positive, metavar="N", help="attention heads, where the file is silent")
    add(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="DC5: dilated last stage, where the file is silent",
    )
    add("--cache", metavar="DIR", help="where downloads go (default: weights/)")

    add = parser.add_argument_group("about").add_argument
    add("--list-models", action="store_true", help="print model types and known weights, then stop")
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--traceback", action="store_true", help="show where an error came from")
    add("--version", action="version", version=f"detr_viz {detr_viz.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C,
    1 for a bug.
    """
    if argv is None:  # the process is ours
        signal.signal(signal.SIGINT, end_at_once)
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and words[0] in SUBCOMMANDS else "render"
    show_traceback = "--traceback" in words
    try:
        args = build_parser().parse_args(words)
        code = import_module(SUBCOMMANDS[command]).run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (| head): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return report(error, show_traceback)


def end_at_once(*_: object) -> NoReturn:
    """Ctrl-C: remove what is half-written and end the process, quietly.

    A KeyboardInterrupt raised wherever the program happens to be would not do: inside the imports
    of large libraries it comes out as other exceptions, or is printed and forgotten.
    """
    files.discard_unfinished()
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(EXIT_INTERRUPTED)
