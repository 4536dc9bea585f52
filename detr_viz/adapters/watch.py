"""Attention functions of torch seen as they are called, in modules that nothing is known of.

    with FunctionWatcher(look):
        network(pixels)                         # look(event) at each attention that is computed

Seen: F.scaled_dot_product_attention, F.multi_head_attention_forward, and a softmax by hand whose
weights then multiply something (matmul, @, bmm, einsum), through dropout, casts and reshapes
between both. `look` may give another output. One image runs at a time, so all dimensions before
rows and keys are heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detr_viz.adapters.tensors import full
from detr_viz.common.short_repr import ShortRepr

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCT = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
_SAME = (
    *(F.dropout, torch.dropout, Tensor.to, Tensor.type, Tensor.type_as, Tensor.contiguous),
    *(Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.clone),
    *(Tensor.view, Tensor.reshape, torch.reshape, Tensor.unsqueeze, Tensor.squeeze),
    *(torch.nan_to_num, Tensor.nan_to_num, Tensor.flatten, Tensor.unflatten),
    *(torch.masked_fill, Tensor.masked_fill),
)
_MOST_OPEN = 16  # softmaxes that nothing was multiplied with yet; others are of no attention
HIDDEN = -1e4  # a logit so low stands for a key that is hidden


@dataclass(eq=False, repr=False)
class Event(ShortRepr):
    """One attention: softmax of logits times value.

    out      the function's output, heads before rows, (..., Q, D)
    value    (..., K, D)
    q, k     of scaled_dot_product_attention, with its mask and its factor; None of a softmax
    logits   of a softmax, (..., Q, K)
    order    permutation of the function's own output that gives `out`
    project  weight and bias by which the function projects its heads' output itself: `out` is then
             (Q, 1, C), what it gave, as of multi_head_attention_forward
    """

    out: Tensor
    value: Tensor
    q: Tensor | None = None
    k: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    logits: Tensor | None = None
    order: tuple[int, ...] | None = None
    project: tuple[Tensor, Tensor | None] | None = None

    @property
    def num_rows(self) -> int:
        return self.out.shape[0 if self.project else -2]

    @property
    def context(self) -> Tensor:
        """(1, Q, M * D), heads merged, or what the function made of that."""
        if self.project:
            return self.out.reshape(1, len(self.out), -1)
        return _heads(self.out).transpose(0, 1).flatten(1)[None]

    def with_context(self, context: Tensor) -> Tensor:
        """The function's output if its context were this one."""
        if self.project:
            return context.to(self.out.dtype).view_as(self.out)
        heads, rows, width = _heads(self.out).shape
        new = context.reshape(rows, heads, width).transpose(0, 1).reshape(self.out.shape)
        new = new.to(self.out.dtype)
        if self.order is None:
            return new
        return new.permute([self.order.index(i) for i in range(len(self.order))])

    @property
    def values(self) -> Tensor:
        """(M, K, D)."""
        return _heads(self._repeated(self.value))

    @property
    def queries(self) -> Tensor:
        """(M, Q, E) of scaled_dot_product_attention."""
        return _heads(self.q)

    @property
    def keys(self) -> Tensor:
        """(M, K, E) of scaled_dot_product_attention."""
        return _heads(self._repeated(self.k))

    def scores(self) -> Tensor:
        """The logits (M, Q, K), -inf where a key is hidden."""
        if self.logits is not None:
            found = full(_heads(self.logits))
            return found.masked_fill(found < HIDDEN, float("-inf"))
        q, k = full(self.queries), full(self.keys)
        found = q @ k.transpose(-1, -2) * (self.scale or q.shape[-1] ** -0.5)
        if self.causal:
            keep = torch.ones(found.shape[-2:], dtype=torch.bool, device=q.device).tril()
            found = found.masked_fill(~keep, float("-inf"))
        if self.mask is not None:
            mask = self.mask.expand(*self.q.shape[:-2], *found.shape[-2:])
            mask = _heads(mask)
            if mask.dtype == torch.bool:
                found = found.masked_fill(~mask, float("-inf"))
            else:
                found = found + full(mask)
                found = found.masked_fill(found < HIDDEN, float("-inf"))
        return found

    def _repeated(self, x: Tensor) -> Tensor:
        """Keys or values of several query heads, once for each (enable_gqa)."""
        if self.q is None or x.ndim < 3 or x.shape[-3] == self.q.shape[-3]:
            return x
        return x.repeat_interleave(self.q.shape[-3] // x.shape[-3], -3)


def _heads(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[-2:])


class FunctionWatcher(TorchFunctionMode):
    """Calls look(event) at each attention; what it gives replaces the function's output."""

    def __init__(self, look: Callable[[Event], Tensor | None]) -> None:
        super().__init__()
        self._look = look
        # of weights that have not multiplied anything yet: id -> (weights, logits); the first is
        # kept so that no other tensor gets its id
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        event = None
        if func is F.multi_head_attention_forward:
            new = self._look(_of_torchs(func, out[0], args, kwargs))
            return out if new is None else (new, *out[1:])
        if func is F.scaled_dot_product_attention:
            event = _of_sdpa(out, *args, **kwargs)
        elif func in _SOFTMAX:
            self._soften(out, args, kwargs)
        elif self._weights and args and isinstance(out, Tensor):
            if func in _SAME:
                self._follow(args[0], out)
            elif func in _PRODUCT or func is torch.einsum:
                event = self._product(func, out, args, kwargs)
        if event is None:
            return out
        new = self._look(event)
        return out if new is None else new

    def _soften(self, out: Tensor, args: tuple, kwargs: dict) -> None:
        logits = args[0] if args else kwargs.get("input")
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if isinstance(logits, Tensor) and out.ndim >= 2 and dim in (-1, out.ndim - 1):
            if len(self._weights) >= _MOST_OPEN:
                self._weights.pop(next(iter(self._weights)))
            self._weights[id(out)] = out, logits

    def _follow(self, x: Any, out: Tensor) -> None:
        """Weights that a function left as they are, rows and keys last."""
        known = self._weights.get(id(x))
        if known is None or out is x:
            return
        logits = known[1]
        if out.shape[-2:] == logits.shape[-2:]:
            self._weights[id(out)] = out, logits

    def _product(self, func: Any, out: Tensor, args: tuple, kwargs: dict) -> Event | None:
        operands = [x for x in args if isinstance(x, Tensor)] or _operands(args, kwargs)
        if len(operands) != 2:
            return None
        equation = args[0] if func is torch.einsum else None
        if func is torch.einsum and id(operands[1]) in self._weights:
            operands, equation = operands[::-1], _swapped(equation)
        if id(operands[0]) not in self._weights:
            return None
        weights, value = operands
        logits = self._weights[id(weights)][1]
        self._weights = {i: pair for i, pair in self._weights.items() if pair[1] is not logits}
        order = None
        if func is torch.einsum:
            found = _reordered(equation, value, out)
            if found is None:
                return None
            value, order = found
            out = out if order is None else out.permute(order)
        if value.ndim < 2 or value.shape[-2] != logits.shape[-1]:
            return None
        if value.shape[:-2].numel() != logits.shape[:-2].numel():
            value = value.expand(*weights.shape[:-2], *value.shape[-2:])
        return Event(out, value, logits=logits, order=order)


def _operands(args: tuple, kwargs: dict) -> list[Tensor]:
    """Of einsum with a list, of matmul with names."""
    found = [x for item in args if isinstance(item, list | tuple) for x in item]
    return [x for x in (*found, *kwargs.values()) if isinstance(x, Tensor)]


def _of_torchs(func: Any, out: Tensor, args: tuple, kwargs: dict) -> Event:
    """Of multi_head_attention_forward: asked for its weights, whose logarithms are logits."""
    given = inspect.signature(func).bind(*args, **kwargs)
    given.apply_defaults()
    a = given.arguments
    a |= {"need_weights": True, "average_attn_weights": False}
    weights = func(*given.args, **given.kwargs)[1]
    weight, bias = a["v_proj_weight"], a["in_proj_bias"]
    if not a["use_separate_proj_weight"]:
        weight = a["in_proj_weight"].chunk(3)[2]
    value = F.linear(a["value"], weight, None if bias is None else bias.chunk(3)[2])
    heads = value.reshape(len(value), a["num_heads"], -1).transpose(0, 1)  # rows come first
    project = a["out_proj_weight"], a["out_proj_bias"]
    return Event(out, heads, logits=_heads(weights).log(), project=project)


def _of_sdpa(
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Event:
    return Event(out, value, query, key, attn_mask, is_causal, scale)


def _swapped(equation: Any) -> Any:
    """The equation of an einsum with its two operands changed over."""
    if not isinstance(equation, str) or "->" not in equation:
        return None
    inputs, result = equation.split("->")
    return ",".join(inputs.split(",")[::-1]) + "->" + result


def _reordered(
    equation: Any, value: Tensor, out: Tensor
) -> tuple[Tensor, tuple[int, ...] | None] | None:
    """(value as (..., K, D), order of the output that gives (..., Q, D)) of an einsum."""
    if not isinstance(equation, str) or "->" not in equation:
        return None
    inputs, result = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    if any("..." in part for part in (first, second, result)):  # heads before all, as of matmul
        parts = [part.removeprefix("...") for part in (first, second, result)]
        row, key, width = parts[0][:1], parts[0][1:], parts[1][1:]
        plain = parts == [row + key, key + width, row + width] and len({row, key, width}) == 3
        return (value, None) if plain else None
    *heads, row, key = first
    if key not in second or key in result or row in second or row not in result:
        return None
    widths = [c for c in result if c in second and c not in first]
    if len(widths) != 1 or sorted(result) != sorted([*heads, row, *widths]):
        return None
    shared = [c for c in heads if c in second]
    if shared != heads or len(second) != len(heads) + 2:
        return None
    value = value.permute([second.index(c) for c in [*heads, key, *widths]])
    return value, tuple(result.index(c) for c in [*heads, row, *widths])
