"""A recorded call of any kind as an `Attention`, proved by the self-check.

A mask may mean what is valid or what is padding: of the readings the one is taken that gives what
the module gave. The limit of the self-check is the tool's own, and holds for it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.positions import Given, Position
from detr_viz.adapters.read_dense import dense_rows, read_dense
from detr_viz.adapters.read_sampled import read_sampled, sampled_rows
from detr_viz.adapters.read_watched import read_watched, watched_rows
from detr_viz.adapters.recorder import Paused, RawCall
from detr_viz.attention.base import Attention
from detr_viz.attention.grids import Grid

_ROWS = {"sampled": sampled_rows, "watched": watched_rows}
_READERS = {"sampled": read_sampled, "watched": read_watched}
_GOOD = 1e-4  # a reading so near is taken without looking at the others


def rows_of(call: RawCall) -> tuple[int, int]:
    """(rows, keys) of a call; (0, 0) where its children were not called."""
    try:
        return _ROWS.get(call.site.kind, dense_rows)(call)
    except (KeyError, ValueError, AttributeError, IndexError):
        return 0, 0


class Projection(nn.Module):
    """A projection of heads, in its own precision."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self._own = (own,)  # not a child: it belongs to another network

    def forward(self, x: Tensor) -> Tensor:
        with Paused():
            return self._own[0](x.to(self._own[0].weight.dtype))


class _Linear(nn.Module):
    """A projection by parameters that no module of its own holds."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._own = (weight, bias)  # no parameters of this module

    @property
    def weight(self) -> Tensor:
        return self._own[0]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self._own)


def projection(site: SiteModule) -> nn.Module:
    """From heads to the context of a site's calls; nn.MultiheadAttention's is projected."""
    if site.clues and site.clues.project:
        return Projection(_Linear(*site.clues.project))
    return Projection(site.module.out_proj) if site.kind == "packed" else nn.Identity()


def read(
    call: RawCall, image: int, grids: tuple[Grid, ...], given: Given | None = None
) -> Attention:
    """The attention of one image of the batch."""
    return replace(checked(call, image, given)[0], grids=grids)


def checked(
    call: RawCall, image: int, given: Given | None = None
) -> tuple[Attention, float, list[Position | None]]:
    """(the reading with the smallest residual, this residual, its positions)."""
    with Paused(), torch.no_grad():
        reader = _READERS.get(call.site.kind, read_dense)
        readings, positions = reader(call, image, given)
        attention, residual = _best(readings, call.context[image], projection(call.site))
    return attention, residual, positions


def _best(
    readings: Iterator[Attention], out: Tensor, project_out: nn.Module
) -> tuple[Attention, float]:
    best, smallest = None, math.inf
    for attention in readings:
        residual = attention.residual(out, project_out)
        if best is None or residual < smallest:
            best, smallest = attention, residual
        if math.isnan(residual) or residual < _GOOD:
            return attention, residual
    return best, smallest


def all_parts(positions: list[Position | None], kind: str) -> bool:
    """Whether content and position of a reading stand apart."""
    return kind == "apart" or any(
        p is not None and bool(torch.count_nonzero(p.value)) for p in positions
    )
