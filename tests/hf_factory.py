"""Small transformers models of random weights, and their keys under every naming there is."""

from __future__ import annotations

import re

import torch

TYPES = {
    "detr": "Detr",
    "conditional_detr": "ConditionalDetr",
    "table-transformer": "TableTransformer",
}
RESNET = {
    "bottleneck": {
        "embedding_size": 8,
        "hidden_sizes": [32, 64],
        "depths": [1, 2],
        "out_features": ["stage2"],
    },
    "basic": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24],
        "depths": [2, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2"],  # stage 3 is kept by transformers and looked at by nobody
    },
}
BACKBONES = {
    "timm": {"backbone": "resnet18", "use_timm_backbone": True},
    "timm, DC5": {"backbone": "resnet26", "use_timm_backbone": True, "dilation": True},
    "own": {"use_timm_backbone": False, "resnet": "bottleneck"},
    "own, basic": {"use_timm_backbone": False, "resnet": "basic"},
}


GAINS = (("class_labels", 4.0), ("o_proj", 3.0), ("out_proj", 3.0), ("_proj", 2.0))


def build(model_type, **options):
    """A transformers model with its initial values."""
    import transformers  # takes seconds, and no other file of tests needs it

    config_class = getattr(transformers, f"{TYPES[model_type]}Config")
    if resnet := options.pop("resnet", None):
        options["backbone_config"] = transformers.ResNetConfig(**RESNET[resnet])
        more = {"backbone": None, "use_pretrained_backbone": False}  # of transformers 4
        options |= {k: v for k, v in more.items() if k in config_class().to_dict()}
    elif "use_pretrained_backbone" not in options:
        options["use_pretrained_backbone"] = False
    config = config_class(**options, attn_implementation="eager")
    return getattr(transformers, f"{TYPES[model_type]}ForObjectDetection")(config).eval()


def randomize(model):
    """Weights and statistics far from their initial values, so that every query has its own."""
    generator = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.dim() > 1:
            if "query_position" not in name:
                gain = next((g for part, g in GAINS if part in name), 1.0)
                noise -= noise.flatten(1).mean(1).view(-1, *[1] * (value.dim() - 1))
                noise *= gain * value[0].numel() ** -0.5  # what all cells share cancels out
        elif name.endswith("running_var"):
            noise = 1 + 0.5 * noise.tanh()
        elif "norm" in name or re.search(r"(bn\d|downsample\.1)\.weight", name):
            noise = 0.2 * noise + name.endswith("weight")
        else:
            noise *= 0.1
        value.copy_(noise)
    return model


def fill_officially(model, state_dict):
    """The values of an official state dict, by the inverse of transformers_keys."""
    theirs = {}
    for key, value in state_dict.items():
        if ".in_proj_" in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                theirs[key.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            theirs[key] = value
    rules = (
        (r"^backbone\.0\.body\.", "backbone.conv_encoder.model."),
        (r"^transformer\.decoder\.norm\.", "decoder.layernorm."),
        (r"^transformer\.", ""),
        (r"^query_embed\.", "query_position_embeddings."),
        (r"^input_proj\.", "input_projection."),
        (r"\.linear(\d)\.", r".fc\1."),
        (r"\.(multihead|cross)_attn\.", ".encoder_attn."),
        (r"\.norm1\.", ".self_attn_layer_norm."),
        (r"(^encoder.*)\.norm2\.", r"\1.final_layer_norm."),
        (r"\.norm2\.", ".encoder_attn_layer_norm."),
        (r"\.norm3\.", ".final_layer_norm."),
        (r"^", "model."),
        (r"^model\.class_embed\.", "class_labels_classifier."),
        (r"^model\.bbox_embed\.", "bbox_predictor."),
    )
    hub = renamed(theirs, rules)
    wanted = model.state_dict().keys()  # of the installed version
    for names in (hub, hub_names(hub), new_names(hub)):
        if names.keys() == wanted:
            model.load_state_dict(names, strict=True)
            return model
    raise AssertionError(sorted(wanted ^ new_names(hub).keys())[:9])


def small(model_type, backbone="own", **options):
    sizes = {
        "d_model": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "num_queries": 7,
        "id2label": {0: "N/A", 1: "cat", 2: "remote"},
        "label2id": {"N/A": 0, "cat": 1, "remote": 2},
    }
    return randomize(build(model_type, **{**sizes, **BACKBONES[backbone], **options}))


def save(model, folder):
    model.save_pretrained(folder)
    return folder


def hub_names(state_dict):
    """Names of the files on the hub (transformers 4), whatever is installed."""
    rules = (
        (r"^model\.backbone\.(?!conv_encoder)", "model.backbone.conv_encoder."),
        (r"\.mlp\.(fc\d)\.", r".\1."),
        (r"attn\.o_proj\.", "attn.out_proj."),
        (r"self_attn\.(q|k)_(content|pos)_proj\.", r"sa_\1\2_proj."),
        (r"encoder_attn\.q_pos_sine_proj\.", "ca_qpos_sine_proj."),
        (r"encoder_attn\.(q|k)_(content|pos)_proj\.", r"ca_\1\2_proj."),
    )
    conditional = any("ca_q" in key or "q_content" in key for key in state_dict)
    if conditional:
        rules += (
            (r"(decoder\.layers\.\d+)\.self_attn\.v_proj\.", r"\1.sa_v_proj."),
            (r"(decoder\.layers\.\d+)\.encoder_attn\.v_proj\.", r"\1.ca_v_proj."),
        )
    return renamed(state_dict, rules)


def new_names(state_dict):
    """Names that transformers 5 has in memory, and saves with save_original_format=False."""
    rules = (
        (r"\.backbone\.conv_encoder\.", ".backbone."),
        (r"(layers\.\d+)\.(fc\d)\.", r"\1.mlp.\2."),
        (r"attn\.out_proj\.", "attn.o_proj."),
        (r"\.sa_(q|k)(content|pos)_proj\.", r".self_attn.\1_\2_proj."),
        (r"\.ca_qpos_sine_proj\.", ".encoder_attn.q_pos_sine_proj."),
        (r"\.ca_(q|k)(content|pos)_proj\.", r".encoder_attn.\1_\2_proj."),
        (r"\.sa_v_proj\.", ".self_attn.v_proj."),
        (r"\.ca_v_proj\.", ".encoder_attn.v_proj."),
    )
    return renamed(hub_names(state_dict), rules)


def timm_backbone_names(state_dict):
    """A timm backbone loaded through transformers' AutoBackbone (4.x)."""
    return renamed(state_dict, ((r"(conv_encoder\.model)\.", r"\1._backbone."),))


def with_counters(state_dict):
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(3)
        for key in state_dict
        if key.endswith("running_var")
    }
    return {**hub_names(state_dict), **counters}


def renamed(state_dict, rules):
    out = {}
    for key, value in state_dict.items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        out[key] = value
    assert len(out) == len(state_dict)
    return out


NAMINGS = {
    "hub": hub_names,
    "transformers 5": new_names,
    "AutoBackbone": lambda sd: timm_backbone_names(hub_names(sd)),
    "counters": with_counters,
    "wrapped": lambda sd: {f"module.{key}": value for key, value in hub_names(sd).items()},
}
