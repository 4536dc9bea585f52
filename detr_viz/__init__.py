"""detr_viz: why did my DETR put that box there?

    from detr_viz import explain, head_grid, load_model, save

    e = explain(load_model("weights/cd_detr_demo.pth"), "image/scene_1.jpg")
    e.maps("position", queries=[3])                 # (1, heads, h, w), each map sums to 1
    save(head_grid(e, [3], "position"), "figure.pdf")

`__all__` is the public surface: what is not in it may change. Nothing heavy is imported until one
of these names is used. docs/library.md has them all, with their docstrings.
"""

from typing import TYPE_CHECKING

from detr_viz.common.lazy import offer, public

if TYPE_CHECKING:
    from detr_viz.adapters.attach import attach as attach
    from detr_viz.adapters.attach import explain as explain
    from detr_viz.adapters.registry import AdapterEntry as AdapterEntry
    from detr_viz.adapters.registry import register as register
    from detr_viz.attention.grids import Grid as Grid
    from detr_viz.attention.terms import Mode as Mode
    from detr_viz.checkpoints.load_model import load_model as load_model
    from detr_viz.common.errors import UserError as UserError
    from detr_viz.detections.detections import Detections as Detections
    from detr_viz.detections.judged import Judged as Judged
    from detr_viz.detections.judged import judged as judged
    from detr_viz.detections.matching import Match as Match
    from detr_viz.detections.matching import SharedObject as SharedObject
    from detr_viz.detections.matching import shared_objects as shared_objects
    from detr_viz.detections.queries import select as select
    from detr_viz.detections.reasons import Miss as Miss
    from detr_viz.detections.reasons import misses as misses
    from detr_viz.explanation.ablation import Ablation as Ablation
    from detr_viz.explanation.captured import Explanation as Explanation
    from detr_viz.explanation.curves import Faithfulness as Faithfulness
    from detr_viz.explanation.curves import area as area
    from detr_viz.explanation.detector import Detector as Detector
    from detr_viz.explanation.explain_image import SelfCheckError as SelfCheckError
    from detr_viz.explanation.faithfulness import faithfulness as faithfulness
    from detr_viz.explanation.logit_term_arrays import LogitTerms as LogitTerms
    from detr_viz.explanation.proposals import Proposals as Proposals
    from detr_viz.explanation.removals import Removal as Removal
    from detr_viz.explanation.rollout import Rollout as Rollout
    from detr_viz.explanation.rollout import of_queries as rollout
    from detr_viz.explanation.salience import Salience as Salience
    from detr_viz.explanation.scales import ScaleAttention as ScaleAttention
    from detr_viz.explanation.stored import StoredExplanation as StoredExplanation
    from detr_viz.explanation.stored import store as store
    from detr_viz.figures.axes import draw_map as draw_map
    from detr_viz.figures.decoder import decoder_grid as decoder_grid
    from detr_viz.figures.decoder_matrix import query_matrix as query_matrix
    from detr_viz.figures.encoder import encoder_grid as encoder_grid
    from detr_viz.figures.faithfulness import faithfulness_grid as faithfulness_grid
    from detr_viz.figures.head_maps import compare_models as compare_models
    from detr_viz.figures.head_maps import head_grid as head_grid
    from detr_viz.figures.page.save import save as save
    from detr_viz.figures.page.save import show as show
    from detr_viz.figures.proposals import proposal_figure as proposal_figure
    from detr_viz.figures.rollout import encoder_rollout_grid as encoder_rollout_grid
    from detr_viz.figures.rollout import rollout_grid as rollout_grid
    from detr_viz.figures.salience import salience_figure as salience_figure
    from detr_viz.figures.scales import scales_figure as scales_figure
    from detr_viz.figures.styles import PageFormat as PageFormat
    from detr_viz.figures.styles import Style as Style
    from detr_viz.heatmaps.compare import Comparison as Comparison
    from detr_viz.heatmaps.compare import judge as compare_maps
    from detr_viz.heatmaps.limits import Limits as Limits
    from detr_viz.heatmaps.npz import load as load_maps
    from detr_viz.heatmaps.npz import save as save_maps
    from detr_viz.heatmaps.schema import Heatmaps as Heatmaps
    from detr_viz.html.notebook import Explorer as Explorer
    from detr_viz.html.notebook import explore as explore
    from detr_viz.images.annotated import Annotated as Annotated
    from detr_viz.images.load_annotated import load_annotated as load_annotated
    from detr_viz.models.detector import LoadedModel as LoadedModel

