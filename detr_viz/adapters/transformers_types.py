"""Detectors of transformers that are read as they are. Imports nothing heavy.

TYPES["rt_detr"].title, TYPES["rt_detr"].hub
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from detr_viz.common.errors import UserError

NETWORKS = ("own", "transformers")  # of a folder that a network of ours can have too
INSTALL = "pip install 'detr-viz[hf]'"


@dataclass(frozen=True)
class TransformersType:
    """A model_type of transformers.

    name      as a word of --type
    title     as papers write it
    hub       a checkpoint on the Hugging Face hub
    prompted  whether it finds what --prompt names
    centered  whether cells are drawn at (i + 0.5) / cells, as the network itself places them; else
              as those of a ResNet, whose windows are symmetric
    reordered whether rows of its output are not in the order of queries; those of
              intermediate_logits are
    ours      whether a network of our own is taken unless --network says otherwise
    """

    name: str
    title: str
    hub: str = ""
    prompted: bool = False
    centered: bool = True
    reordered: bool = False
    ours: bool = False


TYPES: dict[str, TransformersType] = {
    "detr": TransformersType("detr", "DETR", "facebook/detr-resnet-50", centered=False, ours=True),
    "conditional_detr": TransformersType(
        "conditional_detr",
        "Conditional DETR",
        "microsoft/conditional-detr-resnet-50",
        centered=False,
        ours=True,
    ),
    "deformable_detr": TransformersType(
        "deformable_detr", "Deformable DETR", "SenseTime/deformable-detr", ours=True
    ),
    "table-transformer": TransformersType(
        "table_transformer",
        "Table Transformer",
        "microsoft/table-transformer-detection",
        centered=False,
        ours=True,
    ),
    "dab-detr": TransformersType(
        "dab_detr", "DAB-DETR", "IDEA-Research/dab-detr-resnet-50", centered=False
    ),
    "rt_detr": TransformersType("rt_detr", "RT-DETR", "PekingU/rtdetr_r50vd"),
    "rt_detr_v2": TransformersType("rt_detr_v2", "RT-DETRv2", "PekingU/rtdetr_v2_r50vd"),
    "d_fine": TransformersType("d_fine", "D-FINE", "ustc-community/dfine-xlarge-coco"),
    "deimv2": TransformersType("deimv2", "DEIMv2", "Intellindust/DEIMv2_HGNetv2_N_COCO"),
    "lw_detr": TransformersType("lw_detr", "LW-DETR", "AnnaZhang/lwdetr_small_60e_coco"),
    "rf_detr": TransformersType("rf_detr", "RF-DETR", "Roboflow/rf-detr-base"),
    "grounding-dino": TransformersType(
        "grounding_dino", "Grounding DINO", "IDEA-Research/grounding-dino-tiny", prompted=True
    ),
    "mm-grounding-dino": TransformersType("mm_grounding_dino", "MM Grounding DINO", prompted=True),
    "omdet-turbo": TransformersType(
        "omdet_turbo", "OmDet-Turbo", "omlab/omdet-turbo-swin-tiny-hf", prompted=True
    ),
    "pp_doclayout_v2": TransformersType("pp_doclayout_v2", "PP-DocLayoutV2", reordered=True),
    "pp_doclayout_v3": TransformersType("pp_doclayout_v3", "PP-DocLayoutV3"),
    "pp_doclayout_v4": TransformersType("pp_doclayout_v4", "PP-DocLayoutV4"),
    "yolos": TransformersType("yolos", "YOLOS", "hustvl/yolos-tiny"),
}


def installed() -> bool:
    """Whether transformers is there."""
    try:
        return find_spec("transformers") is not None
    except ValueError:  # None among the modules: switched off
        return False


def check_installed(what: str) -> None:
    """UserError where transformers is absent."""
    if not installed():
        raise UserError(f"{what} needs transformers: run {INSTALL}")


def is_theirs(model_type: object) -> bool:
    """Whether a model_type of config.json is one of these."""
    return isinstance(model_type, str) and model_type in TYPES
