"""Attention in modules whose children have names that nobody here knows.

    found, unseen = unknown_sites(network, prepared, known)     # SiteModule, in order of calls

The network runs once with every module and every attention function of torch watched. What a
module attends with is compared by value with what its projections gave: a projection, or an equal
part of one, whose heads give the same logits is that of the queries, and so on. Where all are found
the site is dense, with content and position as everywhere; else it is read by its function alone,
which has no parts. Either is proved by the self-check, as everything is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.adapters.find import Clues, SiteModule, layer_name_of
from detr_viz.adapters.run import Prepared, at_rest, call
from detr_viz.adapters.watch import Event, FunctionWatcher
from detr_viz.attention.kernel import split_heads

_NEAR = 1e-3  # of values that are the same, as a share of their size
_NEAR_HALF = 5e-2
_FACTORS = (1, 2, 3)  # a projection may give queries, keys and values side by side


@dataclass(eq=False)
class _Frame:
    """A module that runs. events: (number among all while it runs, what was attended).

    linears: name -> (its module, input, output) of each call of a projection inside it.
    """

    name: str
    module: nn.Module
    events: list[tuple[int, Event]] = field(default_factory=list)
    seen: int = 0
    linears: dict[str, list[tuple[nn.Module, Tensor, Tensor]]] = field(default_factory=dict)


def unknown_sites(
    network: nn.Module, prepared: Prepared, known: Sequence[SiteModule]
) -> tuple[list[SiteModule], list[str]]:
    """(sites that are computed outside the known ones, in order, modules that may be some).

    The latter mix rows of several counts, by no function that is seen.
    """
    modules = dict(network.named_modules())
    inside = {id(m) for site in known for m in site.module.modules()}
    explorer = _Explorer(modules, inside)
    with at_rest(network), explorer:
        call(network, prepared.inputs)
    return explorer.found, explorer.unseen


class _Explorer:
    """Hooks on all modules, and a watcher of functions; the sites as modules finish."""

    def __init__(self, modules: dict[str, nn.Module], inside: set[int]) -> None:
        self.found: list[SiteModule] = []
        self.unseen: list[str] = []
        self._modules, self._inside = modules, inside
        self._stack: list[_Frame] = []
        self._handles: list[Any] = []
        self._watcher = FunctionWatcher(self._attend)
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._enter(name)))
            self._handles.append(module.register_forward_hook(self._leave, with_kwargs=True))
        self._watcher.__enter__()

    def __exit__(self, *_: object) -> None:
        self._watcher.__exit__(None, None, None)
        for handle in self._handles:
            handle.remove()

    def _mine(self) -> bool:
        """Calls of the same network by another thread are none of this."""
        return threading.get_ident() == self._thread

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple) -> None:
            if self._mine():
                self._stack.append(_Frame(name, module))

        return hook

    def _attend(self, event: Event) -> None:
        known = any(id(frame.module) in self._inside for frame in self._stack)
        for frame in self._stack:
            frame.seen += 1
        if self._stack and not known:
            frame = self._stack[-1]
            frame.events.append((frame.seen - 1, event))

    def _leave(self, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        if not self._mine():
            return
        frame = self._stack.pop()
        while frame.module is not module:  # of modules whose call failed, which the network expects
            frame = self._stack.pop()
        given = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(module, nn.Linear) and isinstance(given, Tensor):
            for outer in self._stack:
                outer.linears.setdefault(frame.name, []).append((module, given, out))
        self._note_unseen(frame)
        for number, event in frame.events:
            self.found.append(self._site(frame, number, event, out))

    def _note_unseen(self, frame: _Frame) -> None:
        """A module whose own projections are of several numbers of rows, without any event."""
        if frame.seen or any(id(f.module) in self._inside for f in (*self._stack, frame)):
            return
        dot = f"{frame.name}." if frame.name else ""
        rows = {
            call[1].shape[:-1].numel()
            for name, calls in frame.linears.items()
            if name.rpartition(".")[0] == frame.name and name.startswith(dot)
            for call in calls
        }
        if len(rows) > 1:
            self.unseen.append(f"{frame.name or 'it'} ({type(frame.module).__name__})")

    def _site(self, frame: _Frame, number: int, event: Event, out: Any) -> SiteModule:
        layer = layer_name_of(frame.name, self._modules)
        name = f"{frame.name} (attention {number})" if number else frame.name
        place = (name, frame.module)
        rest = {"layer": self._modules[layer], "layer_name": layer}
        dense = None if event.project else _projections(frame, event)
        if dense is not None:
            children, cuts, scale = dense
            after, whole = _after(frame, event, out)
            if whole:
                clues = Clues(number, event.values.shape[0], scale, cuts)
                return SiteModule(*place, "dense", children, after, **rest, clues=clues)
        clues = Clues(number, event.values.shape[0], project=event.project)
        return SiteModule(*place, "watched", {}, None, **rest, clues=clues)


@dataclass(frozen=True, eq=False)
class _Part:
    """A projection's output, or some of its columns, as heads (M, n, E)."""

    name: str
    cut: slice
    heads: Tensor


