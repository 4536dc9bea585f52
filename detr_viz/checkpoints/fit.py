"""Whether a state dict fits one of our networks: its sizes, then each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detr_viz.checkpoints.weight_files import CheckpointError
from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError
from detr_viz.models.config import DetrConfig
from detr_viz.models.spec import ModelSpec


class _NoInitialValues(TorchFunctionMode):
    """Leaves out what fills new parameters: on the meta device there is nothing to fill.

    (The first normal_ there imports 900 modules of torch's compiler, which takes two seconds; the
    first zeros of torch 2.5 imports sympy.)
    """

    _FILL = frozenset({"normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"})
    _MAKE = frozenset({"zeros", "ones"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in self._FILL:
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if name in self._MAKE else func)(*args, **kwargs)


def skeleton(spec: ModelSpec, config: DetrConfig) -> nn.Module:
    """The network without values, on the meta device; fill it by load_state_dict(assign=True)."""
    with torch.device("meta"), _NoInitialValues():
        return spec.build(config)


def checked_config(
    spec: ModelSpec, state_dict: Mapping[str, Tensor], nheads: int, dilation: bool, where: str
) -> DetrConfig:
    """Sizes read from the shapes; CheckpointError if they fit no network."""
    for key in state_dict:  # an absurd index would give a network of that many layers
        if any(len(part) > 6 or int(part) > len(state_dict) for part in re.findall(r"\d+", key)):
            raise CheckpointError(f"{where} has a tensor {key[:80]!r}: it is damaged, get another")
        deep = max((int(n) for n in re.findall(r"\.(\d+)\.", key)), default=0) + 1
        if deep > bound("layers"):
            raise CheckpointError(f"{where} has {beyond('layers', deep)} ({key[:80]!r})")
    try:
        return spec.read_config(state_dict, nheads, dilation)
    except UserError as error:
        raise CheckpointError(f"{where}: {error}") from None


def own_tensors(
    spec: ModelSpec, state_dict: Mapping[str, Tensor], where: str
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """What the network has of a state dict, and notes on the rest; CheckpointError if it errs."""
    if spec.own_tensors is None:
        return state_dict, ()
    try:
        return spec.own_tensors(state_dict)
    except UserError as error:
        raise CheckpointError(f"{where}: {error}") from None


def fitted_state_dict(
    spec: ModelSpec, config: DetrConfig, state_dict: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], nn.Module]:
    """(the state dict in float32, in the network's order; the skeleton that it fits).

    CheckpointError if it does not fit.
    """
    try:
        network = skeleton(spec, config)
        expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where} has sizes that fit no {spec.title}: {error}") from None
    missing = [key for key in expected if key not in state_dict]
    surplus = [key for key in state_dict if key not in expected]
    if missing or surplus:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} of {len(expected)} tensors ({few_keys(missing)})")
        if surplus:
            parts.append(
                f"has {len(surplus)} tensors beyond those of {spec.title} ({few_keys(surplus)})"
            )
        raise CheckpointError(
            f"{where} {' and '.join(parts)}: it is damaged or of another variant, give another"
        )
    for key, shape in expected.items():
        if tuple(state_dict[key].shape) != shape:
            raise CheckpointError(
                f"{where}: {key} has shape {tuple(state_dict[key].shape)}, but {spec.title} of "
                f"these sizes has {shape}: it is damaged or of another variant, give another"
            )
    fitted = {}
    for key in expected:
        # a copy: the file may be memory-mapped, and later changes of it must not reach the network
        tensor = state_dict[key].to(torch.float32, copy=True).contiguous()
        # a sum over NaN or infinity is never finite; but a sum may also overflow: then check each
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{where}: {key} has NaN or infinite values: training diverged or the file is "
                "damaged, use an earlier checkpoint"
            )
        fitted[key] = tensor
    return fitted, network


def few_keys(keys: Mapping[str, Any] | list[str], at_most: int = 3) -> str:
    """The first keys, and the number of the others, as text."""
    few = [key if len(key) <= 80 else key[:77] + "..." for key in map(str, list(keys)[:at_most])]
    more = f", ... {len(keys) - at_most} more" if len(keys) > at_most else ""
    return ", ".join(few) + more
