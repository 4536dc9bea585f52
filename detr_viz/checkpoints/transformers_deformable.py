"""What transformers' `deformable_detr` names in its own way: layers, and heads that it shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TYPE = "deformable_detr"
# of a decoder layer: its first norm is that of the self-attention, the official norm2
DECODER_NAMES = {
    "self_attn_layer_norm": "norm2",
    "encoder_attn_layer_norm": "norm1",
} | {
    f"encoder_attn.{part}": f"cross_attn.{part}"
    for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
}
TOP_NAMES = tuple(  # beside encoder and decoder
    (name, f"transformer.{name}")
    for name in ("level_embed", "enc_output", "pos_trans", "reference_points.")
)


class HuggingFaceError(UserError):
    """A Hugging Face folder whose network is not one of the authors'."""


def check_sizes(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """HuggingFaceError where config.json names sizes that are not those of the weights.

    state_dict: with official names, heads still as in the file. Sizes that config.json does not
    name are transformers' defaults, and are read off the weights alone.
    """
    level_embed = state_dict.get("transformer.level_embed")
    if level_embed is None or level_embed.ndim != 2:
        return  # refused later, as any file
    levels, width = level_embed.shape
    sizes: dict[str, object] = {"num_feature_levels": levels, "d_model": width}
    sizes["two_stage"] = "transformer.enc_output.weight" in state_dict
    if "query_embed.weight" in state_dict and not sizes["two_stage"]:
        sizes["num_queries"] = len(state_dict["query_embed.weight"])
    for stack, site in (("encoder", "self_attn"), ("decoder", "cross_attn")):
        layer = state_dict.get(f"transformer.{stack}.layers.0.{site}.attention_weights.weight")
        heads = config.get(f"{stack}_attention_heads", 8)
        if layer is not None and isinstance(heads, int) and heads > 0:
            sizes[f"{stack}_n_points"] = len(layer) / (heads * levels)
    head = re.compile(r"(transformer\.decoder\.)?bbox_embed\.\d+\.layers\.0\.weight")
    heads = [tensor for key, tensor in state_dict.items() if head.fullmatch(key)]
    if heads and config.get("decoder_layers", 6) > 1:
        sizes["with_box_refine"] = not all(tensor.equal(heads[0]) for tensor in heads)
    for name, size in sizes.items():
        if name in config and config[name] != size:
            found = f"{size:g}" if isinstance(size, float) else size
            raise HuggingFaceError(
                f"config.json says {name} {str(config[name])[:20]}, and the weights have {found}: "
                "fetch both again"
            )


def untied(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """With the heads of every layer under each of their official names.

    A file keeps a tensor that several names share only once, under any of these names.
    """
    two_stage = bool(config.get("two_stage"))
    shared = {"bbox_embed": bool(config.get("with_box_refine")), "class_embed": two_stage}
    layers = config.get("decoder_layers", 6)
    whole = dict(state_dict)
    for name, in_decoder in shared.items():
        own, decoders = f"{name}.", f"transformer.decoder.{name}."
        heads: dict[str, Tensor] = {}
        for key, tensor in state_dict.items():
            if key.startswith((own, decoders)):
                heads.setdefault(key.removeprefix("transformer.decoder.").removeprefix(own), tensor)
        leaves = {key.partition(".")[2] for key in heads}
        for i in range(layers + two_stage):
            for leaf in leaves:
                tensor = heads.get(f"{i}.{leaf}", heads.get(f"0.{leaf}"))
                if tensor is not None:
                    for prefix in (own, decoders) if in_decoder else (own,):
                        whole[f"{prefix}{i}.{leaf}"] = tensor
    return whole
