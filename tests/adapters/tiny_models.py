"""Tiny models of random weights, of every object detector that the installed transformers has.

model = build("rt_detr")
"""

from __future__ import annotations

import functools

import torch

LABELS = {i: f"class {i}" for i in range(5)}
_SIZES = {"d_model": 32, "num_queries": 7, "id2label": LABELS}
_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
_LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
_RT = {
    **_SIZES,
    **_HEADS,
    **_LAYERS,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32],
    "num_denoising": 0,
    "depth_mult": 0.34,
}
_LAYOUT = {**_RT, "class_thresholds": [0.5] * 5, "class_order": list(range(5))}
_DENSE = {**_SIZES, **_HEADS, **_LAYERS}


def _resnet(*stages: int, hidden=(8, 16, 24, 32)):
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=list(hidden),
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=[f"stage{stage}" for stage in stages],
    )


def _lw_detr():
    from transformers import LwDetrViTConfig

    return LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        pretrain_image_size=64,
        patch_size=16,
        num_windows=4,
        window_block_indices=[0],
        out_indices=[1, 2],
    )


def _rf_detr():
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

    return RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_windows=2,
        out_indices=[1, 2],
    )


_GROUPED = {
    **_SIZES,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "group_detr": 2,
}
# model_type -> (name of its classes, config, backbone)
CONFIGS = {
    "detr": ("Detr", _DENSE, lambda: _resnet(4)),
    "conditional_detr": ("ConditionalDetr", _DENSE, lambda: _resnet(4)),
    "table-transformer": ("TableTransformer", _DENSE, lambda: _resnet(4)),
    "dab-detr": (
        "DabDetr",
        {**{k: v for k, v in _DENSE.items() if k != "d_model"}, "hidden_size": 32},
        lambda: _resnet(4),
    ),
    "deformable_detr": ("DeformableDetr", _DENSE, lambda: _resnet(2, 3, 4)),
    "rt_detr": ("RTDetr", _RT, lambda: _resnet(2, 3, 4)),
    "rt_detr_v2": ("RTDetrV2", _RT, lambda: _resnet(2, 3, 4)),
    "d_fine": ("DFine", {**_RT, "decoder_n_points": [3, 6, 3]}, lambda: _resnet(2, 3, 4)),
    "deimv2": ("Deimv2", {**_RT, "decoder_n_points": [3, 6, 3]}, lambda: _resnet(2, 3, 4)),
    "lw_detr": ("LwDetr", {**_GROUPED, "projector_scale_factors": [1.0]}, _lw_detr),
    "rf_detr": ("RfDetr", _GROUPED, _rf_detr),
    "pp_doclayout_v2": ("PPDocLayoutV2", _LAYOUT, lambda: _resnet(2, 3, 4)),
    "pp_doclayout_v3": (
        "PPDocLayoutV3",
        {**_RT, "x4_feat_dim": 8},
        lambda: _resnet(1, 2, 3, 4),
    ),
    "pp_doclayout_v4": ("PPDocLayoutV4", _RT, lambda: _resnet(2, 3, 4)),
    "yolos": (
        "Yolos",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "image_size": [96, 128],
            "patch_size": 16,
            "num_detection_tokens": 7,
            "id2label": LABELS,
        },
        None,
    ),
}
_GROUNDED = {**_DENSE, "max_text_len": 16}
_OMDET = {
    "num_queries": 7,
    "apply_layernorm_after_vision_backbone": False,
    "text_projection_in_dim": 48,
    "text_projection_out_dim": 48,  # other than the width of the decoder, as released
    "task_encoder_hidden_dim": 32,
    "class_embed_dim": 48,
    "encoder_hidden_dim": 32,
    "d_model": 32,  # the same, as newer versions call it
    "vision_features_channels": [32, 32, 32],
    "encoder_in_channels": [16, 24, 32],
    "encoder_attention_heads": 4,
    "encoder_dim_feedforward": 32,
    "decoder_hidden_dim": 32,
    "decoder_num_heads": 4,
    "decoder_num_layers": 2,
    "decoder_dim_feedforward": 32,
}


def _bert():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=1100,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )


def _clip():
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=1100,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        projection_dim=48,
        bos_token_id=1098,
        eos_token_id=1099,
    )


PROMPT = "a cat. a remote control."
PROMPTED = {
    "grounding-dino": ("GroundingDino", _GROUNDED, lambda: _resnet(2, 3, 4), _bert),
    "mm-grounding-dino": ("MMGroundingDino", _GROUNDED, lambda: _resnet(2, 3, 4), _bert),
    "omdet-turbo": ("OmDetTurbo", _OMDET, lambda: _resnet(2, 3, 4), _clip),
}


