"""Recorded calls of dense attention as DenseAttention: projections of sums, packed, or apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.adapters.positions import (
    Given,
    Position,
    is_nothing,
    packed_argument,
    queries_of,
    row_position,
    values_of,
)
from detr_viz.adapters.recorder import RawCall, bias_part, linear_part
from detr_viz.adapters.tensors import full, number
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.kernel import split_heads
from detr_viz.attention.terms import MODES
from detr_viz.attention.undivided import UndividedAttention
from detr_viz.common.errors import UserError

HEADS = ("num_heads", "num_attention_heads", "n_heads", "nhead", "heads", "attention_heads")
_WIDTHS = ("head_dim", "attention_head_size", "dim_head", "attention_head_dim")
_SCALES = ("scaling", "scale", "softmax_scale")
_EACH_ITS_OWN = "has a mask of its own for each query, which is not shown here"
NO_POSITION = "this model adds no position inside its attention"
ONE_SIDED = "this model adds a position to queries or to keys alone inside its attention"


def sides(call: RawCall) -> tuple[Tensor, Tensor, Tensor]:
    """What queries, keys and values are projected from, batch first."""
    if call.site.kind == "packed":
        names = ("query", "key", "value")
        query, key, value = (packed_argument(call, n, i) for i, n in enumerate(names))
    else:
        query, key, value = queries_of(call), call.inputs.get("k"), values_of(call)
    if any(x is None or x.ndim != 3 for x in (query, key, value)):
        raise UserError(f"{call.name}: its projections were not called with (batch, rows, width)")
    return query, key, value


def dense_rows(call: RawCall) -> tuple[int, int]:
    """(queries, keys) of a call."""
    if call.site.kind == "apart":
        return call.inputs["q content"].shape[1], call.inputs["k content"].shape[1]
    query, key, _ = sides(call)
    return query.shape[1], key.shape[1]


def read_dense(
    call: RawCall, image: int, given: Given | None
) -> tuple[Iterator[DenseAttention], list[Position | None]]:
    """(readings, one for each meaning of its mask, positions of queries and of keys)."""
    if call.site.kind == "apart":
        attention = _apart(call)
        return _masked(call, attention, image), []
    query, key, value = sides(call)
    q_position = row_position(call, query, "q", given)
    k_position = row_position(call, key, "k", given)
    (w_q, b_q), (w_k, b_k), v = _projections(call, value)
    parts = []
    for x, position, project in ((query, q_position, w_q), (key, k_position, w_k)):
        if is_nothing(position):
            whole = project(x)
            parts += [whole, torch.zeros_like(whole)]
        else:
            parts += [project(x - position.value), project(position.value).expand(len(x), -1, -1)]
    heads = _heads(call, parts[0].shape[-1])
    b_q, b_k = full(b_q), full(b_k)
    c_q, p_q, c_k, p_k, v = (split_heads(full(x), heads) for x in (*parts, v))
    scale = _scale(call, c_q.shape[-1])
    attention = DenseAttention(
        c_q, p_q, c_k, p_k,
        b_q.view(heads, 1, -1), b_k.view(heads, 1, -1),
        v, scale, dict.fromkeys(MODES, scale),
    )  # fmt: skip
    positions = [q_position, k_position]
    if any(map(is_nothing, positions)):  # a map of one side's position alone would be even
        whole = all(map(is_nothing, positions))
        attention = UndividedAttention.of(
            _of_content(attention), NO_POSITION if whole else ONE_SIDED
        )
    return _masked(call, attention, image), positions


def _of_content(attention: DenseAttention) -> DenseAttention:
    """The same attention with its position in the content."""
    zero_q, zero_k = torch.zeros_like(attention.p_q), torch.zeros_like(attention.p_k)
    c_q, c_k = attention.c_q + attention.p_q, attention.c_k + attention.p_k
    return replace(attention, c_q=c_q, p_q=zero_q, c_k=c_k, p_k=zero_k)


def _projections(call: RawCall, value: Tensor) -> tuple[Any, Any, Tensor]:
    """(projection without bias, bias) of queries and of keys; projected values."""
    children = call.site.children
    if call.site.kind != "packed":
        cuts = call.site.clues.cuts if call.site.clues else {}

        def pair(n: str) -> tuple[Any, Tensor]:
            own, cut = children[n], cuts.get(n, slice(None))
            bias = bias_part(own, call.inputs[n])[cut]
            return lambda x: linear_part(own, x)[..., cut], bias

        return pair("q"), pair("k"), call.outputs["v"]
    module = call.site.module
    if module.bias_k is not None or module.add_zero_attn:
        raise UserError(f"{call.name} adds keys of its own (bias_k, add_zero_attn)")
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = [weights[0].new_zeros(module.embed_dim)] * 3
    if module.in_proj_bias is not None:
        biases = module.in_proj_bias.chunk(3)
    both = zip(weights[:2], biases[:2], strict=True)  # of queries and keys
    pairs = [(lambda x, w=w: F.linear(x, w), b) for w, b in both]
    return *pairs, F.linear(value, weights[2], biases[2])


def _heads(call: RawCall, width: int) -> int:
    if call.site.clues:
        return call.site.clues.heads
    own = (call.site.inner, call.site.module)
    heads = number(own, HEADS)
    if heads is None and (each := number(own, _WIDTHS)):
        heads = width // each
    if not heads or width % heads:
        raise UserError(f"{call.name} does not say how many heads it has: give it num_heads")
    return int(heads)


def _scale(call: RawCall, width: int) -> float:
    if call.site.clues and call.site.clues.scale:
        return call.site.clues.scale
    found = number((call.site.inner, call.site.module), _SCALES)
    return float(found) if found else width**-0.5


def _apart(call: RawCall) -> DenseAttention:
    """Content and position projected apart, added, or laid side by side with a sine's part."""
    get = call.outputs.get
    heads = _heads(call, call.outputs["v"].shape[-1])
    batch = len(call.outputs["v"])

    def split(x: Tensor) -> Tensor:
        return split_heads(full(x), heads).expand(batch, -1, -1, -1)

    c_q, c_k, p_k, value = (
        split(call.outputs[n]) for n in ("q content", "k content", "k pos", "v")
    )
    p_q, sine = get("q pos"), get("q pos_sine")
    p_q = torch.zeros_like(c_q) if p_q is None else split(p_q)
    if sine is None:
        scale = _scale(call, c_q.shape[-1])
        scales = dict.fromkeys(MODES, scale)
        return DenseAttention(c_q, p_q, c_k, p_k, None, None, value, scale, scales)
    shared = get("q pos") is not None  # position enters the content half of both
    zero_q, zero_k = torch.zeros_like(c_q), torch.zeros_like(c_k)
    scale = _scale(call, 2 * c_q.shape[-1])
    own = c_q.shape[-1] ** -0.5
    return DenseAttention(
        torch.cat((c_q, zero_q), -1),
        torch.cat((p_q, split(sine)), -1),
        torch.cat((c_k, zero_k), -1),
        torch.cat((p_k if shared else zero_k, p_k), -1),
        None, None, value, scale,
        {"combine": scale, "position": scale if shared else own, "content": own},
    )  # fmt: skip


