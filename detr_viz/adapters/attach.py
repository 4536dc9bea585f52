"""attach: a `Detector` of any nn.Module; explain: also of live models of transformers.

d = attach(model, boxes=fn, scores=fn, preprocess=fn)
e = explain(d, "photo.jpg")
e = explain(hf_model, "photo.jpg", processor=processor)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from detr_viz.adapters.answers import Answers, Facts
from detr_viz.adapters.attached import AttachedDetector
from detr_viz.adapters.own_sizes import OwnSizes
from detr_viz.adapters.positions import Given
from detr_viz.adapters.roles import Sites
from detr_viz.adapters.transformers_models import detector_of, is_transformers
from detr_viz.common.errors import UserError
from detr_viz.explanation import explain_image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from detr_viz.attention.base import Where
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.loaded_image import LoadedImage


def attach(
    module: nn.Module,
    *,
    boxes: Callable[[Any], Tensor] | None = None,  # -> (Q, 4)
    scores: Callable[[Any], Tensor] | None = None,  # -> (Q, C)
    preprocess: Callable[[NDArray[np.uint8]], Any] | None = None,  # (H, W, 3)
    sites: Sites | None = None,
    position: Given | None = None,
    cell_rule: str = "centered",
    class_names: Sequence[str] | None = None,
    title: str = "",
    pairwise: bool = True,
    processor: Callable[..., Any] | None = None,
    prompt: str | Sequence[str] | None = None,
) -> AttachedDetector:
    """A `Detector` of any network, which stays as it is.

    boxes       (output of the network) -> (Q, 4) cx, cy, w, h in [0, 1] of its input
    scores      the same -> (Q, classes) probabilities of the real classes; rows of both are in the
                order of the queries, and not sorted by score, which is tried
    preprocess  rgb uint8 (H, W, 3) -> the network's input for this one picture: a tensor
                (1, 3, h, w) or (3, h, w), a tuple of arguments, or a dict of them
    sites       {"cross": names of modules in order of layers, "decoder": ..., "encoder": ...},
                only where sizes mislead
    position    (site's name, arguments of layer and module) -> position of its queries, of its
                keys; only where no rule finds them
    cell_rule   "centered": cell i lies at (i + 0.5) / cells; "aligned": at pixel stride * i
    class_names of the columns of scores
    pairwise    whether a query may be detected as several classes (focal loss)
    processor, prompt   of models of transformers, in place of boxes, scores and preprocess: they
                are attached once for many images
    UserError where no cross-attention of Q queries is called.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"attach takes an nn.Module, not {type(module).__name__}")
    if boxes is None and scores is None and is_transformers(module):
        return detector_of(module, processor, prompt, class_names=class_names)
    for name, given in (("boxes", boxes), ("scores", scores), ("preprocess", preprocess)):
        if not callable(given):
            raise UserError(f"attach: {name}= is {type(given).__name__}, not a function")
    return AttachedDetector(
        module,
        Answers(boxes, scores),
        preprocess,
        sites=sites,
        position=position,
        cell_rule=cell_rule,
        class_names=class_names,
        facts=Facts(title=title, preprocessing=OwnSizes(words="preprocess of attach")),
        pairwise=pairwise,
        in_order=False,
    )


def explain(
    model: Detector | nn.Module,
    image: str | Path | NDArray[np.uint8] | Image | LoadedImage,  # (H, W, 3)
    *,
    layers: str | int | Sequence[int | str] = "last",
    sites: Sequence[str | Where] = (),
    size: int | None = None,
    max_size: int | None = None,
    processor: Callable[..., Any] | None = None,
    prompt: str | Sequence[str] | None = None,
) -> Explanation:
    """Run a detector once on one image and keep what its attention was called with.

    model     of load_model or attach, or a live model of transformers with its processor
    image     file, array (H, W, 3) uint8, PIL image, or the `image` of another result
    layers    decoder layers to capture: "last", "all", a number from 0, or several
    sites     further attention to capture: "encoder", "decoder" (self-attention of all layers), or
              pairs such as ("encoder", 0), ("decoder", "last")
    size, max_size   shorter side and bound on the longer one, pixels; None: the model's own
    processor  the image processor of a model of transformers; prompt: what to find, of models that
               are asked
    Raises UserError on a bad image or layer, SelfCheckError if the recomputed weights do not
    reproduce the layer's output.
    """
    if isinstance(model, nn.Module) and not hasattr(model, "attention_sites"):
        if not is_transformers(model):
            raise UserError(
                f"{type(model).__name__} is not known here: make it a detector with "
                "detr_viz.attach(model, boxes=, scores=, preprocess=)"
            )
        model = detector_of(model, processor, prompt)
    elif processor is not None or prompt is not None:
        raise UserError("processor= and prompt= are for models of transformers: leave them out")
    return explain_image.explain(
        model, image, layers=layers, sites=sites, size=size, max_size=max_size
    )
