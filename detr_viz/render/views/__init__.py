"""The views of an image, one file each; a new view is a file and one line of REGISTRY.

view("encoder").needs(recipe)                      # which layers and sites must be captured
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detr_viz.render.views.base import View

ATTENTION = "--attention"
CROSS = "cross"  # the view of the cross-attention's maps


@dataclass(frozen=True)
class ViewEntry:
    """The module of a view, and the flag that selects it: ATTENTION with its name, or its own flag.

    module: defines VIEW, a View (base.py).
    """

    module: str
    flag: str = ATTENTION

    def words(self, name: str) -> str:
        """The text on the command line that selects it."""
        return f"{self.flag} {name}" if self.flag == ATTENTION else self.flag


REGISTRY: dict[str, ViewEntry] = {
    CROSS: ViewEntry("detr_viz.render.views.head_maps"),
    "encoder": ViewEntry("detr_viz.render.views.encoder"),
    "decoder": ViewEntry("detr_viz.render.views.decoder"),
    "rollout": ViewEntry("detr_viz.render.views.rollout", "--rollout"),
    "rollout_encoder": ViewEntry("detr_viz.render.views.rollout_encoder", "--rollout"),
    "proposals": ViewEntry("detr_viz.render.views.proposals", "--plot proposals"),
    "salience": ViewEntry("detr_viz.render.views.salience", "--plot salience"),
    "scales": ViewEntry("detr_viz.render.views.scales", "--plot scales"),
    "faithfulness": ViewEntry("detr_viz.render.views.faithfulness", "--faithfulness"),
}


def view(name: str) -> View:
    """The view of this name; this imports its module."""
    return import_module(REGISTRY[name].module).VIEW


def names_of(flag: str = ATTENTION, registry: Mapping[str, ViewEntry] = REGISTRY) -> list[str]:
    """The views that a flag selects."""
    return [name for name, entry in registry.items() if entry.flag == flag]
