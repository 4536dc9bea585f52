"""What can be made of an image, a file a view; a new one is a file and a line of REGISTRY.

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
    """Where a view is, and the flag that asks for it: ATTENTION with its name, or one of its own.

    module: has VIEW, which is a View (base.py).
    """

    module: str
    flag: str = ATTENTION

    def words(self, name: str) -> str:
        """What a user writes to ask for it."""
        return f"{self.flag} {name}" if self.flag == ATTENTION else self.flag


REGISTRY: dict[str, ViewEntry] = {
    CROSS: ViewEntry("detr_viz.render.views.head_maps"),
    "encoder": ViewEntry("detr_viz.render.views.encoder"),
    "decoder": ViewEntry("detr_viz.render.views.decoder"),
    "rollout": ViewEntry("detr_viz.render.views.rollout", "--rollout"),
    "rollout_encoder": ViewEntry("detr_viz.render.views.rollout_encoder", "--rollout"),
    "faithfulness": ViewEntry("detr_viz.render.views.faithfulness", "--faithfulness"),
}


def view(name: str) -> View:
    """The view of this name; its module is imported now."""
    return import_module(REGISTRY[name].module).VIEW


def names_of(flag: str = ATTENTION, registry: Mapping[str, ViewEntry] = REGISTRY) -> list[str]:
    """The views that a flag asks for."""
    return [name for name, entry in registry.items() if entry.flag == flag]
