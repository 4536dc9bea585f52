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
from functools import cache, cached_property
from importlib.metadata import version
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

import detr_viz
from detr_viz.attention.dense import RESIDUAL_LIMITS, TF32_RESIDUAL_LIMIT, separate, weights
from detr_viz.attention.terms import SITES, DenseAttention, Mode
from detr_viz.checkpoints.load_model import LoadedModel
from detr_viz.common.errors import UserError
from detr_viz.explanation.ablation import Ablation, ablate, as_it_is
from detr_viz.explanation.capture import AttentionCall, Where, record
from detr_viz.explanation.logit_terms import ledger
from detr_viz.explanation.precision import fp32_rule, in_tf32
from detr_viz.explanation.removals import Removal
from detr_viz.explanation.removals import parse as parse_removal
from detr_viz.explanation.results import Detections, ExplanationBase, LogitTerms
from detr_viz.images.read import (
    MEAN_RGB,
    STD_RGB,
    ImageFacts,
    LoadedImage,
    load_image,
    normalised,
    resized,
)
from detr_viz.models.config import DetrConfig
from detr_viz.models.detector import Encoded
from detr_viz.models.heads import read_output


class SelfCheckError(UserError):
    """The recomputed weights do not give back what the layer put out."""


@dataclass(frozen=True, eq=False)
class Explanation(ExplanationBase):
    """ExplanationBase whose maps are worked out from the captured terms, for any mode and query.

    recorded  every captured attention site, ("cross" | "decoder" | "encoder", layer)
    model     what it was made with
    encoded   what the decoder was given
    """

    recorded: Mapping[Where, AttentionCall] = field(repr=False)
    model: LoadedModel = field(repr=False)
    encoded: Encoded = field(repr=False)

    @property
    def sites(self) -> tuple[Where, ...]:
        """The attention sites that were captured."""
        return tuple(self.recorded)

    def terms(self, site: Where) -> DenseAttention:
        """What a captured site attended with; ValueError names those there are."""
        if site not in self.recorded:
            have = ", ".join(f"{kind} {layer}" for kind, layer in self.recorded)
            raise ValueError(f"attention site {site} was not captured; there is {have}")
        return self.recorded[site].terms

    def attention(
        self,
        site: Where,
        mode: str | Mode = "combine",
        rows: Sequence[int] | int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:
        """Attention weights of any captured site, (rows, heads, keys); each row sums to 1.

        rows: ids of what attends, queries or cells (row-major in the grid); None: all. keys: the
        memory's cells, of ("decoder", n) the queries. mode, scale as in `maps`. ValueError on
        anything unknown.
        """
        terms = self.terms(site)
        count = terms.c_q.shape[2]
        some = [rows] if rows is not None and np.ndim(rows) == 0 else rows
        chosen = range(count) if some is None else [index(row) for row in some]
        if bad := [row for row in chosen if not 0 <= row < count]:
            raise ValueError(f"row {bad[0]} of {site} is not one of 0..{count - 1}")
        with torch.inference_mode():
            made = weights(terms, mode, scale=scale, queries=list(chosen))[0].transpose(0, 1)
        return made.to("cpu", torch.float32).numpy()

    def ablate(self, removal: str | Removal, layers: str | int | Sequence[int] = "all") -> Ablation:
        """Run the decoder again with a part of its cross-attention taken out.

        removal  "position" or "content" (every term that has a part of it), "term:cq.pk", "head:3",
                 "box:inside" or "box:outside" (the cells there, of each query's own box: those
                 whose centres lie in it)
        layers   where: as in `explain`
        ValueError for a removal that there is not, UserError for a head or a layer.
        """
        taken = parse_removal(removal) if isinstance(removal, str) else removal
        if taken.head is not None and taken.head >= self.num_heads:
            raise UserError(f"no head {taken.head}: this model has 0..{self.num_heads - 1}")
        with fp32_rule(self.model.precision):
            return ablate(
                self.model.network,
                self.model.spec,
                self.encoded,
                self.image.hw,
                taken,
                resolve_layers(layers, self.num_layers),
                torch.from_numpy(self.cells_inside()).to(self.encoded.memory.device),
                self._before_ablation,
            )

    @cached_property
    def _before_ablation(self) -> Detections:
        """Once for all that is taken out."""
        return as_it_is(self.model.network, self.model.spec, self.encoded, self.image.hw)

    def _maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> NDArray[np.float32]:
        made = self.attention(("cross", layer), mode, queries, scale)
        return made.reshape(*made.shape[:2], *self.grid_hw)

    def _ledger(self, queries: list[int], layer: int) -> LogitTerms:
        return ledger(self.recorded["cross", layer], queries, self.grid_hw)


def resolve_layers(
    layers: str | int | Sequence[int | str], num_layers: int, stack: str = "decoder"
) -> tuple[int, ...]:
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
                f"no {stack} layer {item}: this model has 0..{num_layers - 1} (or say last)"
            )
    if not wanted:
        raise UserError('layers is empty: name one, or say "last" or "all"')
    return tuple(sorted(wanted))


