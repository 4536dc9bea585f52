"""Residual blocks of one resolution, that write their sums over what nobody reads again.

The maps of the first stages are so large that the C library asks the system for their memory each
time, and the system fills it with zeros: for a photo of 800 x 1066 that took a tenth of the pass.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as torch_modules


class Stage(nn.Sequential):
    """Blocks one after the other: (B, C, H, W) -> (B, C', H', W'); the input is left as it is.

    A block is called with (x, spare): whether it may write its output over x.
    """

    def forward(self, x: Tensor) -> Tensor:
        free = unwatched(self)
        for i, block in enumerate(self):
            x = block(x, free and i > 0)
        return x


def unwatched(module: nn.Module) -> bool:
    """Whether no hook can have kept what comes in or out of the module and those inside it."""
    of_all = torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks
    return not (of_all or any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()))


def beside(
    block: nn.Module, shortcut: nn.Module | None, x: Tensor, spare: bool
) -> tuple[Tensor, bool]:
    """What a block adds to its convolutions' output, and whether that may be written over."""
    return (x, spare) if shortcut is None else (shortcut(x), unwatched(block))
