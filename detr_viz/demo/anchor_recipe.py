"""Training of Anchor DETR: row-column attention, several patterns at each anchor."""

from __future__ import annotations

from torch import nn

from detr_viz.demo.recipe import Recipe, TrainingConfig, start_heads
from detr_viz.models.anchor_config import AnchorConfig
from detr_viz.models.config import DetrConfig

PATTERNS = 3


class AnchorRecipe(Recipe):
    """All queries are matched together: the patterns are several queries of an anchor already.

    `queries` of a training are anchors times patterns.
    """

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        return AnchorConfig(**self.sizes(training, focal, groups), patterns=PATTERNS)

    def initialise(self, model: nn.Module, focal: bool) -> None:
        """Xavier but for anchors and patterns, which keep their uniform and normal values."""
        for name, p in model.transformer.named_parameters():
            if p.dim() > 1 and not name.startswith(("position.", "pattern.")):
                nn.init.xavier_uniform_(p)
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for projection in model.input_proj:
            nn.init.xavier_uniform_(projection[0].weight)
            nn.init.zeros_(projection[0].bias)
        start_heads(model.transformer.class_embed, model.transformer.bbox_embed)

    def finest(self, model: nn.Module) -> nn.Module:
        return model.input_proj[0]
