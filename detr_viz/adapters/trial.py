"""A network is called once with noise, to see which call is which attention site.

    trial = try_out(network, prepared, found, answers)      # Trial
    trial.roles["cross", 0]

The picture is small where the network takes small ones. What is seen does not depend on the
picture, so that it is kept for a network as long as its weights stay as they are (plans.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers
from detr_viz.adapters.cells import grids_of
from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.joint import NOTE, cells_of, joint_roles, layout_of
from detr_viz.adapters.order import check_order
from detr_viz.adapters.positions import Given
from detr_viz.adapters.probes import call_of
from detr_viz.adapters.read import checked
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role, Sites, roles_of
from detr_viz.adapters.run import Prepared, Run, run
from detr_viz.adapters.unknown import unknown_sites
from detr_viz.attention.base import Where
from detr_viz.attention.dense import RESIDUAL_LIMITS
from detr_viz.common.errors import UserError

_SMALL = 320  # longer side in pixels: 300 queries and more are chosen among 2000 cells
_MULTIPLES = (64, 56)  # of patches in windows: 16 x 4, 14 x 4


@dataclass(frozen=True, eq=False)
class Trial:
    """What was seen.

    found     all sites of the network;  roles: which of them is what
    queries, classes, heads, modes, samples, levels   as in DetectorInfo
    why       why there is only combine, or ""
    layered   whether the output has boxes and scores of each decoder layer
    """

    found: Sequence[SiteModule]
    roles: Mapping[Where, Role]
    queries: int
    classes: int
    heads: int
    modes: tuple[str, ...]
    samples: bool
    levels: int
    why: str
    layered: bool
    notes: tuple[str, ...]

    @property
    def last(self) -> Role:
        """The last layer's cross-attention."""
        return self.roles["cross", self.count("cross") - 1]

    def count(self, kind: str) -> int:
        """Layers of a kind of site."""
        return sum(k == kind for k, _ in self.roles)


def try_out(
    network: nn.Module,
    prepared: Prepared,
    found: Sequence[SiteModule],
    answers: Answers,
    sites: Sites | None = None,
    position: Given | None = None,
    in_order: bool = True,
) -> Trial:
    """UserError where no cross-attention of the queries is found.

    in_order: whether it is known that the output's rows are in the order of the queries
    """

    def tried(given: Prepared) -> Trial:
        trial = _of(network, given, found, answers, sites, position)
        if not in_order:
            check_order(network, given, answers, trial.last, trial.queries)
        return trial

    for small in smaller(prepared):
        try:
            return tried(small)
        except Exception:  # of the network, which may want one size
            continue
    return tried(prepared)


def smaller(prepared: Prepared) -> Iterator[Prepared]:
    """The same input in smaller sizes, if it is large."""
    hw = prepared.input_hw
    if max(hw) <= 1.2 * _SMALL:
        return
    for multiple in _MULTIPLES:
        small = tuple(max(1, round(side * _SMALL / max(hw) / multiple)) * multiple for side in hw)
        yield replace(
            prepared, inputs=_resized(prepared.inputs, hw, small), input_hw=small, valid_hw=None
        )


def _resized(inputs: Any, hw: tuple[int, int], small: tuple[int, int]) -> Any:
    """Pictures and masks of this size in another one."""
    if isinstance(inputs, Tensor):
        if tuple(inputs.shape[-2:]) != hw or inputs.ndim not in (3, 4):
            return inputs
        x = inputs[None] if inputs.ndim == 3 else inputs
        x = F.interpolate(x.float(), small, mode="nearest").to(inputs.dtype)
        return x[0] if inputs.ndim == 3 else x
    if isinstance(inputs, Mapping):
        return {name: _resized(x, hw, small) for name, x in inputs.items()}
    if type(inputs) in (tuple, list):
        return type(inputs)(_resized(x, hw, small) for x in inputs)
    return inputs


def _of(
    network: nn.Module,
    prepared: Prepared,
    found: Sequence[SiteModule],
    answers: Answers,
    sites: Sites | None,
    position: Given | None,
) -> Trial:
    first = run(network, prepared, found, maps_too=True)
    boxes, scores = answers.of(first.out, 1)[0]
    found, seen, roles = _known(network, prepared, found, answers, first, len(boxes), sites)
    call = call_of(seen.calls, roles["cross", 0])
    attention = checked(call, 0, position)[0]
    why, notes = _parts(seen, roles, position)
    cells = cells_of(roles["cross", 0], call)
    levels = grids_of(call, prepared.input_hw, None, "centered", seen.maps, cells)
    count = sum(kind == "cross" for kind, _ in roles)
    own = answers.layers and answers.layers(seen.out)
    return Trial(
        found=found,
        roles=roles,
        queries=len(boxes),
        classes=scores.shape[1],
        heads=attention.num_heads,
        modes=tuple(attention.modes),
        samples=attention.kind == "sampled",
        levels=len(levels),
        why=why,
        layered=own is not None and len(own) == count,
        notes=(*([] if cells is None else [NOTE]), *notes),
    )


