"""The registry of adapters: one line each; a module is imported when it is used.

register("mine", AdapterEntry("my_package.detr_viz_adapter", "My detector"))
load("mine", "weights.pth", "cpu")              # a Detector (explanation/detector.py)

A package that is installed registers its own by an entry point:

    [project.entry-points."detr_viz.adapters"]
    mine = "my_package.detr_viz_adapter"
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from detr_viz.adapters.transformers_types import TYPES
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector

GROUP = "detr_viz.adapters"  # of entry points


@dataclass(frozen=True)
class AdapterEntry:
    """An adapter.

    module: has load(weights, device) -> Detector; weights as --weights names them, or None.
    aliases: more words for it at --type; the title is one already.
    hub: a checkpoint on the Hugging Face hub. of_transformers: whether transformers has it.
    """

    module: str
    title: str
    aliases: tuple[str, ...] = ()
    hub: str = ""
    of_transformers: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Words that stand for it at --type, beside its name."""
        return self.title, *self.aliases


REGISTRY: dict[str, AdapterEntry] = {
    kind.name: AdapterEntry(
        "detr_viz.adapters.transformers_models",
        kind.title,
        (model_type,),
        kind.hub,
        of_transformers=True,
    )
    for model_type, kind in TYPES.items()
    if not kind.ours
}


def register(name: str, entry: AdapterEntry) -> None:
    """Make an adapter known by a word of --type. ValueError where another has it.

    A model of our own that has the word comes first.
    """
    if name in REGISTRY:
        raise ValueError(f"--type {name} is taken by {REGISTRY[name].title}")
    REGISTRY[name] = entry


def discover() -> bool:
    """Register what installed packages have as entry points; whether there was anything new.

    It takes a moment, so it is done only where a word is not known without it. A word that is taken
    stays with who has it.
    """
    from importlib.metadata import entry_points

    found = {point.name: point.value for point in entry_points(group=GROUP)}
    new = {name: module for name, module in found.items() if name not in REGISTRY}
    for name, module in new.items():
        register(name, AdapterEntry(module, name))
    return bool(new)


def names() -> tuple[str, ...]:
    """Words of --type."""
    return tuple(REGISTRY)


def load(name: str, weights: str | None, device: str) -> Detector:
    """The detector of an adapter; UserError on an unknown name, or a module that is not there."""
    if name not in REGISTRY:
        discover()
    if name not in REGISTRY:
        raise UserError(f"no adapter {name!r}: there is {', '.join(REGISTRY) or 'none'}")
    entry = REGISTRY[name]
    try:
        module = import_module(entry.module)
    except ImportError as error:
        raise UserError(f"the adapter {name} cannot be imported: {error}") from None
    return module.load(weights, device)