def installed_types() -> list[str]:
    """Those of CONFIGS that the installed transformers has."""
    import transformers

    every = {**CONFIGS, **PROMPTED}
    return [t for t, (name, *_) in every.items() if hasattr(transformers, f"{name}Config")]


def randomize(model):
    """Weights by which every query, point and head differs; statistics stay as they are."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "reference_point_embed" in name:  # boxes
                value.copy_(0.3 + 0.4 * torch.rand(value.shape, generator=generator))
            elif value.ndim > 1:
                gain = 3.0 if "sampling_offsets" in name or "attention_weights" in name else 1.4
                gain = 0.1 if "bbox" in name else gain  # some take the exponential of it
                fan = value[0].numel()
                table = name.endswith(("embed.weight", "embeddings.weight", "query_feat.weight"))
                value.copy_(noise if table else gain * noise * fan**-0.5)
            elif "norm" in name.lower() or "bn" in name:
                value.add_(0.1 * noise)
            else:
                value.copy_(0.1 * noise)
    return model.eval()


def build(model_type: str, **options):
    """A random model in evaluation mode; options: of its config."""
    import transformers

    name, config, backbone, *text = {**CONFIGS, **PROMPTED}[model_type]
    if text:
        options["text_config"] = text[0]()
    config_class = getattr(transformers, f"{name}Config")
    model_class = getattr(transformers, f"{name}ForObjectDetection")
    known = set(config_class().to_dict()) | {"id2label", "d_model", "hidden_size"}
    settings = {k: v for k, v in config.items() if k in known}
    more = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    settings |= {k: v for k, v in more.items() if k in known}
    if model_type == "deformable_detr" and options.get("two_stage"):
        options["two_stage_num_proposals"] = 7
    torch.manual_seed(0)
    if backbone:
        options["backbone_config"] = backbone()
    return randomize(model_class(config_class(**settings, **options)))


@functools.cache
def model(model_type: str):
    """The same model for all tests, which leave it as it is."""
    return build(model_type)


class Processor:
    """An image processor: stretched to 96 x 128, in [0, 1], as RT-DETR's."""

    def __init__(self, hw=(96, 128)):
        self.hw = hw

    def __call__(self, images, return_tensors="pt"):
        import numpy as np

        pixels = torch.from_numpy(np.array(images.resize(self.hw[::-1]))).permute(2, 0, 1)
        return {"pixel_values": pixels[None].float() / 255}


class Tokenizer:
    """Words to numbers, with the special tokens of BERT."""

    words = ("a", "cat", "remote", "control")
    all_special_ids = (101, 102)

    def convert_tokens_to_ids(self, token):
        return {".": 1012}.get(token, 200 + self.words.index(token) if token in self.words else 1)

    def __call__(self, text):
        tokens = text.replace(".", " .").split()
        return {"input_ids": [101, *map(self.convert_tokens_to_ids, tokens), 102]}


class GroundingProcessor(Processor):
    """A processor with a prompt, as GroundingDinoProcessor's."""

    tokenizer = Tokenizer()

    def __call__(self, images, text, return_tensors="pt"):
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        found = super().__call__(images)
        ones = torch.ones_like(ids)
        more = {"input_ids": ids, "attention_mask": ones, "token_type_ids": torch.zeros_like(ids)}
        return {**found, **more, "pixel_mask": torch.ones(1, *self.hw, dtype=torch.long)}


class OmDetProcessor(Processor):
    """The same as OmDetTurboProcessor's: a task of all classes, and each class alone."""

    def __call__(self, images, text, return_tensors="pt"):
        classes = torch.tensor([[300 + i, 310 + i, 1099] for i in range(len(text))])
        task = torch.tensor([[400, 401, 402, 1099]])
        return {
            **super().__call__(images),
            "classes_input_ids": classes,
            "classes_attention_mask": torch.ones_like(classes),
            "tasks_input_ids": task,
            "tasks_attention_mask": torch.ones_like(task),
            "classes_structure": torch.tensor([len(text)]),
        }


def processor_of(model_type):
    """The processor of a tiny model: patches of some want a square."""
    if model_type in PROMPTED:
        return OmDetProcessor() if model_type == "omdet-turbo" else GroundingProcessor()
    return Processor((64, 64) if model_type in ("lw_detr", "rf_detr") else (96, 128))


PROMPTS = dict.fromkeys(PROMPTED, PROMPT)


def residuals(e):
    """Of the sites that could be tested."""
    return {k: v for k, v in e.meta["residuals"].items() if v is not None}
