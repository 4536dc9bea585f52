"""Networks whose detection tokens and cells are rows of one sequence, as in YOLOS.

    layout = layout_of(calls, num_queries, maps, changed)   # Layout, or None
    roles = joint_roles(calls, layout)

Sizes do not say which rows are which, so it is tried: another output of the last attention at one
row must change the box and scores of one query and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from detr_viz.adapters.read import rows_of
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role
from detr_viz.attention.base import Where
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.grids import Grid
from detr_viz.attention.joint import JointAttention

_MOST_OTHERS = 64  # rows that are neither, as a class token and registers
NOTE = (
    "detection tokens and cells attend in one sequence: maps are the cells' share, the rest goes "
    "to other tokens"
)


PARTS = {  # kind of site -> the rows and columns of all tokens that it is
    "cross": ("queries", "cells"),
    "decoder": ("queries", "queries"),
    "encoder": ("cells", "cells"),
}
Part = tuple["Layout", str, str]
_ORDERS = (
    ("others", "cells", "queries"),
    ("queries", "others", "cells"),
    ("others", "queries", "cells"),
    ("cells", "queries", "others"),
)


@dataclass(frozen=True)
class Layout:
    """How a sequence is made up. order: of its parts;  queries, others: how many; cells: the rest.

    others: a class token, registers.
    """

    order: tuple[str, ...]
    queries: int
    others: int

    def ranges(self, count: int) -> dict[str, range]:
        """Part -> its rows, of so many rows in all."""
        cells = count - self.queries - self.others
        sizes = {"queries": self.queries, "others": self.others, "cells": cells}
        found, start = {}, 0
        for name in self.order:
            found[name] = range(start, start + sizes[name])
            start += sizes[name]
        return found


def layout_of(
    calls: Sequence[RawCall],
    num_queries: int,
    maps: Iterable[tuple[int, int]],
    changed: Callable[[RawCall, int], list[int]],
) -> Layout | None:
    """How the sequence of these calls is made up; None where they are not such attentions.

    maps     (h, w) of maps that the network made, one of which the cells are
    changed  (a call, a row) -> queries that change if the call's output at this row does
    """
    last = next((c for c in reversed(calls) if _joins(c, num_queries)), None)
    if last is None:
        return None
    count = rows_of(last)[0]
    others = [count - num_queries - h * w for h, w in maps]
    fitting = [n for n in others if 0 <= n <= _MOST_OTHERS]
    if not fitting:
        return None
    tried = set()
    for order in _ORDERS:
        layout = Layout(order, num_queries, min(fitting))
        rows = layout.ranges(count)["queries"]
        if rows in tried:
            continue
        tried.add(rows)
        ends = [(rows[0], 0), (rows[-1], num_queries - 1)]
        if all(changed(last, row) == [query] for row, query in ends):
            return layout
    return None


def joint_roles(calls: Sequence[RawCall], layout: Layout) -> dict[Where, Role]:
    """The three parts of each attention of all tokens: queries to cells, to queries, and cells."""
    joining = [c for c in calls if _joins(c, layout.queries)]
    size = rows_of(joining[-1])
    own = [c for c in joining if rows_of(c) == size]
    return {
        (kind, layer): Role(call.site, call.number, part=(layout, *PARTS[kind]))
        for kind in PARTS
        for layer, call in enumerate(own)
    }


def _joins(call: RawCall, num_queries: int) -> bool:
    rows, keys = rows_of(call)
    return rows == keys > num_queries


def joint_attention(own: DenseAttention, part: Part, grids: tuple[Grid, ...]) -> JointAttention:
    """The part of an attention of all tokens that a role means."""
    layout, rows, columns = part
    ranges = layout.ranges(own.num_rows)
    return JointAttention(own, ranges[rows], ranges[columns], grids)


def cells_of(role: Role, call: RawCall) -> int | None:
    """How many of a call's keys are cells; None: all."""
    if role.part is None:
        return None
    return len(role.part[0].ranges(rows_of(call)[1])["cells"])
