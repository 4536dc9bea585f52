"""The command: dispatch, exit codes, Ctrl-C. Imports neither torch nor matplotlib."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import detr_viz
from detr_viz import files
from detr_viz.arguments import OneLineParser
from detr_viz.errors import report

EXIT_INTERRUPTED = 130

# First word -> module with DESCRIPTION, EPILOG, add_arguments(parser) and run(args) -> exit code.
SUBCOMMANDS = {"render": "detr_viz.render"}
DEFAULT_COMMAND = "render"


def build_parser(module: ModuleType, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of one command, with the flags that all commands have."""
    parser = OneLineParser(
        prog=prog,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    add = parser.add_argument_group("about").add_argument
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--traceback", action="store_true", help="show where an error came from")
    add("--version", action="version", version=f"detr_viz {detr_viz.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit code: 0, 2 for a user's mistake, 130 for Ctrl-C, 1 for a bug."""
    # the process is ours then, and what Ctrl-C does to it, unless it was told to ignore that
    ours = argv is None
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and words[0] in SUBCOMMANDS else DEFAULT_COMMAND
    show_traceback = "--traceback" in words
    try:
        module = import_module(SUBCOMMANDS[command])
        args = build_parser(module).parse_args(words)
        code = module.run(args)
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
