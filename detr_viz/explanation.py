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
from functools import cache
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
from detr_viz.findings import Findings, LayerOutput
from detr_viz.images import ImageFacts, LoadedImage
from detr_viz.loading import LoadedModel
from detr_viz.models.spec import ModelSpec
from detr_viz.precision import fp32_rule, in_tf32
from detr_viz.terms import Mode


class SelfCheckError(UserError):
    """The recomputed weights do not give back what the layer put out."""


@dataclass(frozen=True, eq=False)
class Explanation(Findings):
    """Findings whose maps are worked out from the captured terms, for any mode and query."""

    recorded: Mapping[int, Recorded] = field(repr=False)

    def _maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            flat = weights(self.recorded[layer].terms, mode, scale=scale, queries=queries)[0]
            out = flat.transpose(0, 1).unflatten(-1, self.grid_hw)  # (q, M, h, w)
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
    if device.type == "cuda" and dtype == torch.float32 and in_tf32():
        return TF32_RESIDUAL_LIMIT
    return RESIDUAL_LIMITS[dtype]


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
    raw: Mapping[str, torch.Tensor], i: int, spec: ModelSpec, image_hw: tuple[int, int]
) -> LayerOutput:
    """pred_logits (B, Q, L), pred_boxes (B, Q, 4) of one layer -> numbers of image i."""
    logits, box = raw["pred_logits"][i : i + 1], raw["pred_boxes"][i]
    class_scores = spec.class_probabilities(logits)[0].float().cpu().numpy()
    normalised = box.float().cpu().numpy()
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
    resolve_layers(layers, model.config.dec_layers)  # before time is spent
    picture = images.load(image)
    pixels = images.resized(picture, size or model.size, max_size or model.max_size)
    (found,) = explain_batch(model, [picture], pixels[None], layers, size, max_size)
    if isinstance(found, SelfCheckError):
        raise found
    return found


def explain_batch(
    model: LoadedModel,
    pictures: Sequence[LoadedImage | ImageFacts],
    pixels: NDArray[np.uint8],
    layers: str | int | Sequence[int | str] = "last",
    size: int | None = None,
    max_size: int | None = None,
) -> list[Explanation | SelfCheckError]:
    """One forward pass of images of one size; what was found in each, or that its check failed.

    pixels: (B, h, w, 3) uint8, as images.resized makes them of the pictures with these sizes.
    """
    config, spec = model.config, model.spec
    layer_ids = resolve_layers(layers, config.dec_layers)
    last = config.dec_layers - 1
    sites = [("cross", i) for i in layer_ids]
    rule, recording = fp32_rule(model.precision), record(model.network, sites)
    with torch.inference_mode(), rule, recording as captured:
        tensor = images.normalised(pixels, model.device).to(model.network.input_dtype)
        raw = model.network(tensor, aux=layer_ids != (last,))
        by_layer = {**dict(enumerate(raw.get("aux_outputs", ()))), last: raw}
        made: list[Explanation | SelfCheckError] = []
        for i, picture in enumerate(pictures):
            read = {n: _read_output(by_layer[n], i, spec, picture.hw) for n in {*layer_ids, last}}
            recorded = {n: captured["cross", n].of_image(i) for n in layer_ids}
            try:
                residuals = _check_residuals(recorded)
            except SelfCheckError as error:
                made.append(error)
                continue
            made.append(
                Explanation(
                    model_type=spec.name,
                    model_title=spec.title,
                    modes=spec.modes,
                    image=picture,
                    input_hw=tuple(tensor.shape[-2:]),
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
                    outputs={n: read[n] for n in layer_ids},
                    separate=frozenset(n for n in layer_ids if separate(recorded[n].terms)),
                    residuals=residuals,
                    meta=_describe(
                        model,
                        picture,
                        (size or model.size, max_size or model.max_size),
                        tuple(tensor.shape[-2:]),
                        residuals,
                    ),
                    pairwise=spec.pairwise,
                    recorded=recorded,
                )
            )
    return made


def _describe(
    model: LoadedModel,
    picture: LoadedImage | ImageFacts,
    sizes: tuple[int, int],
    input_hw: tuple[int, ...],
    residuals: Mapping[int, float],
) -> dict[str, Any]:
    """Plain values for JSON: what made this explanation."""
    return {
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
        "precision": model.precision,
        "residuals": {str(k): None if math.isnan(v) else v for k, v in residuals.items()},
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    return {
        "detr_viz": detr_viz.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pillow": version("pillow"),
        "matplotlib": version("matplotlib"),
    }
