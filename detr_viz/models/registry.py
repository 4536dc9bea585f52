"""The registry: one line a model; its module is imported when used (--help needs no torch)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.models.spec import ModelSpec

REGISTRY: dict[str, tuple[str, str]] = {  # word of --type -> module, title
    "detr": ("detr_viz.models.detr", "DETR"),
    "cd_detr": ("detr_viz.models.conditional_detr", "Conditional DETR"),
}


def names() -> tuple[str, ...]:
    """Words of --type, the default first."""
    return tuple(REGISTRY)


def get(name: str) -> ModelSpec:
    """The ModelSpec of a --type word; UserError on an unknown one."""
    if name not in REGISTRY:
        raise UserError(f"unknown model type {name!r}: choose from {', '.join(REGISTRY)}")
    return import_module(REGISTRY[name][0]).SPEC
