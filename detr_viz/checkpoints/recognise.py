"""Checkpoints of other models, told by their keys, so that an error can say what a file is."""

from __future__ import annotations

import re
from collections.abc import Iterable

# First match wins; a pattern is searched in every key. The family's marks come before general ones.
_MARKS = (
    (r"(^|\.)denoising_class_embed\.", "RT-DETR"),
    (r"background_embedding", "Salience DETR"),
    (r"(^|\.)enc_mask_predictor\.", "Sparse DETR"),
    (r"(^|\.)label_enc\.|denoising_generator", "DN-DETR or DINO"),
    (r"transformer\.decoder\.norms?\.\d|multi_level_.*sampling", "a deformable DETR variant"),
    (r"(^|\.)refpoint_embed\.", "DAB-DETR or DAB-Deformable-DETR"),
    (r"sampling_offsets\.", "Deformable DETR or one of its descendants"),
    (r"adapt_pos[12]d|transformer\.pattern\.", "Anchor DETR"),
    (r"head_series\.\d|init_proposal_", "Sparse R-CNN"),
    (r"^backbone\.bottom_up\.", "a detectron2 model"),
    (r"(^|\.)(bbox_head|roi_head)\.", "an OpenMMLab detector"),
    (r"(^|\.)roi_heads\.|(^|\.)rpn\.", "a torchvision R-CNN"),
    (r"^(model\.)?\d+\.(conv|cv1|cv2|m)\b|(^|\.)dfl\.", "YOLO"),
    (r"vit\.encoder\.|det_token", "YOLOS"),
    (r"(^|\.)cls_token$|blocks\.\d+\.attn\.qkv", "a vision transformer"),
    (r"(^|\.)unet\.|diffusion_model\.", "a diffusion model"),
)
_RESNET = {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"}


def name_of(keys: Iterable[str]) -> str | None:
    """What model these state dict keys look like, or None."""
    keys = list(keys)
    if set(keys) >= _RESNET:
        return "a ResNet image classifier, a backbone alone"
    for pattern, title in _MARKS:
        if any(re.search(pattern, key) for key in keys):
            return title
    return None
