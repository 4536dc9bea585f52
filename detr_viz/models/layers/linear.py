"""Products with weights by oneDNN, where it can (CPU, inference, float32).

torch gives float32 products on x86 to MKL, which leaves half of what some processors can do (AMD's
with AVX-512); oneDNN, which runs the convolutions, does not. `torch.ops.mkldnn._linear_pointwise`
is what torch's compiler uses, and not public: it is proved on a small input before its first use,
and where it differs or fails torch's own product runs.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.layers.onednn import enabled, may_run

FEWEST = 1 << 21  # multiplications; a call costs as much as a million of them more than torch's own


class Linear(nn.Linear):
    """torch's layer: (..., d_in) -> (..., d_out)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., d_in), (d_out, d_in), (d_out,) -> (..., d_out)."""
    large = x.numel() * len(weight) >= FEWEST
    if large and may_run(x, weight) and multiplies(x.dtype, x.device):
        return _product(x, weight, bias)
    return F.linear(x, weight, bias)


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether inference in this float type on this device has its large products by oneDNN.

    Half precisions are torch's own affair: it gives them to oneDNN itself.
    """
    return dtype is torch.float32 and enabled(device) and product_works()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise
    return product(x.contiguous(), weight.contiguous(), bias, "none", [], "")


@cache
def product_works() -> bool:
    """Whether oneDNN's product exists here and gives what torch's own does."""
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x, weight, bias = torch.randn(2, 9, 32), torch.randn(24, 32), torch.randn(24)
            for b in (bias, None):
                expected = F.linear(x, weight, b)
                limit = 16 * torch.finfo(x.dtype).eps * (1 + x.abs() @ weight.abs().T)
                if not bool(((_product(x, weight, b) - expected).abs() <= limit).all()):
                    return False
            return True
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False  # another torch, another build, another machine
