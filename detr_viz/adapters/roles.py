"""Which recorded call is which attention site, by the sizes of their rows and keys.

    roles = roles_of(calls, num_queries)        # {("cross", 0): Role, ("decoder", 0): ..., ...}

Q = number of boxes, K = most keys that as many rows attend to. (Q, K) is cross-attention, (Q, Q)
the decoder's self-attention, rows that attend to themselves are cells of the encoder. Order of the
calls is order of the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.read import rows_of
from detr_viz.adapters.read_sampled import shapes_of
from detr_viz.adapters.recorder import RawCall
from detr_viz.attention.base import Where
from detr_viz.attention.terms import SITES
from detr_viz.common.errors import UserError

Sites = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Role:
    """A site of a network, and which call of its module it is.

    level: of one level's own cells. part: of attention of several kinds of tokens, the layout of
    all, and which of them are rows and columns (joint.py).
    """

    site: SiteModule
    number: int
    level: int | None = None
    part: Any = None

    def is_call(self, call: RawCall) -> bool:
        return call.site is self.site and call.number == self.number


def roles_of(
    calls: Sequence[RawCall], num_queries: int, named: Sites | None = None
) -> dict[Where, Role]:
    """Site -> its role. named: role -> names of modules, in order of layers, where sizes mislead.

    UserError where there is no cross-attention, or a name is not one of the calls.
    """
    found: dict[Where, Role] = {}
    named = dict(named or {})
    if bad := [kind for kind in named if kind not in SITES]:
        raise UserError(f"sites= has {bad[0]!r}: its keys are {', '.join(SITES)}")
    for kind, names in named.items():
        for layer, call in enumerate(_by_name(calls, names, kind)):
            found[kind, layer] = Role(call.site, call.number)
    sizes = {id(call): rows_of(call) for call in calls}
    ours = [c for c in calls if "backbone" not in c.site.name.split(".") and all(sizes[id(c)])]
    crossing = [c for c in ours if sizes[id(c)][0] == num_queries and _crosses(c, sizes[id(c)])]
    if "cross" not in named:
        most = max((sizes[id(c)][1] for c in crossing), default=0)
        crossing = [c for c in crossing if sizes[id(c)][1] == most]
        found |= {("cross", i): Role(c.site, c.number) for i, c in enumerate(crossing)}
    if ("cross", 0) not in found:
        raise UserError(_no_cross(calls, sizes, num_queries))
    first = next(c for c in calls if found["cross", 0].is_call(c))
    keys = sizes[id(first)][1]
    areas = [h * w for h, w in shapes_of(first)] if first.site.kind == "sampled" else [keys]
    mine = {id(role.site) for role in found.values()}
    rest = [c for c in ours if id(c.site) not in mine and c.context.shape[1] == sizes[id(c)][0]]
    if "decoder" not in named:
        same = [c for c in rest if sizes[id(c)] == (num_queries, num_queries)]
        with_cross = {r.site.layer_name for (kind, _), r in found.items() if kind == "cross"}
        same = [c for c in same if c.site.layer_name in with_cross] or same
        found |= {("decoder", i): Role(c.site, c.number) for i, c in enumerate(same)}
    if "encoder" not in named:
        mine = {id(role.site) for role in found.values()}
        own = [c for c in rest if id(c.site) not in mine and _encodes(sizes[id(c)], keys, areas)]
        for i, call in enumerate(own):
            rows = sizes[id(call)][0]
            level = None if rows == keys else areas.index(rows)
            found["encoder", i] = Role(call.site, call.number, level)
    return found


def _crosses(call: RawCall, size: tuple[int, int]) -> bool:
    return call.site.kind == "sampled" or size[0] != size[1]


def _encodes(size: tuple[int, int], keys: int, areas: Sequence[int]) -> bool:
    return size[0] == size[1] and (size[1] == keys or areas.count(size[1]) == 1)


def _by_name(calls: Sequence[RawCall], names: Sequence[str], kind: str) -> Iterable[RawCall]:
    by_name = {call.name: call for call in calls}
    for name in [names] if isinstance(names, str) else names:
        if name not in by_name:
            near = ", ".join(list(by_name)[:8]) or "none"
            raise UserError(f"sites= names {name!r} for {kind}, but attention was called in {near}")
        yield by_name[name]


def _no_cross(
    calls: Sequence[RawCall], sizes: Mapping[int, tuple[int, int]], num_queries: int
) -> str:
    if not calls:
        return (
            "no attention was called: the model is exported, scripted, or of unknown modules: name "
            "modules with projections of query, key and value with sites="
        )
    kinds = sorted({"{} to {}".format(*sizes[id(c)]) for c in calls})[:5]
    return (
        f"no cross-attention of the {num_queries} queries was called (rows and keys are "
        f"{', '.join(kinds)}): name its modules with sites="
    )
