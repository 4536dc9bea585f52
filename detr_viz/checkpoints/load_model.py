"""A checkpoint made into a network that is ready to explain images.

model = load_model("detr_resnet50")             # a file, a folder, a known name, hf:owner/name
model.network, model.spec.title, model.class_names
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch

from detr_viz import adapters, models
from detr_viz.checkpoints import preprocessing
from detr_viz.checkpoints.checkpoint import Checkpoint, load_checkpoint
from detr_viz.checkpoints.locate import locate
from detr_viz.checkpoints.other_networks import check_words, load_theirs, theirs
from detr_viz.checkpoints.type_names import type_name
from detr_viz.common.errors import UserError
from detr_viz.detections import labels
from detr_viz.explanation.detector import ASSUMED_SIZE, Detector
from detr_viz.explanation.precision import check_precision
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.models.detector import LoadedModel


class DeviceError(UserError):
    """A device that was asked for is not there."""


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" (or "cuda:1") or "mps" -> device; DeviceError where it is absent."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}: use auto, cpu, cuda or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count() * cuda:
        raise DeviceError(
            f"device {name} was asked for but is not here: use --device cpu (or auto)"
        )
    if device.type == "mps" and not mps:
        raise DeviceError("device mps was asked for but is not here: use --device cpu (or auto)")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device {name!r} is not supported: use auto, cpu, cuda or mps")
    return device


_NO_FILE = (
    f"no {preprocessing.FILE} beside the weights: images are resized as for DETR "
    f"({Preprocessing().sizes}) unless --size says otherwise"
)


def _preprocessing(checkpoint: Checkpoint) -> tuple[Preprocessing, tuple[str, ...]]:
    """By the checkpoint's own meta, else by the file beside the weights, else its authors'.

    With a note where a Hugging Face folder should have the file and has not, and where a file says
    nothing of how its network was run.
    """
    official, own = checkpoint.spec.preprocessing or Preprocessing(), {}
    for key in ("size", "max_size"):
        if key in checkpoint.meta:
            own[key] = value = checkpoint.meta[key]
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"{checkpoint.path}: {key} {value!r} in its meta is no size in pixels"
                )
    if own:
        return replace(official, **own), ()
    found = preprocessing.beside(checkpoint.folder)
    if found is not None:
        return found, ()
    is_theirs = (checkpoint.folder / "config.json").is_file()
    if is_theirs:
        return official, (_NO_FILE,)
    if not any(note.startswith("assumed ") for note in checkpoint.notes):
        return official, ()
    note = f"{ASSUMED_SIZE} ({official.sizes}): the file does not say, --size and --max-size do"
    return official, (note,)


def load_model(
    weights: str | Path | None = None,
    type: str | None = None,
    *,
    classes: str | Path | Sequence[str] | None = None,
    nheads: int | None = None,
    dilation: bool | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    progress: bool = True,
    network: str = "own",
    prompt: str | None = None,
) -> Detector:
    """Load a detector of the family, strictly, batch norm folded, ready for `explain`.

    weights   file, Hugging Face folder, known name, hf:owner/name; None: the demo of the type
    type      a word of --type, such as "cd_detr" or "Conditional DETR"; None: told by the file
              (detr where weights is None too)
    classes   file with a name a line, or the names themselves; None: the checkpoint's, else COCO's
    nheads, dilation   leave no trace in a state dict; None: the checkpoint's, else 8 and False
    cache     folder for downloads; None: weights/
    device    "auto" (cuda, mps, cpu, the first that is here), "cpu", "cuda", "cuda:1", "mps"
    precision "float32", "tf32", "bfloat16" or "float64"; see precision.py
    network   "own", or "transformers": its network instead of ours, where a folder could be both
    prompt    what to find, for models that are asked
    Raises UserError on anything that is wrong with these.
    """
    place = pick_device(device)
    check_precision(precision, place)
    type = None if type is None else type_name(type)
    check_words(None if weights is None else str(weights), type)
    entry = adapters.REGISTRY.get(type or "")
    if type not in models.names() and entry is not None and not entry.of_transformers:
        given = None if weights is None else str(weights)
        return in_precision(adapters.load(type, given, str(place)), precision)
    where = locate(weights, type, Path(cache) if cache is not None else None, progress)
    if theirs(where, type, network) is not None:
        names = _given_names(classes)[0]
        return in_precision(load_theirs(where, place, prompt, names), precision)
    if prompt is not None:
        raise UserError(f"{where.path} has classes of its own: leave the prompt out")
    checkpoint = load_checkpoint(
        weights, type, nheads=nheads, dilation=dilation, source=where, progress=progress
    )
    spec, config = checkpoint.spec, checkpoint.config
    custom, notes = checkpoint.class_names, checkpoint.notes
    if classes is not None:
        custom, more = _given_names(classes)
        notes = (*notes, *more)
    try:
        names = labels.names_for(spec.num_classes(config), custom)
    except UserError as error:
        source = classes if isinstance(classes, str | Path) else "classes"
        raise UserError(f"{source}: {error}") from None
    network = checkpoint.skeleton
    network.load_state_dict(checkpoint.state_dict, strict=True, assign=True)
    network.requires_grad_(False).eval()
    if precision == "float64":  # before anything is rounded
        network.double()
    network.fold_batch_norm()
    how, size_notes = _preprocessing(checkpoint)
    loaded = LoadedModel(
        network=network.to(place),
        spec=spec,
        config=config,
        class_names=names,
        size=how.size,
        max_size=how.max_size,
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        notes=(*notes, *size_notes),
        meta=checkpoint.meta,
        device=place,
        preprocessing=how if how.source or spec.preprocessing else None,
    )
    if precision == "float64":
        return replace(loaded, precision=precision)
    return in_precision(loaded, precision)


def _given_names(
    classes: str | Path | Sequence[str] | None,
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """(names of classes, notes) of a file or of names themselves; (None, ()) of None."""
    if classes is None:
        return None, ()
    if not isinstance(classes, str | Path):
        return tuple(classes), ()
    found = labels.read_class_file(classes)
    return found.names, (found.note,) if found.note else ()


def in_precision(model: Detector, precision: str) -> Detector:
    """A model of float32 to compute in another precision; UserError where its device cannot.

    The model given stays as it is. For float64 its file is read once more: what was rounded to
    float32 in folding batch norm is lost.
    """
    check_precision(precision, model.device)
    if precision == model.precision:
        return model
    if not isinstance(model, LoadedModel):
        raise UserError(f"{model.info.title} runs in {model.precision} here: leave --precision out")
    if precision == "float64":
        return load_model(
            model.path,
            model.spec.name,
            classes=model.class_names,
            nheads=model.config.nheads,
            dilation=model.config.backbone.dilation,
            device=str(model.device),
            precision=precision,
            progress=False,
        )
    network = model.network
    if precision == "bfloat16":
        network = deepcopy(network)
        network.narrow(torch.bfloat16)
    return replace(model, network=network, precision=precision)
