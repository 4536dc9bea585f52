"""Saved maps (.npz) and their numeric comparison.

heatmaps.save("cat.npz", explanation, [3, 17], ["combine", "position"])
heatmaps.load("cat.npz").maps["position"]
"""

from detr_viz.common.lazy import public

__getattr__, __all__ = public(
    __name__,
    {
        "Heatmaps": "schema",
        "HeatmapError": "schema",
        "STORED_WITHIN": "schema",
        "load": "npz",
        "load_meta": "npz",
        "of": "npz",
        "of_arrays": "npz",
        "save": "npz",
        "write": "npz",
    },
)
