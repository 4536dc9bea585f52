"""Forward hooks as a context manager; the handles are removed even after an error.

with record(detector.attention_sites(), [("cross", 5)]) as calls:
    detector.forward(pixels, [5])
calls["cross", 5].attention                     # an Attention, computed at its first use

A record belongs to one run, not to the network: if several threads explain with one network, each
gets its own calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from detr_viz.attention.base import Attention, Where
from detr_viz.attention.grids import Grid
from detr_viz.common.short_repr import ShortRepr
from detr_viz.explanation.detector import AttentionSite
from detr_viz.explanation.precision import undisturbed

# The records that the running context belongs to.
_owner: ContextVar[tuple[object, ...]] = ContextVar("owner", default=())


@dataclass(frozen=True, eq=False, repr=False)
class AttentionCall(ShortRepr):
    """One call of an attention site, for one image of the batch.

    args, kwargs, out  arguments and output of its module
    grids              of the memory's cells
    """

    site: AttentionSite
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    image: int = 0
    grids: tuple[Grid, ...] = ()

    def of_image(self, image: int, grids: tuple[Grid, ...]) -> AttentionCall:
        """The same call for another image of the batch."""
        return replace(self, image=image, grids=grids)

    @cached_property
    def attention(self) -> Attention:
        with undisturbed(self._device):
            return self._read()

    @cached_property
    def residual(self) -> float:
        """The self-check; NaN where the site cannot be tested.

        It keeps no attention: of all sites they would hold many times what their calls do, and most
        are never looked at.
        """
        with undisturbed(self._device):
            attention = self.__dict__.get("attention") or self._read()
            out = self.site.output(self.out, self.image)
            return attention.residual(out, self.site.project_out)

    def _read(self) -> Attention:
        return self.site.read(self.args, self.kwargs, self.out, self.image, self.grids)

    @property
    def _device(self) -> torch.device:
        return self.site.output(self.out, self.image).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the site's output."""
        return self.site.output(self.out, self.image).dtype


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Forward hooks (args, kwargs, out) -> out or None, only for calls in this context.

    Calls of the same modules in another thread are not hooked. The hooks are removed at the end,
    even after an error.
    """
    me = object()
    handles = []
    token = _owner.set((*_owner.get(), me))
    try:
        for module, hook in hooks:

            def own(_: nn.Module, args: tuple, *rest: Any, hook: Callable[..., Any] = hook) -> Any:
                if me not in _owner.get():
                    return None  # torch leaves kwargs out where this hook is removed meanwhile
                kwargs, out = rest
                return hook(args, kwargs, out)

            handles.append(module.register_forward_hook(own, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        _owner.reset(token)


@contextmanager
def record(
    sites: Mapping[Where, AttentionSite], wanted: Iterable[Where]
) -> Iterator[dict[Where, AttentionCall]]:
    """Keep the last call of each wanted site while the block runs.

    KeyError for an unknown site, with the known ones. Only references are kept, so the forward pass
    needs no extra time.
    """
    calls: dict[Where, AttentionCall] = {}
    hooks = []
    for where in wanted:
        if where not in sites:
            raise KeyError(f"no attention site {where}; there are {sorted(sites)}")

        def keep(args: tuple, kwargs: dict, out: Any, where: Where = where) -> None:
            calls[where] = AttentionCall(sites[where], args, kwargs, out)

        hooks.append((sites[where].module, keep))
    with hooked(hooks):
        yield calls
