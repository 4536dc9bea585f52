"""Detectors of transformers that are read as they are. Imports nothing heavy.

TYPES["rt_detr"].title, TYPES["rt_detr"].hub
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from detr_viz.common.errors import UserError

INSTALL = "pip install 'detr-viz[hf]'"


@dataclass(frozen=True)
class TransformersType:
    """A model_type of transformers.

    title     as papers write it
    hub       a checkpoint on the Hugging Face hub
    prompted  whether it finds what --prompt names
    centered  whether cells are drawn at (i + 0.5) / cells, as the network itself places them; else
              as those of a ResNet, whose windows are symmetric
    reordered whether rows of its output are not in the order of queries; those of
              intermediate_logits are
    why_not   why there are no maps of it; "" where there are
    """

    title: str
    hub: str = ""
    prompted: bool = False
    centered: bool = True
    reordered: bool = False
    why_not: str = ""


_VIT = "its detection tokens and the image's patches attend to each other in one encoder"
TYPES: dict[str, TransformersType] = {
    "detr": TransformersType("DETR", "facebook/detr-resnet-50", centered=False),
    "conditional_detr": TransformersType(
        "Conditional DETR", "microsoft/conditional-detr-resnet-50", centered=False
    ),
    "deformable_detr": TransformersType("Deformable DETR", "SenseTime/deformable-detr"),
    "table-transformer": TransformersType(
        "Table Transformer", "microsoft/table-transformer-detection", centered=False
    ),
    "dab-detr": TransformersType("DAB-DETR", "IDEA-Research/dab-detr-resnet-50", centered=False),
    "rt_detr": TransformersType("RT-DETR", "PekingU/rtdetr_r50vd"),
    "rt_detr_v2": TransformersType("RT-DETRv2", "PekingU/rtdetr_v2_r50vd"),
    "d_fine": TransformersType("D-FINE", "ustc-community/dfine-xlarge-coco"),
    "deimv2": TransformersType("DEIMv2", "Intellindust/DEIMv2_HGNetv2_N_COCO"),
    "lw_detr": TransformersType("LW-DETR", "AnnaZhang/lwdetr_small_60e_coco"),
    "rf_detr": TransformersType("RF-DETR", "Roboflow/rf-detr-base"),
    "grounding-dino": TransformersType(
        "Grounding DINO", "IDEA-Research/grounding-dino-tiny", prompted=True
    ),
    "mm-grounding-dino": TransformersType("MM Grounding DINO", prompted=True),
    "omdet-turbo": TransformersType("OmDet-Turbo", prompted=True),
    "pp_doclayout_v2": TransformersType("PP-DocLayoutV2", reordered=True),
    "pp_doclayout_v3": TransformersType("PP-DocLayoutV3"),
    "pp_doclayout_v4": TransformersType("PP-DocLayoutV4"),
    "yolos": TransformersType("YOLOS", "hustvl/yolos-tiny", why_not=_VIT),
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
