"""From a file's content to one state dict: release, training and bare files, Hugging Face names.

{"model": sd}                                  official release, demo ({"model", "meta"})
{"model": sd, "args": Namespace, "optimizer"}  training; also "ema" / "model_ema" / "ema_model"
{"state_dict": sd}, sd                         other trainers, bare; prefixes module., model., ...
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_viz.checkpoints import transformers_keys
from detr_viz.checkpoints.weight_files import CheckpointError, WeightFile, config_in

UNSUPPORTED = {
    variant: f"is {what}, which is not supported: give another"
    for variant, what in (
        ("pre-norm", "a pre-norm model (--pre_norm)"),
        ("learned", "a model with learned positions"),
        ("DAB", "DAB-DETR"),
    )
}
# Training codes that keep averaged weights evaluate with them: so do we.
_EMA = ("ema", "model_ema", "ema_model", "ema_state_dict", "model_ema_state_dict")
_PLAIN = ("model", "state_dict", "model_state_dict", "net", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.", "net.")
_PANOPTIC = ("mask_head.", "bbox_attention.")
# The only keys that are dropped as not needed: batch counters, class weights of the loss.
_UNUSED_SUFFIX, _UNUSED = ".num_batches_tracked", {"criterion.empty_weight"}


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """One state dict with the authors' names, and what else the file says.

    hints: of nheads, dilation, num_queries, class_names and type, those that are known. meta: as
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
    state_dict, notes = _choose(content, where)
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    hints = _hints(content.get("args"), meta, where)
    ours = any(key.startswith("transformer.") for key in state_dict)
    if transformers_keys.is_huggingface(state_dict) or (opened.hf_config is not None and not ours):
        config = opened.hf_config or config_in(opened.files[0].parent)
        if config is None:
            raise CheckpointError(
                f"{where} has Hugging Face's names but no config.json beside it: put the model's "
                "config.json into the same folder"
            )
        try:
            kind, state_dict, of_config = transformers_keys.convert(state_dict, config)
        except transformers_keys.HuggingFaceError as error:
            raise CheckpointError(f"{where}: {error}") from None
        notes = [*notes, *of_config.pop("notes")]
        hints.update(of_config, type=kind)
    elif any(key.startswith(_PANOPTIC) for key in state_dict):
        state_dict = {k[5:]: v for k, v in state_dict.items() if k.startswith("detr.")}
        notes = [*notes, "a panoptic model: its detector is used, its mask head is left aside"]
    return Unwrapped(_tensors(state_dict, where), hints, meta, tuple(notes))


def _choose(content: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Of the state dicts in a file the one to use, without prefixes; and a note on the choice."""
    ema_key, ema = _first(content, _EMA)
    plain_key, plain = _first(content, _PLAIN)
    if ema is None and plain is None:
        plain = _clean(content) if _is_state_dict(content) else None
    if ema is None and plain is None:
        keys = ", ".join(str(key)[:40] for key in list(content)[:5])
        held = f"no weights, only {keys}" if keys else "an empty dict"
        raise CheckpointError(f"{where} holds {held}: save model.state_dict()")
    if ema is None:
        return plain, []
    if plain is None:
        return ema, [f"the averaged weights ({ema_key}) are used, there are no others"]
    if plain.keys() <= ema.keys():
        return ema, [f"the averaged weights ({ema_key}) are used, not {plain_key}"]
    return plain, [f"{plain_key} is used: the averaged weights ({ema_key}) are not complete"]


def _first(content: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, dict[str, Any] | None]:
    for name in names:
        value = content.get(name)
        for _ in range(3):  # {"ema": {"module": sd, "updates": 9}}
            if not isinstance(value, Mapping) or _is_state_dict(value):
                break
            value = next((value[k] for k in (*_PLAIN, *_EMA, "shadow") if k in value), None)
        if isinstance(value, Mapping) and _is_state_dict(value):
            return name, _clean(value)
    return "", None


def _is_state_dict(value: Mapping[str, Any]) -> bool:
    """Whether most of the values are tensors with dotted names."""
    named = sum(isinstance(k, str) and "." in k and torch.is_tensor(v) for k, v in value.items())
    return 2 * named > len(value)


def _clean(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same without keys that are not needed, and without the prefixes that wrappers add."""
    kept = {
        str(key): value
        for key, value in state_dict.items()
        if not str(key).endswith(_UNUSED_SUFFIX) and key not in _UNUSED
    }
    while kept:
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in kept)), None)
        if prefix is None:
            break
        kept = {key[len(prefix) :]: value for key, value in kept.items()}
    return kept


def _hints(args: Any, meta: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Heads, dilation, classes and type from training args and the demo's meta."""
    options = vars(args) if isinstance(args, argparse.Namespace) else args
    options = options if isinstance(options, Mapping) else {}
    if options.get("pre_norm") is True:
        raise CheckpointError(f"{where} {UNSUPPORTED['pre-norm']}")
    positions = options.get("position_embedding", "sine")
    if positions in ("learned", "v3"):
        raise CheckpointError(f"{where} {UNSUPPORTED['learned']}")
    hints: dict[str, Any] = {}
    for source in (options, meta):
        heads, dilation = source.get("nheads"), source.get("dilation")
        if isinstance(heads, int) and not isinstance(heads, bool):
            hints["nheads"] = heads
        if isinstance(dilation, bool):
            hints["dilation"] = dilation
        if isinstance(source.get("num_queries"), int):
            hints["num_queries"] = source["num_queries"]
    classes = meta.get("classes")
    if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
        hints["class_names"] = tuple(classes)
    if "nheads" in meta:  # our own checkpoints: dilated only if they say so
        hints.setdefault("dilation", False)
    if isinstance(meta.get("type"), str):
        hints["type"] = meta["type"]
    return hints


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
