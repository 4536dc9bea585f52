"""A file or a name to (ModelSpec, config read off the shapes, strict state dict).

checkpoint = load_checkpoint("detr_resnet50")     # path, folder, known name, hf:owner/name
network = checkpoint.spec.build(checkpoint.config)
network.load_state_dict(checkpoint.state_dict)               # strict: the keys are exactly these
"""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detr_viz import models
from detr_viz.checkpoints import hub, recognise, weight_files
from detr_viz.checkpoints.downloads import KNOWN, fetch_checked, sha256_of
from detr_viz.checkpoints.state_dicts import UNSUPPORTED, Unwrapped, unwrap
from detr_viz.checkpoints.weight_files import CheckpointError, shown
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.models.config import DetrConfig
from detr_viz.models.spec import ModelSpec

DEFAULT_NHEADS = 8  # of every released model
_BY_FILENAME = {known.filename: known for known in KNOWN.values()}
_VARIANTS = {  # a key that our networks do not have -> whose it is
    "transformer.encoder.norm.weight": "pre-norm",
    "backbone.1.row_embed.weight": "learned",
    "refpoint_embed.weight": "DAB",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that fits its network.

    state_dict: the authors' names, float32, exactly the keys of spec.build(config).
    class_names: of the real classes, where the file has them. meta: the demo's plain values, or {}.
    sha256: of the weights file (of several as if joined). notes: what was assumed or left aside.
    """

    spec: ModelSpec
    config: DetrConfig
    state_dict: dict[str, Tensor]
    class_names: tuple[str, ...] | None
    meta: dict[str, Any]
    path: str
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    path: Path
    sha256: str | None = None


def load_checkpoint(
    weights: str | os.PathLike[str] | None = None,
    type: str | None = None,
    *,
    nheads: int | None = None,
    dilation: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Checkpoint:
    """Read, unwrap and check a checkpoint.

    weights   file, Hugging Face folder, known name, hf:owner/name; None: the demo of the type
    type      "detr", "cd_detr" or None: told by the keys (with weights None too: detr)
    nheads, dilation   leave no trace in a state dict; None: as the file says, else 8 and False
    cache     folder for downloads (default weights/, for hf: the hub's own)
    Raises UserError, one line: whatever is wrong with the file, or a type that contradicts it.
    """
    wanted = None if type is None else models.get(type)
    source = _locate(weights, type, Path(cache) if cache is not None else None, progress)
    where = shown(source.path)
    opened = weight_files.read(source.path)
    digest = _Digest(opened.files, source.sha256)
    found = unwrap(opened, where)
    spec = _spec_of(found.state_dict, wanted, found.told.get("type"), where)
    heads, dilated, notes = _settle(found.told, nheads, dilation, source.path)
    config = _config(spec, found.state_dict, heads, dilated, where)
    state_dict = _fitted(spec, config, found.state_dict, where)
    names, name_notes = _class_names(found, spec.num_classes(config))
    return Checkpoint(
        spec=spec,
        config=config,
        state_dict=state_dict,
        class_names=names,
        meta=dict(found.meta),
        path=str(source.path),
        sha256=digest.result(),
        notes=(*found.notes, *notes, *name_notes),
    )


class _NoInitialValues(TorchFunctionMode):
    """Leaves out what fills new parameters: on the meta device it would do nothing, slowly.

    (The first normal_ there imports 900 modules of torch's compiler, two seconds of a run.)
    """

    _FILL = frozenset({"normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._FILL:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def skeleton(spec: ModelSpec, config: DetrConfig) -> nn.Module:
    """The network without values, on the meta device; fill it by load_state_dict(assign=True)."""
    with torch.device("meta"), _NoInitialValues():
        return spec.build(config)


class _Digest:
    """sha256 of the files, computed beside the rest (hashlib lets go of the interpreter lock)."""

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
        raise CheckpointError(f"cannot read {shown(self._files[0])}: {self._value}")


def _locate(
    weights: str | os.PathLike[str] | None, type: str | None, cache: Path | None, progress: bool
) -> _Source:
    """Where the weights are, fetched if need be."""
    if weights is None:
        path = assets.find(f"weights/{type or models.names()[0]}_demo.pth")
        if not path.is_file():
            raise CheckpointError(
                f"the demo checkpoint {shown(path)} is not there: give --weights a file or a "
                f"known name such as {next(iter(KNOWN))}"
            )
        return _Source(path)
    text = os.fspath(weights)
    if text.startswith(hub.PREFIX):
        return _Source(hub.fetch_hf(text.removeprefix(hub.PREFIX), cache, progress))
    if known := KNOWN.get(text):
        if type is not None and type != known.type:
            raise CheckpointError(_contradiction(text, models.get(known.type), models.get(type)))
        return _Source(*fetch_checked(text, cache, progress))
    try:
        there = bool(text) and os.path.exists(text)
    except ValueError:  # a null character
        there = False
    if there:
        return _Source(Path(text))
    near = difflib.get_close_matches(text, [*KNOWN, *_BY_FILENAME], n=1)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not Path(text).suffix:
        hint = f"hf:{text} if it is on the Hugging Face hub"
    elif near:
        hint = f"or did you mean {near[0]}?"
    else:
        hint = "hf:owner/name, or a known name (--list-models prints them)"
    raise CheckpointError(f"no checkpoint at {shown(text) or repr(text)}: give a file, {hint}")


def _contradiction(where: str, is_: ModelSpec, wanted: ModelSpec) -> str:
    return (
        f"{where} is {is_.title} (--type {is_.name}), not {wanted.title} (--type {wanted.name}): "
        "leave --type out, or change one of them"
    )


def _spec_of(
    state_dict: Mapping[str, Tensor], wanted: ModelSpec | None, told: str | None, where: str
) -> ModelSpec:
    """The model whose checkpoint this is, once it is a variant that can be represented."""
    known = [*([wanted] if wanted else []), *map(models.get, models.names())]
    spec = next((s for s in known if s.matches(state_dict)), None)
    if spec is None:
        what = recognise.name_of(state_dict)
        titles = " or ".join(models.get(name).title for name in models.names())
        raise CheckpointError(
            f"{where} is not a checkpoint of {titles}"
            + (f"; it looks like {what}" if what else f" ({_some(state_dict)})")
            + ": give one of theirs"
        )
    for key, variant in _VARIANTS.items():
        if key in state_dict:
            raise CheckpointError(f"{where} {UNSUPPORTED[variant]}")
    if told is not None and told != spec.name:
        raise CheckpointError(
            f"{where} says it is of type {told!r}, its tensors are {spec.title}'s: save it again"
        )
    if wanted is not None and wanted.name != spec.name:
        raise CheckpointError(_contradiction(where, spec, wanted))
    return spec


def _settle(
    told: Mapping[str, Any], nheads: int | None, dilation: bool | None, path: Path
) -> tuple[int, bool, list[str]]:
    """Heads and dilation: flag, else file, else file name, else the default; and notes on that."""
    notes, assumed = [], []
    released = _BY_FILENAME.get(path.name)
    said = {"nheads": told.get("nheads"), "dilation": told.get("dilation")}
    if released is not None:
        said = {
            "nheads": DEFAULT_NHEADS if said["nheads"] is None else said["nheads"],
            "dilation": released.dilation if said["dilation"] is None else said["dilation"],
        }
    for flag, value in (("nheads", nheads), ("dilation", dilation)):
        if value is not None and said[flag] not in (None, value):
            notes.append(f"--{flag} {value} overrules the file, which says {said[flag]}")
    heads = nheads if nheads is not None else said["nheads"]
    if heads is None:
        heads = DEFAULT_NHEADS
        assumed.append(f"{heads} heads (--nheads)")
    dilated = dilation if dilation is not None else said["dilation"]
    if dilated is None:
        dilated = "dc5" in path.name.lower()
        if dilated:
            notes.append("dilation (DC5) was told by the file name alone")
        else:
            assumed.append("no dilation (--dilation)")
    if assumed:
        notes.append(f"assumed {' and '.join(assumed)}: the file does not say")
    return heads, bool(dilated), notes


def _config(
    spec: ModelSpec, state_dict: Mapping[str, Tensor], nheads: int, dilation: bool, where: str
) -> DetrConfig:
    """Sizes read off the shapes."""
    for key in state_dict:  # an absurd index would make a network of that many layers
        if any(len(part) > 6 or int(part) > len(state_dict) for part in re.findall(r"\d+", key)):
            raise CheckpointError(f"{where} has a tensor {key[:80]!r}: it is damaged, get another")
    try:
        return spec.read_config(state_dict, nheads, dilation)
    except UserError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _fitted(
    spec: ModelSpec, config: DetrConfig, state_dict: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The state dict in float32 and in the network's order, once it fits and is finite."""
    try:
        expected = {k: tuple(v.shape) for k, v in skeleton(spec, config).state_dict().items()}
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where} has sizes that make no {spec.title}: {error}") from None
    missing = [key for key in expected if key not in state_dict]
    surplus = [key for key in state_dict if key not in expected]
    if missing or surplus:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} of {len(expected)} tensors ({_some(missing)})")
        if surplus:
            parts.append(
                f"has {len(surplus)} tensors beyond those of {spec.title} ({_some(surplus)})"
            )
        raise CheckpointError(
            f"{where} {' and '.join(parts)}: it is damaged or of another variant, give another"
        )
    for key, shape in expected.items():
        if tuple(state_dict[key].shape) != shape:
            raise CheckpointError(
                f"{where}: {key} has shape {tuple(state_dict[key].shape)}, {spec.title} of these "
                f"sizes has {shape}: it is damaged or of another variant, give another"
            )
    fitted = {}
    for key in expected:
        # a copy, for the file may be mapped: what happens to it later must not reach the network
        tensor = state_dict[key].to(torch.float32, copy=True).contiguous()
        # a sum over NaN or infinity is never finite; one that overflows is looked at closely
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{where}: {key} has NaN or infinite values: training diverged or the file is "
                "damaged, use an earlier checkpoint"
            )
        fitted[key] = tensor
    return fitted


def _class_names(found: Unwrapped, count: int) -> tuple[tuple[str, ...] | None, list[str]]:
    names = found.told.get("class_names")
    if names is None or len(names) == count:
        return names, []
    return None, [f"the file's {len(names)} class names are left aside: it has {count} classes"]


def _some(keys: Mapping[str, Any] | list[str], at_most: int = 3) -> str:
    """A few keys, and how many more there are."""
    few = [key if len(key) <= 80 else key[:77] + "..." for key in map(str, list(keys)[:at_most])]
    more = f", ... {len(keys) - at_most} more" if len(keys) > at_most else ""
    return ", ".join(few) + more
