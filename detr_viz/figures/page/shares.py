"""How much of a map lies in a box, and what is written under a panel for it."""

from __future__ import annotations

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.figures.page.elements import Group, MapRow, number, percent
from detr_viz.figures.page.regions import SPREAD, held_cells
from detr_viz.figures.page.scale import FLAT
from detr_viz.figures.styles import Style

_LEAST_OFF = 0.005  # of a map


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
    return _parts_in(np.asarray(row.maps), row.grid, box_xyxy_px, photo_hw)


def _parts_in(
    maps: np.ndarray, grid: Grid, box_xyxy_px: np.ndarray, photo_hw: tuple[int, int]
) -> np.ndarray:
    shares = cell_shares(grid, np.asarray(box_xyxy_px, np.float64), photo_hw)
    maps = np.asarray(maps, np.float64)
    return np.tensordot(maps, shares, 2) / np.maximum(maps.sum((-2, -1)), 1)


def _in_own_boxes(row: MapRow, group: Group) -> list[float | None]:
    """The part of each map's weight in the box of its panel; None where it has none."""
    photo_hw = group.photo.shape[:2]
    if row.boxes_xyxy_px is None:
        box = group.box_xyxy_px
        return [None] * len(row.maps) if box is None else in_box(row, box, photo_hw).tolist()
    boxes = [row.box_of(head, group) for head in range(len(row.maps))]
    return [
        None if box is None else float(_parts_in(one[None], row.grid, box, photo_hw)[0])
        for one, box in zip(row.maps, boxes, strict=True)
    ]


def is_flat(maps: np.ndarray) -> np.ndarray:
    """(M,): whether no cell has twice the weight of an even map or more.

    Of a map of less than 1 (the rest lies off it, or on other levels) the even map has as little.
    """
    cells = maps.shape[-1] * maps.shape[-2]
    return maps.max((-2, -1)) * cells < FLAT * np.minimum(maps.sum((-2, -1)), 1)


def _off(row: MapRow) -> list[list[str]]:
    """What of each map falls off the image, in words; nothing where that is little."""
    return [[f"{percent(part)} off"] if part >= _LEAST_OFF else [] for part in row.off] or [
        [] for _ in row.maps
    ]


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
    texts = [[] if share is None else [percent(share)] for share in _in_own_boxes(row, group)]
    for text, flat, one in zip(texts, is_flat(row.maps), row.maps, strict=True):
        if flat and style.scaling == "even":
            text.append("flat")
        if style.scaling in ("head", "query", "figure"):
            text.append(number(float(one.max())))
    for text, off in zip(texts, _off(row), strict=True):
        text += off
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
    texts = [", ".join([text, *off]) for text, off in zip(texts, _off(row), strict=True)]
    names = row.head_names or ("",) * len(texts)
    return tuple(f"{n}: {t}" if n else t for n, t in zip(names, texts, strict=True))
