"""Products of float32 by oneDNN, where it can (CPU, inference).

torch gives them to MKL on x86, which leaves half of what some processors can do (AMD's with
AVX-512); oneDNN, which runs the convolutions, does not. `torch.ops.mkldnn._linear_pointwise` is
what torch's compiler uses, and not public: it is proved on a small input before its first use, and
where it differs or fails torch's own product runs.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST = 1 << 21  # multiplications; a call costs as much as a million of them more than torch's own


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., d_in), (d_out, d_in), (d_out,) -> (..., d_out)."""
    if _is_run(x.numel() * len(weight), x, weight):
        return _product(x, weight, bias)
    return F.linear(x, weight, bias)


def by_head(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T of each head: (M, n, d_in), (M, d_out, d_in) -> (M, n, d_out); B may precede."""
    if x.ndim == 3 and _is_run(x[0].numel() * weight.shape[-2], x, weight):
        return torch.stack([_product(*head, None) for head in zip(x, weight, strict=True)])
    return x @ weight.transpose(-1, -2)


def _is_run(multiplications: int, x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes a product of so many."""
    return multiplications >= FEWEST and may_run(x, weight) and multiplies(x.dtype, x.device)


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether inference in this float type on this device has its large products by oneDNN.

    Half precisions are torch's own affair: it gives them to oneDNN itself.
    """
    return dtype is torch.float32 and enabled(device) and product_works()


def enabled(device: torch.device) -> bool:
    """Whether oneDNN is built in, not switched off, and made for tensors of this device."""
    return device.type == "cpu" and torch._C._get_mkldnn_enabled()


def may_run(x: Tensor, weight: Tensor) -> bool:
    """In inference, outside autocast and tracing, where these tensors lie."""
    return (
        x.dtype is weight.dtype
        and x.numel() > 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and enabled(x.device)
    )


@cache
def product_works() -> bool:
    """Whether oneDNN's product exists here and gives what torch's own does."""
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x, weight, bias = torch.randn(2, 9, 32), torch.randn(24, 32), torch.randn(24)
            limit = 16 * torch.finfo(x.dtype).eps * (1 + x.abs() @ weight.abs().T)
            return all(
                bool(((_product(x, weight, b) - F.linear(x, weight, b)).abs() <= limit).all())
                for b in (bias, None)
            )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False  # another torch, another build, another machine


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise
    return product(x.contiguous(), weight.contiguous(), bias, "none", [], "")
