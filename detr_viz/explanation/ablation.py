"""The decoder run again with a part of its cross-attention taken out.

    before = as_it_is(network, spec, encoded, image_hw)
    found = ablate(network, spec, encoded, image_hw, removal, layers, inside, before)
    found.before.scores, found.after.scores

Before and after come of one kernel, which adds the terms of the logits one by one: what is taken
out and was zero changes nothing, to the bit. Backbone and encoder are not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.dense import logits, merge_heads
from detr_viz.attention.terms import TERMS, DenseAttention
from detr_viz.detections.boxes import iou
from detr_viz.explanation.removals import NOTHING, Removal
from detr_viz.explanation.results import Detections
from detr_viz.models.detector import Detector, Encoded
from detr_viz.models.heads import read_output
from detr_viz.models.layers.split_attention import AttentionInputs, SplitAttention
from detr_viz.models.spec import ModelSpec


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


def ablate(
    network: Detector,
    spec: ModelSpec,
    encoded: Encoded,
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
    raw, weights = decoded(
        network, encoded, removal, layers, None if hidden is None else hidden[None]
    )
    after = read_output(raw, 0, spec, image_hw)
    pairs = zip(before.boxes_xyxy_px, after.boxes_xyxy_px, strict=True)
    return Ablation(
        removal=removal,
        layers=tuple(layers),
        before=before,
        after=after,
        iou=np.array([iou(a[None], b[None])[0, 0] for a, b in pairs]),
        weights={
            layer: w[0].transpose(0, 1).to("cpu", torch.float32).numpy()
            for layer, w in weights.items()
        },
    )


def as_it_is(
    network: Detector, spec: ModelSpec, encoded: Encoded, image_hw: tuple[int, int]
) -> Detections:
    """What the last layer says with nothing taken out, by the kernel of ablations."""
    raw, _ = decoded(network, encoded, NOTHING, ())
    return read_output(raw, 0, spec, image_hw)


def decoded(
    network: Detector,
    encoded: Encoded,
    removal: Removal,
    layers: Sequence[int],
    hidden: Tensor | None = None,
) -> tuple[dict[str, object], dict[int, Tensor]]:
    """The network's result, and layer -> the weights (B, M, Q, K) that were used there.

    hidden: (B or 1, Q, K) True where a query must not look, in these layers. All layers run in the
    kernel below, so that results with and without can be compared.
    """
    with torch.inference_mode(), _changed(network, removal, layers, hidden) as weights:
        return network.decode(encoded), weights


def without_cells(
    network: Detector, encoded: Encoded, layers: Sequence[int], hidden: Tensor
) -> dict[str, object]:
    """The network's result, by its own fused kernel, where queries must not look in some layers.

    hidden: (B, Q, K) True there. Nothing of the size of all weights is held.
    """
    sites = network.attention_sites()
    handles = []
    try:
        for layer in layers:
            handles.append(
                sites["cross", layer].register_forward_pre_hook(
                    lambda _, args, given: (args, {**given, "hidden": hidden}), with_kwargs=True
                )
            )
        with torch.inference_mode():
            return network.decode(encoded.repeated(len(hidden)))
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _changed(
    network: Detector, removal: Removal, layers: Sequence[int], hidden: Tensor | None
) -> Iterator[dict[int, Tensor]]:
    handles = []
    used: dict[int, Tensor] = {}
    try:
        for (kind, layer), site in network.attention_sites().items():
            if kind != "cross":
                continue
            here = (removal, hidden) if layer in layers else (NOTHING, None)

            def instead(
                site: SplitAttention,
                args: tuple[AttentionInputs],
                out: Tensor,
                layer: int = layer,
                here: tuple[Removal, Tensor | None] = here,
            ) -> Tensor:
                terms = site.terms(args[0])
                weights = used[layer] = _weights(terms, *here)
                context = weights.to(terms.value.dtype) @ terms.value
                return site.out_proj(merge_heads(context))

            handles.append(site.register_forward_hook(instead))
        yield used
    finally:
        for handle in handles:
            handle.remove()


def _weights(terms: DenseAttention, removal: Removal, hidden: Tensor | None) -> Tensor:
    """(B, M, Q, K); 0 for a head that is taken out, and where no key is left."""
    kept = [logits(terms, *parts) for name, parts in TERMS.items() if name not in removal.terms]
    scores = kept[0]
    for part in kept[1:]:
        scores = scores + part
    mask = torch.zeros((1, 1, 1, scores.shape[-1]), dtype=torch.bool, device=scores.device)
    if terms.key_padding_mask is not None:
        mask = mask | terms.key_padding_mask[:, None, None, :]
    if hidden is not None:
        mask = mask | hidden[:, None]
    blind = mask.all(-1, keepdim=True)
    weights = scores.masked_fill(mask & ~blind, float("-inf")).softmax(-1)
    weights = weights.masked_fill(blind, 0)
    if removal.head is not None:
        weights = weights.clone()
        weights[:, removal.head] = 0
    return weights
