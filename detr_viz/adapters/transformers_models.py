"""Detectors of the transformers library, live or from a folder of save_pretrained.

    detector = detector_of(model, processor)            # a live AutoModelForObjectDetection
    detector = load_folder(Path("rtdetr"), device=device)

The model's own image processor makes the input, its config names the classes, and scores are ranked
here, because post_process_object_detection drops the numbers of queries. Nothing of a folder is
run: no trust_remote_code, and nothing is fetched.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers, Facts
from detr_viz.adapters.attached import AttachedDetector
from detr_viz.adapters.own_sizes import OwnSizes
from detr_viz.adapters.run import Prepared
from detr_viz.adapters.transformers_types import TYPES, TransformersType, check_installed, is_theirs
from detr_viz.common.errors import UserError

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_INPUTS = ("pixel_values", "pixel_mask", "input_ids", "token_type_ids", "attention_mask")


def is_transformers(model: object) -> bool:
    """Whether a module is a detector of transformers."""
    return is_theirs(getattr(getattr(model, "config", None), "model_type", None))


def detector_of(
    model: nn.Module,
    processor: Callable[..., Any] | None = None,
    prompt: str | Sequence[str] | None = None,
    facts: Facts | None = None,
    class_names: Sequence[str] | None = None,
) -> AttachedDetector:
    """A detector of a live model. UserError for one that cannot be shown, or without processor.

    processor: the model's image processor, or its processor where it takes a prompt
    prompt: what to find, of models that are asked: a text, or names of classes
    """
    kind = TYPES[model.config.model_type]
    if processor is None:
        raise UserError(
            f"{kind.title} needs its image processor: give processor=AutoImageProcessor."
            f"from_pretrained({kind.hub or 'its folder'!r})"
        )
    if kind.prompted:
        from detr_viz.adapters.prompted import prompted_detector

        own = facts or facts_of(model, kind)
        return prompted_detector(model, processor, prompt, kind, own, live=facts is None)
    if prompt is not None:
        raise UserError(f"{kind.title} has classes of its own: leave the prompt out")
    named = class_names is not None
    count = getattr(model.config, "num_labels", None)
    reader = OutputReader(count, kind.reordered)
    return AttachedDetector(
        model,
        Answers(reader.boxes, reader.scores, reader.layers),
        partial(prepared, processor),
        cell_rule="centered" if kind.centered else "aligned",
        class_names=class_names if named else _names(model.config),
        facts=facts or facts_of(model, kind),
        pairwise=not _has_no_object(model, count),
        settings=reader if facts is None else None,
    )


def facts_of(model: nn.Module, kind: TransformersType, **more: Any) -> Facts:
    """What is known of a live model."""
    name = getattr(model.config, "_name_or_path", "") or kind.title
    words = f"{kind.title}'s own image processor"
    return Facts(
        type=kind.name,
        title=kind.title,
        weights=Path(name).name,
        path=name,
        preprocessing=OwnSizes(words=words),
        **more,
    )


def load_folder(
    folder: Path,
    device: torch.device,
    *,
    prompt: str | None = None,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    sha256: str = "",
) -> AttachedDetector:
    """A detector from a folder of save_pretrained. UserError on anything that is wrong with it."""
    check_installed(f"{folder}")
    _check_had(folder)
    from transformers import AutoConfig

    config = _from(folder, "config.json", AutoConfig)
    kind = TYPES.get(config.model_type)
    if kind is None:
        raise UserError(f"{folder} is of model_type {config.model_type!r}, which is not known here")
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise UserError(
            f"{folder} has no {PROCESSOR_FILES[0]}, which says how {kind.title} resizes images: "
            "save it with processor.save_pretrained"
        )
    model_class, processor_class = _classes(kind)
    with _silent():
        processor = _from(folder, PROCESSOR_FILES[0], processor_class)
        model = _model(folder, model_class, config).to(device)
    facts = facts_of(model, kind, sha256=sha256, notes=tuple(notes))
    facts = replace(facts, weights=folder.name, path=str(folder))
    return detector_of(model, processor, prompt, facts, class_names)


def _check_had(folder: Path) -> None:
    """UserError where the installed transformers is older than the network of a folder."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # transformers says what is wrong with it
    if is_theirs(model_type) and model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{folder} is {TYPES[model_type].title}, which transformers {transformers.__version__} "
            "does not have: run pip install --upgrade transformers"
        )


def load(weights: str | None, device: str) -> AttachedDetector:
    """A detector from a folder, as adapters are loaded; UserError without one."""
    if weights is None or not Path(weights).is_dir():
        raise UserError("give --weights a folder of save_pretrained, or hf:owner/name")
    return load_folder(Path(weights), torch.device(device))


