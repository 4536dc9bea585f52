"""image + model -> Explanation: detections, and attention maps of any mode.

    e = explain(model, "photo.jpg")
    e.scores, e.labels, e.boxes_xyxy_px             # (Q,), (Q,), (Q, 4)
    e.maps("position", queries=[3])                 # (1, heads, h, w)
    e.output(0).boxes_xyxy_px                       # the boxes of decoder layer 0

(The file is not called explain.py, so that `from detr_viz import explain` is always the function.)
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

import detr_viz
from detr_viz.attention.base import Attention, Where
from detr_viz.attention.dense import RESIDUAL_LIMITS, TF32_RESIDUAL_LIMIT
from detr_viz.attention.terms import SITES
from detr_viz.common.errors import UserError
from detr_viz.explanation.capture import AttentionCall, record
from detr_viz.explanation.captured import Explanation
from detr_viz.explanation.detector import Detector, DetectorInfo, Forwarded, check_evaluating
from detr_viz.explanation.precision import in_tf32, own_arithmetic
from detr_viz.explanation.sites import resolve_layers, resolve_sites
from detr_viz.images.loaded_image import ImageFacts, LoadedImage
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.images.read import load_image


class SelfCheckError(UserError):
    """The recomputed weights do not reproduce the layer's output."""


def _residual_limit(dtype: torch.dtype, device: torch.device) -> float:
    if device.type == "cuda" and dtype == torch.float32 and in_tf32():
        return TF32_RESIDUAL_LIMIT
    return RESIDUAL_LIMITS[dtype]


def _check_residuals(
    calls: Mapping[Where, AttentionCall], device: torch.device, word: str
) -> dict[Where, float]:
    """Residual of every captured site; SelfCheckError above the limit. word: for its layers."""
    residuals = {where: call.residual for where, call in calls.items()}
    for (kind, layer), value in residuals.items():
        limit = _residual_limit(calls[kind, layer].dtype, device)
        if value > limit:
            site = word if kind == "cross" else f"{SITES[kind]}, layer"
            raise SelfCheckError(
                f"self-check failed in {site} {layer}: residual {value:.2g} is above "
                f"{limit:g}, so these maps are not the network's own; "
                f"{calls[kind, layer].site.if_wrong}"
            )
    return residuals


def explain(
    model: Detector,
    image: str | Path | NDArray | Image | LoadedImage,
    *,
    layers: str | int | Sequence[int | str] = "last",
    sites: Sequence[str | Where] = (),
    size: int | None = None,
    max_size: int | None = None,
) -> Explanation:
    """Run the detector once and keep the queries, keys and values of its cross-attention.

    image     file, array (H, W, 3) uint8, PIL image, or load_image's result
    layers    decoder layers to capture: "last", "all", a number from 0, or several
    sites     further attention to capture: "encoder", "decoder" (self-attention of all layers), or
              pairs such as ("encoder", 0), ("decoder", "last")
    size, max_size   shorter side and bound on the longer one, pixels; None: the model's own
    Raises UserError on a bad image or layer, SelfCheckError if the recomputed weights do not
    reproduce the layer's output.
    """
    info = model.info
    resolve_layers(layers, info.num_layers, info.layer_word)  # errors before the forward pass
    resolve_sites(sites, info)
    picture = load_image(image)
    how = info.preprocessing_at(size, max_size)
    pixels = how.resized_to(picture, model.input_hw(picture.hw, size, max_size))
    (result,) = explain_batch(model, [picture], pixels[None], layers, size, max_size, sites)
    if isinstance(result, SelfCheckError):
        raise result
    return result


def explain_batch(
    model: Detector,
    pictures: Sequence[LoadedImage | ImageFacts],
    pixels: NDArray[np.uint8],
    layers: str | int | Sequence[int | str] = "last",
    size: int | None = None,
    max_size: int | None = None,
    more: Sequence[str | Where] = (),
) -> list[Explanation | SelfCheckError]:
    """One forward pass of images of one size: for each an Explanation, or its SelfCheckError.

    pixels: (B, h, w, 3) uint8, as `info.preprocessing_at(size, max_size)` resizes the pictures.
    more: `sites` of `explain`.
    """
    check_evaluating(model)
    info = model.info
    layer_ids = resolve_layers(layers, info.num_layers, info.layer_word)
    cross = [("cross", i) for i in layer_ids]
    wanted = tuple(dict.fromkeys([*cross, *resolve_sites(more, info)]))
    how, notes = info.preprocessing_at(size, max_size), info.notes_at(size, max_size)
    results: list[Explanation | SelfCheckError] = []
    arithmetic, sites = own_arithmetic(model.precision, model.device), model.attention_sites()
    for kind, layer in wanted:
        if (kind, layer) not in sites:
            raise UserError(f"{info.title} does not show its {SITES[kind]}, layer {layer}")
    for picture in pictures:  # boxes and maps would be off, without a word
        if (wanted_hw := model.input_hw(picture.hw, size, max_size)) != pixels.shape[1:3]:
            raise ValueError(f"pixels are {pixels.shape[1:3]}, the detector takes {wanted_hw}")
    with arithmetic, record(sites, wanted) as calls:
        forwarded = model.forward(model.prepare(pixels), layer_ids)
        for i, picture in enumerate(pictures):
            of_image = {where: calls[where].of_image(i, forwarded.grids) for where in wanted}
            try:
                residuals = _check_residuals(of_image, model.device, info.layer_word)
            except SelfCheckError as error:
                results.append(error)
                continue
            results.append(
                _explanation(
                    model, info, picture, how, notes, forwarded, i, layer_ids, of_image, residuals
                )
            )
    return results


