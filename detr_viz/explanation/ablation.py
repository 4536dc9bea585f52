"""The decoder run again with a part of its cross-attention taken out.

    before = as_it_is(detector, memory, image_hw)
    found = ablate(detector, memory, image_hw, removal, layers, inside, before)
    found.before.scores, found.after.scores

Before and after come of one kernel (`Removable.without`), which adds the terms of the logits one by
one: what is taken out and was zero changes nothing, to the bit. Backbone and encoder are not run
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.base import Removable
from detr_viz.common.errors import UserError
from detr_viz.detections.boxes import iou
from detr_viz.detections.detections import Detections
from detr_viz.explanation.capture import hooked
from detr_viz.explanation.detector import Detector, Forwarded, Redecodes
from detr_viz.explanation.removals import NOTHING, Removal


@dataclass(frozen=True, eq=False)
class Ablation:
    """What the last decoder layer says before and after, of all Q queries.

    layers   decoder layers whose cross-attention was changed
    iou      (Q,) overlap of each query's boxes before and after
    weights  decoder layer -> attention weights after, (Q, heads, K) float32; 0 of a head that was
             taken out, and of a query that has no key left
    """

    removal: Removal
    layers: tuple[int, ...]
    before: Detections
    after: Detections
    iou: NDArray[np.float64]
    weights: Mapping[int, NDArray[np.float32]] = field(repr=False)

    def kept_scores(self) -> NDArray[np.float32]:
        """(Q,): what the class that a query had before is still given."""
        return self.after.class_scores[np.arange(len(self.before.labels)), self.before.labels]


def check_removable(detector: Detector, attention: object) -> None:
    """UserError where a detector cannot decode again, or its attention has no parts to take out."""
    if not isinstance(detector, Redecodes):
        raise UserError(
            f"ablations run the decoder again, which {detector.info.title} does not offer here"
        )
    if not isinstance(attention, Removable):
        raise UserError(f"the attention of {detector.info.title} has no parts to be taken out")


def ablate(
    detector: Detector,
    memory: Any,
    image_hw: tuple[int, int],
    removal: Removal,
    layers: Sequence[int],
    inside: Tensor,
    before: Detections,
) -> Ablation:
    """Decode one image without a part; layers: where it is taken out.

    inside: (Q, K) True where a key's cell lies in the query's box. before: of `as_it_is`.
    """
    hidden = {"inside": inside, "outside": ~inside}.get(removal.box)
    forwarded, weights = decoded(detector, memory, removal, layers, hidden)
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


def as_it_is(detector: Detector, memory: Any, image_hw: tuple[int, int]) -> Detections:
    """What the last layer says with nothing taken out, by the kernel of ablations."""
    forwarded, _ = decoded(detector, memory, NOTHING, ())
    return forwarded.detections(detector.info.num_layers - 1, 0, image_hw)


def decoded(
    detector: Detector,
    memory: Any,
    removal: Removal,
    layers: Sequence[int],
    hidden: Tensor | None = None,
) -> tuple[Forwarded, dict[int, Tensor]]:
    """The result for one image, and layer -> the weights (M, Q, K) that were used there.

    hidden: (Q, K) True where a query must not look, in these layers. All layers run in one kernel,
    so that results with and without can be compared.
    """
    weights: dict[int, Tensor] = {}
    hooks = []
    for (kind, layer), site in detector.attention_sites().items():
        if kind != "cross":
            continue
        here = (removal, hidden) if layer in layers else (NOTHING, None)

        def instead(
            args: tuple,
            kwargs: dict,
            out: Any,
            site: Any = site,
            layer: int = layer,
            here: tuple[Removal, Tensor | None] = here,
        ) -> Any:
            attention = site.read(args, kwargs, out, 0, ())
            weights[layer], context = attention.without(*here)
            return site.replaced(out, context)

        hooks.append((site.module, instead))
    with torch.inference_mode(), hooked(hooks):
        return detector.decode(memory, (detector.info.num_layers - 1,)), weights
