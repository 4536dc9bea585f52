"""What attention sites are called with, recorded by hooks while one call of the network runs.

    recorder = Recorder(sites, finish)
    with recorder:
        out = network(pixels)
    recorder.calls                              # RawCall, in the order in which sites finish

A hook gives nothing back, so the network's output is the same to the last bit, unless `finish`
gives another context than it was given. The hooks are removed even after an error, and do nothing
in calls of the same network by another thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.watch import Event, FunctionWatcher
from detr_viz.common.short_repr import ShortRepr

_owner: ContextVar[tuple[object, ...]] = ContextVar("adapter_owner", default=())


@dataclass(eq=False, repr=False)
class RawCall(ShortRepr):
    """One call of a site.

    number    0 for the first call of its module
    args, kwargs   of the module;  layer_args, layer_kwargs: of its layer
    inputs, outputs   role of a child -> what it was called with, and gave
    context   the heads' output, merged, before it is projected; batch first
    siblings  calls of the same call of the layer, this one among them
    event     the attention function that it called, of sites with clues;  seen: how many so far
    """

    site: SiteModule
    number: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    layer_args: tuple[Any, ...] = ()
    layer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    context: Tensor | None = None
    siblings: list[RawCall] = field(default_factory=list)
    event: Event | None = None
    seen: int = 0

    @property
    def name(self) -> str:
        """The module's name, and the number of the call where it is called again."""
        return self.site.name + (f" (call {self.number})" if self.number else "")

    @property
    def bound(self) -> dict[str, Any]:
        """Arguments of the module by name."""
        return bound(self.site.module, self.args, self.kwargs)

    @property
    def layer_bound(self) -> dict[str, Any]:
        """Arguments of its layer by name."""
        return bound(self.site.layer, self.layer_args, self.layer_kwargs)


