"""How much of a map lies in a box, and what is written under a panel for it."""

from __future__ import annotations

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.figures.page.elements import Group, MapRow, number, percent
from detr_viz.figures.page.regions import SPREAD, held_cells
from detr_viz.figures.page.scale import FLAT
from detr_viz.figures.styles import Style


def cell_shares(grid: Grid, box_xyxy_px: np.ndarray, photo_hw: tuple[int, int]) -> np.ndarray:
    """(h, w): the part of each cell's rectangle that is in a box, pixels of the photo.

    A cell reaches halfway to its neighbours, the outer ones to the edge of the network's input;
    what of it is padding is never in a box.
    """
    sides = []
    for axis, (low, high) in enumerate(zip(box_xyxy_px[[1, 0]], box_xyxy_px[[3, 2]], strict=True)):
        borders = grid.borders(axis) * grid.input_hw[axis] / grid.shown_hw[axis] * photo_hw[axis]
        inside = np.clip(borders[1:], low, high) - np.clip(borders[:-1], low, high)
        sides.append(inside / np.maximum(np.diff(borders), 1e-9))
    return sides[0][:, None] * sides[1][None]


def in_box(row: MapRow, box_xyxy_px: np.ndarray, photo_hw: tuple[int, int]) -> np.ndarray:
    """(M,): the part of each map's weight that is in the box.

    The largest weights of any head sum to more than 1: the part is of their sum.
    """
    shares = cell_shares(row.grid, np.asarray(box_xyxy_px, np.float64), photo_hw)
    maps = np.asarray(row.maps, np.float64)
    return np.tensordot(maps, shares, 2) / np.maximum(maps.sum((-2, -1)), 1)


def is_flat(maps: np.ndarray) -> np.ndarray:
    """(M,): whether no cell has twice the weight of an even map or more.

    Of a map of less than 1 (the rest lies off it, or on other levels) the even map has as little.
    """
    cells = maps.shape[-1] * maps.shape[-2]
    return maps.max((-2, -1)) * cells < FLAT * np.minimum(maps.sum((-2, -1)), 1)


def captions(row: MapRow, group: Group, style: Style) -> tuple[str, ...]:
    """What is written under each panel of a row: the share in the box, and whether it is flat.

    With a norm of their own scale the largest weight is there too.
    """
    if row.captions is not None:
        return row.captions
    if row.reach or row.cells is not None:
        return ("",) * len(row.maps)
    if style.name == "contour":
        return _held(row, style)
    box = group.box_xyxy_px if row.box_xyxy_px is None else row.box_xyxy_px
    texts = [[] for _ in row.maps]
    if box is not None:
        for text, share in zip(texts, in_box(row, box, group.photo.shape[:2]), strict=True):
            text.append(percent(float(share)))
    for text, flat, one in zip(texts, is_flat(row.maps), row.maps, strict=True):
        if flat and style.scaling == "even":
            text.append("flat")
        if style.scaling in ("head", "query", "figure"):
            text.append(number(float(one.max())))
    for place in row.crossed:
        texts[place] = ["removed"]
    names = row.head_names or ("",) * len(row.maps)
    return tuple(
        f"{name}: {', '.join(text)}" if name and text else name or ", ".join(text)
        for name, text in zip(names, texts, strict=True)
    )


def _held(row: MapRow, style: Style) -> tuple[str, ...]:
    """What part of the image the first contour of each panel holds."""
    texts = []
    parts = held_cells(row.maps, style.contours[0], style.smoothing)
    for flat, held in zip(is_flat(row.maps), parts, strict=True):
        spread = held > SPREAD
        texts.append("flat" if flat else f"spread, {percent(held)}" if spread else percent(held))
    names = row.head_names or ("",) * len(texts)
    return tuple(f"{n}: {t}" if n else t for n, t in zip(names, texts, strict=True))
