"""What a network must offer to be explained, ours and other people's alike.

A `Detector` makes images into detections, and names the attention sites whose calls can be
captured. Nothing above this package asks for more, but for `Redecodes`, which ablations need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import Attention, Where
from detr_viz.attention.grids import Grid
from detr_viz.detections.boxes import cxcywh_to_xyxy, to_pixels
from detr_viz.detections.detections import Detections

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class DetectorInfo:
    """What is known of a detector, as plain values: it can be printed, hashed and sent.

    type            word of --type, or an adapter's name
    title           as papers write it
    weights         file name of the checkpoint;  path: as it was named;  sha256: of the file
    class_names     one a real class
    num_queries, num_heads, num_layers, num_encoder_layers   num_layers: of the decoder
    modes           of the cross-attention
    pairwise        detections are the top (query, class) pairs, not a class a query
    size, max_size  shorter side that images are resized to, and the bound on the longer one, pixels
    options         what leaves no trace in the weights: name -> value (dilation, ...)
    notes           what had to be assumed
    """

    type: str
    title: str
    weights: str
    path: str
    sha256: str
    class_names: tuple[str, ...]
    num_queries: int
    num_heads: int
    num_layers: int
    num_encoder_layers: int
    modes: tuple[str, ...]
    pairwise: bool
    size: int
    max_size: int
    options: tuple[tuple[str, object], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttentionSite:
    """A place in a network where attention is computed.

    module       what is hooked: the module whose call is the attention
    read         (args, kwargs, out, image, grids) of such a call -> the Attention of one image of
                 the batch; grids are the memory's
    project_out  (n, C) context, heads merged -> what the module puts out
    logits       (args, kwargs, image, rows) -> the logits (M, q, K) as the network itself
                 multiplies them, to check a sum of terms by; None where they are not to be had
    """

    module: nn.Module
    read: Callable[[tuple[Any, ...], Mapping[str, Any], Any, int, tuple[Grid, ...]], Attention]
    project_out: Callable[[Tensor], Tensor]
    logits: Callable[[tuple[Any, ...], Mapping[str, Any], int, Sequence[int]], Tensor] | None = None

    def output(self, out: Any, image: int) -> Tensor:
        """What the module put out for one image, (n, C)."""
        return (out[0] if isinstance(out, tuple) else out)[image]

    def replaced(self, out: Any, context: Tensor) -> Any:
        """What the module would put out for a single image with this context (M, n, D)."""
        projected = self.project_out(context.transpose(-2, -3).flatten(-2))[None]
        return (projected, *out[1:]) if isinstance(out, tuple) else projected


@dataclass(frozen=True, eq=False)
class Forwarded:
    """What a network made of a batch of images.

    class_scores      decoder layer -> (B, Q, classes) probabilities of the real classes
    boxes             decoder layer -> (B, Q, 4) cx, cy, w, h in [0, 1] of the image
    memory            what the decoder was given, as the detector alone understands it
    memory_of         (memory, i) -> that of one image
    grids             of the memory's cells, level by level, finest first
    reference_points  (Q, 2) or (B, Q, 2): x, y in [0, 1] where queries stand before they look
    """

    class_scores: Mapping[int, Tensor]
    boxes: Mapping[int, Tensor]
    memory: Any
    memory_of: Callable[[Any, int], Any] = field(repr=False)
    grids: tuple[Grid, ...]
    reference_points: Tensor | None = None

    def detections(self, layer: int, image: int, image_hw: tuple[int, int]) -> Detections:
        """What a decoder layer's output says of an image of this size in pixels."""
        scores = self.class_scores[layer][image].float().cpu().numpy()
        boxes = self.boxes[layer][image].float().cpu().numpy()
        return Detections(
            scores=scores.max(-1),
            labels=scores.argmax(-1).astype(np.int64),
            boxes_xyxy_px=to_pixels(cxcywh_to_xyxy(boxes), image_hw),
            class_scores=scores,
        )

    def references(self, image: int, image_hw: tuple[int, int]) -> NDArray[np.float32] | None:
        """Reference points in pixels of the image, (Q, 2)."""
        points = self.reference_points
        if points is None:
            return None
        points = points if points.ndim == 2 else points[image]
        return points.float().cpu().numpy() * np.asarray(image_hw[::-1], np.float32)


class Detector(Protocol):
    """A network in evaluation mode, with what its checkpoint said."""

    @property
    def info(self) -> DetectorInfo: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters, as they are described in files."""

    def input_hw(
        self, image_hw: tuple[int, int], size: int | None, max_size: int | None
    ) -> tuple[int, int]:
        """Pixels that an image is resized to; None: the detector's own sizes."""

    def prepare(self, rgb_BHW3: NDArray[np.uint8]) -> Tensor:
        """Resized images of one size as the network's input: its own mean, deviation, padding."""

    def attention_sites(self) -> Mapping[Where, AttentionSite]: ...

    def forward(self, pixels: Tensor, layers: Sequence[int]) -> Forwarded:
        """Run it; with the outputs of these decoder layers, and of the last."""


@runtime_checkable
class Redecodes(Protocol):
    """The decoder can be run again from what it was given: for ablations and faithfulness."""

    def decode(self, memory: Any, layers: Sequence[int]) -> Forwarded: ...

    def scores_with_hidden(self, memory: Any, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """Class scores (B, Q, classes) of one image's memory, decoded once for each of B masks.

        hidden: (B, Q, S) True where a query must not look, in these decoder layers.
        """
