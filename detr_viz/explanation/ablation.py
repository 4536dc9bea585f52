"""The decoder run again without a part of its cross-attention.

    before = unchanged(detector, memory, image_hw)
    ablation = ablate(detector, memory, image_hw, removal, layers, inside, before)
    ablation.before.scores, ablation.after.scores

One kernel (`Removable.without`) computes both results. It adds the terms of the logits one by one,
so that the removal of a term that is zero does not change a single bit. Backbone and encoder do not
run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.base import Attention, HasAxes, HasPlaces, Removable
from detr_viz.attention.roi import RoIAttention
from detr_viz.attention.terms import are_products
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr
from detr_viz.detections.boxes import iou
from detr_viz.detections.detections import Detections
from detr_viz.explanation.capture import hooked
from detr_viz.explanation.detector import Detector, Forwarded, Redecodes, check_evaluating
from detr_viz.explanation.removals import NOTHING, Removal


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(ShortRepr):
    """Detections of the last decoder layer before and after a removal, of all Q queries.

    layers   decoder layers whose cross-attention was changed
    iou      (Q,) overlap of each query's boxes before and after
    weights  decoder layer -> attention weights after, (Q, heads, K) float32; 0 for a removed head,
             and for a query without any key left
    """

    removal: Removal
    layers: tuple[int, ...]
    before: Detections
    after: Detections
    iou: NDArray[np.float64]  # (Q,)
    weights: Mapping[int, NDArray[np.float32]] = field(repr=False)  # (Q, M, K)

    def kept_scores(self) -> NDArray[np.float32]:  # (Q,)
        """(Q,): the score after the removal of the class that the query had before."""
        return self.after.class_scores[np.arange(len(self.before.labels)), self.before.labels]


def check_redecodes(detector: Detector) -> None:
    """UserError if a detector cannot decode again, or not as it did."""
    check_evaluating(detector)
    if not isinstance(detector, Redecodes):
        raise UserError(
            f"ablations run the decoder again, which {detector.info.title} does not offer here"
        )


def check_removable(detector: Detector, attention: Attention, removal: Removal = NOTHING) -> None:
    """UserError if a detector cannot decode again, or its attention does not have this part."""
    check_redecodes(detector)
    title = detector.info.title
    if not isinstance(attention, Removable):
        raise UserError(f"the attention of {title} has no parts that can be removed")
    if removal.head is not None and removal.head >= attention.num_heads:
        raise UserError(f"no head {removal.head}: this model has 0..{attention.num_heads - 1}")
    if removal.name.startswith("term:") and not are_products(attention.term_names):
        raise UserError(
            f"{title} has no {removal.name}: its logits are sums of "
            f"{', '.join(attention.term_names)}"
        )
    if removal.axis is not None and not isinstance(attention, HasAxes):
        raise UserError(
            f"{title} has no {removal.name} to remove: its maps are not the product of a row and a "
            "column"
        )
    if removal.cells is not None:
        if not isinstance(attention, RoIAttention):
            raise UserError(f"{title} has no {removal.name}: it does not read the cells of boxes")
        if removal.cells[1] >= attention.rule.side:
            line, number = removal.cells
            raise UserError(
                f"no {line} {number} of cells: boxes have {line}s 0..{attention.rule.side - 1}"
            )
    if removal.level is not None:
        if attention.kind != "sampled":
            raise UserError(f"{title} has no {removal.name}: it does not sample levels")
        if removal.level >= len(attention.grids):
            raise UserError(
                f"no level {removal.level}: this model has 0..{len(attention.grids) - 1}"
            )


def ablate(
    detector: Detector,
    memory: Any,
    image_hw: tuple[int, int],
    removal: Removal,
    layers: Sequence[int],
    inside: Tensor,
    boxes: Tensor,
    before: Detections,
) -> Ablation:
    """Decode one image without a part of the cross-attention in these layers.

    inside: (Q, K) True where a key's cell is in the query's box. boxes: (Q, 4) x0, y0, x1, y1 of
    these boxes in [0, 1] of the grids; samples and cells of boxes go by their own places. before:
    the result of `unchanged`.
    """
    hidden = {"inside": inside, "outside": ~inside}.get(removal.box)
    forwarded, weights = decoded(detector, memory, removal, layers, hidden, boxes)
    after = forwarded.detections(detector.info.num_layers - 1, 0, image_hw)
    pairs = zip(before.boxes_xyxy_px, after.boxes_xyxy_px, strict=True)
    return Ablation(
        removal=removal,
        layers=tuple(layers),
        before=before,
        after=after,
        iou=np.array([iou(a[None], b[None])[0, 0] for a, b in pairs]),
        weights={
            layer: w.transpose(0, 1).to("cpu", torch.float32).numpy()
            for layer, w in weights.items()
        },
    )


def unchanged(detector: Detector, memory: Any, image_hw: tuple[int, int]) -> Detections:
    """Detections of the last layer without any removal, by the kernel of ablations."""
    forwarded, _ = decoded(detector, memory, NOTHING, ())
    return forwarded.detections(detector.info.num_layers - 1, 0, image_hw)


def decoded(
    detector: Detector,
    memory: Any,
    removal: Removal,
    layers: Sequence[int],
    hidden: Tensor | None = None,
    boxes: Tensor | None = None,
) -> tuple[Forwarded, dict[int, Tensor]]:
    """(the result for one image, layer -> the weights (M, Q, K) used there).

    hidden: (Q, K) True where a query must not attend, in these layers. boxes: as in `ablate`, for a
    removal of what is inside or outside them. All layers use the same kernel, so that results with
    and without a removal can be compared.
    """
    weights: dict[int, Tensor] = {}
    hooks = []
    for (kind, layer), site in detector.attention_sites().items():
        if kind != "cross":
            continue
        here = (removal, hidden) if layer in layers else (NOTHING, None)

        def replacement(
            args: tuple,
            kwargs: dict,
            out: Any,
            site: Any = site,
            layer: int = layer,
            here: tuple[Removal, Tensor | None] = here,
        ) -> Any:
            attention = site.read(args, kwargs, out, 0, ())
            part, mask = here
            if part.box and boxes is not None and isinstance(attention, HasPlaces):
                within = attention.samples_in(boxes)
                mask = within if part.box == "inside" else ~within
            weights[layer], context = attention.without(part, mask)
            return site.replaced(out, context)

        hooks.append((site.module, replacement))
    with torch.inference_mode(), hooked(hooks):
        return detector.decode(memory, (detector.info.num_layers - 1,)), weights