def _explanation(
    model: Detector,
    info: DetectorInfo,
    picture: LoadedImage | ImageFacts,
    how: Preprocessing,
    notes: Sequence[str],
    forwarded: Forwarded,
    i: int,
    layers: tuple[int, ...],
    calls: Mapping[Where, AttentionCall],
    residuals: Mapping[Where, float],
) -> Explanation:
    last = info.num_layers - 1
    outputs = {n: forwarded.detections(n, i, picture.hw) for n in {*layers, last}}
    crossed = {n: calls["cross", n].attention for n in layers}
    shown = crossed[layers[-1]]
    boxes = {n: forwarded.reference_boxes(i, picture.hw, n) for n in layers}
    return Explanation(
        model_type=info.type,
        model_title=info.title,
        modes=info.modes,
        image=picture,
        attention_kind=shown.kind,
        term_names=tuple(shown.term_names),
        layer_grids={n: attention.grids for n, attention in crossed.items()},
        scores=outputs[last].scores,
        labels=outputs[last].labels,
        class_names=info.class_names,
        boxes_xyxy_px=outputs[last].boxes_xyxy_px,
        class_scores=outputs[last].class_scores,
        num_heads=info.num_heads,
        num_layers=info.num_layers,
        num_encoder_layers=info.num_encoder_layers,
        layers=layers,
        outputs={n: outputs[n] for n in layers},
        formulas={n: dict(attention.modes) for n, attention in crossed.items()},
        separate=frozenset(n for n, a in crossed.items() if getattr(a, "separate", False)),
        reference_px=forwarded.references(i, picture.hw),
        layer_references={
            n: forwarded.references(i, picture.hw, n)
            for n in layers
            if n in forwarded.layer_references
        },
        reference_boxes={n: xyxy for n, xyxy in boxes.items() if xyxy is not None},
        residuals={n: residuals["cross", n] for n in layers},
        meta=_describe(model, info, picture, how, notes, shown, residuals),
        pairwise=info.pairwise,
        salience=forwarded.selected and forwarded.selected.of_image(i).values(forwarded.grids),
        scales=forwarded.scaled and forwarded.scaled.of_image(i).values(forwarded.grids),
        calls=calls,
        model=model,
        memory=forwarded.memory_of(forwarded.memory, i),
        proposed=forwarded.proposed and forwarded.proposed.of_image(i),
    )


def _describe(
    model: Detector,
    info: DetectorInfo,
    picture: LoadedImage | ImageFacts,
    how: Preprocessing,
    notes: Sequence[str],
    attention: Attention,
    residuals: Mapping[Where, float],
) -> dict[str, Any]:
    """Plain values for JSON: how this explanation was computed."""
    grid = attention.grids[0]
    return {
        "model_type": info.type,
        "model_title": info.title,
        "weights": info.weights,
        "weights_sha256": info.sha256,
        "notes": [*notes, *picture.notes],
        "image": Path(picture.path).name if picture.path else None,
        "image_sha256": picture.sha256,
        "attention_site": "decoder cross-attention",
        "num_layers": info.num_layers,
        "num_heads": info.num_heads,
        **({"self_heads": info.self_heads} if info.self_heads else {}),
        **dict(info.options),
        **({"why_undivided": info.why_undivided} if info.why_undivided else {}),
        **({"anchors": info.anchors} if info.anchors else {}),
        **({"stages": True} if info.stages else {}),
        "stride_px": grid.stride,
        "cell_rule": grid.rule,
        "preprocessing": {**how.as_meta(), "input_hw_px": list(grid.shown_hw)},
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "precision": model.precision,
        "residuals": {
            str(layer) if kind == "cross" else f"{kind} {layer}": None if math.isnan(v) else v
            for (kind, layer), v in residuals.items()
        },
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
