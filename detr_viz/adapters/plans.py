"""What the trial of a live network saw, kept as long as the network and its weights are the same.

    key = key_of(network, prompt)
    trial = kept(network, key) or try_out(...)
    keep(network, key, trial)

A network is held weakly, and nothing that is kept holds it: sites are kept by their places among
those that are found. All weights are looked at, because content and position may be there or not
with them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from detr_viz.adapters.answers import digest
from detr_viz.adapters.find import find_sites
from detr_viz.adapters.roles import Role
from detr_viz.adapters.trial import Trial
from detr_viz.attention.base import Where

Key = tuple[str, int]


@dataclass(frozen=True, eq=False)
class _Plan:
    """trial: without sites and roles;  roles: site -> (its place, number, level, part)."""

    key: Key
    trial: Trial
    roles: Mapping[Where, tuple[int, int, int | None, Any]]


_plans: WeakKeyDictionary[nn.Module, _Plan] = WeakKeyDictionary()


def key_of(network: nn.Module, more: Hashable) -> Key:
    """(sha256 of all weights, hash of what modules there are and of what else matters)."""
    modules = tuple((name, id(type(module))) for name, module in network.named_modules())
    dtypes = tuple(p.dtype for p in network.parameters())
    return digest(network), hash((modules, dtypes, more))


def kept(network: nn.Module, key: Key) -> Trial | None:
    """What was seen of this network with these weights, or None."""
    plan = _plans.get(network)
    if plan is None or plan.key != key:
        return None
    found = find_sites(network)
    roles = {
        where: Role(found[place], number, level, part)
        for where, (place, number, level, part) in plan.roles.items()
    }
    return replace(plan.trial, found=found, roles=roles)


def keep(network: nn.Module, key: Key, trial: Trial) -> None:
    """Nothing is kept of modules that were found by their functions: that takes a run."""
    if any(site.clues for site in trial.found):
        return
    places = {id(site): place for place, site in enumerate(trial.found)}
    roles = {
        where: (places[id(role.site)], role.number, role.level, role.part)
        for where, role in trial.roles.items()
    }
    _plans[network] = _Plan(key, replace(trial, found=(), roles={}), roles)
