"""Other people's networks as a `Detector`, one file each, and their registry."""

from detr_viz.adapters.registry import REGISTRY, AdapterEntry, discover, load, names, register

__all__ = ["REGISTRY", "AdapterEntry", "discover", "load", "names", "register"]
