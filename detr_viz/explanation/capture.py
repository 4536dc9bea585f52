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

from detr_viz.attention.dense import residual
from detr_viz.attention.terms import DenseAttention
from detr_viz.models.layers.split_attention import AttentionInputs, SplitAttention

Where = tuple[str, int]  # ("cross" | "decoder" | "encoder", layer), see terms.SITES


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of an attention site: the site, its parts and what it put out (B, Q, C)."""

    site: SplitAttention
    parts: AttentionInputs
    out: Tensor

    def of_image(self, i: int) -> AttentionCall:
        """The call as if image i of the batch had been alone."""
        one = {
            name: part[i : i + 1]
            for name, part in self.parts._asdict().items()
            if part is not None and len(part) > 1
        }
        return AttentionCall(self.site, self.parts._replace(**one), self.out[i : i + 1])

    @cached_property
    def terms(self) -> DenseAttention:
        with torch.inference_mode():
            return self.site.terms(self.parts)

    @cached_property
    def residual(self) -> float:
        """The self-check (see `attention.residual`); NaN where the site cannot be tested."""
        with torch.inference_mode():
            return residual(self.terms, self.site.out_proj, self.out)


@contextmanager
def record(model: nn.Module, sites: Iterable[Where]) -> Iterator[dict[Where, AttentionCall]]:
    """Keep the last call of each named attention site of `model` while the block runs.

    sites are keys of model.attention_sites(); KeyError names those there are. Only references are
    kept, so the forward pass costs nothing extra. The hooks go whatever happens.
    """
    available = model.attention_sites()
    recorded: dict[Where, AttentionCall] = {}
    handles = []
    try:
        for where in sites:
            if where not in available:
                raise KeyError(f"no attention site {where}; there are {sorted(available)}")

            def keep(
                site: SplitAttention,
                args: tuple[AttentionInputs],
                out: Tensor,
                where: Where = where,
            ) -> None:
                recorded[where] = AttentionCall(site, args[0], out)

            handles.append(available[where].register_forward_hook(keep))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
