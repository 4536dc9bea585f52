"""Where in a file a detector stands: in which entry, under which prefix. Its keys say so.

    {"model": {"detr.transformer...": t, "criterion.empty_weight": t}, "epoch": 3}
    -> entry "model", prefix "detr.", left aside: criterion.empty_weight

A network of the family has some keys that no other has (`_ANCHORS`); what stands before them is the
prefix, whatever it is. No list of wrappers is needed, but for those that may stand inside a key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from detr_viz.checkpoints.weight_files import CheckpointError

# Keys that a network of the family has, in each layout; what stands before the match is its prefix.
_LAYER = r"decoder\.layers\.\d+\."
_ANCHORS = {
    "authors": rf"transformer\.{_LAYER}(multihead_attn\.in_proj_weight|ca_qcontent_proj\.weight"
    r"|cross_attn\.sampling_offsets\.weight)$"
    r"|head\.head_series\.\d+\.inst_interact\.dynamic_layer\.weight$",
    "transformers": (
        r"(model\.)?(query_position_embeddings\.weight|"
        rf"{_LAYER}encoder_attn\.sampling_offsets\.weight)$"
    ),
    "openmmlab": (
        rf"(bbox_head\.transformer\.)?{_LAYER}(cross_attn\.qcontent_proj\.weight|"
        r"(cross_attn|multihead_attn|attentions\.1)\.attn\.in_proj_weight)$"
    ),
}
_PATTERNS = {name: re.compile(rf"(?:^|\.)(?P<own>{text})") for name, text in _ANCHORS.items()}
# Modules that wrap another and may do so at any depth: DDP, torch.compile, FSDP, checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?|shadow)(_|$)", re.IGNORECASE)
# Entries that by custom hold the weights that are meant, best first.
_PLAIN = ("model", "state_dict", "model_state_dict", "net", "module")
# Beside the network in one module: losses, and metrics, whose states are counts and sums.
_LOSS = re.compile(r"(^|_)(criterion|loss(es)?|matcher|data_preprocessor)(_|$)", re.IGNORECASE)
_METRIC = re.compile(
    r"(^|_)(metrics?|m?ap|m?iou|acc(uracy)?|f1|precision|recall|evaluator|confmat)(_|$)",
    re.IGNORECASE,
)
_COUNTER = ".num_batches_tracked"  # of ordinary batch norm: not needed
_DEPTH = 3  # {"ema": {"module": state_dict}}


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector in a file.

    layout: of the keys, a key of _ANCHORS. entry: words that lead to its dict in the file. prefix:
    of its keys there. state_dict: without it. aside: other keys of that dict, as they stand there.
    """

    layout: str
    entry: tuple[str, ...]
    prefix: str
    state_dict: dict[str, Any]
    aside: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a note calls it: "ema", "state_dict, under teacher." """
        words = [word for word in self.entry if word not in _WRAPPERS] or list(self.entry[-1:])
        entry = ".".join(words)
        if not self.prefix:
            return entry or "the weights"
        return f"{entry}, under {self.prefix}" if entry else self.prefix

    @property
    def is_averaged(self) -> bool:
        words = [*self.entry, *self.prefix.split(".")]
        return any(_AVERAGED.search(word) for word in words)


def find(content: Mapping[Any, Any], where: str) -> tuple[Detector | None, list[str]]:
    """The detector in a file's content, None if no key shows one; and notes on the choice.

    CheckpointError where there are several and no rule prefers one.
    """
    every = sorted(_detectors(content, ()), key=lambda detector: detector.is_averaged)
    found = _different(every)
    if not found:
        return None, []
    chosen, notes = _choose(found, content, where)
    used = {detector.entry[:1] for detector in every}
    notes += [
        f"the averaged weights ({name}) are not used: they have no names of a detector"
        for name, value in content.items()
        if _AVERAGED.search(str(name)) and isinstance(value, Mapping | list) and value
        if (name,) not in used
    ]
    return chosen, notes + _aside_notes(chosen.aside)


def unwrapped_keys(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """The same without counters, and without the words of modules that wrap another."""
    kept = {str(k): v for k, v in state_dict.items() if not str(k).endswith(_COUNTER)}
    plain = {
        ".".join(word for word in key.split(".") if word not in _WRAPPERS): value
        for key, value in kept.items()
    }
    return plain if len(plain) == len(kept) else kept  # else two networks would become one


def first_state_dict(content: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Of a file that shows no detector: the weights it holds, so that they can be named."""
    for value in (*(content.get(name) for name in _PLAIN), content, *content.values()):
        if isinstance(value, Mapping) and _is_state_dict(value):
            return unwrapped_keys(value)
    return None


def _is_state_dict(value: Mapping[Any, Any]) -> bool:
    """Whether most of the values are tensors with dotted names."""
    named = sum(isinstance(k, str) and "." in k and torch.is_tensor(v) for k, v in value.items())
    return 2 * named > len(value)


def _detectors(content: Mapping[Any, Any], entry: tuple[str, ...]) -> Iterator[Detector]:
    keys = unwrapped_keys(content) if any(map(torch.is_tensor, content.values())) else {}
    prefixes: dict[str, str] = {}
    for key in keys:
        for layout, pattern in _PATTERNS.items():
            if match := pattern.search(key):
                prefixes.setdefault(key[: match.start("own")], layout)
    for prefix, layout in prefixes.items():
        yield _under(prefix, layout, keys, prefixes, entry)
    if not prefixes and len(entry) < _DEPTH:
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, Mapping):
                yield from _detectors(value, (*entry, name))


