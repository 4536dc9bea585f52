"""Our own networks, one file each, and their registry."""

from detr_viz.models.registry import REGISTRY, demos, get, names, with_proposals

__all__ = ["REGISTRY", "demos", "get", "names", "with_proposals"]
