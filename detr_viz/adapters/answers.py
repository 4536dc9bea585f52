"""How the output of somebody's network is read, and what is known of the network beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.adapters.own_sizes import OwnSizes
from detr_viz.common.errors import UserError
from detr_viz.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class Facts:
    """What is known of a network beside its modules; fields as in DetectorInfo."""

    type: str = "attached"
    title: str = ""
    weights: str = ""
    path: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=OwnSizes)


@dataclass(frozen=True)
class Answers:
    """How a network's output is read.

    boxes(out) -> (Q, 4) or (1, Q, 4) cx, cy, w, h in [0, 1];  scores(out) -> the same of classes
    layers(out) -> (boxes, scores) of each decoder layer, or None where only the last is known
    """

    boxes: Callable[[Any], Tensor]
    scores: Callable[[Any], Tensor]
    layers: Callable[[Any], Sequence[tuple[Tensor, Tensor]] | None] | None = None

    def of(self, out: Any, num_layers: int) -> list[tuple[Tensor, Tensor]]:
        """(boxes (Q, 4), scores (Q, classes)) of each layer; UserError for other shapes."""
        last = _one(self.boxes(out), "boxes", 4), _one(self.scores(out), "scores")
        if len(last[0]) != len(last[1]):
            raise UserError(f"boxes(out) has {len(last[0])} rows and scores(out) {len(last[1])}")
        own = self.layers(out) if self.layers else None
        if own is None or len(own) != num_layers:
            return [last] * num_layers
        return [*((_one(b, "boxes", 4), _one(s, "scores")) for b, s in own[:-1]), last]


def _one(x: Any, name: str, width: int | None = None) -> Tensor:
    x = torch.as_tensor(x)
    x = x[0] if x.ndim == 3 and len(x) == 1 else x
    if x.ndim != 2 or (width is not None and x.shape[1] != width):
        raise UserError(f"{name}(out) has shape {tuple(x.shape)}, not (Q, {width or 'classes'})")
    return x.float()


def digest(network: nn.Module) -> str:
    """sha256 of all parameters and buffers."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        if isinstance(value, Tensor):
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
