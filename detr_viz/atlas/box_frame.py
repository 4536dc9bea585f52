"""A box as the unit square, with a margin: where the cells of a map lie around it.

`frame_of` is for maps of the image. Attention that reads cells of boxes has its weights in the
coordinates of a box already: `cell_frame`.

Bins have sides of 1/16 of the box's sides; they reach half a box beyond it on every side. A cell's
territory reaches halfway to its neighbours, and at the rim to the image's edge; the weight of a
cell is spread evenly over its territory. Letters: q objects, K = h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from detr_viz.explanation.results import ExplanationBase

MARGIN = 0.5  # boxes to each side
PER_BOX = 16  # bins along a side of the box
BINS = round((1 + 2 * MARGIN) * PER_BOX)
ZONES = ("left", "right", "top", "bottom", "inside", "background")
BAND = 0.25  # of the box: what is nearer to an edge is on it; farther outside is background
LEAST_CELLS = 2  # across a box; in a narrower one left and right cannot be distinguished


@dataclass(frozen=True, eq=False)
class BoxFrame:
    """The boxes of q objects of one image, and where the cells lie around them.

    rows, columns   (q, BINS, h) and (q, BINS, w): share of each row's (column's) territory that
                    lies in each bin; the product of both is a bin's share of a cell's weight
    visible         (q, BINS, BINS) share of each bin that lies in the image
    inside          (q, K) cells whose centres lie in the box
    in_any          (K,) cells whose centres lie in any of the q boxes
    places          (q, 2, K) x and y of the cells' centres: 0 at the box's left (top) edge, 1 at
                    its right (bottom) one
    to_sides        (q, 4, K) distance of the centres to the lines through the box's left, right,
                    top and bottom edge, in cells
    to_edge         (q, K) distance of the centres to the nearest point of the box's outline, cells
    resolved        (q,) boxes of at least LEAST_CELLS cells either way
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    visible: NDArray[np.float64]
    inside: NDArray[np.bool_]
    in_any: NDArray[np.bool_]
    places: NDArray[np.float64]
    to_sides: NDArray[np.float64]
    to_edge: NDArray[np.float64]
    resolved: NDArray[np.bool_]

    def of(self, some: NDArray) -> BoxFrame:
        """The frame of some of the objects, by a mask (q,)."""
        whole = {"in_any": self.in_any}
        names = [f.name for f in fields(self) if f.name not in whole]
        return BoxFrame(**whole, **{name: getattr(self, name)[some] for name in names})


def frame_of(e: ExplanationBase, queries: list[int]) -> BoxFrame:
    """The frame of these queries' boxes from the last layer."""
    (height, width), boxes = e.image.hw, e.boxes_xyxy_px[queries].astype(np.float64)
    y, x = e.cell_centers_px()
    low, high = boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1e-6)
    columns, seen_x = _shares(x, width, low[:, 0], high[:, 0])
    rows, seen_y = _shares(y, height, low[:, 1], high[:, 1])
    inside = e.cells_inside()[queries]
    grid_y, grid_x = (side.ravel() for side in np.meshgrid(y, x, indexing="ij"))
    centres = np.stack((grid_x, grid_y))  # (2, K)
    pitch = np.array([_pitch(x, width), _pitch(y, height)])[:, None]
    first = (centres - low[:, :, None]) / pitch  # beyond the left (top) edge, cells
    last = (high[:, :, None] - centres) / pitch
    out_x, out_y = (np.maximum(np.maximum(-first[:, k], -last[:, k]), 0) for k in (0, 1))
    depth = np.minimum(first, last).min(1)
    return BoxFrame(
        rows=rows,
        columns=columns,
        visible=seen_y[:, :, None] * seen_x[:, None, :],
        inside=inside,
        in_any=inside.any(0),
        places=(centres - low[:, :, None]) / (high - low)[:, :, None],
        to_sides=np.abs(np.stack((first[:, 0], last[:, 0], first[:, 1], last[:, 1]), 1)),
        to_edge=np.where(depth >= 0, depth, np.hypot(out_x, out_y)),
        resolved=((high - low) >= LEAST_CELLS * pitch[:, 0]).all(1),
    )


