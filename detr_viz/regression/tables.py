"""A verdict as lines of a terminal: what is too far apart, worst first, and what lies behind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from detr_viz.regression.verdict import HeadChange, QueryChange, Verdict

_WIDE = 79  # columns
_MOST = 12  # rows that are told of a file
_NAME = 15  # characters of a query's name
_HEADS = f"  {'mode':<8}  {'query':<{_NAME}}  layer head   max |d|      TV     JSD   peak centre"
_QUERIES = f"  {'query':<{_NAME}}  {'class':<22}  {'score':<14}  box IoU"


def lines(name: str, verdict: Verdict) -> Iterator[str]:
    """A line that says how it stands; under it, where it is not the same, what is too far apart.

    Maximum and total variation (TV) of the change of weights, Jensen-Shannon divergence in bits,
    shifts of peak and centre of mass in cells.
    """
    if verdict.same:
        yield f"same       {name} ({verdict.used:.0%} of the limits used)"
        return
    yield f"different  {name}"
    yield from textwrap.wrap(
        why(verdict),
        _WIDE,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if verdict.gone:
        yield f"  gone: {_ids(verdict.gone)}"
    if verdict.new:
        yield f"  new: {_ids(verdict.new)}"
    far = [change for change in verdict.queries if change.excess > 1]
    yield from _table(_QUERIES, [_query(change) for change in far])
    apart = [change for change in verdict.heads if change.excess > 1]
    yield from _table(_HEADS, [_head(change) for change in apart])


def why(verdict: Verdict) -> str:
    """What lies behind it, on one line."""
    if verdict.cannot:
        return "; ".join((verdict.cannot, *verdict.changed))
    changed = verdict.changed or ("same inputs, different numbers",)
    return "; ".join((*changed, *verdict.likeness))


def worst(verdict: Verdict) -> str:
    """The head that moved farthest, in words; "" where none is too far from where it was."""
    change = next(iter(verdict.heads), None)
    if change is None or change.excess <= 1:
        return ""
    return (
        f"worst: {change.mode}, layer {change.layer}, head {change.head}, query {change.query} "
        f"{' '.join(change.label.split())}, total variation {change.total_variation:.2g}"
    )


def _table(head: str, rows: list[str]) -> Iterator[str]:
    if rows:
        yield head
        yield from rows[:_MOST]
    if len(rows) > _MOST:
        yield f"  and {len(rows) - _MOST} more"


def _ids(queries: tuple[int, ...]) -> str:
    said = ", ".join(map(str, queries[:_MOST]))
    return f"quer{'ies' if len(queries) > 1 else 'y'} {said}{', …' * (len(queries) > _MOST)}"


def _named(query: int, label: str) -> str:
    name = f"{query} {' '.join(label.split())}"
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _head(change: HeadChange) -> str:
    return (
        f"  {change.mode:<8}  {_named(change.query, change.label):<{_NAME}}  {change.layer:>5} "
        f"{change.head:>4}  {change.max_abs:8.2g} {change.total_variation:7.2g} "
        f"{change.jensen_shannon:7.2g} "
        f"{change.peak_shift:6.1f} {change.centroid_shift:6.1f}"
    )


def _query(change: QueryChange) -> str:
    before, after = (" ".join(label.split()) for label in change.labels)
    named = before if before == after else f"{before} > {after}"
    other = "" if change.other == change.query else f" = {change.other}"
    query = f"{change.query}{other}"
    named = named if len(named) <= 22 else f"{named[:21]}…"
    scores = "{:.3f} > {:.3f}".format(*change.scores)
    return f"  {query:<{_NAME}}  {named:<22}  {scores:<14}  {change.iou:7.3f}"
