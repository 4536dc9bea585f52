"""Results become matplotlib figures.

fig = figures.head_grid(e, [17, 3], "position")
figures.save(fig, "cat.png")                       # or .pdf, .svg
"""

from detr_viz.common.lazy import public

__getattr__, __all__ = public(
    __name__,
    {
        "FigureError": "styles",
        "PageFormat": "styles",
        "Style": "styles",
        "SUFFIXES": "styles",
        "compare_models": "head_maps",
        "draw_map": "axes",
        "head_grid": "head_maps",
        "save": "page.save",
        "show": "page.save",
    },
)
