"""Attention as people write it, under names that nobody else uses, in tiny detectors.

network = built(FusedPairs)                     # with such a cross-attention in its decoder
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, QUERIES, CLASSES = 32, 4, 6, 3


def heads_of(x, heads=HEADS):
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merged(x):
    return x.transpose(-2, -3).flatten(-2)


class OtherNames(nn.Module):
    """Three projections of other names, softmax by hand, matmul."""

    def __init__(self):
        super().__init__()
        self.ask, self.offer, self.carry = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.blend = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k = heads_of(self.ask(x + where_x)), heads_of(self.offer(memory + where_memory))
        logits = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        if gone is not None:
            logits = logits.masked_fill(gone[:, None, None], float("-inf"))
        return self.blend(merged(self.drop(logits.softmax(-1)) @ heads_of(self.carry(memory))))


class FusedPairs(nn.Module):
    """Keys and values of one projection, the fused function of torch, factor of its own."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 2 * WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        k, v = self.two(memory + where_memory).chunk(2, -1)
        keep = None if gone is None else ~gone[:, None, None]
        found = F.scaled_dot_product_attention(
            heads_of(self.one(x + where_x)), heads_of(k), heads_of(v), attn_mask=keep, scale=0.2
        )
        return self.last(merged(found))


class Sums(nn.Module):
    """einsum, rows before heads; weights of its own shape; no projection after it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = (
            y.unflatten(-1, (HEADS, -1))
            for y in (self.a(x + where_x), self.b(memory + where_memory), self.c(memory))
        )
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        if gone is not None:
            logits = logits + gone[:, None, None] * -1e9
        weights = torch.softmax(logits, dim=-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(-2)


class Turned(nn.Module):
    """Queries and keys are normalised and turned by place: no plain projection of anything."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH // HEADS)
        self.num_heads = HEADS
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q = self.norm(heads_of(self.q_proj(x))) * torch.cos(heads_of(where_x).expand(1, -1, -1, -1))
        k = self.norm(heads_of(self.k_proj(memory))) * torch.cos(heads_of(where_memory))
        keep = None if gone is None else ~gone[:, None, None]
        v = heads_of(self.v_proj(memory))
        return self.out_proj(merged(F.scaled_dot_product_attention(q, k, v, keep, scale=1.5)))


class RawWeights(nn.Module):
    """No module at all: parameters, F.linear, bmm of heads laid into the batch, rows first."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, WIDTH, WIDTH) * WIDTH**-0.5)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        x, memory = (y.transpose(0, 1) for y in (x + where_x, memory + where_memory))
        q, k, v = (
            F.linear(y, w).reshape(len(y), HEADS, -1).transpose(0, 1)
            for y, w in zip((x, memory, memory), self.w, strict=False)
        )
        logits = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
        if gone is not None:
            logits = logits.masked_fill(gone[:, None], -1e30)
        found = torch.bmm(F.softmax(logits, -1), v)
        return F.linear(found.transpose(0, 1).flatten(1)[None], self.w[3])


class Torchs(nn.Module):
    """nn.MultiheadAttention inside a wrapper, rows first."""

    def __init__(self):
        super().__init__()
        self.core = nn.MultiheadAttention(WIDTH, HEADS)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = (y.transpose(0, 1) for y in (x + where_x, memory + where_memory, memory))
        return self.core(q, k, v, key_padding_mask=gone, need_weights=False)[0].transpose(0, 1)


class Exponentials(nn.Module):
    """A softmax that torch does not know of: it cannot be seen."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = heads_of(self.a(x)), heads_of(self.b(memory)), heads_of(self.c(memory))
        weights = (q @ k.transpose(-1, -2) * 0.3).exp()
        return merged(weights / weights.sum(-1, keepdim=True) @ v)


class FewKeys(nn.Module):
    """Keys and values have half of the heads of the queries, each for two (grouped queries)."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.close = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        k, v = (heads_of(y, HEADS // 2) for y in self.narrow(memory + where_memory).chunk(2, -1))
        keep = None if gone is None else ~gone[:, None, None]
        q = heads_of(self.wide(x + where_x))
        k, v = (y.repeat_interleave(2, 1) for y in (k, v))
        return self.close(merged(F.scaled_dot_product_attention(q, k, v, keep)))


class Borrowed(nn.Module):
    """torch's function with parameters of its own, and no module of it."""

    def __init__(self):
        super().__init__()
        self.all = nn.Parameter(torch.randn(3 * WIDTH, WIDTH) * WIDTH**-0.5)
        self.shift = nn.Parameter(torch.zeros(3 * WIDTH))
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = (y.transpose(0, 1) for y in (x + where_x, memory + where_memory, memory))
        found, _ = F.multi_head_attention_forward(
            q, k, v, WIDTH, HEADS, self.all, self.shift, None, None, False, 0.0,
            self.after.weight, self.after.bias, training=False, key_padding_mask=gone,
            need_weights=False,
        )  # fmt: skip
        return found.transpose(0, 1)


