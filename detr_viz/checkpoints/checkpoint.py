"""From a file or a name to a Checkpoint: ModelSpec, sizes read from the shapes, strict state dict.

checkpoint = load_checkpoint("detr_resnet50")     # path, folder, known name, hf:owner/name
network = checkpoint.spec.build(checkpoint.config)
network.load_state_dict(checkpoint.state_dict)               # strict: the keys are exactly these
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detr_viz import models
from detr_viz.checkpoints import recognise, weight_files
from detr_viz.checkpoints.downloads import sha256_of
from detr_viz.checkpoints.fit import checked_config, few_keys, fitted_state_dict, own_tensors
from detr_viz.checkpoints.locate import BY_FILENAME, WeightsLocation, locate, type_contradiction
from detr_viz.checkpoints.state_dicts import Unwrapped, unwrap
from detr_viz.checkpoints.weight_files import CheckpointError
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.common.short_repr import ShortRepr
from detr_viz.detections import known_classes
from detr_viz.models.config import DetrConfig
from detr_viz.models.spec import ModelSpec

_TABLES = {  # (queries, classes) of Microsoft's Table Transformers -> task, longer side, names
    (15, 2): ("detection", 800, known_classes.TABLE_DETECTION_NAMES),
    (125, 6): ("structure", 1000, known_classes.TABLE_STRUCTURE_NAMES),
}
DEFAULT_NHEADS = 8  # of every released model


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint(ShortRepr):
    """A checkpoint that fits its network.

    state_dict: the authors' names, float32, exactly the keys of spec.build(config).
    skeleton: the network of this config without values, on the meta device.
    class_names: of the real classes, if the file has them. meta: plain values of a demo, or {}.
    sha256: of the weights file; several files count as one, joined in order.
    notes: what was assumed, and which parts of the file are not used. folder: of the weights file.
    """

    spec: ModelSpec
    config: DetrConfig
    state_dict: dict[str, Tensor]
    class_names: tuple[str, ...] | None
    meta: dict[str, Any]
    path: str
    sha256: str
    notes: tuple[str, ...]
    folder: Path
    skeleton: nn.Module


def load_checkpoint(
    weights: str | os.PathLike[str] | None = None,
    type: str | None = None,
    *,
    nheads: int | None = None,
    dilation: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    source: WeightsLocation | None = None,
) -> Checkpoint:
    """Read, unwrap and check a checkpoint.

    weights   file, Hugging Face folder, known name, hf:owner/name; None: the demo of the type
    type      a word of models.names(); None: told by the keys (detr if weights is None too)
    nheads, dilation   cannot be seen in a state dict; None: as the file says, else 8 and False
    cache     folder for downloads (default weights/; for hf: the hub's own cache)
    source    where the weights are, if that is known already
    Raises UserError, one line: what is wrong with the file, or that the type contradicts it.
    """
    wanted = None if type is None else models.get(type)
    if source is None:
        source = locate(weights, type, Path(cache) if cache is not None else None, progress)
    where = path_text(source.path)
    opened = weight_files.read(source.path)
    digest = _Digest(opened.files, source.sha256)
    unwrapped = unwrap(opened, where)
    spec = _spec_of(unwrapped.state_dict, wanted, unwrapped.hints.get("type"), where)
    heads, dilated, notes = _heads_and_dilation(
        unwrapped.hints, nheads, dilation, source.path, spec.nheads
    )
    own, aside = own_tensors(spec, unwrapped.state_dict, where)
    notes.extend(aside)
    config = checked_config(spec, own, heads, dilated, where)
    if spec.with_hints is not None:
        try:
            config, more = spec.with_hints(config, unwrapped.hints)
        except UserError as error:
            raise CheckpointError(f"{where}: {error}") from None
        notes.extend(more)
    state_dict, network = fitted_state_dict(spec, config, own, where)
    names, name_notes = _class_names(unwrapped, spec, config)
    return Checkpoint(
        spec=spec,
        config=config,
        state_dict=state_dict,
        class_names=names,
        meta=dict(unwrapped.meta),
        path=str(source.path),
        sha256=digest.result(),
        notes=(
            *filter(None, [source.note]),
            *unwrapped.notes,
            *notes,
            *name_notes,
            *spec.notes,
        ),
        folder=opened.files[0].parent,
        skeleton=network,
    )


class _Digest:
    """sha256 of the files, computed in a thread (hashlib releases the interpreter lock)."""

    def __init__(self, files: tuple[Path, ...], known: str | None) -> None:
        self._value: str | Exception | None = known
        self._files = files
        self._thread = threading.Thread(target=self._run, daemon=True)
        if known is None:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._value = sha256_of(*self._files)
        except Exception as error:
            self._value = error

    def result(self) -> str:
        if self._thread.is_alive():
            self._thread.join()
        if isinstance(self._value, str):
            return self._value
        raise CheckpointError(f"cannot read {path_text(self._files[0])}: {self._value}")


def _spec_of(
    state_dict: Mapping[str, Tensor], wanted: ModelSpec | None, file_type: str | None, where: str
) -> ModelSpec:
    """The model of this checkpoint; CheckpointError for other models and unsupported variants.

    wanted: of --type. file_type: the type that the file itself names.
    """
    known = [*([wanted] if wanted else []), *map(models.get, models.names())]
    spec = next((s for s in known if s.matches(state_dict)), None)
    if spec is None:
        title = recognise.name_of(state_dict)
        titles = " or ".join(models.get(name).title for name in models.names())
        raise CheckpointError(
            f"{where} is not a checkpoint of {titles}"
            + (f"; it looks like {title}" if title else f" ({few_keys(state_dict)})")
            + ": give one of these; a network of your own runs with --model FILE.py:FUNCTION"
        )
    if "refpoint_embed.weight" in state_dict:  # its other keys are Conditional DETR's
        raise CheckpointError(f"{where} is DAB-DETR, which is not supported: give another")
    if file_type is not None and file_type != spec.name:
        raise CheckpointError(
            f"{where} says that its type is {file_type!r}, but its tensors are of {spec.title}: "
            "save it again"
        )
    if wanted is not None and wanted.name != spec.name:
        raise CheckpointError(type_contradiction(where, spec, wanted))
    return spec


def _heads_and_dilation(
    hints: Mapping[str, Any],
    nheads: int | None,
    dilation: bool | None,
    path: Path,
    usual: int = DEFAULT_NHEADS,
) -> tuple[int, bool, list[str]]:
    """Heads and dilation: flag, else file, else file name, else the default; and notes on that."""
    notes, assumed = [], []
    released = BY_FILENAME.get(path.name)
    in_file = {"nheads": hints.get("nheads"), "dilation": hints.get("dilation")}
    if released is not None:
        in_file = {
            "nheads": DEFAULT_NHEADS if in_file["nheads"] is None else in_file["nheads"],
            "dilation": (released.dilation if in_file["dilation"] is None else in_file["dilation"]),
        }
    for flag, value in (("nheads", nheads), ("dilation", dilation)):
        if value is not None and in_file[flag] not in (None, value):
            notes.append(f"--{flag} {value} overrules the file, which says {in_file[flag]}")
    heads = nheads if nheads is not None else in_file["nheads"]
    if heads is None:
        heads = usual
        assumed.append(f"{heads} heads (--nheads)")
    dilated = dilation if dilation is not None else in_file["dilation"]
    if dilated is None:
        dilated = "dc5" in path.name.lower()
        if dilated:
            notes.append("dilation (DC5) was told by the file name alone")
        else:
            assumed.append("no dilation (--dilation)")
    if assumed:
        notes.append(f"assumed {' and '.join(assumed)}: the file does not say")
    return heads, bool(dilated), notes


def _class_names(
    unwrapped: Unwrapped, spec: ModelSpec, config: DetrConfig
) -> tuple[tuple[str, ...] | None, list[str]]:
    """The file's names; else, with a note, those of the data set that these sizes belong to."""
    names, count = unwrapped.hints.get("class_names"), spec.num_classes(config)
    if names is None and len(spec.class_names) == count:
        return spec.class_names, []
    if names is None:
        return _assumed_names(count, config)
    if len(names) == count:
        return names, []
    return None, [f"the file's {len(names)} class names are left aside: it has {count} classes"]


def _assumed_names(count: int, config: DetrConfig) -> tuple[tuple[str, ...] | None, list[str]]:
    """Names for a file that has none, where its sizes are those of one data set's models."""
    panoptic = known_classes.COCO_PANOPTIC_NAMES
    if count == len(panoptic):
        note = f"{count} classes: named as COCO panoptic's (--classes FILE names others)"
        return panoptic, [note]
    table = _TABLES.get((config.num_queries, count))
    if table is None or not config.pre_norm or config.backbone.block != "basic":
        return None, []
    task, longer, names = table
    return names, [
        f"sizes are those of Microsoft's Table Transformer ({task}): its names are taken, "
        f"{', '.join(names)} (--classes FILE names others); its authors resize the longer side to "
        f"{longer} (--size {longer} --max-size {longer})"
    ]
