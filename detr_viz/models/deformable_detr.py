"""Deformable DETR (Zhu et al., ICLR 2021): names and outputs of fundamentalvision/Deformable-DETR.

Plain, with iterative box refinement, and two-stage; any number of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor, nn

from detr_viz.attention.terms import MODES
from detr_viz.models.conditional_detr import class_probabilities
from detr_viz.models.deformable_config import DeformableConfig, read_config, with_hints
from detr_viz.models.layers.deformable_transformer import Levels, Transformer
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.layers.transformer import MLP
from detr_viz.models.sampled_network import Queries, SampledNetwork
from detr_viz.models.spec import ModelSpec


class DeformableNetwork(SampledNetwork):
    """Learned queries, or the encoder's best proposals; a head for each layer, or one for all."""

    def __init__(self, config: DeformableConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__(config, norm_layer)
        width = config.d_model
        self.transformer = Transformer(config)
        if not config.two_stage:
            self.query_embed = nn.Embedding(config.num_queries, 2 * width)
        heads = config.dec_layers + config.two_stage  # the last one scores the encoder's tokens
        self.class_embed = _heads(heads, config.refine, lambda: Linear(width, config.num_logits))
        self.bbox_embed = _heads(heads, config.refine, lambda: MLP(width, width, 4, 3))
        if config.refine:
            self.transformer.decoder.bbox_embed = self.bbox_embed
        if config.two_stage:
            self.transformer.decoder.class_embed = self.class_embed

    def queries(self, memory: Tensor, levels: Levels) -> Queries:
        if not self.config.two_stage:
            query_pos, tgt = self.query_embed.weight[None].chunk(2, -1)
            return Queries(query_pos, tgt, self.transformer.reference_points(query_pos).sigmoid())
        count = self.config.num_queries
        made = self.transformer.propose(memory, levels, count)
        reference, queries, proposals, scores, invalid = made
        return Queries(*queries.chunk(2, -1), reference, proposals, scores, invalid)

    def class_head(self, layer: int) -> nn.Module:
        return self.class_embed[layer]

    def box_head(self, layer: int) -> nn.Module:
        return self.bbox_embed[layer]


def _heads(count: int, refine: bool, head: Callable[[], nn.Module]) -> nn.ModuleList:
    """One head for each layer; without refinement they are all the same one."""
    if refine:
        return nn.ModuleList(head() for _ in range(count))
    return nn.ModuleList([head()] * count)


def build(config: DeformableConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> DeformableNetwork:
    """A Deformable DETR of these sizes; one sigmoid for each class."""
    return DeformableNetwork(config, norm_layer)


CLASS_0 = "sigmoid of the encoder's class 0 logit"  # whatever a query's class becomes
_DESCENDANTS = {  # keys of networks that are built on this one
    "transformer.decoder.norm.weight",
    "transformer.tgt_embed.weight",
    "tgt_embed.weight",
    "refpoint_embed.weight",
    "label_enc.weight",
}


def matches(keys: Collection[str]) -> bool:
    """Levels, and points sampled by the decoder, are its marks."""
    return (
        "transformer.level_embed" in keys
        and "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight" in keys
        and ("transformer.pos_trans.weight" not in keys or "transformer.enc_output.weight" in keys)
        and not _DESCENDANTS & {*keys}
        and not any(".enc_mask_predictor." in key for key in keys)  # of Sparse DETR
    )


SPEC = ModelSpec(
    name="deformable_detr",
    title="Deformable DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
    cell_rule="centered",
    with_hints=with_hints,
    proposal_scores=lambda config: CLASS_0 if config.two_stage else "",
)
