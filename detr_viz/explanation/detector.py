"""The protocol of a network that can be explained, one of ours or another one.

A `Detector` turns images into detections, and names the attention sites whose calls can be
captured. The rest of the tool needs nothing else, except that ablations need `Redecodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import Attention, Where
from detr_viz.attention.grids import Grid
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr
from detr_viz.detections.boxes import cxcywh_to_xyxy, to_pixels
from detr_viz.detections.detections import Detections
from detr_viz.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from detr_viz.explanation.proposals import Proposed
    from detr_viz.explanation.salience import Selected
    from detr_viz.explanation.scales import Scaled

ASSUMED_SIZE = "inputs are resized as in the authors' code"  # begins a note


@dataclass(frozen=True, repr=False)
class DetectorInfo(ShortRepr):
    """The facts of a detector as plain values, which can be printed, hashed and sent.

    type            word of --type, or an adapter's name
    title           as papers write it
    weights         file name of the checkpoint;  path: as it was given;  sha256: of the file
    class_names     one for each real class
    num_queries, num_heads, num_layers, num_encoder_layers   num_heads: of the cross-attention,
                    num_layers: of the decoder
    modes           of the cross-attention
    pairwise        detections are the top (query, class) pairs, not one class for each query
    size, max_size  shorter side that images are resized to, and the bound on the longer one, in
                    pixels; None where the sizes are of another form
    options         (name, value) of settings that cannot be seen in the weights (dilation, ...)
    notes           assumptions that were made
    anchors         points that several queries share: query k * anchors + a is pattern k of anchor
                    a; 0: no query shares its point
    self_heads      of the self-attentions; None: as many as the cross-attention has
    why_undivided   a clause: why there is no mode but combine; "" if there are others
    stages          whether decoder layers are stages, each of which reads the cells of one box a
                    query (HasCells) in place of what heads do
    salience        whether encoder layers refine only the salient tokens
    scales          whether encoder layers weigh levels (scale attention)
    proposal_scores  what ranks the tokens of the memory that become queries, in words; "" if
                    queries are not made of tokens
    samples         whether the cross-attention samples points; None: seen with the first image
    num_levels      levels of the cross-attention's maps; None: seen with the first image
    preprocessing   the rule by which images become the network's input; None: the official one at
                    size and max_size. Workers of a batch have nothing else: what `input_hw` of the
                    detector says follows from it
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
    size: int | None
    max_size: int | None
    options: tuple[tuple[str, object], ...] = ()
    notes: tuple[str, ...] = ()
    why_undivided: str = ""
    proposal_scores: str = ""
    salience: bool = False
    scales: bool = False
    preprocessing: Preprocessing | None = None
    samples: bool | None = None
    num_levels: int | None = None
    anchors: int = 0
    stages: bool = False
    self_heads: int | None = None

    @property
    def layer_word(self) -> str:
        """What a layer of the decoder is called."""
        return layer_word(self.stages)

    def preprocessing_at(
        self, size: int | None = None, max_size: int | None = None
    ) -> Preprocessing:
        """How images are resized and normalised where --size and --max-size are these."""
        own = self.preprocessing or Preprocessing(self.size, self.max_size)
        return own.at(size, max_size)

    def notes_at(self, size: int | None = None, max_size: int | None = None) -> tuple[str, ...]:
        """The notes, with what --size and --max-size change of them."""
        of_sizes = self.preprocessing_at().notes
        others = [note for note in self.notes if note not in of_sizes]
        if size is not None or max_size is not None:
            others = [note for note in others if not note.startswith(ASSUMED_SIZE)]
        return (*others, *self.preprocessing_at(size, max_size).notes)


def layer_word(stages: bool) -> str:
    """What a decoder layer is called; stages: whether layers are stages."""
    return "stage" if stages else "decoder layer"


@dataclass(frozen=True, repr=False)
class AttentionSite(ShortRepr):
    """A place in a network where attention is computed.

    module       the module whose call is the attention; it is hooked
    read         (args, kwargs, out, image, grids) of such a call -> the Attention of one image of
                 the batch; grids are the memory's
    project_out  (n, C) context, heads merged -> the module's output
    logits       (args, kwargs, image, rows) -> the logits (M, q, K) as the network itself computes
                 them, to check a sum of terms with; None if they are not available
    if_wrong     what to say where the self-check fails
    """

    module: nn.Module
    read: Callable[[tuple[Any, ...], Mapping[str, Any], Any, int, tuple[Grid, ...]], Attention]
    project_out: Callable[[Tensor], Tensor]
    logits: Callable[[tuple[Any, ...], Mapping[str, Any], int, Sequence[int]], Tensor] | None = None
    if_wrong: str = "please report it"

    def output(self, out: Any, image: int) -> Tensor:
        """The module's output for one image, (n, C)."""
        return (out[0] if isinstance(out, tuple) else out)[image]

    def replaced(self, out: Any, context: Tensor) -> Any:
        """The module's output for a single image if its context were this one, (M, n, D)."""
        projected = self.project_out(context.transpose(-2, -3).flatten(-2))[None]
        return (projected, *out[1:]) if isinstance(out, tuple) else projected


