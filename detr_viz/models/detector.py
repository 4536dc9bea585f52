"""Our own networks as a `Detector`: what is above sees no network, no config, no spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detr_viz.attention.base import Where
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.grids import Grid
from detr_viz.attention.sampled import SampledAttention
from detr_viz.explanation.detector import AttentionSite, DetectorInfo, Forwarded
from detr_viz.images.resize import normalised, target_size
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.deformable import DeformableAttention
from detr_viz.models.layers.split_attention import SplitAttention
from detr_viz.models.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode with what its checkpoint said; a `Detector` that `Redecodes`.

    size, max_size: shorter side images are resized to, and the bound on the longer one (pixels).
    class_names: one name a real class. path, sha256: of the weights. notes: what had to be assumed.
    precision: one of terms.PRECISIONS.
    """

    network: nn.Module
    spec: ModelSpec
    config: DetrConfig
    class_names: tuple[str, ...]
    size: int
    max_size: int
    path: str
    sha256: str
    notes: tuple[str, ...]
    meta: Mapping[str, Any]
    device: torch.device
    precision: str = "float32"

    @property
    def info(self) -> DetectorInfo:
        """What is known of the detector, as plain values."""
        config = self.config
        return DetectorInfo(
            type=self.spec.name,
            title=self.spec.title,
            weights=Path(self.path).name,
            path=self.path,
            sha256=self.sha256,
            class_names=self.class_names,
            num_queries=config.num_queries,
            num_heads=config.nheads,
            num_layers=config.dec_layers,
            num_encoder_layers=config.enc_layers,
            modes=self.spec.modes,
            pairwise=self.spec.pairwise,
            size=self.size,
            max_size=self.max_size,
            options=(("dilation", config.backbone.dilation),),
            notes=self.notes,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the first parameter, a backbone's."""
        return next(self.network.parameters()).dtype

    def input_hw(
        self, image_hw: tuple[int, int], size: int | None = None, max_size: int | None = None
    ) -> tuple[int, int]:
        """Pixels that an image is resized to."""
        return target_size(*image_hw, size or self.size, max_size or self.max_size)

    def prepare(self, rgb_BHW3: NDArray[np.uint8]) -> Tensor:
        """Normalised pixels (B, 3, H, W), never padded."""
        return normalised(rgb_BHW3, self.device).to(self.network.input_dtype)

    def attention_sites(self) -> dict[Where, AttentionSite]:
        return {
            where: AttentionSite(
                module,
                partial(_read, module, where[0]),
                module.out_proj,
                partial(_logits, module) if isinstance(module, SplitAttention) else None,
            )
            for where, module in self.network.attention_sites().items()
        }

    def forward(self, pixels: Tensor, layers: Sequence[int]) -> Forwarded:
        """One pass; earlier layers' outputs only where they are asked for."""
        raw = self.network(pixels, aux=self._needs_all(layers))
        return self._forwarded(raw, tuple(pixels.shape[-2:]))

    def decode(self, memory: Any, layers: Sequence[int]) -> Forwarded:
        """Decoder and heads once more."""
        raw = self.network.decode(memory, aux=self._needs_all(layers))
        return self._forwarded(raw, memory.input_hw)

    def scores_with_hidden(self, memory: Any, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """By the network's own fused kernel; nothing of the size of all weights is held."""
        sites = self.network.attention_sites()
        with _given([sites["cross", layer] for layer in layers], hidden):
            raw = self.network.decode(memory.repeated(len(hidden)))
        return self.spec.class_probabilities(raw["pred_logits"])

    def _needs_all(self, layers: Sequence[int]) -> bool:
        return set(layers) - {self.config.dec_layers - 1} != set()

    def _forwarded(self, raw: Mapping[str, Any], input_hw: tuple[int, int]) -> Forwarded:
        last = self.config.dec_layers - 1
        outputs = {**dict(enumerate(raw.get("aux_outputs", ()))), last: raw}
        levels = raw.get("levels") or [(raw["memory_hw"], self.config.backbone.stride)]
        return Forwarded(
            class_scores={
                n: self.spec.class_probabilities(out["pred_logits"]) for n, out in outputs.items()
            },
            boxes={n: out["pred_boxes"] for n, out in outputs.items()},
            memory=raw["encoded"],
            memory_of=type(raw["encoded"]).of_image,
            grids=tuple(
                Grid(
                    hw,
                    input_hw,
                    stride,
                    self.spec.cell_rule,
                    name=f"level {i}, stride {stride}" if len(levels) > 1 else "",
                )
                for i, (hw, stride) in enumerate(levels)
            ),
            reference_points=raw.get("reference_points"),
            layer_references=dict(enumerate(x[..., :2] for x in raw.get("references", ()))),
        )


def _read(
    module: SplitAttention | DeformableAttention,
    kind: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Tensor,
    image: int,
    grids: tuple[Grid, ...],
) -> DenseAttention | SampledAttention:
    attention = module.read(args[0].of_image(image)).of_image(0)
    return replace(attention, grids=() if kind == "decoder" else grids)


def _logits(
    module: SplitAttention,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    image: int,
    rows: Sequence[int],
) -> Tensor:
    """q . k of one projection of sums, or of the parts side by side: (M, q, K)."""
    query, key, _ = module.qkv(args[0].of_image(image))
    chosen = torch.as_tensor(rows, dtype=torch.long, device=query.device)
    return ((query[:, :, chosen] * module.scale) @ key.transpose(-1, -2))[0]


@contextmanager
def _given(modules: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """These sites are called with `hidden` while the block runs."""
    handles = []
    try:
        for module in modules:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, given: (args, {**given, "hidden": hidden}), with_kwargs=True
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
