"""Hugging Face's ports (Table Transformer is a pre-norm DETR) under the names of the authors.

Their ports are the same networks (equal to 3e-13 in float64); only names, and q/k/v apart, differ.
Three layers of names are understood, in any mixture:

    hub files             ...encoder_attn.out_proj, layers.0.fc1, decoder.layers.0.ca_qpos_proj,
                          backbone.conv_encoder.model.layer1.0.conv1 (timm's ResNet)
    use_timm_backbone=no  backbone.conv_encoder.model.encoder.stages.0.layers.0.layer.0.convolution
    transformers 5        ...encoder_attn.o_proj, layers.0.mlp.fc1, encoder_attn.q_pos_proj,
                          backbone.model.layer1... (what it has in memory, and may save)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detr_viz import models
from detr_viz.checkpoints import transformers_deformable
from detr_viz.checkpoints.transformers_deformable import HuggingFaceError
from detr_viz.models.config import ENCODER_NORM, ROW_EMBED

if TYPE_CHECKING:
    from torch import Tensor

# model_type in config.json -> --type
TYPES = {
    theirs: name for name, entry in models.REGISTRY.items() for theirs in entry.transformers_types
}

_POSITIONS = re.compile(r"^(?:backbone\.)?position_embedding\.(row|col)(?:umn)?_embeddings\.")
_BACKBONE = re.compile(r"^backbone\.(?:conv_encoder\.)?(?:model\.)?(?:_backbone\.)?")
_BODY = "backbone.0.body."
_STEM = {"embedder.embedder.convolution.": "conv1.", "embedder.embedder.normalization.": "bn1."}
_STAGE = re.compile(
    r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d+))\.(convolution|normalization)\."
)
_HEADS = (
    ("query_position_embeddings.", "query_embed."),
    ("input_projection.", "input_proj."),
    ("class_labels_classifier.", "class_embed."),
    ("bbox_predictor.", "bbox_embed."),
    ("decoder.layernorm.", "transformer.decoder.norm."),
    ("encoder.layernorm.", "transformer.encoder.norm."),
    ("decoder.", "transformer.decoder."),
    ("encoder.", "transformer.encoder."),
    *transformers_deformable.TOP_NAMES,
)
_LAYER = re.compile(r"^transformer\.(encoder|decoder)\.layers\.\d+\.")
_COMMON = {"mlp.fc1": "linear1", "mlp.fc2": "linear2", "fc1": "linear1", "fc2": "linear2"} | {
    f"self_attn.{out}_proj": "self_attn.out_proj" for out in ("o", "out")
}
_ENCODER = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2"}
_DECODER = {
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm2",
    "final_layer_norm": "norm3",
}
_ATTENTION = {  # of the decoder; DETR's q/k/v are packed later
    "detr": {f"encoder_attn.{out}_proj": "multihead_attn.out_proj" for out in ("o", "out")},
    "cd_detr": {f"encoder_attn.{out}_proj": "cross_attn.out_proj" for out in ("o", "out")}
    | {
        f"{module}.{new}_proj": f"{short}_{old}_proj"
        for module, short in (("self_attn", "sa"), ("encoder_attn", "ca"))
        for new, old in (
            ("q_content", "qcontent"),
            ("q_pos", "qpos"),
            ("k_content", "kcontent"),
            ("k_pos", "kpos"),
            ("q_pos_sine", "qpos_sine"),
            ("v", "v"),
        )
    },
    transformers_deformable.TYPE: transformers_deformable.DECODER_NAMES,
}
_PACKED = re.compile(r"^(.*)\.(q|k|v)_proj\.(weight|bias)$")
_TIMM_RESNET = re.compile(
    r"^(tv_)?(resnet(18|26|34|50|101|152)|resnext\d+_\d+x\d+d|wide_resnet\d+_2)(\..+)?$"
)


def convert(
    state_dict: Mapping[str, Tensor], hf_config: Mapping[str, Any]
) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """(--type, state dict with the authors' names, hints) of a transformers model.

    hints: nheads int, dilation bool, class_names tuple or None, notes tuple. Keys that are not
    understood pass through, for the strict check to name them. Raises HuggingFaceError (no file
    name in it) where config.json asks for what the authors' network does not do.
    """
    model_type = _checked_type(hf_config)
    notes = []
    if hf_config.get("auxiliary_loss"):
        notes.append(
            "config.json has auxiliary_loss: transformers then norms between decoder layers, the "
            "authors' network (used here) does not, so results differ from transformers' own"
        )
    last_stage = _last_stage(hf_config)
    renamed = {}
    for key, tensor in state_dict.items():
        name = _official_name(key.removeprefix("model."), model_type)
        stage = re.match(rf"{re.escape(_BODY)}layer(\d+)\.", name)
        if last_stage is None or stage is None or int(stage[1]) <= last_stage:
            renamed[name] = tensor
    _check_variant(hf_config, renamed)
    hints = {
        "nheads": _heads(hf_config),
        "dilation": _dilation(hf_config),
        "class_names": _class_names(hf_config),
        "notes": tuple(notes),
    }
    if model_type == transformers_deformable.TYPE:
        transformers_deformable.check_sizes(renamed, hf_config)
        renamed = transformers_deformable.untied(renamed, hf_config)
        hints["num_queries"] = hf_config.get("two_stage_num_proposals", 300)
    return model_type, _pack(renamed), hints


def _official_name(key: str, model_type: str) -> str:
    """One key in the authors' words, q/k/v still apart."""
    if axis := _POSITIONS.match(key):
        return f"backbone.1.{axis[1]}_embed.{key[axis.end() :]}"
    if prefix := _BACKBONE.match(key):
        return _BODY + _body_name(key[prefix.end() :])
    for theirs, ours in _HEADS:
        if key.startswith(theirs):
            key = ours + key[len(theirs) :]
            break
    layer = _LAYER.match(key)
    if layer is None:
        return key
    names = dict(_COMMON)
    names.update(_ENCODER if layer[1] == "encoder" else _DECODER)
    if layer[1] == "decoder":
        names.update(_ATTENTION[model_type])
    module, dot, leaf = key[layer.end() :].rpartition(".")
    return layer[0] + names.get(module, module) + dot + leaf


def _body_name(key: str) -> str:
    """A key of the ResNet in torchvision's words, which timm uses too."""
    for theirs, ours in _STEM.items():
        if key.startswith(theirs):
            return ours + key[len(theirs) :]
    match = _STAGE.match(key)
    if match is None:
        return key
    stage, block, part, number, kind = match.groups()
    if part == "shortcut":
        part = "downsample.0" if kind == "convolution" else "downsample.1"
    else:
        part = f"{'conv' if kind == 'convolution' else 'bn'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{part}.{key[match.end() :]}"


def _pack(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """q_proj, k_proj and v_proj of one module become its in_proj, rows in this order."""
    import torch

    packed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        match = _PACKED.match(key)
        if match is None or not match[1].endswith(("self_attn", "encoder_attn")):
            packed[key] = tensor
            continue
        parts = [state_dict.get(f"{match[1]}.{letter}_proj.{match[3]}") for letter in "qkv"]
        if any(part is None for part in parts) or len({part.shape for part in parts}) > 1:
            packed[key] = tensor  # for the strict check to name
        elif match[2] == "q":
            module = re.sub(r"encoder_attn$", "multihead_attn", match[1])
            packed[f"{module}.in_proj_{match[3]}"] = torch.cat(parts)
    return packed


def _checked_type(config: Mapping[str, Any]) -> str:
    """--type of config.json, once nothing in it is beyond the authors' network."""
    theirs = config.get("model_type")
    if not isinstance(theirs, str) or theirs not in TYPES:
        raise HuggingFaceError(
            f"config.json is of model_type {theirs!r}; only {' and '.join(TYPES)} can be loaded"
        )
    activation = config.get("activation_function", "relu")
    if activation != "relu":
        raise HuggingFaceError(
            f"config.json has activation_function {activation!r}; the authors' network has relu"
        )
    if config.get("encoder_ffn_dim", 2048) != config.get("decoder_ffn_dim", 2048):
        raise HuggingFaceError(
            f"config.json has FFN widths {config.get('encoder_ffn_dim', 2048)} (encoder) and "
            f"{config.get('decoder_ffn_dim', 2048)} (decoder); the authors' network has one"
        )
    _check_backbone(config)
    return TYPES[theirs]


def _check_variant(config: Mapping[str, Any], renamed: Mapping[str, Any]) -> None:
    """What config.json says of positions and norms must show in the weights."""
    positions = config.get("position_embedding_type", "sine")
    learned = ROW_EMBED in renamed
    if positions not in ("sine", "learned") or (positions == "learned") != learned:
        held = "learned" if learned else "no learned"
        raise HuggingFaceError(
            f"config.json has {positions!r} position embeddings, and the weights have {held} ones"
        )
    pre_norm = config.get("model_type") == "table-transformer"
    if renamed and pre_norm != (ENCODER_NORM in renamed):
        raise HuggingFaceError(
            f"config.json is of model_type {config.get('model_type')!r}, but the weights are "
            f"{'not of' if pre_norm else 'of'} a pre-norm model"
        )


def _backbone(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """("timm" or the model_type of transformers' own, its settings)."""
    own = config.get("backbone_config")
    if isinstance(own, Mapping):
        kind = str(own.get("model_type"))
        return ("timm" if kind == "timm_backbone" else kind), own
    if config.get("use_timm_backbone", True):
        settings = config.get("backbone_kwargs")
        settings = dict(settings) if isinstance(settings, Mapping) else {}
        return "timm", {"backbone": config.get("backbone") or "resnet50", **settings}
    return "resnet", {}


def _check_backbone(config: Mapping[str, Any]) -> None:
    kind, settings = _backbone(config)
    name = settings.get("backbone") if kind == "timm" else kind
    plain = _TIMM_RESNET.match(str(name)) if kind == "timm" else kind == "resnet"
    if not plain:
        raise HuggingFaceError(
            f"config.json has the backbone {name!r}; only plain ResNets can be loaded"
        )
    stride = settings.get("output_stride")
    if stride not in (None, 16, 32):
        raise HuggingFaceError(
            f"config.json has a backbone of output_stride {stride}; 32 and 16 (DC5) can be loaded"
        )
    if kind == "timm":
        return
    for option in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        if settings.get(option):
            raise HuggingFaceError(
                f"config.json has a backbone with {option}; the authors' ResNet has none"
            )
    if settings.get("hidden_act", "relu") != "relu":
        raise HuggingFaceError(
            f"config.json has a backbone with {settings['hidden_act']!r}; the authors' has relu"
        )


def _last_stage(config: Mapping[str, Any]) -> int | None:
    """Number of the stage the detector looks at; transformers' ResNet keeps the later ones too."""
    kind, settings = _backbone(config)
    features = settings.get("out_features")
    if not isinstance(features, list) or not features:
        return None
    if kind == "resnet" and (match := re.match(r"stage(\d+)$", str(features[-1]))):
        return int(match[1])
    return None


def _heads(config: Mapping[str, Any]) -> int:
    encoder = config.get("encoder_attention_heads", 8)
    decoder = config.get("decoder_attention_heads", 8)
    if encoder != decoder:
        raise HuggingFaceError(
            f"config.json has {encoder} encoder and {decoder} decoder heads; the authors' network "
            "has one number"
        )
    if not isinstance(encoder, int):
        raise HuggingFaceError(f"config.json has {encoder!r} attention heads: it is damaged")
    return encoder


def _dilation(config: Mapping[str, Any]) -> bool:
    kind, settings = _backbone(config)
    if kind != "timm":
        return False  # transformers' own ResNet has no dilation and ignores the flag
    if isinstance(config.get("backbone_config"), Mapping) or settings.get("output_stride"):
        return settings.get("output_stride") == 16
    return bool(config.get("dilation"))


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """id2label (else label2id) in order of the ids; an id without a name has its number."""
    labels, ids = config.get("id2label"), config.get("label2id")
    if not labels and isinstance(ids, Mapping):
        labels = {i: name for name, i in ids.items()}
    try:
        names = {int(i): str(name) for i, name in (labels or {}).items() if name not in (None, "")}
    except (AttributeError, TypeError, ValueError):
        return None
    if not names or min(names) < 0 or max(names) > 10_000:
        return None
    return tuple(names.get(i, f"class {i}") for i in range(max(names) + 1))
