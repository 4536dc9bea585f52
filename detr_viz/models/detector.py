"""Our own networks as a `Detector`: what is above sees no network, no config, no spec."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detr_viz.attention.base import Where
from detr_viz.attention.grids import Grid
from detr_viz.attention.onednn import multiplies
from detr_viz.common.short_repr import brief_tuple, folded
from detr_viz.explanation.detector import AttentionSite, DetectorInfo, Forwarded
from detr_viz.explanation.proposals import Proposed
from detr_viz.explanation.salience import Selected
from detr_viz.explanation.scales import Scaled
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.images.resize import normalised
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.convolution import fuses
from detr_viz.models.layers.deformable import DeformableAttention
from detr_viz.models.layers.dynamic_head import CellSum
from detr_viz.models.site_readers import logits_of, read
from detr_viz.models.spec import ModelSpec


class Padded(NamedTuple):
    """Pixels (B, 3, H, W) that show their images in the first (h, w) of them."""

    pixels: Tensor
    valid_hw: tuple[int, int]

    __repr__ = brief_tuple

    @property
    def mask(self) -> Tensor:
        """(B, H, W), True = padding."""
        mask = torch.ones_like(self.pixels[:, 0], dtype=torch.bool)
        mask[:, : self.valid_hw[0], : self.valid_hw[1]] = False
        return mask


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A network in evaluation mode with what its checkpoint said; a `Detector` that `Redecodes`.

    size, max_size: shorter side images are resized to, and the bound on the longer one (pixels).
    class_names: one name a real class. path, sha256: of the weights. notes: what had to be assumed.
    precision: one of terms.PRECISIONS. preprocessing: of its images, where the checkpoint has more
    to say than size and max_size, which then are None unless the sizes are of that form.
    """

    network: nn.Module
    spec: ModelSpec
    config: DetrConfig
    class_names: tuple[str, ...]
    size: int | None
    max_size: int | None
    path: str
    sha256: str
    notes: tuple[str, ...]
    meta: Mapping[str, Any]
    device: torch.device
    precision: str = "float32"
    preprocessing: Preprocessing | None = None

    def __repr__(self) -> str:
        info = self.info
        layers = f"{info.num_encoder_layers} encoder and {info.num_layers} decoder layers"
        sizes = f"{info.num_heads} heads, {layers}"
        if info.stages:
            sizes = f"{info.num_layers} stages"
        return folded(
            f"{type(self).__name__} {info.title} (type {info.type}), {info.weights} "
            f"{info.sha256[:8]}, {self.precision} on {self.device}: {info.num_queries} queries, "
            f"{len(info.class_names)} classes, {sizes}, input {info.size} to {info.max_size} px"
        )

    @property
    def info(self) -> DetectorInfo:
        """What is known of the detector, as plain values."""
        config = self.config
        cross = self.network.attention_sites()["cross", 0]
        how = {
            "fused_convolutions": fuses(self.dtype, self.device),
            "onednn_products": multiplies(self.dtype, self.device),
        }
        return DetectorInfo(
            type=self.spec.name,
            title=self.spec.title,
            weights=Path(self.path).name,
            path=self.path,
            sha256=self.sha256,
            class_names=self.class_names,
            num_queries=config.num_queries,
            num_heads=cross.nheads,
            self_heads=None if cross.nheads == config.nheads else config.nheads,
            num_layers=config.dec_layers,
            num_encoder_layers=config.enc_layers,
            modes=self.spec.modes,
            pairwise=self.spec.pairwise,
            size=self.size,
            max_size=self.max_size,
            options=(("dilation", config.backbone.dilation), *how.items()),
            notes=(*self.notes, *(self.preprocessing.notes if self.preprocessing else ())),
            why_undivided=self.spec.why_undivided,
            proposal_scores=(self.spec.proposal_scores or _learned)(config),
            salience=self.spec.salience,
            scales=self.spec.scales,
            preprocessing=self.preprocessing,
            samples=isinstance(cross, DeformableAttention),
            num_levels=getattr(cross, "levels", 1),
            anchors=self.spec.anchors(config),
            stages=isinstance(cross, CellSum),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the first parameter, a backbone's."""
        return next(self.network.parameters()).dtype

    def input_hw(
        self, image_hw: tuple[int, int], size: int | None = None, max_size: int | None = None
    ) -> tuple[int, int]:
        """Pixels that an image is resized to."""
        return self.info.preprocessing_at(size, max_size).input_hw(image_hw)

    def prepare(self, rgb_BHW3: NDArray[np.uint8]) -> Tensor | Padded:  # (B, 3, h, w)
        """Normalised pixels (B, 3, H, W), padded only if the checkpoint or the model says so."""
        how = self.preprocessing or Preprocessing()
        pixels = normalised(rgb_BHW3, self.device, how.mean, how.std, how.rescale)
        pixels = pixels.to(self.network.input_dtype)
        valid_hw = (pixels.shape[-2], pixels.shape[-1])
        padded_hw = how.padded_hw(valid_hw)
        if padded_hw == valid_hw:
            return pixels
        below, right = (side - valid for side, valid in zip(padded_hw, valid_hw, strict=True))
        return Padded(nn.functional.pad(pixels, (0, right, 0, below)), valid_hw)

    def attention_sites(self) -> dict[Where, AttentionSite]:
        return {
            where: AttentionSite(
                module,
                partial(read, module, where[0]),
                module.out_proj,
                logits_of(module),
            )
            for where, module in self.network.attention_sites().items()
        }

    def forward(self, pixels: Tensor | Padded, layers: Sequence[int]) -> Forwarded:  # (B, 3, h, w)
        """One pass; earlier layers' outputs only where they are asked for."""
        aux = self._needs_all(layers)
        if isinstance(pixels, Padded):
            raw = self.network(pixels.pixels, pixels.mask, aux=aux)
            raw["encoded"] = raw["encoded"]._replace(valid_hw=pixels.valid_hw)
        else:
            raw = self.network(pixels, aux=aux)
        return self._forwarded(raw)

    def decode(self, memory: Any, layers: Sequence[int]) -> Forwarded:
        """Decoder and heads once more."""
        raw = self.network.decode(memory, aux=self._needs_all(layers))
        return self._forwarded(raw)

    # hidden (n, S) -> (n, Q, C)
    def scores_with_hidden(self, memory: Any, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """By the network's own fused kernel; nothing of the size of all weights is held."""
        sites = self.network.attention_sites()
        with _given([sites["cross", layer] for layer in layers], hidden):
            raw = self.network.decode(memory.repeated(len(hidden)))
        return self.spec.class_probabilities(raw["pred_logits"])

    def _needs_all(self, layers: Sequence[int]) -> bool:
        return set(layers) - {self.config.dec_layers - 1} != set()

    def _forwarded(self, raw: Mapping[str, Any]) -> Forwarded:
        last = self.config.dec_layers - 1
        outputs = {**dict(enumerate(raw.get("aux_outputs", ()))), last: raw}
        encoded = raw["encoded"]
        first = getattr(encoded, "reference", None)
        boxes = first is not None and first.shape[-1] == 4  # of proposals
        levels = raw.get("levels") or [(raw["memory_hw"], self.config.backbone.stride)]
        return Forwarded(
            class_scores={
                n: self.spec.class_probabilities(out["pred_logits"]) for n, out in outputs.items()
            },
            boxes={n: out["pred_boxes"] for n, out in outputs.items()},
            memory=raw["encoded"],
            memory_of=type(encoded).of_image,
            grids=tuple(
                Grid(
                    hw,
                    encoded.input_hw,
                    stride,
                    self.spec.cell_rule,
                    valid_hw=encoded.valid_hw,
                    name=f"level {i}, stride {stride}" if len(levels) > 1 else "",
                )
                for i, (hw, stride) in enumerate(levels)
            ),
            proposed=_proposed(encoded),
            selected=_selected(encoded) if self.spec.salience else None,
            scaled=Scaled.of(encoded) if self.spec.scales else None,
            reference_points=first if boxes else raw.get("reference_points"),
            layer_references=dict(enumerate(raw.get("references", ()))),
        )


def _learned(config: DetrConfig) -> str:
    return ""


def _proposed(encoded: Any) -> Proposed | None:
    """The tokens that became queries; None of networks whose queries are learned."""
    if getattr(encoded, "proposals", None) is None:
        return None
    invalid = getattr(encoded, "invalid", None)
    if invalid is None:  # those that could not be chosen have no score
        invalid = encoded.scores.isneginf()
    return Proposed(encoded.proposals, encoded.scores, invalid, encoded.reference)


def _selected(encoded: Any) -> Selected:
    """The tokens that encoder layers refine."""
    return Selected(encoded.salience, encoded.kept, encoded.kept_counts, encoded.own)


@contextmanager
def _given(modules: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """These sites are called with `hidden` while the block runs, by calls of this thread alone."""
    mine, handles = threading.get_ident(), []

    def hide(_: nn.Module, args: tuple[Any, ...], *given: Any) -> Any:
        if threading.get_ident() != mine:
            return None  # torch leaves the keywords out where this hook is removed meanwhile
        return args, {**given[0], "hidden": hidden}

    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(hide, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
