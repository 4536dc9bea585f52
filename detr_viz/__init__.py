"""detr_viz: why did my DETR put that box there?

    from detr_viz import explain, load_model

    e = explain(load_model("weights/cd_detr_demo.pth"), "image/scene.png")
    e.maps("position", queries=[3])                 # (1, heads, h, w), each map sums to 1

Nothing heavy is imported until one of these names is used.
"""

from typing import TYPE_CHECKING

from detr_viz.common.lazy import public

if TYPE_CHECKING:
    from detr_viz import figures as figures
    from detr_viz.adapters.attach import attach as attach
    from detr_viz.adapters.attach import explain as explain
    from detr_viz.checkpoints.load_model import load_model as load_model
    from detr_viz.explanation.captured import Explanation as Explanation
    from detr_viz.models.detector import LoadedModel as LoadedModel

__version__ = "0.1.0"

__getattr__, _names = public(
    __name__,
    {
        "Explanation": "explanation.captured",
        "attach": "adapters.attach",
        "explain": "adapters.attach",
        "LoadedModel": "models.detector",
        "load_model": "checkpoints.load_model",
    },
)
__all__ = [*_names, "__version__"]
