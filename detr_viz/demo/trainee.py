"""The network in training: its sizes, initial values, and the two helpers that do not ship."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.demo.losses import cell_targets, set_loss
from detr_viz.demo.sampled_training import initialise_sampling
from detr_viz.demo.shapes import CLASSES
from detr_viz.models import get
from detr_viz.models.config import BackboneConfig, DetrConfig
from detr_viz.models.deformable_config import DeformableConfig
from detr_viz.models.efficient_detr import EfficientConfig
from detr_viz.models.layers.split_attention import AttentionInputs

SIZE = 128  # short side that ships; the longest keeps the official 800 : 1333
MAX_SIZE = 213


@dataclass(frozen=True)
class TrainingConfig:
    """All choices of a training; lengths of phases are shares of its time."""

    enc_layers: int = 2
    dec_layers: int = 3
    blocks: tuple[int, ...] = (2, 3)
    widths: tuple[int, ...] = (32, 64)
    d_model: int = 128
    dim_feedforward: int = 256
    levels: int = 0  # of sampled attention, the body's last stages; 0: dense attention
    queries: int = 20
    queries_at_first: int = 0  # proposals of Efficient DETR, falling to `queries` by `mixed_until`
    anchor_size: float = 0.0  # of Efficient DETR
    groups: int = 3
    lr: float = 6e-4
    warmup_steps: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    batch: int = 8
    scenes: int = 24_000
    big_share: float = 0.25
    small_until: float = 0.55  # at 96 px, then at 96, 112 or 128
    mixed_until: float = 0.75  # then at 128 px: accuracy is poor at a size it does not finish at

    def network(self, focal: bool, groups: int = 1) -> DetrConfig:
        """Sizes of the network; one more logit, no-object, for the softmax model."""
        sizes: dict[str, Any] = {
            "num_queries": self.queries * groups,
            "num_logits": len(CLASSES) + (0 if focal else 1),
            "d_model": self.d_model,
            "nheads": 8,
            "enc_layers": self.enc_layers,
            "dec_layers": self.dec_layers,
            "dim_feedforward": self.dim_feedforward,
            "backbone": BackboneConfig("basic", 32, self.widths, self.blocks),
        }
        if not self.levels:
            return DetrConfig(**sizes)
        sizes |= {"stages": self.levels, "levels": self.levels, "refine": True}
        if self.anchor_size:
            return EfficientConfig(**sizes, anchor_size=self.anchor_size)
        return DeformableConfig(**sizes)

    @property
    def stride(self) -> int:
        """Input pixels per cell of the map on which the class head of the cells stands."""
        return 4 * 2 ** (len(self.blocks) - max(1, self.levels))

    def proposals(self, progress: float) -> int:
        """How many tokens become queries at this share of the training."""
        share = min(1.0, progress / self.mixed_until)
        return round(self.queries_at_first + share * (self.queries - self.queries_at_first))

    def size_px(self, progress: float, rng: np.random.Generator) -> int:
        if progress < self.small_until:
            return 96
        return int(rng.choice((96, 112, 128))) if progress < self.mixed_until else SIZE


# One encoder layer and a shallower body leave more of the localising to Conditional DETR's decoder,
# and the demo shows its maps; DETR needs the deeper net to be as accurate in the same time.
CONFIGS = {
    "detr": TrainingConfig(lr=5e-4),
    "cd_detr": TrainingConfig(lr=6e-4, enc_layers=1, blocks=(2, 2)),
    "deformable_detr": TrainingConfig(blocks=(1, 2, 1, 1), widths=(32, 64, 96, 128), levels=3),
    "efficient_detr": TrainingConfig(
        dec_layers=1,
        blocks=(1, 2, 1, 1),
        widths=(32, 64, 96, 128),
        levels=3,
        queries_at_first=60,
        anchor_size=0.2,
        groups=1,
    ),
}


def initialise(model: nn.Module, focal: bool) -> None:
    """The authors' initial values: Xavier in the transformer, boxes start at their reference."""
    for name, p in model.named_parameters():
        if p.dim() > 1 and name.startswith("transformer."):
            nn.init.xavier_uniform_(p)
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if focal:
        for head in heads_of(model.class_embed):
            nn.init.constant_(head.bias, -math.log(99))
        for head in heads_of(model.bbox_embed):
            nn.init.zeros_(head.layers[-1].weight)
            nn.init.zeros_(head.layers[-1].bias)


