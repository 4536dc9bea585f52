"""The update command: baselines that differ are replaced by new ones."""

from __future__ import annotations

import argparse
import sys

from detr_viz.cli import check
from detr_viz.cli.compare import add_limits, limits_of
from detr_viz.common.console import say
from detr_viz.common.errors import EXIT_USER_ERROR
from detr_viz.common.files import printable

DESCRIPTION = (
    "Rewrite the baselines that the check command finds different, and print what has changed; "
    "the others stay as they are."
)
EPILOG = """\
examples
  %(prog)s baselines
  %(prog)s baselines --only '*_cd_detr_*'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    check.add_places(parser)
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Update; returns the exit code: 0, or 2 where a baseline could not be computed again."""
    check.check_places(args)
    from detr_viz.heatmaps.npz import write
    from detr_viz.regression.outcomes import outcomes
    from detr_viz.regression.tables import lines

    updated = same = failed = 0
    for outcome in outcomes(check.options_of(args), limits_of(args)):
        if outcome.verdict is None:
            failed += 1
            print(f"error: {printable(outcome.name)}: {outcome.trouble}", file=sys.stderr)
            continue
        if outcome.verdict.same:
            same += 1
            continue
        assert outcome.path is not None and outcome.old is not None and outcome.new is not None
        for line in lines(outcome.name, outcome.verdict):
            say(line, args.quiet)
        if not len(outcome.new.query_ids):
            failed += 1
            name = printable(outcome.name)
            print(f"error: {name}: no query is left, so it stays as it was", file=sys.stderr)
            continue
        store = str(outcome.old.meta.get("store", "float32"))
        path = write(outcome.path, outcome.new, store, "check its folder, or check it out anew")
        updated += 1
        say(f"rewrote {path}", args.quiet)
    counts = {"rewritten": updated, "the same": same, "not run": failed}
    say(", ".join(f"{n} {what}" for what, n in counts.items() if n), args.quiet)
    return EXIT_USER_ERROR if failed else 0
