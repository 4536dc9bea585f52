"""From a file's content to one state dict with the authors' names, and what else the file says.

structure.py finds the detector in the file. Other layouts of the same network are renamed here:
Hugging Face's (transformers_keys.py) and OpenMMLab's (openmmlab_keys.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_viz.checkpoints import (
    notebook_keys,
    openmmlab_keys,
    structure,
    transformers_inferred,
    transformers_keys,
)
from detr_viz.checkpoints.bounded import check_tensors
from detr_viz.checkpoints.weight_files import CheckpointError, WeightFile, config_in
from detr_viz.common.bounds import beyond, bound
from detr_viz.common.short_repr import ShortRepr
from detr_viz.models.config import ENCODER_NORM, ROW_EMBED

# What leaves no trace in the shapes of some model, and its type.
_LARGEST = 10**9  # no size of a network is larger
_MOST_HEADS = 10_000  # a larger number is not one of heads
_UNTRACED = {
    "num_queries": int,
    "anchor_size": float,
    "num_query_position": int,
    "levels": int,
    "canonical_px": float,
    "samples": int,
}


@dataclass(frozen=True, eq=False, repr=False)
class Unwrapped(ShortRepr):
    """One state dict with the authors' names, and what else the file says.

    hints: of nheads, dilation, class_names, type and _UNTRACED, those that are known. meta: as
    in the file.
    """

    state_dict: dict[str, Tensor]
    hints: dict[str, Any]
    meta: Mapping[str, Any]
    notes: tuple[str, ...]


def unwrap(opened: WeightFile, where: str) -> Unwrapped:
    """The state dict of an opened file, and what else the file says; CheckpointError if none."""
    content = opened.content
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where} holds a {type(content).__name__}, not a dict of weights: "
            "save model.state_dict()"
        )
    detector, notes = structure.find(content, where)
    state_dict = structure.first_state_dict(content) if detector is None else detector.state_dict
    if state_dict is None:
        keys = ", ".join(str(key)[:40] for key in list(content)[:5])
        held = f"no weights, only {keys}" if keys else "an empty dict"
        raise CheckpointError(f"{where} holds {held}: save model.state_dict()")
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    args = _args(content)
    hints = _hints(args, meta)
    layout = None if detector is None else detector.layout
    check_tensors(state_dict, where)
    if layout == "transformers" or (opened.hf_config is not None and layout != "authors"):
        state_dict, of_config, more = _of_transformers(state_dict, opened, where)
        hints.update(of_config)
        notes = [*notes, *more]
    elif layout == "openmmlab":
        try:
            state_dict, of_meta, more = openmmlab_keys.convert(state_dict, meta)
        except openmmlab_keys.OpenMMLabError as error:
            raise CheckpointError(f"{where}: {error}") from None
        hints.update(of_meta)
        notes = [*notes, *more]
    elif notebook_keys.is_notebook(state_dict):
        state_dict, note = notebook_keys.convert(state_dict)
        notes = [*notes, note]
    elif layout == "authors":
        _check_args(args, state_dict, where)
    return Unwrapped(_tensors(state_dict, where), hints, meta, tuple(notes))


def _of_transformers(
    state_dict: Mapping[str, Any], opened: WeightFile, where: str
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """State dict with the authors' names, hints and notes of a transformers model."""
    config = opened.hf_config or config_in(opened.files[0].parent)
    inferred = config is None
    if inferred and any("sampling_offsets" in key for key in state_dict):
        raise CheckpointError(
            f"{where} has Hugging Face's names but no config.json beside it: put the model's "
            "config.json into the same folder"
        )
    if inferred:
        saved = opened.content.get("hyper_parameters")
        saved = saved if isinstance(saved, Mapping) else {}
        config = transformers_inferred.config_of(state_dict, saved)
    try:
        kind, state_dict, hints = transformers_keys.convert(state_dict, config)
    except transformers_keys.HuggingFaceError as error:
        raise CheckpointError(f"{where}: {error}") from None
    _check_names(hints.get("class_names") or ())
    notes = list(hints.pop("notes"))
    if inferred:  # heads and dilation are not known
        hints = {"class_names": hints["class_names"]}
        notes.append(transformers_inferred.NOTE)
    return state_dict, {**hints, "type": kind}, notes


def _args(content: Mapping[str, Any]) -> Any:
    """Training arguments: of the authors' code, or of a Lightning module."""
    saved = content.get("hyper_parameters")
    inner = saved.get("args", saved) if isinstance(saved, Mapping) else saved
    return content.get("args", inner)


def _options(args: Any) -> Mapping[str, Any]:
    """Training arguments, a Namespace or a dict."""
    options = vars(args) if isinstance(args, argparse.Namespace) else args
    return options if isinstance(options, Mapping) else {}


def _check_args(args: Any, keys: Mapping[str, Any], where: str) -> None:
    """What training arguments say of the network must show in its keys."""
    options = _options(args)
    for option, said, key, words in (
        ("pre_norm", (True,), ENCODER_NORM, "of a pre-norm model"),
        ("position_embedding", ("learned", "v3"), ROW_EMBED, "of learned positions"),
    ):
        value = options.get(option)
        if value is None or (value in said) == (key in keys):
            continue
        fault = f"it has {key}" if key in keys else f"it has no {key}"
        raise CheckpointError(
            f"{where}: its args say {option}={value}, but {fault} ({words}): it is damaged or of "
            "another variant, give another"
        )


def _hints(args: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, dilation, classes and type from training args and the demo's meta."""
    options = _options(args)
    hints: dict[str, Any] = {}
    for source in (options, meta):
        heads, dilation = source.get("nheads"), source.get("dilation")
        if isinstance(heads, int) and not isinstance(heads, bool) and 0 < heads < _MOST_HEADS:
            hints["nheads"] = heads
        if isinstance(dilation, bool):
            hints["dilation"] = dilation
        for name, kind in _UNTRACED.items():
            value = source.get(name)  # nan goes on, to be refused by name
            if isinstance(value, kind) and not abs(value) >= _LARGEST:
                hints[name] = value
    classes = meta.get("classes")
    if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
        _check_names(classes)
        hints["class_names"] = tuple(classes)
    if "nheads" in meta:  # our own checkpoints: dilated only if they say so
        hints.setdefault("dilation", False)
    if isinstance(meta.get("type"), str):
        hints["type"] = meta["type"]
    return hints


def _check_names(names: Sequence[str]) -> None:
    """CheckpointError for a class with a name that no figure has room for."""
    longest = max(map(len, names), default=0)
    if longest > bound("name"):
        raise CheckpointError(f"a class of it has a name of {beyond('name', longest)}")


def _tensors(state_dict: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors; CheckpointError if an entry is not a plain tensor of real numbers."""
    for key, value in state_dict.items():
        if not torch.is_tensor(value):
            fault = f"is a {type(value).__name__}, not a tensor"
        elif value.is_meta:
            fault = "has no data (it was saved from the meta device)"
        elif value.layout != torch.strided or value.is_quantized:
            fault = "is sparse or quantized"
        elif not value.is_floating_point():
            fault = f"is of {value.dtype}, not floating point"
        elif not value.numel():
            fault = f"has no elements (shape {tuple(value.shape)})"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            fault = f"is an expanded view of shape {tuple(value.shape)}"  # of any size at no cost
        else:
            continue
        raise CheckpointError(
            f"{where}: {key[:80]} {fault}: give a checkpoint as the training code saved it"
        )
    return {key: value.detach() for key, value in state_dict.items()}
