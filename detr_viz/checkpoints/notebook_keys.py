"""The 50-line DETR of the notebook and of the paper's appendix under the notebook's names.

notebook  backbone.conv1, backbone.layer1.0.conv1     encoder(pos + 0.1 * features)
paper     backbone.0, backbone.4.0.conv1 (Sequential)  encoder(pos + features)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CHILDREN = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
_CHILD = re.compile(r"^backbone\.(\d)\.")
OF_NOTEBOOK = (
    "features are multiplied by 0.1 as in the notebook; weights that were trained without the "
    "factor need conv.weight and conv.bias times 10"
)
OF_PAPER = (
    "features are not multiplied by 0.1: the backbone is a Sequential as in the paper's listing"
)


def is_notebook(keys: Mapping[str, object]) -> bool:
    """Its heads and queries have names of their own."""
    return "query_pos" in keys and "linear_class.weight" in keys


def convert(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """(state dict with the notebook's names, a note on the factor of the features).

    The paper's factor 1 becomes the notebook's 0.1 with a projection that is ten times as large.
    """
    renamed = {}
    for key, value in state_dict.items():
        child = _CHILD.match(key)
        if child and int(child[1]) in _CHILDREN:
            key = f"backbone.{_CHILDREN[int(child[1])]}.{key[child.end() :]}"
        renamed[key] = value
    if renamed.keys() == state_dict.keys():
        return renamed, OF_NOTEBOOK
    for key in ("conv.weight", "conv.bias"):
        if getattr(renamed.get(key), "is_floating_point", bool)():
            renamed[key] = renamed[key].float() * 10
    return renamed, OF_PAPER