def _classes(kind: TransformersType) -> tuple[Any, Any]:
    import transformers

    if kind.prompted:
        return transformers.AutoModelForZeroShotObjectDetection, transformers.AutoProcessor
    return transformers.AutoModelForObjectDetection, transformers.AutoImageProcessor


def _from(folder: Path, name: str, auto: Any) -> Any:
    """What a file of the folder describes; nothing is fetched, and no code of the folder is run."""
    try:
        return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of transformers, of its dependencies, of the system
        raise UserError(f"{folder / name} cannot be followed: {_first_line(error)}") from None


def _model(folder: Path, auto: Any, config: Any) -> nn.Module:
    """The model in float32; UserError where a weight is missing."""
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False  # the backbone's weights are in the folder too
    try:
        model, info = auto.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_float32(),
        )
    except Exception as error:
        raise UserError(f"{folder} cannot be loaded: {_first_line(error)}") from None
    if missing := sorted(info.get("missing_keys") or ()):
        raise UserError(
            f"{folder} lacks {len(missing)} of the weights of {TYPES[config.model_type].title}, "
            f"such as {missing[0]}: save it again"
        )
    return model.eval()


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars and no advice of transformers on stderr."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _float32() -> dict[str, Any]:
    """torch_dtype became dtype in transformers 4.56."""
    import transformers

    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if (major, minor) >= (4, 56) else "torch_dtype": torch.float32}


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def prepared(processor: Callable[..., Any], rgb: NDArray[np.uint8]) -> Prepared:
    """One picture (H, W, 3) as the processor makes it."""
    return with_sizes(processor(images=Image.fromarray(rgb), return_tensors="pt"))


def with_sizes(found: Any) -> Prepared:
    """What a processor gave, with the pixels that show the image."""
    inputs = {name: found[name] for name in _INPUTS if name in found}
    pixels = inputs["pixel_values"]
    hw = tuple(pixels.shape[-2:])
    mask = inputs.get("pixel_mask")
    valid = hw
    if isinstance(mask, Tensor) and mask.ndim == 3:
        shown = mask[0].bool()
        valid = int(shown.any(1).sum()), int(shown.any(0).sum())
    return Prepared(inputs, hw, None if valid == hw else valid)


def _names(config: Any) -> tuple[str, ...] | None:
    names = getattr(config, "id2label", None) or {}
    return tuple(str(names.get(i, f"class {i}")) for i in range(config.num_labels)) or None


def _has_no_object(model: nn.Module, count: int | None) -> bool:
    """Whether scores are a softmax whose last class is none: one output more than classes."""
    head = getattr(model, "class_labels_classifier", None)
    return isinstance(head, nn.Linear) and head.out_features == (count or 0) + 1


@dataclass(frozen=True)
class OutputReader:
    """Boxes and scores of a transformers detector's output, in the order of its queries.

    count: its classes;  reordered: as in TransformersType.
    """

    count: int | None
    reordered: bool = False

    def boxes(self, out: Any) -> Tensor:
        """(1, Q, 4)."""
        boxes = out.intermediate_reference_points[:, -1] if self.reordered else out.pred_boxes
        return enclosing(boxes) if boxes.shape[-1] == 10 else boxes

    def scores(self, out: Any) -> Tensor:
        """(1, Q, classes)."""
        logits = out.intermediate_logits[:, -1] if self.reordered else out.logits
        return probabilities(logits, self.count)

    def layers(self, out: Any) -> list[tuple[Tensor, Tensor]] | None:
        """(boxes, scores) of each decoder layer, of models that give them."""
        logits = getattr(out, "intermediate_logits", None)
        boxes = getattr(out, "intermediate_reference_points", None)
        if not isinstance(logits, Tensor) or not isinstance(boxes, Tensor):
            return None
        if logits.ndim != 4 or boxes.shape[:3] != logits.shape[:3] or boxes.shape[-1] != 4:
            return None
        last = probabilities(logits[:, -1], self.count), boxes[:, -1]
        if not torch.equal(last[0], self.scores(out)) or not torch.equal(last[1], self.boxes(out)):
            return None
        every = range(logits.shape[1])
        return [(boxes[:, n], probabilities(logits[:, n], self.count)) for n in every]


def probabilities(logits: Tensor, count: int | None) -> Tensor:
    """(1, Q, outputs) -> (1, Q, classes): softmax, if there is an output of none, else sigmoid."""
    if count is not None and logits.shape[-1] == count + 1:
        return logits.softmax(-1)[..., :-1]
    return logits.sigmoid()


def enclosing(quads: Tensor) -> Tensor:
    """Centres and four corners' offsets + 0.5 (..., 10) -> the boxes around them, (..., 4)."""
    corners = quads[..., None, :2] + quads[..., 2:].unflatten(-1, (4, 2)) - 0.5
    low, high = corners.amin(-2), corners.amax(-2)
    return torch.cat(((low + high) / 2, high - low), -1)
