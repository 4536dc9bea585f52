"""The network in training, with the two helpers that do not ship."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.demo.anchor_recipe import AnchorRecipe
from detr_viz.demo.dynamic_recipe import LEVELS, DynamicRecipe
from detr_viz.demo.losses import cell_targets, set_loss
from detr_viz.demo.recipe import SHALLOW, Recipe, TrainingConfig
from detr_viz.demo.roi_recipe import SparseRecipe
from detr_viz.demo.salience_recipe import SalienceRecipe
from detr_viz.demo.sampled_recipes import DeformableRecipe, EfficientRecipe
from detr_viz.models import get
from detr_viz.models.layers.split_attention import AttentionInputs

# One encoder layer and a shallower body leave more of the localising to Conditional DETR's decoder,
# and the demo shows its maps; DETR needs the deeper net to be as accurate in the same time.
CONFIGS = {
    "detr": TrainingConfig(lr=5e-4),
    "cd_detr": TrainingConfig(lr=6e-4, enc_layers=1, blocks=(2, 2)),
    "deformable_detr": TrainingConfig(**SHALLOW, levels=3),
    "efficient_detr": TrainingConfig(
        **SHALLOW, levels=3, dec_layers=1, queries_at_first=60, groups=1
    ),
    "anchor_detr": TrainingConfig(blocks=(2, 3), queries=60, groups=1),
    "salience_detr": TrainingConfig(**SHALLOW, levels=3, d_model=96, dec_layers=2, groups=1),
    "dynamic_detr": TrainingConfig(
        **SHALLOW, levels=LEVELS, d_model=80, enc_layers=1, dec_layers=4, groups=2
    ),
    "sparse_rcnn": TrainingConfig(
        blocks=(1, 2, 1),
        widths=(32, 64, 96),
        levels=3,
        d_model=64,
        dec_layers=4,
        dim_feedforward=128,
        groups=2,
    ),
}
RECIPES: dict[str, Recipe] = {
    "detr": Recipe(),
    "cd_detr": Recipe(),
    "deformable_detr": DeformableRecipe(),
    "efficient_detr": EfficientRecipe(),
    "anchor_detr": AnchorRecipe(),
    "salience_detr": SalienceRecipe(),
    "dynamic_detr": DynamicRecipe(),
    "sparse_rcnn": SparseRecipe(),
}


def separate_groups(model: nn.Module, size: int) -> None:
    """Keep decoder self-attention within groups of `size` queries, as many as there are.

    (B, G * Q, C) is (B * G, Q, C) inside.
    """
    batches: list[int] = []

    def apart(site: nn.Module, args: tuple[AttentionInputs]) -> tuple[AttentionInputs]:
        (parts,) = args
        batch = parts.c_q.shape[0]
        batches[:] = [batch]
        # one tensor stays one: sites recognise self-attention by that
        known: dict[int, Tensor] = {}
        for x in parts[:5]:
            if id(x) not in known:
                rows = x.expand(batch, -1, -1)
                known[id(x)] = rows.reshape(-1, size, x.shape[-1])
        return (AttentionInputs(*(known[id(x)] for x in parts[:5])),)

    def together(site: nn.Module, args: tuple[AttentionInputs], out: Tensor) -> Tensor:
        return out.reshape(batches[0], -1, out.shape[-1])

    for (kind, _), site in model.attention_sites().items():
        if kind == "decoder":
            site.register_forward_pre_hook(apart)
            site.register_forward_hook(together)


class Trainee(nn.Module):
    """A model with its training-only helpers; forward gives the weighted losses by name."""

    def __init__(self, kind: str, training: TrainingConfig) -> None:
        super().__init__()
        self.training_config, self.recipe = training, RECIPES[kind]
        self.focal = get(kind).pairwise
        self.groups, self.stride = training.groups + self.recipe.more_groups, training.stride
        config = self.recipe.network(training, self.focal, training.groups)
        self.model = get(kind).build(config, norm_layer=nn.BatchNorm2d)
        self.recipe.initialise(self.model, self.focal)
        if self.groups > 1:
            separate_groups(self.model, training.queries)
        self.cell_head = nn.Conv2d(training.d_model, len(training.classes) + 1, 1)
        self.cells: Tensor | None = None
        self.recipe.finest(self.model).register_forward_hook(self._keep)

    def begin_step(self, progress: float) -> None:
        """What depends on the finished share of the training."""
        self.recipe.begin_step(self.model, self.training_config, progress)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self.cells = self.recipe.cells(out)

    def forward(self, images: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        own = self.training_config.groups
        out = self.recipe.outputs(self.model, images, labels, boxes, own)
        layers = [*out["aux_outputs"], out]
        logits = torch.stack([o["pred_logits"] for o in layers])
        predicted = torch.stack([o["pred_boxes"] for o in layers])
        logits, predicted = (x.unflatten(2, (self.groups, -1)) for x in (logits, predicted))
        losses = set_loss(logits, predicted, labels, boxes, self.focal)
        losses |= self.recipe.losses(out, labels, boxes, self.focal)
        cells = self.cell_head(self.cells)
        targets = cell_targets(labels, boxes, cells.shape[-2:], self.stride, images.shape[-2:])
        nothing = cells.shape[1] - 1
        losses["cells"] = F.cross_entropy(cells, torch.where(targets < 0, nothing, targets))
        return losses

    def shipped(self) -> dict[str, Tensor]:
        """State dict with the official keys: the first query group, no batch counters."""
        state = {k: v for k, v in self.model.state_dict().items() if "num_batches" not in k}
        state = self.recipe.first_group(state, self.training_config.groups)
        return {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
