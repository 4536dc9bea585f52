"""torch's linear layer with its products by oneDNN, where it can."""

from __future__ import annotations

from torch import Tensor, nn

from detr_viz.attention.onednn import linear


class Linear(nn.Linear):
    """(..., d_in) -> (..., d_out)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