def _known(
    network: nn.Module,
    prepared: Prepared,
    found: Sequence[SiteModule],
    answers: Answers,
    first: Run,
    queries: int,
    sites: Sites | None,
) -> tuple[Sequence[SiteModule], Run, dict[Where, Role]]:
    """(sites, a run with them, their roles), found by children, else by what functions are called.

    Sites whose reading is not what they gave are taken for unknown ones.
    """
    why: UserError | None = None
    bad: list[SiteModule] = []
    try:
        roles = roles_of(first.calls, queries, sites)
        bad = _wrong(first, roles)
        kinds = {kind for kind, _ in roles}
        if not bad and {"decoder", "encoder"} <= kinds:
            return found, first, roles
    except UserError as error:
        why = error
    if why is not None and not sites:
        joint = _joint(network, prepared, found, answers, first, queries)
        if joint:
            return found, first, joint
    kept = [site for site in found if site not in bad]
    more, unseen = unknown_sites(network, prepared, kept)
    if not more:
        if why is None:
            return found, first, roles
        raise _with_names(why, unseen)
    again = {id(site.module) for site in more}
    found = [*kept, *more, *(s for s in bad if not _replaced(s, again))]
    seen = run(network, prepared, found, maps_too=True)
    exact = {id(s) for s in _wrong(seen, {("", i): _role(c) for i, c in enumerate(seen.calls)})}
    if any(site.clues and site.kind == "dense" and id(site) in exact for site in found):
        found = [_watched(s) if s.clues and id(s) in exact else s for s in found]
        seen = run(network, prepared, found, maps_too=True)
    try:
        return found, seen, roles_of(seen.calls, queries, sites)
    except UserError as error:
        joint = None if sites else _joint(network, prepared, found, answers, seen, queries)
        if joint:
            return found, seen, joint
        raise _with_names(error, unseen) from None


def _with_names(error: UserError, unseen: Sequence[str]) -> UserError:
    """The same error, with the modules that may attend in a way that is not seen."""
    if not unseen:
        return error
    names = ", ".join(unseen[:3]) + (", ..." if len(unseen) > 3 else "")
    return UserError(
        f"no cross-attention of the queries can be seen: {names} may attend without softmax and "
        "matmul or scaled_dot_product_attention of torch, which maps are made of"
    )


def _role(call: RawCall) -> Role:
    return Role(call.site, call.number)


def _replaced(site: SiteModule, others: set[int]) -> bool:
    return any(id(module) in others for module in site.module.modules())


def _watched(site: SiteModule) -> SiteModule:
    """A site that is read by its function alone."""
    clues = replace(site.clues, cuts={}, scale=None)
    return replace(site, kind="watched", children={}, out=None, clues=clues)


def _wrong(seen: Run, roles: Mapping[Where, Role]) -> list[SiteModule]:
    """Dense sites whose reading is not what they gave."""
    wrong = []
    for role in roles.values():
        if role.site.kind in ("sampled", "watched") or role.site in wrong:
            continue
        call = call_of(seen.calls, role)
        try:
            attention, residual, _ = checked(call, 0)
        except UserError:
            wrong.append(role.site)
            continue
        limit = RESIDUAL_LIMITS.get(call.context.dtype, 3e-2)
        if attention is not None and residual > limit:
            wrong.append(role.site)
    return wrong


def _joint(
    network: nn.Module,
    prepared: Prepared,
    found: Sequence[SiteModule],
    answers: Answers,
    seen: Run,
    queries: int,
) -> dict[Where, Role] | None:
    before = torch.cat(answers.of(seen.out, 1)[0], 1)

    def changed(last: RawCall, row: int) -> list[int]:
        """Queries that change with the output of the last attention at a row."""

        def finish(call: RawCall) -> Tensor | None:
            if call.site is not last.site or call.number != last.number:
                return None
            context = call.context.clone()
            context[:, row] = context[:, row].flip(-1) + 1
            return context

        out = run(network, prepared, found, finish).out
        after = torch.cat(answers.of(out, 1)[0], 1)
        return (after != before).any(1).nonzero().flatten().tolist()

    layout = layout_of(seen.calls, queries, seen.maps, changed)
    return layout and joint_roles(seen.calls, layout)


def _parts(seen: Run, roles: Mapping[Where, Role], position: Given | None) -> tuple[str, list[str]]:
    """(why there is only combine, or "", notes on how content and position were divided)."""
    whys, single = set(), []
    for (kind, layer), role in roles.items():
        if kind != "cross":
            continue
        attention, _, positions = checked(call_of(seen.calls, role), 0, position)
        whys.add(getattr(attention, "why", ""))
        if any(p is not None and p.error is None for p in positions):
            single.append(layer)
    if not single or position is not None or whys != {""}:
        return max(whys), []
    return "", [
        "content and position are divided by one rule alone, unchecked, in decoder layers "
        f"{', '.join(map(str, single))}"
    ]
