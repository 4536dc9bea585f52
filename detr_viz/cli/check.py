"""The check command: computes baselines again and compares."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from detr_viz.cli.compare import EXIT_DIFFERENT, add_limits, limits_of
from detr_viz.common.console import say
from detr_viz.common.errors import EXIT_USER_ERROR, UserError
from detr_viz.common.files import printable
from detr_viz.regression.options import CheckOptions, Reports, chosen

if TYPE_CHECKING:
    from detr_viz.heatmaps.compare import Outcome

DESCRIPTION = (
    "Make baselines of the record command again and compare: the same maps, boxes and classes, "
    "from the same weights? Exit code: 0 the same, 1 different, 2 could not run."
)
EPILOG = """\
examples
  %(prog)s baselines
  %(prog)s baselines/a_cd_detr_all.npz --atol 0.01 --max-tv 0.05
  %(prog)s baselines --report report.html --junit report.xml
"""


EXIT_BUG = 2  # 1 is a difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    add_places(parser)
    add_limits(parser)
    add = parser.add_argument_group("reports").add_argument
    page = "a page with the maps of failures: before, now, and the difference"
    add("--report", metavar="FILE.html", help=page)
    add("--junit", metavar="FILE.xml", help="JUnit XML, one test case a baseline")
    add("--json", metavar="FILE.json", help="all numbers of the failures, as JSON")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Which baselines, and how the models run."""
    parser.add_argument(
        "baselines", nargs="+", metavar="PATH", help="folders of baselines, or single ones"
    )
    parser.add_argument(
        "--root", metavar="DIR", help="where paths of baselines recorded with --root start"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="only baselines whose names match: 'a_*', '*_cd_detr_*'; may be given several times",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the networks run (default: %(default)s)",
    )
    parser.add_argument(
        "--other-precision",
        action="store_true",
        help="compare maps that were made in another precision too, by the coarser limits",
    )
    parser.add_argument(
        "--anywhere",
        action="store_true",
        help="let baselines name images and weights outside their repository, and on the hub",
    )
    parser.add_argument("--cache", metavar="DIR", help="where downloads go (default: weights/)")


def options_of(args: argparse.Namespace) -> CheckOptions:
    """The typed options of these flags."""
    return CheckOptions(
        baselines=tuple(args.baselines),
        root=args.root,
        only=None if args.only is None else tuple(args.only),
        device=args.device,
        other_precision=args.other_precision,
        cache=args.cache,
        anywhere=args.anywhere,
        quiet=args.quiet,
        traceback=args.traceback,
    )


def check_places(args: argparse.Namespace) -> None:
    """UserError where there are no baselines or no --root, before anything slow is imported."""
    list(chosen(options_of(args)))
    if args.root is not None and not os.path.isdir(args.root):
        raise UserError(f"--root {args.root} is not a folder: check the path")


def run(args: argparse.Namespace) -> int:
    """Check; returns the exit code: 0 all the same, 1 some different, 2 some could not run."""
    report_paths = Reports(args.report, args.junit, args.json).paths()
    check_places(args)
    from detr_viz.regression import reports
    from detr_viz.regression.outcomes import outcomes
    from detr_viz.regression.tables import lines

    results: list[Outcome] = []
    shown = 0
    for outcome in outcomes(options_of(args), limits_of(args)):
        shown += not outcome.passed
        keep = "report" in report_paths and not outcome.passed and shown <= reports.MOST_SHOWN
        results.append(
            outcome if keep else outcome.brief()
        )  # without its maps: there may be thousands
        if outcome.verdict is None:
            print(f"error: {printable(outcome.name)}: {outcome.trouble}", file=sys.stderr)
        elif not (args.quiet and outcome.passed):
            for line in lines(outcome.name, outcome.verdict):
                say(line)
    counts = reports.counts(results)
    trouble: UserError | None = None
    try:
        for path in reports.write(report_paths, results):
            say(f"wrote {path}", args.quiet)
    except UserError as error:
        trouble = error
    say(", ".join(f"{n} {what}" for what, n in counts.items() if n), args.quiet)
    if trouble is not None:
        raise trouble
    if counts["not run"]:
        return EXIT_USER_ERROR
    return EXIT_DIFFERENT if counts["different"] else 0
