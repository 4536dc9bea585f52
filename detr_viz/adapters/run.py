"""One call of somebody's network, which is left as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.adapters.cells import map_size
from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.recorder import RawCall, Recorder
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr


@dataclass(eq=False, repr=False)
class Prepared(ShortRepr):
    """The network's input for one image.

    inputs    a tensor, or its arguments as a tuple or by name
    input_hw  pixels of the input;  valid_hw: those that show the image, None: all
    """

    inputs: Any
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None = None


@dataclass(eq=False, repr=False)
class Run(ShortRepr):
    """What a call of the network gave. maps: sizes of the maps that convolutions made."""

    out: Any
    calls: list[RawCall] = field(repr=False)
    maps: list[tuple[int, int]]


def run(
    network: nn.Module,
    prepared: Prepared,
    sites: Sequence[SiteModule],
    finish: Callable[[RawCall], Tensor | None] | None = None,
    maps_too: bool = False,
) -> Run:
    """Call the network, in evaluation mode and without gradients, with hooks on these sites.

    UserError where a compiled network does not let its hooks run.
    """
    maps: dict[tuple[int, int], None] = {}

    def look(out: Any) -> None:
        if (hw := map_size(out)) is not None:
            maps.pop(hw, None)
            maps[hw] = None

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)] if maps_too else []
    with at_rest(network), Recorder(sites, finish, convolutions, look) as recorder:
        out = call(network, prepared.inputs)
    return Run(out, recorder.calls, list(maps))


def call(network: nn.Module, inputs: Any) -> Any:
    """The network's output for a tensor, a tuple of arguments or a mapping of them."""
    if isinstance(inputs, Tensor):
        return network(inputs)
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if type(inputs) in (tuple, list) else network(inputs)


@contextlib.contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, not compiled; afterwards all is as it was.

    What the network keeps for later (positions, anchors) must be of use in a training that goes on,
    so this is no inference mode.
    """
    training = [module for module in network.modules() if module.training]
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # a compiled network would run without hooks
            set_stance = getattr(torch.compiler, "set_stance", None)
            if set_stance is not None:
                stack.enter_context(set_stance("force_eager"))
        try:
            if training:
                _evaluate(network)
            yield
        finally:
            for module in training:
                module.training = True


def _evaluate(network: nn.Module) -> None:
    try:
        network.eval()
    except NotImplementedError:  # a program of torch.export has the mode that it was exported in
        raise UserError(
            "the model is exported, so it has no attention modules any more: attach the model that "
            "it was exported from"
        ) from None


def input_size(inputs: Any) -> tuple[int, int]:
    """(h, w) of the first picture (B, C, h, w) or (C, h, w) in a network's input."""
    for x in _tensors(inputs):
        if x.is_floating_point() and x.ndim in (3, 4) and x.shape[-3] <= 4:
            return tuple(x.shape[-2:])
    raise UserError("preprocess gave no tensor (1, 3, h, w) that the image became")


def to_device(inputs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The same on a device, floats in the network's type."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, dtype) if inputs.is_floating_point() else inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: to_device(x, device, dtype) for name, x in inputs.items()}
    if type(inputs) in (tuple, list):
        return type(inputs)(to_device(x, device, dtype) for x in inputs)
    return inputs


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for x in inputs.values():
            yield from _tensors(x)
    elif isinstance(inputs, tuple | list):
        for x in inputs:
            yield from _tensors(x)
    elif isinstance(getattr(inputs, "tensors", None), Tensor):  # a NestedTensor of DETR's authors
        yield inputs.tensors