def _masked(call: RawCall, attention: DenseAttention, i: int) -> Iterator[DenseAttention]:
    """One image's attention under each meaning of the mask that there is."""
    one = attention.of_image(i)
    heads, rows, keys = one.num_heads, one.num_rows, one.c_k.shape[-2]
    batch = len(attention.c_q)
    found = []
    if call.event is not None:
        hidden = call.event.scores().isneginf()
        if not bool((hidden == hidden[:1, :1]).all()):
            raise UserError(f"{call.name} {_EACH_ITS_OWN}")
        yield replace(one, key_padding_mask=hidden[0, 0] if hidden.any() else None)
        return
    for name, mask in call.bound.items():
        if "mask" not in name or not isinstance(mask, Tensor):
            continue
        if mask.shape[-1] != keys:
            continue
        hidden, sure = _hidden(mask, call, batch, heads, rows)
        if hidden is None:
            raise UserError(f"{call.name} {_EACH_ITS_OWN}")
        hidden = hidden[i if len(hidden) > 1 else 0]
        if hidden.any():
            found.append((hidden, sure))
    if not found:
        yield one
        return
    for hidden, sure in found:
        for mask in (hidden,) if sure else (hidden, ~hidden):
            if not mask.all():
                yield replace(one, key_padding_mask=mask if mask.any() else None)
    yield one


def _hidden(
    mask: Tensor, call: RawCall, batch: int, heads: int, rows: int
) -> tuple[Tensor | None, bool]:
    """((B or 1, K) True = hidden, whether that is sure); None for a mask that differs by query."""
    sure = mask.is_floating_point() or call.site.kind == "packed"
    hidden = mask < -1e4 if mask.is_floating_point() else mask.bool()
    if mask.is_floating_point() and bool((mask.abs() < 1e4).logical_and(mask != 0).any()):
        return None, True
    if hidden.ndim == 2 and len(hidden) in (1, batch) and (len(hidden) != rows or batch == rows):
        return hidden, sure
    flat = (
        hidden.reshape(-1, hidden.shape[-2], hidden.shape[-1]) if hidden.ndim > 2 else hidden[None]
    )
    if not bool((flat == flat[:, :1]).all()):
        return None, True
    each = flat[:, 0]
    if len(each) == batch * heads:
        each = each[::heads]
    return (each, sure) if len(each) in (1, batch) else (None, True)