@dataclass(frozen=True, eq=False, repr=False)
class Forwarded(ShortRepr):
    """A network's results for a batch of images.

    class_scores      decoder layer -> (B, Q, classes) probabilities of the real classes
    boxes             decoder layer -> (B, Q, 4) cx, cy, w, h in [0, 1] of the image
    memory            the decoder's input, in the detector's own form
    memory_of         (memory, i) -> the memory of image i
    grids             of the memory's cells, level by level, finest first
    reference_points  (Q, N) or (B, Q, N): x, y, or cx, cy, w, h, in [0, 1] of the queries before
                      the decoder
    layer_references  decoder layer -> the same as it enters that layer, if they move
    proposed          the tokens that became queries, of detectors that make queries so
    selected          the tokens that encoder layers refine, of detectors that choose them
    scaled            the scale attention of the encoder, of detectors that have it
    """

    class_scores: Mapping[int, Tensor]
    boxes: Mapping[int, Tensor]
    memory: Any
    memory_of: Callable[[Any, int], Any] = field(repr=False)
    grids: tuple[Grid, ...]
    reference_points: Tensor | None = None
    layer_references: Mapping[int, Tensor] = field(default_factory=dict)
    proposed: Proposed | None = None
    selected: Selected | None = None
    scaled: Scaled | None = None

    def detections(self, layer: int, image: int, image_hw: tuple[int, int]) -> Detections:
        """The detections of a decoder layer in an image of this size in pixels."""
        scores = self.class_scores[layer][image].float().cpu().numpy()
        boxes = self.boxes[layer][image].float().cpu().numpy()
        return Detections(
            scores=scores.max(-1),
            labels=scores.argmax(-1).astype(np.int64),
            boxes_xyxy_px=to_pixels(cxcywh_to_xyxy(boxes), image_hw),
            class_scores=scores,
        )

    def references(
        self, image: int, image_hw: tuple[int, int], layer: int | None = None
    ) -> NDArray[np.float32] | None:
        """Reference points in pixels of the image, (Q, 2): before the decoder, or of a layer."""
        points = self._references(image, layer)
        if points is None:
            return None
        return points[:, :2] * np.asarray(image_hw[::-1], np.float32)

    def reference_boxes(
        self, image: int, image_hw: tuple[int, int], layer: int | None = None
    ) -> NDArray[np.float32] | None:
        """The same as boxes (Q, 4), left, top, right, bottom; None where they are points."""
        boxes = self._references(image, layer)
        if boxes is None or boxes.shape[1] != 4:
            return None
        return to_pixels(cxcywh_to_xyxy(boxes), image_hw)

    def _references(self, image: int, layer: int | None) -> NDArray[np.float32] | None:
        points = self.layer_references.get(layer, self.reference_points)
        if points is None:
            return None
        if points.ndim == 3:  # learned ones may be the same for all images, and stand there once
            points = points[image if len(points) > 1 else 0]
        return points.float().cpu().numpy()


class Detector(Protocol):
    """A network in evaluation mode, with the facts of its checkpoint."""

    @property
    def info(self) -> DetectorInfo: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype:
        """Type of its parameters, as files name it."""

    def input_hw(
        self, image_hw: tuple[int, int], size: int | None, max_size: int | None
    ) -> tuple[int, int]:
        """(h, w) in pixels that an image is resized to; None: the detector's own sizes."""

    def prepare(self, rgb_BHW3: NDArray[np.uint8]) -> Any:
        """The network's input from resized images of one size, normalised and padded.

        A tensor (B, 3, H, W), or what else its `forward` takes.
        """

    def attention_sites(self) -> Mapping[Where, AttentionSite]: ...

    def forward(self, pixels: Any, layers: Sequence[int]) -> Forwarded:
        """Run the network; with the outputs of these decoder layers and of the last."""


@runtime_checkable
class Redecodes(Protocol):
    """A detector whose decoder can run again on its memory, for ablations and faithfulness."""

    def decode(self, memory: Any, layers: Sequence[int]) -> Forwarded: ...

    def scores_with_hidden(self, memory: Any, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """Class scores (B, Q, classes) of one image's memory, decoded once for each of B masks.

        hidden: (B, Q, S) True where a query must not attend, in these decoder layers.
        """


def check_evaluating(detector: Detector) -> None:
    """UserError for a network in training mode, where dropout and batch norm change results.

    A detector that sets its network's mode for each run says so by an attribute, `sets_mode`.
    """
    if getattr(detector, "sets_mode", False):
        return
    from torch.nn.modules import batchnorm, dropout

    network = getattr(detector, "network", None)
    whole = [network] if hasattr(network, "modules") else []
    parts = [*whole, *(site.module for site in detector.attention_sites().values())]
    changing = batchnorm._BatchNorm, dropout._DropoutNd  # of others the mode changes nothing
    # a detector that has no network of its own may never have set the mode of its sites
    if (whole and any(part.training for part in parts)) or any(
        module.training and isinstance(module, changing)
        for part in parts
        for module in part.modules()
    ):
        raise UserError(
            f"{detector.info.title} is in training mode, where dropout and batch norm change its "
            "results: call .eval() on its network first"
        )
