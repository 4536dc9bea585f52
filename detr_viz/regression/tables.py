"""A comparison as lines for a terminal: the changes above the limits, worst first, and causes."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator

from detr_viz.common.files import printable
from detr_viz.heatmaps.changes import HeadChange, PartChange, QueryChange
from detr_viz.heatmaps.compare import Comparison
from detr_viz.heatmaps.limits import Limits

_WIDE = 79  # columns
_MOST = 12  # rows that are printed for a file
_NAME = 15  # characters of a query's name
_HEADS = "   max |d|      TV     JSD   peak centre"
_PARTS = "  what has moved"
_QUERIES = f"  {'query':<{_NAME}}  {'class':<22}  {'score':<14}  box IoU"


def lines(name: str, verdict: Comparison) -> Iterator[str]:
    """A line with the state; if it is "different", followed by tables of what is above the limits.

    Maximum and total variation (TV) of the change of weights, Jensen-Shannon divergence in bits,
    shifts of peak and centre of mass in cells.
    """
    name = printable(name)
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
    yield from _table(_QUERIES, _allowed_of_queries(verdict.limits), map(_query, far))
    apart = [change for change in verdict.heads if change.excess > 1]
    limits = verdict.limits
    allowed = f"  {'allowed':<{_NAME + 22}}  {limits.atol:8.2g} {limits.max_tv:7.2g} {'':7} "
    allowed += f"{limits.max_shift:6.1f} {limits.max_shift:6.1f}"
    levels = dict.fromkeys(change.level for change in apart)
    for level in sorted(levels, key=lambda level: -1 if level is None else level):
        if level is not None:
            yield f"  maps of level {level} alone:"
        rows = (_head(c, verdict.stages) for c in apart if c.level == level)
        yield from _table(_titles(verdict.stages) + _HEADS, allowed, rows)
    moved = [change for change in verdict.parts if change.excess > 1]
    rows = (_part(change, verdict.stages) for change in moved)
    yield from _table(_titles(verdict.stages) + _PARTS, _allowed_of_parts(limits), rows)


def why(verdict: Comparison) -> str:
    """Possible causes of a difference, on one line."""
    if verdict.cannot:
        return "; ".join((verdict.cannot, *verdict.changed))
    changed = verdict.changed or (verdict.unexplained,)
    return "; ".join((*changed, *verdict.likeness))


def worst(verdict: Comparison) -> str:
    """The head with the largest change, in words; "" if no change is above the limits."""
    head, part = next(iter(verdict.heads), None), next(iter(verdict.parts), None)
    if head is not None and head.excess > 1:
        moved = f"total variation {head.total_variation:.2g}"
        if head.level is not None:
            moved = f"level {head.level}, {moved}"
    elif part is not None and part.excess > 1:
        head, moved = part, part_words(part)
    else:
        return ""
    return (
        f"worst: {head.mode}, {where_of(head, verdict.stages)}, query {head.query} "
        f"{printable(head.label)}, {moved}"
    )


def where_of(change: HeadChange | PartChange, stages: bool) -> str:
    """Layer and head of a change in words; or its stage, which has no heads."""
    return f"stage {change.layer}" if stages else f"layer {change.layer}, head {change.head}"


def _titles(stages: bool) -> str:
    """The first columns of a table of changes: mode, query, and where."""
    where = f"{'stage':<10}" if stages else "layer head"
    return f"  {'mode':<8}  {'query':<{_NAME}}  {where}"


def _where(change: HeadChange | PartChange, stages: bool) -> str:
    """The same of a row."""
    head = "" if stages else change.head
    name = _fitted(f"{change.query} {change.label}", _NAME)
    return f"  {_fitted(change.mode, 8)}  {name}  {change.layer:>5} {head:>4}"


def part_words(change: PartChange) -> str:
    """A change of a head beside its map, in words."""
    if change.part == "outside":
        return f"mass off the map: {change.change:.2g}"
    if change.part == "cell":
        return f"share of cell {change.point} of the box: {change.change:.2g}"
    point = f"level {change.level}, point {change.point}"
    if change.part == "point":
        return f"{point}: {change.change:.1f} cells"
    return f"weight of {point}: {change.change:.2g}"


def _table(head: str, allowed: str, lines_of_rows: Iterable[str]) -> Iterator[str]:
    rows = list(lines_of_rows)
    if rows:
        yield head
        yield allowed
        yield from rows[:_MOST]
    if len(rows) > _MOST:
        yield f"  and {len(rows) - _MOST} more"


def _allowed_of_queries(limits: Limits) -> str:
    return (
        f"  {'allowed':<{_NAME}}  {'':<22}  {f'± {limits.max_score:g}':<14}  {limits.min_iou:7.3g}"
    )


def _allowed_of_parts(limits: Limits) -> str:
    words = f"mass and weight {limits.atol:.2g}, {limits.max_shift:g} cells"
    return f"  {'allowed':<{_NAME + 22}}  {words}"


def _ids(queries: tuple[int, ...]) -> str:
    ids = [str(query) for query in queries[:_MOST]]
    if len(queries) > _MOST:
        ids.append("…")
    return f"{'query' if len(queries) == 1 else 'queries'} {', '.join(ids)}"


def _fitted(text: str, columns: int) -> str:
    """Text in this number of terminal columns: cut, or filled with spaces."""
    start, wide = "", 0
    for sign in (text := printable(text)):
        wide += _width(sign)
        room = columns if start + sign == text else columns - 1  # one column for the "…"
        if wide > room:
            return f"{start}…{' ' * (columns - 1 - sum(map(_width, start)))}"
        start += sign
    return start + " " * (columns - wide)


def _width(sign: str) -> int:
    """Columns of a terminal that a character takes."""
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def _head(change: HeadChange, stages: bool) -> str:
    return (
        f"{_where(change, stages)}  {change.max_abs:8.2g} {change.total_variation:7.2g} "
        f"{change.jensen_shannon:7.2g} "
        f"{change.peak_shift:6.1f} {change.centroid_shift:6.1f}"
    )


def _part(change: PartChange, stages: bool) -> str:
    return f"{_where(change, stages)}  {part_words(change)}"


def _query(change: QueryChange) -> str:
    before, after = change.labels
    named = before if before == after else f"{before} > {after}"
    other = "" if change.other == change.query else f" = {change.other}"
    query = f"{change.query}{other}"
    scores = "{:.3f} > {:.3f}".format(*change.scores)
    return f"  {query:<{_NAME}}  {_fitted(named, 22)}  {scores:<14}  {change.iou:7.3f}"