__version__ = "0.1.0"

_HOMES = {
    # models
    "load_model": "checkpoints.load_model",
    "LoadedModel": "models.detector",
    "Detector": "explanation.detector",
    "attach": "adapters.attach",
    "register": "adapters.registry",
    "AdapterEntry": "adapters.registry",
    # one image, explained
    "explain": "adapters.attach",
    "load_annotated": "images.load_annotated",
    "Annotated": "images.annotated",
    "Explanation": "explanation.captured",
    "StoredExplanation": "explanation.stored",
    "store": "explanation.stored",
    "Detections": "detections.detections",
    "Grid": "attention.grids",
    "Mode": "attention.terms",
    # which queries
    "select": "detections.queries",
    "shared_objects": "detections.matching",
    "SharedObject": "detections.matching",
    "Match": "detections.matching",
    # what is right and wrong, of annotated images
    "judged": "detections.judged",
    "Judged": "detections.judged",
    "misses": "detections.reasons",
    "Miss": "detections.reasons",
    # analyses
    "LogitTerms": "explanation.logit_term_arrays",
    "Ablation": "explanation.ablation",
    "Removal": "explanation.removals",
    "faithfulness": "explanation.faithfulness",
    "Faithfulness": "explanation.curves",
    "area": "explanation.curves",
    "rollout": "explanation.rollout:of_queries",
    "Rollout": "explanation.rollout",
    "Proposals": "explanation.proposals",
    "Salience": "explanation.salience",
    "ScaleAttention": "explanation.scales",
    # figures
    "head_grid": "figures.head_maps",
    "compare_models": "figures.head_maps",
    "draw_map": "figures.axes",
    "encoder_grid": "figures.encoder",
    "decoder_grid": "figures.decoder",
    "query_matrix": "figures.decoder_matrix",
    "rollout_grid": "figures.rollout",
    "encoder_rollout_grid": "figures.rollout",
    "faithfulness_grid": "figures.faithfulness",
    "proposal_figure": "figures.proposals",
    "salience_figure": "figures.salience",
    "scales_figure": "figures.scales",
    "Style": "figures.styles",
    "PageFormat": "figures.styles",
    "save": "figures.page.save",
    "show": "figures.page.save",
    # a page to explore
    "explore": "html.notebook",
    "Explorer": "html.notebook",
    # saved maps
    "Heatmaps": "heatmaps.schema",
    "save_maps": "heatmaps.npz:save",
    "load_maps": "heatmaps.npz:load",
    "compare_maps": "heatmaps.compare:judge",
    "Comparison": "heatmaps.compare",
    "Limits": "heatmaps.limits",
    # errors
    "UserError": "common.errors",
    "SelfCheckError": "explanation.explain_image",
}
# what explanations do by packages that theirs may not import: explanation/notebook.py
offer(
    __name__,
    {
        "plot": "figures.notebook",
        "shown_html": "figures.notebook",
        "shown_png": "figures.notebook",
        "explore": "html.notebook",
    },
)
if not TYPE_CHECKING:  # a checker would take any name for one of these
    __getattr__, _names = public(__name__, _HOMES)
__all__ = [
    "Ablation",
    "AdapterEntry",
    "Annotated",
    "Comparison",
    "Detections",
    "Detector",
    "Explanation",
    "Explorer",
    "Faithfulness",
    "Grid",
    "Heatmaps",
    "Judged",
    "Limits",
    "LoadedModel",
    "LogitTerms",
    "Match",
    "Miss",
    "Mode",
    "PageFormat",
    "Proposals",
    "Removal",
    "Rollout",
    "Salience",
    "ScaleAttention",
    "SelfCheckError",
    "SharedObject",
    "StoredExplanation",
    "Style",
    "UserError",
    "__version__",
    "area",
    "attach",
    "compare_maps",
    "compare_models",
    "decoder_grid",
    "draw_map",
    "encoder_grid",
    "encoder_rollout_grid",
    "explain",
    "explore",
    "faithfulness",
    "faithfulness_grid",
    "head_grid",
    "judged",
    "load_annotated",
    "load_maps",
    "load_model",
    "misses",
    "proposal_figure",
    "query_matrix",
    "register",
    "rollout",
    "rollout_grid",
    "salience_figure",
    "save",
    "save_maps",
    "scales_figure",
    "select",
    "shared_objects",
    "show",
    "store",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