def cell_frame(e: ExplanationBase, boxes_px: NDArray, side: int) -> BoxFrame:
    """The frame of boxes (q, 4) whose own side x side cells hold the weights, in pixels.

    The cells are coordinates of the box: they fill it, whatever its place in the image, and nothing
    lies beyond it. Distances are in these cells; `resolved` is in cells of the finest grid.
    """
    boxes = boxes_px.astype(np.float64)
    count, middles = len(boxes), (np.arange(side) + 0.5) / side
    edges, borders = np.linspace(-MARGIN, 1 + MARGIN, BINS + 1), np.linspace(0, 1, side + 1)
    shared = np.minimum(edges[1:, None], borders[1:]) - np.maximum(edges[:-1, None], borders[:-1])
    line = np.broadcast_to(np.maximum(shared, 0) * side, (count, BINS, side))
    at = (edges[1:] + edges[:-1]) / 2
    seen = ((at > 0) & (at < 1)).astype(np.float64)
    y, x = (grid.ravel() for grid in np.meshgrid(middles, middles, indexing="ij"))
    to_sides = np.stack((x, 1 - x, y, 1 - y)) * side
    y_px, x_px = e.cell_centers_px()
    pitch = np.array([_pitch(x_px, e.image.hw[1]), _pitch(y_px, e.image.hw[0])])
    return BoxFrame(
        rows=line,
        columns=line,
        visible=np.broadcast_to(np.outer(seen, seen), (count, BINS, BINS)),
        inside=np.ones((count, side**2), bool),
        in_any=np.ones(side**2, bool),
        places=np.broadcast_to(np.stack((x, y)), (count, 2, side**2)),
        to_sides=np.broadcast_to(to_sides, (count, 4, side**2)),
        to_edge=np.broadcast_to(to_sides.min(0), (count, side**2)),
        resolved=((boxes[:, 2:] - boxes[:, :2]) >= LEAST_CELLS * pitch).all(1),
    )


def _pitch(centres: NDArray, image_px: int) -> float:
    """Pixels from cell to cell along an axis; of a single cell, the whole image."""
    return float(centres[1] - centres[0]) if len(centres) > 1 else float(image_px)


def _shares(
    centres: NDArray, image_px: int, low: NDArray, high: NDArray
) -> tuple[NDArray, NDArray]:
    """Along an axis: (q, BINS, n) share of every cell in every bin, (q, BINS) of bins in the image.

    centres (n,) in pixels; low, high (q,): the sides of the boxes.
    """
    borders = np.concatenate([[0], (centres[:-1] + centres[1:]) / 2, [image_px]])
    at = np.linspace(-MARGIN, 1 + MARGIN, BINS + 1)
    edges = low[:, None] + (high - low)[:, None] * at  # (q, BINS + 1), pixels
    start, end = edges[:, :-1, None], edges[:, 1:, None]
    shared = np.minimum(end, borders[1:]) - np.maximum(start, borders[:-1])
    inside = np.minimum(end, image_px) - np.maximum(start, 0)
    return (
        np.maximum(shared, 0) / np.diff(borders),
        (np.maximum(inside, 0) / (end - start))[:, :, 0],
    )


def zone_masks() -> NDArray[np.float64]:
    """(5, BINS, BINS): share of each bin that is left, right, top, bottom and inside.

    Inside is farther than BAND from every edge. Every other bin of the square that reaches BAND
    beyond the box belongs to the nearest edge, or in equal shares to several that are equally near.
    All other bins are background.
    """
    at = (np.arange(BINS) + 0.5) / PER_BOX - MARGIN
    y, x = (side[..., None] for side in np.meshgrid(at, at, indexing="ij"))
    u, v = x[..., 0], y[..., 0]
    over_x, over_y = (np.maximum(np.maximum(-t, t - 1), 0) for t in (u, v))
    # distance to each edge as a line of the box's length
    distances = np.stack(
        (np.hypot(u, over_y), np.hypot(1 - u, over_y), np.hypot(v, over_x), np.hypot(1 - v, over_x))
    )
    nearest = np.isclose(distances, distances.min(0))
    shares = nearest / nearest.sum(0)
    band = (over_x <= BAND) & (over_y <= BAND)
    core = (np.abs(u - 0.5) < 0.5 - BAND) & (np.abs(v - 0.5) < 0.5 - BAND)
    return np.stack([*(shares * (band & ~core)), core.astype(np.float64)])