def _under(
    prefix: str,
    layout: str,
    keys: Mapping[str, Any],
    prefixes: Collection[str],
    entry: tuple[str, ...],
) -> Detector:
    """The detector of one prefix; `prefixes`: of all detectors in this dict."""
    inner = tuple(p for p in prefixes if p.startswith(prefix) and p != prefix)
    own = {k: v for k, v in keys.items() if k.startswith(prefix) and not k.startswith(inner)}
    groups: dict[str, list[Any]] = {}
    for key, value in own.items():
        groups.setdefault(_group(key, prefix), []).append(value)
    beside = {name for name, v in groups.items() if _is_beside(name, v)}
    # a module of the family holds no tensor itself: a buffer there is a loss's, or of the input
    beside |= {n for n in groups if prefix + n in own and _is_list(own[prefix + n])}
    state_dict = {
        key[len(prefix) :]: value for key, value in own.items() if _group(key, prefix) not in beside
    }
    aside = [key for key in own if _group(key, prefix) in beside]
    aside += [key for key in keys if not key.startswith(tuple(prefixes))]
    return Detector(layout, entry, prefix, state_dict, tuple(aside))


def _group(key: str, prefix: str) -> str:
    """The module that stands next after the prefix."""
    return key[len(prefix) :].split(".")[0]


def _is_beside(name: str, values: list[Any]) -> bool:
    """Whether a module is no part of the network.

    It is a loss, a metric, averages whose names are no longer those of a detector, or counts.
    """
    if _LOSS.search(name) or _AVERAGED.search(name):
        return True
    tensors = [v for v in values if torch.is_tensor(v)]
    if _METRIC.search(name) and all(v.dim() < 2 for v in tensors if v.is_floating_point()):
        return True
    return all(v.dtype in (torch.int64, torch.int32, torch.bool) for v in tensors)


def _is_list(value: Any) -> bool:
    """Whether a tensor is a list of numbers, as weights of classes or the mean of red and so on."""
    return torch.is_tensor(value) and value.numel() == max(value.shape, default=1) > 1


def _different(found: list[Detector]) -> list[Detector]:
    """Without those that hold the same values as an earlier one: one module under two names."""
    kept: list[Detector] = []
    for detector in found:
        if not any(_same(detector.state_dict, other.state_dict) for other in kept):
            kept.append(detector)
    return kept


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.is_tensor(v) and torch.is_tensor(w) and v.shape == w.shape and torch.equal(v, w)
        for v, w in ((v, other[k]) for k, v in one.items())
    )


def _choose(
    found: list[Detector], content: Mapping[Any, Any], where: str
) -> tuple[Detector, list[str]]:
    """Averaged weights if they are whole, as training codes that keep them evaluate with them."""
    averaged = [detector for detector in found if detector.is_averaged]
    plain = _preferred([detector for detector in found if not detector.is_averaged])
    if len(averaged) > 1 or len(plain) > 1:
        names = [detector.name for detector in (*averaged, *plain)]
        raise CheckpointError(
            f"{where} holds {len(names)} detectors ({'; '.join(names[:3])}): save the one that you "
            "mean in a file of its own"
        )
    rest = [d.name for d in found if d not in averaged and d not in plain]
    notes = []
    if rest:
        notes.append(f"{plain[0].name} is used; {', '.join(rest[:3])}: not used")
    if not averaged:
        return plain[0], notes
    ema = averaged[0]
    if not plain:
        if ema.entry or ema.prefix:
            notes.append(f"the averaged weights ({ema.name}) are used, there are no others")
        return ema, notes
    if _swapped(ema, content):
        return plain[0], [
            *notes,
            f"{plain[0].name} is used: it holds the averaged weights, as OpenMMLab saves them",
        ]
    if plain[0].state_dict.keys() <= ema.state_dict.keys():
        return ema, [*notes, f"the averaged weights ({ema.name}) are used, not {plain[0].name}"]
    return plain[0], [
        *notes,
        f"{plain[0].name} is used: the averaged weights ({ema.name}) are not complete",
    ]


def _preferred(plain: list[Detector]) -> list[Detector]:
    """Of several in entries of their own, the one in the entry that by custom is meant."""
    for start in (0, -1):  # the whole way to the entry, then its last word
        for name in _PLAIN:
            meant = [detector for detector in plain if detector.entry[start:] == (name,)]
            if meant:
                return meant
    return plain


def _swapped(ema: Detector, content: Mapping[Any, Any]) -> bool:
    """mmengine stores the averaged weights as state_dict, and the others as ema_state_dict."""
    meta = content.get("meta")
    by_mmengine = "message_hub" in content or (
        isinstance(meta, Mapping) and any(str(key).startswith("mmengine") for key in meta)
    )
    return by_mmengine and ema.entry == ("ema_state_dict",)


def _aside_notes(aside: Collection[str]) -> list[str]:
    notes = []
    mask_head = [k for k in aside if re.search(r"(^|\.)(mask_head|bbox_attention)\.", k)]
    if mask_head:
        notes.append("a panoptic model: its detector is used, its mask head is left aside")
    rest = [key if len(key) <= 60 else key[:57] + "..." for key in aside if key not in mask_head]
    if rest:
        count = f"{len(rest)} tensors" if len(rest) > 1 else "1 tensor"
        more = ", ..." if len(rest) > 3 else ""
        notes.append(f"left aside: {count} beside the detector's ({', '.join(rest[:3])}{more})")
    return notes
