"""Forward hooks as a context manager; the handles are removed whatever happens.

with record(model, [("cross", 5)]) as recorded:
    model(images)
recorded["cross", 5].terms                      # Terms, worked out when first asked for
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from detr_viz.attention import residual
from detr_viz.terms import Terms

Site = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Recorded:
    """One call of an attention site: the module, its arguments and what it put out (B, Q, C)."""

    module: nn.Module
    args: tuple[Tensor | None, ...]
    out: Tensor

    @cached_property
    def terms(self) -> Terms:
        with torch.inference_mode():
            return self.module.terms(*self.args)

    @cached_property
    def residual(self) -> float:
        """The self-check (see `attention.residual`); NaN where the site cannot be tested."""
        with torch.inference_mode():
            return residual(self.terms, self.module.out_proj, self.out)


@contextmanager
def record(model: nn.Module, sites: Iterable[Site]) -> Iterator[dict[Site, Recorded]]:
    """Keep the last call of each named attention site of `model` while the block runs.

    sites are keys of model.attention_sites(); KeyError names those there are.
    Only references are kept, so the forward pass costs nothing extra.
    Hooks are gone afterwards, after an exception too.
    """
    available = model.attention_sites()
    recorded: dict[Site, Recorded] = {}
    handles = []
    try:
        for site in sites:
            if site not in available:
                raise KeyError(f"no attention site {site}; there are {sorted(available)}")

            def keep(module: nn.Module, args: tuple, out: Tensor, site: Site = site) -> None:
                recorded[site] = Recorded(module, args, out)

            handles.append(available[site].register_forward_hook(keep))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
