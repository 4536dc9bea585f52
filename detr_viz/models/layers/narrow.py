"""Networks of which the backbone alone may be in a narrower dtype."""

from __future__ import annotations

import torch
from torch import nn


class NarrowBackbone(nn.Module):
    """The base of networks whose other parts stay in float32: they read places in the image.

    In bfloat16 a place would lie whole cells off. A subclass has a `backbone`.
    """

    backbone: nn.Module

    @property
    def input_dtype(self) -> torch.dtype:
        """What images must come in."""
        return next(self.backbone.parameters()).dtype

    def narrow(self, dtype: torch.dtype) -> None:
        """The backbone in another dtype; all that comes after it stays as it is."""
        self.backbone.to(dtype)
