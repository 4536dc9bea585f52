"""Our own networks, one file each, and their registry."""

from detr_viz.models.registry import REGISTRY, get, names

__all__ = ["REGISTRY", "get", "names"]
