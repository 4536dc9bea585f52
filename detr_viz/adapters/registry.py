"""The registry of adapters: one line each; a module is imported when it is used.

register("mine", AdapterEntry("my_package.detr_viz_adapter", "My detector"))
load("mine", "weights.pth", "cpu")              # a Detector (explanation/detector.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector


@dataclass(frozen=True)
class AdapterEntry:
    """An adapter.

    module: has load(weights, device) -> Detector; weights as --weights names them, or None.
    aliases: more words for it at --type; the title is one already.
    """

    module: str
    title: str
    aliases: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Words that stand for it at --type, beside its name."""
        return self.title, *self.aliases


REGISTRY: dict[str, AdapterEntry] = {}


def register(name: str, entry: AdapterEntry) -> None:
    """Make an adapter known by a word of --type. ValueError where another has it.

    A model of our own that has the word comes first.
    """
    if name in REGISTRY:
        raise ValueError(f"--type {name} is taken by {REGISTRY[name].title}")
    REGISTRY[name] = entry


def names() -> tuple[str, ...]:
    """Words of --type."""
    return tuple(REGISTRY)


def load(name: str, weights: str | None, device: str) -> Detector:
    """The detector of an adapter; UserError on an unknown name."""
    if name not in REGISTRY:
        raise UserError(f"no adapter {name!r}: there is {', '.join(REGISTRY) or 'none'}")
    return import_module(REGISTRY[name].module).load(weights, device)
