"""What config.json would say of a transformers model that came without one, as its shapes show it.

A Lightning .ckpt of a transformers detector, or a model.safetensors alone, has no config.json. The
number of heads, dilation and the activation leave no trace in the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_STAGE = re.compile(r"encoder\.stages\.(\d+)\.layers\.0\.layer\.(\d+)\.convolution\.weight$")
_FFN = re.compile(r"(encoder|decoder)\.layers\.0\.(?:mlp\.)?fc1\.weight$")
NOTE = "no config.json: ReLU and a plain ResNet are assumed, they leave no trace in weights"


def config_of(state_dict: Mapping[str, Tensor], saved: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of these weights. saved: hyper parameters beside them, for names of classes."""
    keys = " ".join(state_dict)
    config: dict[str, Any] = {"model_type": _type(keys)}
    for key, value in state_dict.items():
        if match := _FFN.search(key):
            config[f"{match[1]}_ffn_dim"] = len(value)
    if ".row_embeddings." in keys:
        config["position_embedding_type"] = "learned"
    if ".encoder.stages." in keys:
        config["backbone_config"] = {"model_type": "resnet", "out_features": [_stage(state_dict)]}
    for source in (saved, saved.get("config")):
        if isinstance(source, Mapping) and isinstance(source.get("id2label"), Mapping):
            config["id2label"] = source["id2label"]
    return config


def _type(keys: str) -> str:
    if "ca_qcontent_proj" in keys or "encoder_attn.q_content_proj" in keys:
        return "conditional_detr"
    return "table-transformer" if "encoder.layernorm." in keys else "detr"


def _stage(state_dict: Mapping[str, Tensor]) -> str:
    """The stage that the detector looks at: the last one of as many channels as it projects."""
    projected = [v for k, v in state_dict.items() if k.endswith("input_projection.weight")]
    channels: dict[int, tuple[int, int]] = {}  # stage -> (last convolution, its channels)
    for key, value in state_dict.items():
        if match := _STAGE.search(key):
            stage, number = int(match[1]), int(match[2])
            channels[stage] = max(channels.get(stage, (0, 0)), (number, len(value)))
    wanted = projected[0].shape[1] if projected and projected[0].dim() == 4 else None
    fitting = [stage for stage, (_, count) in channels.items() if count == wanted]
    return f"stage{max(fitting or channels) + 1}"
