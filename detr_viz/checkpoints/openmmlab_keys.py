"""OpenMMLab's DETR and Conditional DETR (mmdetection 2 and 3) under the names of the authors.

They are the same networks, with the same sine positions (offset 0, eps 1e-6, 2 pi):

    3.x  encoder.layers.0.self_attn.attn.in_proj_weight, decoder.layers.0.cross_attn.qcontent_proj,
         bbox_head.fc_cls, bbox_head.reg_ffn.layers.0.0, query_embedding, neck.convs.0.conv
    2.x  bbox_head.transformer.encoder.layers.0.attentions.0.attn..., ffns.0.layers.0.0, norms.0,
         bbox_head.query_embedding, bbox_head.input_proj; the first ones still self_attn.attn,
         multihead_attn.attn and ffn
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detr_viz.common.errors import UserError
from detr_viz.detections.known_classes import COCO_80_NAMES

if TYPE_CHECKING:
    from torch import Tensor

NOTE = (
    "OpenMMLab's weights: colours are normalised as there; images are resized as DETR's authors "
    "do, with antialiasing, so scores differ a little from OpenMMLab's"
)
_PARTS = (  # start of a key -> the authors'
    ("bbox_head.transformer.", "transformer."),
    ("encoder.", "transformer.encoder."),
    ("decoder.", "transformer.decoder."),
    ("bbox_head.query_embedding.", "query_embed."),
    ("query_embedding.", "query_embed."),
    ("bbox_head.input_proj.", "input_proj."),
    ("neck.convs.0.conv.", "input_proj."),
    ("bbox_head.fc_cls.", "class_embed."),
    ("bbox_head.reg_ffn.layers.0.0.", "bbox_embed.layers.0."),
    ("bbox_head.reg_ffn.layers.1.", "bbox_embed.layers.1."),
    ("bbox_head.fc_reg.", "bbox_embed.layers.2."),
    ("backbone.", "backbone.0.body."),
)
_LAYER = re.compile(r"^(transformer\.(?:encoder|decoder)\.layers\.\d+\.)(.*)$")
_OF_LAYER = (  # within a layer, in this order
    (r"^(?:self_attn|attentions\.0)\.attn\.", "self_attn."),
    (r"^(?:cross_attn|multihead_attn|attentions\.1)\.attn\.", "multihead_attn."),
    (r"^self_attn\.(qcontent|qpos|kcontent|kpos|v)_proj\.", r"sa_\1_proj."),
    (r"^cross_attn\.(qcontent|qpos|kcontent|kpos|v|qpos_sine)_proj\.", r"ca_\1_proj."),
    (r"^ffns?(?:\.0)?\.layers\.0\.0\.", "linear1."),
    (r"^ffns?(?:\.0)?\.layers\.1\.", "linear2."),
)
_NORM = re.compile(r"^norms\.(\d+)\.")


class OpenMMLabError(UserError):
    """A detector of OpenMMLab whose network is not one of the authors'."""


def convert(
    state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """(state dict with the authors' names, hints, notes). meta: of the file.

    Keys that are not understood pass through, for the strict check to name them. Raises
    OpenMMLabError (no file name in it) for DAB-DETR, and for a DETR without a no-object class.
    """
    if any("decoder.ref_anchor_head." in key for key in state_dict):
        raise OpenMMLabError("it is DAB-DETR, which is not supported: give another")
    renamed = {_official_name(key): tensor for key, tensor in state_dict.items()}
    rows = len(renamed["class_embed.weight"]) if "class_embed.weight" in renamed else 0
    names = _class_names(meta)
    softmax = any(key.endswith("multihead_attn.in_proj_weight") for key in renamed)
    if softmax and names is not None and len(names) == rows:
        raise OpenMMLabError(
            f"it has {rows} classes and no output for no-object (a sigmoid loss), which the "
            "authors' DETR does not have: give one that was trained with softmax"
        )
    notes = [NOTE]
    if names is None and rows - softmax == len(COCO_80_NAMES):
        names = COCO_80_NAMES
        notes.append("80 classes: named as COCO's 80, in order (--classes FILE names others)")
    return renamed, {} if names is None else {"class_names": names}, notes


def _official_name(key: str) -> str:
    for theirs, ours in _PARTS:
        if key.startswith(theirs):
            key = ours + key[len(theirs) :]
            break
    key = key.replace("coder.post_norm.", "coder.norm.")
    layer = _LAYER.match(key)
    if layer is None:
        return key
    rest = layer[2]
    if norm := _NORM.match(rest):
        return f"{layer[1]}norm{int(norm[1]) + 1}.{rest[norm.end() :]}"
    for pattern, ours in _OF_LAYER:
        rest, count = re.subn(pattern, ours, rest)
        if count:
            break
    return layer[1] + rest


def _class_names(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """CLASSES of the file's meta: of version 3 in dataset_meta, of version 2 at its top."""
    for source in (meta.get("dataset_meta"), meta):
        if not isinstance(source, Mapping):
            continue
        for word in ("CLASSES", "classes"):
            names = source.get(word)
            if isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names):
                return tuple(names)
    return None