def heads_of(head: nn.Module) -> list[nn.Module]:
    """The heads of all layers; a single one serves them all."""
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def separate_groups(model: nn.Module, groups: int) -> None:
    """Keep decoder self-attention within query groups: (B, G * Q, C) is (B * G, Q, C) inside."""

    def apart(site: nn.Module, args: tuple[AttentionInputs]) -> tuple[AttentionInputs]:
        (parts,) = args
        batch = parts.c_q.shape[0]
        # one tensor stays one: sites recognise self-attention by that
        known: dict[int, Tensor] = {}
        for x in parts[:5]:
            if id(x) not in known:
                rows = x.expand(batch, -1, -1)
                known[id(x)] = rows.reshape(batch * groups, -1, x.shape[-1])
        return (AttentionInputs(*(known[id(x)] for x in parts[:5])),)

    def together(site: nn.Module, args: tuple[AttentionInputs], out: Tensor) -> Tensor:
        return out.reshape(out.shape[0] // groups, -1, out.shape[-1])

    for (kind, _), site in model.attention_sites().items():
        if kind == "decoder":
            site.register_forward_pre_hook(apart)
            site.register_forward_hook(together)


class Trainee(nn.Module):
    """A model with its training-only helpers; forward gives the weighted losses by name."""

    def __init__(self, kind: str, training: TrainingConfig) -> None:
        super().__init__()
        self.training_config = training
        self.focal = get(kind).pairwise
        self.groups, self.stride = training.groups, training.stride
        config = training.network(self.focal, training.groups)
        self.model = get(kind).build(config, norm_layer=nn.BatchNorm2d)
        initialise(self.model, self.focal)
        if training.levels:
            initialise_sampling(self.model)
        separate_groups(self.model, training.groups)
        self.cell_head = nn.Conv2d(training.d_model, len(CLASSES) + 1, 1)
        self.cells: Tensor | None = None
        finest = self.model.input_proj[0] if training.levels else self.model.input_proj
        finest.register_forward_hook(self._keep)

    def begin_step(self, progress: float) -> None:
        """What depends on the finished share of the training."""
        if self.training_config.queries_at_first:
            self.model.proposals = self.training_config.proposals(progress)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self.cells = out

    def forward(self, images: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        out = self.model(images, None, aux=True)
        layers = [*out["aux_outputs"], out]
        logits = torch.stack([o["pred_logits"] for o in layers])
        predicted = torch.stack([o["pred_boxes"] for o in layers])
        logits, predicted = (x.unflatten(2, (self.groups, -1)) for x in (logits, predicted))
        losses = set_loss(logits, predicted, labels, boxes, self.focal)
        encoded = out.get("encoded")
        if getattr(encoded, "dense_logits", None) is not None:
            dense = (encoded.dense_logits[None, :, None], encoded.dense_boxes[None, :, None])
            dense_losses = set_loss(*dense, labels, boxes, self.focal)
            losses |= {f"dense_{name}": value for name, value in dense_losses.items()}
        cells = self.cell_head(self.cells)
        targets = cell_targets(labels, boxes, cells.shape[-2:], self.stride, images.shape[-2:])
        losses["cells"] = F.cross_entropy(cells, torch.where(targets < 0, len(CLASSES), targets))
        return losses

    def shipped(self) -> dict[str, Tensor]:
        """State dict with the official keys: the first query group, no batch counters."""
        state = {k: v for k, v in self.model.state_dict().items() if "num_batches" not in k}
        if "query_embed.weight" in state:
            rows = state["query_embed.weight"]
            state["query_embed.weight"] = rows[: rows.shape[0] // self.groups]
        return {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
