"""The compare command: two saved files, or two folders of them, without running a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from detr_viz.cli.arguments import cells, share
from detr_viz.common.console import say
from detr_viz.common.errors import EXIT_USER_ERROR, UserError
from detr_viz.common.files import printable, search
from detr_viz.heatmaps.limits import COARSE, EXACT, between

DESCRIPTION = (
    "Compare two files of saved maps (.npz), or all of two folders, head by head. "
    "Exit code: 0 the same, 1 different, 2 could not compare."
)
EPILOG = """\
examples
  %(prog)s before.npz after.npz
  %(prog)s runs/main runs/branch --atol 0.01 --max-tv 0.05
"""
EXIT_DIFFERENT = 1
EXIT_BUG = 2  # 1 is a difference
LIMITS = {  # of limits.Limits, as flags
    "atol": (share, "X", "change of a weight, 0 to 1"),
    "max_tv": (share, "X", "total variation of a map, 0 to 1"),
    "max_shift": (cells, "CELLS", "shift of a map's peak and of its centre, in cells"),
    "min_iou": (share, "X", "overlap of a query's boxes, 0 to 1"),
    "max_score": (share, "X", "change of a query's score, 0 to 1"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("old", metavar="A", help="file or folder of saved maps")
    parser.add_argument("new", metavar="B", help="the file or folder to compare it with")
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The limits within which two files are the same."""
    add = parser.add_argument_group("how far apart is still the same").add_argument
    for name, (kind, metavar, text) in LIMITS.items():
        defaults = f"{getattr(EXACT, name):g}; in bfloat16 and tf32 {getattr(COARSE, name):g}"
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=kind, metavar=metavar, help=f"{text} (default: {defaults})")


def limits_of(args: argparse.Namespace) -> dict[str, float]:
    """The limits that the flags give, by their names in Limits."""
    limits = {name: getattr(args, name) for name in LIMITS}
    return {name: value for name, value in limits.items() if value is not None}


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit code: 0 all the same, 1 some different, 2 some failed."""
    pairs = list(_pairs(args.old, args.new))
    from detr_viz import heatmaps
    from detr_viz.heatmaps.compare import STATES, judge
    from detr_viz.regression.tables import lines

    own = limits_of(args)
    counts = dict.fromkeys(STATES, 0)
    for name, old, new in pairs:
        if old is None or new is None:
            counts["different"] += 1
            where = args.new if old is None else args.old
            say(f"different  {printable(name)}: only in {printable(where)}")
            continue
        try:
            a, b = heatmaps.load(old), heatmaps.load(new)
        except heatmaps.HeatmapError as error:
            counts["not run"] += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        verdict = judge(a, b, between(a.meta, b.meta, **own))
        counts["same" if verdict.same else "different"] += 1
        if not (args.quiet and verdict.same):
            for line in lines(name, verdict):
                say(line)
    if sum(counts.values()) > 1:
        say(", ".join(f"{n} {what}" for what, n in counts.items() if n), args.quiet)
    if counts["not run"]:
        return EXIT_USER_ERROR
    return EXIT_DIFFERENT if counts["different"] else 0


def _pairs(old: str, new: str) -> Iterator[tuple[str, Path | None, Path | None]]:
    """Yields (name, old file, new file); None for a file that one of the folders lacks."""
    a, b = Path(old), Path(new)
    for name, path in ((old, a), (new, b)):
        if not name or not path.exists():
            raise UserError(f"no file or folder {printable(name)!r}: check the path")
    if a.is_dir() != b.is_dir():
        raise UserError(f"{a} and {b}: give two files or two folders")
    if not a.is_dir():
        yield f"{a} and {b}", a, b
        return
    files = [{p.relative_to(top): p for p in search(top, ".npz")} for top in (a, b)]
    names = sorted(files[0].keys() | files[1].keys())
    if not names:
        raise UserError(f"no saved maps (.npz) in {a} and {b}: make some with --save-maps")
    if not files[0].keys() & files[1].keys():
        raise UserError(f"{a} and {b} have no file of one name: check the paths")
    for name in names:
        yield name.as_posix(), files[0].get(name), files[1].get(name)