class Points(nn.Module):
    """einsum with an ellipsis, values first."""

    def __init__(self):
        super().__init__()
        self.p, self.r, self.s, self.t = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = (
            heads_of(line(y))
            for line, y in (
                (self.p, x + where_x),
                (self.r, memory + where_memory),
                (self.s, memory),
            )
        )
        logits = torch.einsum("...id,...jd->...ij", q, k) * 0.4
        if gone is not None:
            logits = logits.masked_fill(gone[:, None, None], -torch.inf)
        weights = nn.Softmax(dim=3)(logits)
        return self.t(torch.einsum("bhjd,bhij->bihd", v, weights).flatten(2))


class Dots(Points):
    """The same with an ellipsis there too, and a query for each head in the function's batch."""

    def forward(self, x, memory, where_x, where_memory, gone=None):
        q, k, v = (
            heads_of(line(y)).flatten(0, 1)
            for line, y in (
                (self.p, x + where_x),
                (self.r, memory + where_memory),
                (self.s, memory),
            )
        )
        logits = torch.baddbmm(torch.zeros(1), q, k.mT, beta=0, alpha=0.4)
        if gone is not None:
            logits = logits.masked_fill(gone[:, None], -torch.inf)
        found = torch.einsum("... i j, ... j d -> ... i d", logits.softmax(2), v)
        return self.t(merged(found[None]))


KINDS = (OtherNames, FusedPairs, Sums, Turned, RawWeights, Torchs, FewKeys, Borrowed, Points, Dots)


class Layer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.between, self.across = OtherNames(), kind()
        self.feed = nn.Sequential(nn.Linear(WIDTH, 48), nn.ReLU(), nn.Linear(48, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, x, memory, where_x, where_memory, gone=None):
        x = self.norms[0](x + self.between(x, x, where_x, where_x))
        x = self.norms[1](x + self.across(x, memory, where_x, where_memory, gone))
        return self.norms[2](x + self.feed(x))


class Inline(nn.Module):
    """A layer that writes out both attentions itself, eight projections in one list."""

    def __init__(self, kind=None):
        super().__init__()
        self.lines = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(8))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))

    def attend(self, lines, q, k, v, gone):
        q, k, v = (heads_of(line(y)) for line, y in zip(lines, (q, k, v), strict=False))
        logits = (q / q.shape[-1] ** 0.5).matmul(k.mT)
        if gone is not None:
            logits = logits.masked_fill(gone[:, None, None], torch.finfo(logits.dtype).min)
        weights = F.softmax(logits, dim=-1, dtype=torch.float32).to(v.dtype)
        return lines[3](merged(torch.matmul(weights, v)))

    def forward(self, x, memory, where_x, where_memory, gone=None):
        own = x + where_x
        x = self.norms[0](x + self.attend(self.lines[:4], own, own, x, None))
        parts = x + where_x, memory + where_memory, memory
        return self.norms[1](x + self.attend(self.lines[4:], *parts, gone))


class Strange(nn.Module):
    """A detector: convolutions, learned places, two layers. padded: a quarter is hidden."""

    def __init__(self, kind, padded=False):
        super().__init__()
        self.eye = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.Conv2d(16, WIDTH, 2, 2))
        layer = Inline if kind is Inline else Layer
        self.layers = nn.ModuleList(layer(kind) for _ in range(2))
        self.start = nn.Parameter(torch.randn(QUERIES, WIDTH))
        self.place = nn.Parameter(torch.randn(QUERIES, WIDTH))
        self.mix = nn.Linear(2, WIDTH)
        self.what, self.box = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, 4)
        self.padded = padded

    def forward(self, picture):
        grid = self.eye(picture)
        h, w = grid.shape[-2:]
        memory = grid.flatten(2).transpose(1, 2)
        lines = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
        where = self.mix(torch.stack(lines, -1).to(memory).flatten(0, 1))[None]
        gone = None
        if self.padded:
            gone = torch.zeros(1, h, w, dtype=torch.bool)
            gone[:, :, -(w // 4) :] = True
            gone = gone.flatten(1)
        x = self.start[None]
        for layer in self.layers:
            x = layer(x, memory, self.place[None], where, gone)
        return {"what": self.what(x).sigmoid(), "box": self.box(x).sigmoid()}


def built(kind, **options):
    torch.manual_seed(2)
    model = Strange(kind, **options).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1.6) if value.ndim > 1 else value.add_(0.05 * torch.randn(value.shape))
    return model


ATTACHED = {
    "boxes": lambda out: out["box"],
    "scores": lambda out: out["what"],
    "preprocess": lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255,
}