Found = tuple[dict[str, nn.Module], dict[str, slice], float]


def _projections(frame: _Frame, event: Event) -> Found | None:
    """(role -> projection, role -> part of its output, factor of the logits) of an attention."""
    values = event.values
    logits = event.scores()
    heads, rows, keys = logits.shape
    limit = _NEAR if values.dtype in (torch.float32, torch.float64) else _NEAR_HALF
    once = {n: calls[0] for n, calls in frame.linears.items() if len(calls) == 1}
    parts = list(_parts(once, heads))
    value = next((p for p in parts if _same(p.heads, values, limit)), None)
    if value is None:
        return None
    for q in (p for p in parts if p.heads.shape[1] == rows):
        for k in (p for p in parts if p.heads.shape[1] == keys and p is not q):
            scale = _factor(q.heads, k.heads, logits, limit)
            if scale is not None:
                chosen = dict(zip("qkv", (q, k, value), strict=True))
                modules = {role: once[p.name][0] for role, p in chosen.items()}
                return modules, {role: p.cut for role, p in chosen.items()}, scale
    return None


def _parts(once: dict[str, tuple[nn.Module, Tensor, Tensor]], heads: int) -> Iterator[_Part]:
    """What projections gave, whole and in equal parts."""
    for name, (_, _, out) in once.items():
        flat = out.reshape(-1, out.shape[-1])
        for factor in _FACTORS:
            width, rest = divmod(flat.shape[1], factor)
            if rest or width % heads:
                continue
            for i in range(factor):
                cut = slice(i * width, (i + 1) * width)
                yield _Part(name, cut, split_heads(flat[:, cut][None], heads)[0])


def _same(a: Tensor, b: Tensor, limit: float) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    return float((a - b).norm()) <= limit * float(b.norm())


def _factor(q: Tensor, k: Tensor, logits: Tensor, limit: float) -> float | None:
    """The factor by which q . k are the logits where they are not hidden; None: they are not."""
    if q.shape[-1] != k.shape[-1]:
        return None
    products = q.double() @ k.double().transpose(-1, -2)
    wanted = logits.double()
    seen = wanted.isfinite()
    products, wanted = products[seen], wanted[seen]
    size = float(products @ products)
    if not size:
        return None
    factor = float(products @ wanted) / size
    apart = float((wanted - factor * products).norm())
    return factor if apart <= limit * float(wanted.norm()) and factor else None


def _after(frame: _Frame, event: Event, out: Any) -> tuple[nn.Module | None, bool]:
    """(the projection of the heads' output, whether it, or the module's output, was found)."""
    context = event.context[0]
    for calls in frame.linears.values():
        module, given, _ = calls[0]
        flat = given.reshape(-1, given.shape[-1])
        if len(calls) == 1 and flat.shape == context.shape and torch.equal(flat, context):
            return module, True
    first = out[0] if isinstance(out, tuple | list) else out
    if isinstance(first, Tensor) and first.shape[-1] == context.shape[-1]:
        flat = first.reshape(-1, first.shape[-1])
        return None, flat.shape == context.shape and torch.equal(flat, context)
    return None, False
