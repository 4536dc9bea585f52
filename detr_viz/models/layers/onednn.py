"""When a layer may run torch's oneDNN operators: they take a CPU's inference, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor


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