def bound(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call of a module by name; what no name is known for by its number."""
    try:
        signature = inspect.signature(module.forward)
        given = dict(signature.bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    out: dict[str, Any] = {}
    for name, value in given.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            out |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            out |= {f"{name}{i}": item for i, item in enumerate(value)}
        else:
            out[name] = value
    return out


class Recorder:
    """Hooks on these sites; finish(call) -> another context, or None to leave it as it is."""

    def __init__(
        self,
        sites: Sequence[SiteModule],
        finish: Callable[[RawCall], Tensor | None] | None = None,
        watched: Iterable[nn.Module] = (),
        look: Callable[[Any], None] | None = None,
    ) -> None:
        """watched: modules whose outputs `look` is called with."""
        self.calls: list[RawCall] = []
        self._watched, self._look = list(watched), look
        self._sites, self._finish = sites, finish
        self._open: dict[int, list[RawCall]] = {}  # of a site, innermost last
        self._layers: dict[int, tuple[tuple, dict, list[RawCall]]] = {}
        self._counts: dict[int, int] = {}
        self._handles: list[Any] = []
        self._token: Token | None = None
        self._watcher: FunctionWatcher | None = None

    def __enter__(self) -> Recorder:
        self._token = _owner.set((*_owner.get(), self))
        try:
            for layer in {id(s.layer): s.layer for s in self._sites}.values():
                self._pre(layer, self._enter_layer)
            for site in self._sites:
                self._hook_site(site)
            for module in self._watched:
                self._post(module, lambda args, kwargs, out: self._look and self._look(out))
            if any(site.clues for site in self._sites):
                watcher = FunctionWatcher(self._attend)
                watcher.__enter__()
                self._watcher = watcher
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.__exit__(None, None, None)
            self._watcher = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._token is not None:
            _owner.reset(self._token)
            self._token = None

    def _mine(self) -> bool:
        return self in _owner.get()

    def _pre(self, module: nn.Module, action: Callable[..., Any]) -> None:
        def hook(module: nn.Module, args: tuple, *rest: Any) -> Any:
            return action(module, args, *rest) if self._mine() and rest else None

        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _post(self, module: nn.Module, action: Callable[..., Any]) -> None:
        def hook(module: nn.Module, args: tuple, *rest: Any) -> Any:
            return action(args, *rest) if self._mine() and len(rest) == 2 else None

        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def _enter_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._layers[id(module)] = (args, kwargs, [])

    def _hook_site(self, site: SiteModule) -> None:
        key = id(site)

        def enter(_: nn.Module, args: tuple, kwargs: dict) -> None:
            layer_args, layer_kwargs, siblings = self._layers.get(id(site.layer), ((), {}, []))
            number = self._counts[key] = self._counts.get(key, -1) + 1
            call = RawCall(site, number, args, kwargs, layer_args, layer_kwargs, siblings=siblings)
            self._open.setdefault(key, []).append(call)
            siblings.append(call)

        self._pre(site.module, enter)
        for role, child in site.children.items():

            def keep(args: tuple, kwargs: dict, out: Any, role: str = role) -> None:
                if call := self._opened(key):
                    given = args[0] if args else next(iter(kwargs.values()), None)
                    if site.clues:  # one image: what its rows are laid out as is all the same
                        given, out = (x.reshape(1, -1, x.shape[-1]) for x in (given, out))
                        out = out[..., site.clues.cuts[role]]
                    call.inputs[role], call.outputs[role] = given, out

            self._post(child, keep)
        if site.kind == "packed":
            self._post(site.module, lambda args, kwargs, out: self._leave_packed(key, out))
            return
        if site.kind == "watched":
            self._post(site.module, lambda args, kwargs, out: self._close(key))
            return
        if site.out is not None:

            def project(_: nn.Module, args: tuple, kwargs: dict) -> Any:
                call = self._opened(key)
                new = self._done(call, args[0]) if call and args else None
                return None if new is None else ((new, *args[1:]), kwargs)

            self._pre(site.out, project)
        self._post(site.module, lambda args, kwargs, out: self._leave(site, key, out))

    def _attend(self, event: Event) -> Tensor | None:
        """An attention function was called: it is one of each module that runs."""
        new = None
        if not self._mine():
            return None
        for site in self._sites:
            call = self._opened(id(site)) if site.clues else None
            if call is None:
                continue
            call.seen += 1
            if call.seen - 1 == site.clues.event:
                call.event = event
                context = self._done(call, event.context) if site.kind == "watched" else None
                new = new if context is None else event.with_context(context)
        return new

    def _close(self, key: int) -> None:
        self._open[key].pop()

    def _opened(self, key: int) -> RawCall | None:
        calls = self._open.get(key)
        return calls[-1] if calls else None

    def _done(self, call: RawCall, context: Tensor) -> Tensor | None:
        call.context = context.flatten(2) if context.ndim > 3 else context
        if call.site.clues:
            call.context = context.reshape(1, -1, context.shape[-1])
        self.calls.append(call)
        new = self._finish(call) if self._finish else None
        return None if new is None else new.to(context.dtype).view_as(context)

    def _leave(self, site: SiteModule, key: int, out: Any) -> Any:
        call = self._open[key].pop()
        if call.context is not None or site.out is not None:
            return None
        first = out[0] if isinstance(out, tuple | list) else out
        if not isinstance(first, Tensor):
            return None
        new = self._done(call, first)
        if new is None:
            return None
        return type(out)((new, *out[1:])) if isinstance(out, tuple | list) else new

    def _leave_packed(self, key: int, out: Any) -> Any:
        """nn.MultiheadAttention projects inside: its output stands for the context."""
        call = self._open[key].pop()
        first = out[0] if isinstance(out, tuple) else out
        flip = first.ndim == 3 and not call.site.module.batch_first
        new = self._done(call, first.transpose(0, 1) if flip else first)
        if new is None:
            return None
        new = new.transpose(0, 1) if flip else new
        return (new, *out[1:]) if isinstance(out, tuple) else new


class Paused:
    """No recorder sees what is called inside the block: for reading, which calls children."""

    def __enter__(self) -> None:
        self._token = _owner.set(())

    def __exit__(self, *_: object) -> None:
        _owner.reset(self._token)


def linear_part(module: nn.Module, x: Tensor) -> Tensor:
    """What a projection makes of x without its bias."""
    if type(module) is nn.Linear:
        return torch.nn.functional.linear(x, module.weight)
    with Paused():
        return module(x) - module(torch.zeros_like(x[..., :1, :]))


def bias_part(module: nn.Module, like: Tensor) -> Tensor:
    """The bias of a projection, (width,); 0 without one. like: an input."""
    if type(module) is nn.Linear:
        width = module.weight.new_zeros(module.out_features)
        return width if module.bias is None else module.bias
    with Paused():
        return module(torch.zeros_like(like[..., :1, :])).flatten(end_dim=-2)[0]
