"""What transformers' `deformable_detr` names in its own way: layers, and heads that it shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
