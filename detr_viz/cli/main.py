"""The command: dispatch, exit codes, Ctrl-C. Imports neither torch nor matplotlib."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NoReturn

import detr_viz
from detr_viz.cli.arguments import OneLineParser
from detr_viz.cli.process import lost_lines, prepare_process
from detr_viz.cli.short_help import LINES, short_help
from detr_viz.common.bounds import raised_by
from detr_viz.common.console import safe_streams
from detr_viz.common.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    UserError,
    report,
)
from detr_viz.common.words import did_you_mean

# First word -> module with DESCRIPTION, EPILOG, add_arguments(parser) and run(args) -> exit code.
SUBCOMMANDS = {
    "render": "detr_viz.cli.render",
    "record": "detr_viz.cli.record",
    "check": "detr_viz.cli.check",
    "update": "detr_viz.cli.update",
    "compare": "detr_viz.cli.compare",
    "atlas": "detr_viz.cli.atlas",
    "errors": "detr_viz.cli.errors",
    "explore": "detr_viz.cli.explore",
}
DEFAULT_COMMAND = "render"
_SUMMARIES = {
    "record": "save maps as baselines",
    "check": "make baselines again and compare",
    "update": "rewrite baselines that differ",
    "compare": "two saved files or folders",
    "atlas": "what each head does over many images",
    "errors": "what was missed in annotated images, and why",
    "explore": "a page to point at, in a browser",
}


def build_parser(
    module: ModuleType, prog: str | None = None, command: str = ""
) -> argparse.ArgumentParser:
    """The parser of one command, with the flags that all commands have.

    command: the word that selected it, "" for the default command without a word.
    """
    if prog is None:
        name = Path(sys.argv[0]).name
        prog = "python -m detr_viz" if name == "__main__.py" else name
        prog = f"{prog} {command}".strip()
    epilog = module.EPILOG if command else module.EPILOG + _others(module)
    parser = _Parser(
        prog=prog,
        description=textwrap.fill(module.DESCRIPTION, 79),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    add = parser.add_argument_group("about").add_argument
    add("--quiet", action="store_true", help="print nothing but errors")
    add(
        "--limit",
        action="append",
        metavar="NAME=N",
        help="read more than is safe of a file from anywhere, see docs/limits.md: layers=500",
    )
    add("--traceback", action="store_true", help="show where an error came from")
    add("--help-all", action=_HelpAll, nargs=0, help="show this: all flags")
    add("--version", action="version", version=f"detr_viz {detr_viz.__version__}")
    needed = (" ".join((*a.option_strings, str(a.metavar))) for a in parser._actions if a.required)
    parser.usage = " ".join(("%(prog)s", *needed, "[flags]"))
    parser.short = getattr(module, "SHORT", parser.short)
    return parser


class _Parser(OneLineParser):
    """The parser of a command, whose --help fits a screen. short: see short_help."""

    short: Mapping[str, str] = MappingProxyType({})

    def format_help(self) -> str:
        text = super().format_help()
        if len(text.splitlines()) <= LINES:
            return text
        return short_help(self, self.description or "", self.epilog or "", self.short)


class _HelpAll(argparse.Action):
    """--help-all: every flag."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(OneLineParser.format_help(parser))
        parser.exit()


def _others(module: ModuleType) -> str:
    """The list of the other commands, for the help of the default command."""
    if module.__name__ != SUBCOMMANDS[DEFAULT_COMMAND]:
        return ""
    rows = [f"  %(prog)s {name:<8}  {summary}" for name, summary in _SUMMARIES.items()]
    return "\nother commands (each has its own --help)\n" + "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit code: 0, 2 for a user's mistake, 130 for Ctrl-C, 1 for a bug."""
    if argv is None:
        prepare_process()
    with safe_streams():
        try:
            code = _run(argv)
        except SystemExit as stop:  # of argparse
            if stop.code or not (why := lost_lines()):
                raise
            code = 0
        else:
            why = lost_lines()
        if why and code == 0:
            print(f"error: {why}", file=sys.stderr)
            return EXIT_USER_ERROR
        return code


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and words[0] in SUBCOMMANDS else ""
    show_traceback = "--traceback" in words
    module = None
    try:
        module = import_module(SUBCOMMANDS[command or DEFAULT_COMMAND])
        if not command and words and not words[0].startswith("-"):
            near = did_you_mean(words[0], SUBCOMMANDS)
            hint = near or f"there is {', '.join(SUBCOMMANDS)}."
            raise UserError(f"no command {words[0][:40]!r}: {hint} Images follow --image")
        args = build_parser(module, command=command).parse_args(words)
        limits = list(args.limit or ())
        if getattr(args, "timeout", None) is not None:
            limits.append(f"seconds={args.timeout}")
        with raised_by(limits):
            return module.run(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        code = report(error, show_traceback)
        return getattr(module, "EXIT_BUG", code) if code == EXIT_BUG else code
