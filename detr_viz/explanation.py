"""image + model -> Explanation: detections, and attention maps of any mode when asked for.

    e = explain(model, "photo.jpg")
    e.scores, e.labels, e.boxes_xyxy_px             # (Q,), (Q,), (Q, 4)
    e.maps("position", queries=[3])                 # (1, heads, h, w)
    e.output(0).boxes_xyxy_px                       # as decoder layer 0 alone would put them

(The file is not called explain.py, so that `from detr_viz import explain` is always the function.)
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

import detr_viz
from detr_viz import boxes, images
from detr_viz.attention import RESIDUAL_LIMITS, TF32_RESIDUAL_LIMIT, separate, weights
from detr_viz.capture import Recorded, record
from detr_viz.errors import UserError
from detr_viz.images import LoadedImage
from detr_viz.loading import LoadedModel
from detr_viz.models.spec import ModelSpec
from detr_viz.terms import MODES, SEPARATE_COMBINE, Mode

SCHEMA_VERSION = 1


class SelfCheckError(UserError):
    """The recomputed weights do not give back what the layer put out."""


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """What the heads make of one decoder layer's output; fields as in Explanation.

    scores (Q,) float32, labels (Q,) int64, boxes_xyxy_px (Q, 4) float32 in pixels of the original
    image, class_scores (Q, classes) float32.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float32]
    class_scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a detector found in one image and how its decoder looked at it. Arrays are numpy.

    image             the picture as read (rgb uint8 (H0, W0, 3), path, sha256)
    input_hw          (h, w) of the resized network input, pixels
    grid_hw, stride   (h, w) of the memory grid; input pixels per cell
    cell_rule         "aligned": cell i is centred on input pixel index stride * i
    scores            (Q,) float32, the largest probability over the real classes
    labels            (Q,) int64, the class that has it; names in class_names
    boxes_xyxy_px     (Q, 4) float32, pixels of the original image
    class_scores      (Q, classes) float32
                      (these four are the last decoder layer's, whatever was captured)
    layers            decoder layers whose cross-attention was captured, from 0, ascending
    outputs           captured layer -> what that layer's own output says (LayerOutput)
    residuals         layer -> residual of the self-check; NaN where it cannot be tested
    meta              plain values that say how this was made
    """

    model_type: str
    model_title: str
    modes: tuple[str, ...]
    image: LoadedImage
    input_hw: tuple[int, int]
    grid_hw: tuple[int, int]
    stride: int
    cell_rule: str
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    boxes_xyxy_px: NDArray[np.float32]
    class_scores: NDArray[np.float32]
    num_heads: int
    num_layers: int
    layers: tuple[int, ...]
    outputs: Mapping[int, LayerOutput] = field(repr=False)
    residuals: Mapping[int, float]
    meta: Mapping[str, Any]
    pairwise: bool
    recorded: Mapping[int, Recorded] = field(repr=False)

    @property
    def num_queries(self) -> int:
        return len(self.scores)

    def label_name(self, query: int) -> str:
        """Class name of a query's best class."""
        return self.class_names[self.labels[query]]

    def by_score(self) -> list[int]:
        """All query ids, best first; equal scores in order of id."""
        return np.argsort(-self.scores, kind="stable").tolist()

    def detections(self, limit: int = 100) -> list[tuple[int, int, float]]:
        """(query, label, score), best first, as the authors' evaluation counts them.

        DETR: every query once, with its best class. Focal-loss models: the top `limit` pairs of
        query and class, where a query may stand more than once.
        """
        if not self.pairwise:
            return [(q, int(self.labels[q]), float(self.scores[q])) for q in self.by_score()]
        flat = self.class_scores.ravel()
        order = np.argsort(-flat, kind="stable")[:limit]
        classes = self.class_scores.shape[1]
        return [(int(i // classes), int(i % classes), float(flat[i])) for i in order]

    def pick_layer(self, layer: int | None = None) -> int:
        """A captured layer: the last captured one for None. ValueError names those there are."""
        if layer is None:
            return self.layers[-1]
        if layer not in self.layers:
            have = ", ".join(map(str, self.layers))
            raise ValueError(f"decoder layer {layer} was not captured; there is {have}")
        return layer

    def output(self, layer: int | None = None) -> LayerOutput:
        """Scores, labels and boxes as a captured layer's own output gives them; see pick_layer."""
        return self.outputs[self.pick_layer(layer)]

    def formula(self, mode: str | Mode, layer: int | None = None) -> str:
        """What a mode's logits are at a layer: parts of the query times parts of the key."""
        if isinstance(mode, Mode):
            return mode.formula
        terms = self.recorded[self.pick_layer(layer)].terms
        return SEPARATE_COMBINE if mode == "combine" and separate(terms) else MODES[mode].formula

    def maps(
        self,
        mode: str | Mode = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:
        """Cross-attention maps, float32 (q, heads, h, w); each sums to 1 over (h, w).

        softmax((parts of q) . (parts of k) * scale), from the captured terms, for these queries
        only (None: all). scale "mode": the factor of the mode's q and k attended on their own;
        "layer": the layer's, so that logits of position and content are their share of combine's
        (where a model concatenates them). ValueError on anything unknown.
        """
        if isinstance(mode, str) and mode not in self.modes:
            have = ", ".join(self.modes)
            raise ValueError(f"{self.model_title} has no mode {mode!r}; it has {have}")
        if queries is None:
            queries = range(self.num_queries)
        chosen = [index(q) for q in ([queries] if np.ndim(queries) == 0 else queries)]
        bad = [q for q in chosen if not 0 <= q < self.num_queries]
        if bad:
            raise ValueError(f"query {bad[0]} is not one of 0..{self.num_queries - 1}")
        terms = self.recorded[self.pick_layer(layer)].terms
        with torch.inference_mode():
            flat = weights(terms, mode, scale=scale, queries=chosen)[0]  # (M, q, K)
            out = flat.transpose(0, 1).unflatten(-1, self.grid_hw)
        return out.to("cpu", torch.float32).numpy()


def resolve_layers(layers: str | int | Sequence[int | str], num_layers: int) -> tuple[int, ...]:
    """Ascending numbers of "last", "all", a number from 0, or several of these; else UserError."""
    wanted: set[int] = set()
    for item in [layers] if np.ndim(layers) == 0 else layers:
        if item == "all":
            wanted.update(range(num_layers))
        elif item == "last":
            wanted.add(num_layers - 1)
        elif not isinstance(item, str) and 0 <= index(item) < num_layers:
            wanted.add(index(item))
        else:
            raise UserError(
                f"no decoder layer {item}: this model has 0..{num_layers - 1} (or say last)"
            )
    if not wanted:
        raise UserError('layers is empty: name one, or say "last" or "all"')
    return tuple(sorted(wanted))


def _residual_limit(dtype: torch.dtype, device: torch.device) -> float:
    if device.type == "cuda" and dtype == torch.float32 and _tf32():
        return TF32_RESIDUAL_LIMIT
    return RESIDUAL_LIMITS[dtype]


def _tf32() -> bool:
    """Whether CUDA multiplies float32 matrices in TF32 (torch has an older and a newer setting)."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # torch 2.9 on
    return matmul.allow_tf32 if precision is None else precision == "tf32"


def _check_residuals(recorded: Mapping[int, Recorded]) -> dict[int, float]:
    """Residual of every captured layer; SelfCheckError above the limit."""
    residuals = {layer: site.residual for layer, site in recorded.items()}
    for layer, value in residuals.items():
        out = recorded[layer].out
        limit = _residual_limit(out.dtype, out.device)
        if value > limit:
            raise SelfCheckError(
                f"self-check failed in decoder layer {layer}: residual {value:.2g} is above "
                f"{limit:g}, so these maps are not the network's own; please report it"
            )
    return residuals


def _read_output(
    raw: Mapping[str, torch.Tensor], spec: ModelSpec, image_hw: tuple[int, int]
) -> LayerOutput:
    """pred_logits (1, Q, L), pred_boxes (1, Q, 4) of one layer -> numbers of the one image."""
    class_scores = spec.class_probabilities(raw["pred_logits"])[0].float().cpu().numpy()
    normalised = raw["pred_boxes"][0].float().cpu().numpy()
    return LayerOutput(
        scores=class_scores.max(-1),
        labels=class_scores.argmax(-1).astype(np.int64),
        boxes_xyxy_px=boxes.to_pixels(boxes.cxcywh_to_xyxy(normalised), image_hw),
        class_scores=class_scores,
    )


def explain(
    model: LoadedModel,
    image: str | Path | NDArray | Image | LoadedImage,
    *,
    layers: str | int | Sequence[int | str] = "last",
    size: int | None = None,
    max_size: int | None = None,
) -> Explanation:
    """Run the detector once and keep what its decoder cross-attention attended with.

    image     file, array (H, W, 3) uint8, PIL image, or images.load's result
    layers    decoder layers to capture: "last", "all", a number from 0, or several
    size, max_size   shorter side and bound on the longer one, pixels; None: the model's own
    Raises UserError on a bad image or layer, SelfCheckError where the recomputed weights do not
    give back what the layer put out.
    """
    config, spec = model.config, model.spec
    layer_ids = resolve_layers(layers, config.dec_layers)
    picture = images.load(image)
    short, longest = size or model.size, max_size or model.max_size
    tensor = images.to_tensor(picture, short, longest)
    parameter = next(model.network.parameters())
    tensor = tensor.to(model.device, parameter.dtype)
    sites = [("cross", i) for i in layer_ids]
    last = config.dec_layers - 1
    with torch.inference_mode(), record(model.network, sites) as captured:
        raw = model.network(tensor, aux=layer_ids != (last,))
        by_layer = {**dict(enumerate(raw.get("aux_outputs", ()))), last: raw}
        read = {i: _read_output(by_layer[i], spec, picture.hw) for i in {*layer_ids, last}}
    recorded = {layer: captured["cross", layer] for layer in layer_ids}
    residuals = _check_residuals(recorded)
    input_hw = tuple(tensor.shape[-2:])
    return Explanation(
        model_type=spec.name,
        model_title=spec.title,
        modes=spec.modes,
        image=picture,
        input_hw=input_hw,
        grid_hw=raw["memory_hw"],
        stride=config.backbone.stride,
        cell_rule=spec.cell_rule,
        scores=read[last].scores,
        labels=read[last].labels,
        class_names=model.class_names,
        boxes_xyxy_px=read[last].boxes_xyxy_px,
        class_scores=read[last].class_scores,
        num_heads=config.nheads,
        num_layers=config.dec_layers,
        layers=layer_ids,
        outputs={layer: read[layer] for layer in layer_ids},
        residuals=residuals,
        meta=_describe(model, picture, (short, longest), input_hw, residuals),
        pairwise=spec.pairwise,
        recorded=recorded,
    )


def _describe(
    model: LoadedModel,
    picture: LoadedImage,
    sizes: tuple[int, int],
    input_hw: tuple[int, ...],
    residuals: Mapping[int, float],
) -> dict[str, Any]:
    """Plain values for JSON: what made this explanation."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model_type": model.spec.name,
        "model_title": model.spec.title,
        "weights": Path(model.path).name,
        "weights_sha256": model.sha256,
        "notes": [*model.notes, *picture.notes],
        "image": Path(picture.path).name if picture.path else None,
        "image_sha256": picture.sha256,
        "attention_site": "decoder cross-attention",
        "num_layers": model.config.dec_layers,
        "num_heads": model.config.nheads,
        "dilation": model.config.backbone.dilation,
        "stride_px": model.config.backbone.stride,
        "cell_rule": model.spec.cell_rule,
        "preprocessing": {
            "size_px": sizes[0],
            "max_size_px": sizes[1],
            "input_hw_px": list(input_hw),
            "resize": "Pillow bilinear on uint8",
            "mean": list(images.MEAN_RGB),
            "std": list(images.STD_RGB),
        },
        "device": model.device.type,
        "dtype": str(next(model.network.parameters()).dtype).removeprefix("torch."),
        "residuals": {str(k): None if math.isnan(v) else v for k, v in residuals.items()},
        "versions": {
            "detr_viz": detr_viz.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "pillow": version("pillow"),
            "matplotlib": version("matplotlib"),
        },
    }