def resolve_sites(sites: Sequence[str | Where], config: DetrConfig) -> tuple[Where, ...]:
    """Names ("encoder": all its layers) and pairs ("encoder", 0) as pairs; UserError for others."""
    found: dict[Where, None] = {}
    for site in [sites] if isinstance(sites, str) else sites:
        pair = (site, "all") if isinstance(site, str) else site
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UserError(f'{site!r} is no attention site: say "encoder", or ("encoder", 0)')
        kind, which = pair
        if kind not in SITES:
            raise UserError(f"no attention site {kind!r}: there is {', '.join(SITES)}")
        stack = "encoder" if kind == "encoder" else "decoder"
        count = config.enc_layers if kind == "encoder" else config.dec_layers
        found |= dict.fromkeys((kind, n) for n in resolve_layers(which, count, stack))
    return tuple(found)


def _residual_limit(dtype: torch.dtype, device: torch.device) -> float:
    if device.type == "cuda" and dtype == torch.float32 and in_tf32():
        return TF32_RESIDUAL_LIMIT
    return RESIDUAL_LIMITS[dtype]


def _check_residuals(recorded: Mapping[Where, AttentionCall]) -> dict[Where, float]:
    """Residual of every captured site; SelfCheckError above the limit."""
    residuals = {where: site.residual for where, site in recorded.items()}
    for (kind, layer), value in residuals.items():
        out = recorded[kind, layer].out
        limit = _residual_limit(out.dtype, out.device)
        if value > limit:
            place = "decoder layer" if kind == "cross" else f"{SITES[kind]}, layer"
            raise SelfCheckError(
                f"self-check failed in {place} {layer}: residual {value:.2g} is above "
                f"{limit:g}, so these maps are not the network's own; please report it"
            )
    return residuals


def explain(
    model: LoadedModel,
    image: str | Path | NDArray | Image | LoadedImage,
    *,
    layers: str | int | Sequence[int | str] = "last",
    sites: Sequence[str | Where] = (),
    size: int | None = None,
    max_size: int | None = None,
) -> Explanation:
    """Run the detector once and keep what its decoder cross-attention attended with.

    image     file, array (H, W, 3) uint8, PIL image, or load_image's result
    layers    decoder layers to capture: "last", "all", a number from 0, or several
    sites     further attention to capture: "encoder", "decoder" (self-attention of all layers), or
              pairs such as ("encoder", 0), ("decoder", "last")
    size, max_size   shorter side and bound on the longer one, pixels; None: the model's own
    Raises UserError on a bad image or layer, SelfCheckError where the recomputed weights do not
    give back what the layer put out.
    """
    resolve_layers(layers, model.config.dec_layers)  # before time is spent
    resolve_sites(sites, model.config)
    picture = load_image(image)
    pixels = resized(picture, size or model.size, max_size or model.max_size)
    (found,) = explain_batch(model, [picture], pixels[None], layers, size, max_size, sites)
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
    more: Sequence[str | Where] = (),
) -> list[Explanation | SelfCheckError]:
    """One forward pass of images of one size; what was found in each, or that its check failed.

    pixels: (B, h, w, 3) uint8, as images.resized makes them of the pictures with these sizes. more:
    `sites` of `explain`.
    """
    config, spec = model.config, model.spec
    layer_ids = resolve_layers(layers, config.dec_layers)
    last = config.dec_layers - 1
    cross = [("cross", i) for i in layer_ids]
    sites = tuple(dict.fromkeys([*cross, *resolve_sites(more, config)]))
    rule, recording = fp32_rule(model.precision), record(model.network, sites)
    with torch.inference_mode(), rule, recording as captured:
        tensor = normalised(pixels, model.device).to(model.network.input_dtype)
        raw = model.network(tensor, aux=layer_ids != (last,))
        by_layer = {**dict(enumerate(raw.get("aux_outputs", ()))), last: raw}
        made: list[Explanation | SelfCheckError] = []
        for i, picture in enumerate(pictures):
            read = {n: read_output(by_layer[n], i, spec, picture.hw) for n in {*layer_ids, last}}
            recorded = {where: captured[where].of_image(i) for where in sites}
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
                    separate=frozenset(
                        n for n in layer_ids if separate(recorded["cross", n].terms)
                    ),
                    reference_px=_reference_px(raw.get("reference_points"), picture.hw),
                    residuals={n: residuals["cross", n] for n in layer_ids},
                    meta=_describe(
                        model,
                        picture,
                        (size or model.size, max_size or model.max_size),
                        tuple(tensor.shape[-2:]),
                        residuals,
                    ),
                    pairwise=spec.pairwise,
                    recorded=recorded,
                    model=model,
                    encoded=raw["encoded"].of_image(i),
                )
            )
    return made


def _reference_px(
    points: torch.Tensor | None, image_hw: tuple[int, int]
) -> NDArray[np.float32] | None:
    if points is None:
        return None
    return points.float().cpu().numpy() * np.asarray(image_hw[::-1], np.float32)


def _describe(
    model: LoadedModel,
    picture: LoadedImage | ImageFacts,
    sizes: tuple[int, int],
    input_hw: tuple[int, ...],
    residuals: Mapping[Where, float],
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
            "mean": list(MEAN_RGB),
            "std": list(STD_RGB),
        },
        "device": model.device.type,
        "dtype": str(next(model.network.parameters()).dtype).removeprefix("torch."),
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
