"""Recorded calls of sites, as the rest of the tool captures and changes attention: by hooks.

A `Probe` stands for a site. The rest of the tool hooks it instead of the network's own module,
whose calls look different in every network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.joint import joint_attention
from detr_viz.adapters.one_level import LevelAttention
from detr_viz.adapters.positions import Given
from detr_viz.adapters.read import read
from detr_viz.adapters.read_sampled import reference_of, shapes_of
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role
from detr_viz.attention.base import Attention
from detr_viz.attention.grids import Grid
from detr_viz.common.errors import UserError


class Probe(nn.Module):
    """Stands for a site: called with its recorded calls, it gives their contexts.

    A hook on it sees all images' calls of the site after a run, and may give another context in a
    run that decodes again.
    """

    def forward(self, calls: Sequence[RawCall], contexts: list[Tensor]) -> list[Tensor]:
        return contexts


def modules_of(roles: Any, found: Sequence[SiteModule] = ()) -> list[SiteModule]:
    """Modules of these roles, and the others of their layers, which tell positions."""
    own = list({id(role.site): role.site for role in roles}.values())
    layers = {site.layer_name for site in own}
    known = {id(site) for site in own}
    return own + [s for s in found if s.layer_name in layers and id(s) not in known]


def call_of(calls: Sequence[RawCall], role: Role) -> RawCall:
    for call in calls:
        if role.is_call(call):
            return call
    raise UserError(
        f"{role.site.name} was not called with this image: the model takes another way, or runs "
        "compiled code without hooks"
    )


def read_call(
    kind: str,
    role: Role,
    position: Given | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Any,
    image: int,
    grids: tuple[Grid, ...],
) -> Attention:
    return read_as(role, args[0][image], () if kind == "decoder" else grids, position)


def read_as(
    role: Role, call: RawCall, grids: tuple[Grid, ...] = (), position: Given | None = None
) -> Attention:
    """The attention of a call in its role. grids: of the keys."""
    if role.part is not None:
        return joint_attention(read(call, 0, (), position), role.part, grids)
    if role.level is not None and grids:
        alone = read(call, 0, (grids[role.level],), position)
        return LevelAttention(alone, role.level, grids)
    return read(call, 0, grids, position)


def references_of(crossing: Mapping[int, Sequence[RawCall]]) -> dict[int, Tensor]:
    """Decoder layer -> (B, Q, 2 or 4) reference points of the finest level, where samples move."""
    found = {}
    for layer, calls in crossing.items():
        if calls[0].site.kind == "sampled":
            levels = [reference_of(call, 1 if call is None else _levels(call)) for call in calls]
            found[layer] = torch.stack([x[0, :, 0] for x in levels])
    return found


def _levels(call: RawCall) -> int:
    return len(shapes_of(call))
