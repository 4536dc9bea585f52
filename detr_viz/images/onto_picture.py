"""Annotated boxes onto the picture that was read: turned as it was turned, scaled as it is scaled.

picture = load_annotated(Input("cat.jpg", "cat", annotated))    # picture.annotated: in its pixels

Tools that write COCO files mostly know the pixels as they are stored, not as EXIF turns them. The
size that the file states tells which: equal to that of the upright picture, the boxes are taken as
they are; equal to that of the stored one, they are turned with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.files import path_text
from detr_viz.images.annotated import WHOLE, Annotated
from detr_viz.images.read import load_image, orientation_of

if TYPE_CHECKING:
    from detr_viz.images.loaded_image import LoadedImage

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_ROUNDING_PX = 1.5  # by which a side may differ from that of the same shape


def load_annotated(path: str, annotated: Annotated | None) -> LoadedImage:
    """The picture of a file with its annotated objects, in its own pixels."""
    return onto_picture(load_image(path), annotated)


def onto_picture(picture: LoadedImage, annotated: Annotated | None) -> LoadedImage:
    """The picture with the objects that a file states, moved into its pixels.

    annotated: None leaves the picture as it is. A note says where boxes were turned or scaled.
    Boxes of an image of another shape are left out, with a note; the picture then has none.
    """
    if annotated is None:
        return picture
    boxes, note = _moved(picture, annotated)
    if boxes is None:
        notes = (*picture.notes, note)
        return replace(picture, notes=notes, annotated=None, unplaced=annotated.digest)
    notes = (*picture.notes, note) if note else picture.notes
    moved = replace(annotated, boxes_xyxy_px=boxes, of_hw=None, stated=annotated.digest)
    return replace(picture, notes=notes, annotated=moved)


def _moved(picture: LoadedImage, annotated: Annotated) -> tuple[NDArray[np.float64] | None, str]:
    """(boxes in pixels of the upright picture or None, a note or "")."""
    boxes, stated = annotated.boxes_xyxy_px, annotated.of_hw
    high, wide = picture.hw
    if stated is None or stated == (high, wide):
        return boxes, ""
    if stated == WHOLE:
        return boxes * (wide, high, wide, high), ""
    fits = _alike(stated, picture.hw) and stated != (wide, high)
    turn = None if fits else _sideways(picture, stated)
    if turn is None and not _alike(stated, picture.hw):
        return None, (
            f"its annotated boxes are left out: {path_text(annotated.source)} has them for an "
            f"image of {_size(stated)}, and this one is {_size(picture.hw)}"
        )
    words = []
    stored = (wide, high) if turn else (high, wide)  # height and width of the pixels as stored
    if stated != stored:
        words.append(f"scaled from {_size(stated)} to {_size(stored)}")
        down, across = stored[0] / stated[0], stored[1] / stated[1]
        boxes = boxes * (across, down, across, down)
    if turn:
        words.append(f"turned with the picture (EXIF orientation {turn})")
        boxes = turned(boxes, stored, turn)
    return boxes, f"its annotated boxes are {' and '.join(words)}"


def turned(
    boxes: NDArray[np.float64], stored_hw: tuple[float, float], orientation: int
) -> NDArray[np.float64]:
    """Boxes (n, 4) of stored pixels as boxes of the upright picture, by its EXIF orientation."""
    high, wide = stored_hw
    x, y = boxes[:, [0, 2]], boxes[:, [1, 3]]
    x, y = {
        1: (x, y),
        2: (wide - x, y),
        3: (wide - x, high - y),
        4: (x, high - y),
        5: (y, x),
        6: (high - y, x),
        7: (high - y, wide - x),
        8: (y, wide - x),
    }[orientation]
    x, y = np.sort(x, 1), np.sort(y, 1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def _sideways(picture: LoadedImage, stated: tuple[float, float]) -> int | None:
    """The EXIF orientation that turned a picture of the stated shape into this one."""
    if picture.path is None or not _alike(stated, picture.hw[::-1]):
        return None
    number = orientation_of(picture.path)
    return number if number in _SIDEWAYS else None


def _alike(stated: tuple[float, float], hw: tuple[int, int]) -> bool:
    """Whether two sizes have the same shape, up to the rounding of the smaller one's sides."""
    (a, b), (c, d) = sorted([stated, hw])
    return abs(a - b * c / d) <= _ROUNDING_PX or abs(b - a * d / c) <= _ROUNDING_PX


def _size(hw: tuple[float, float]) -> str:
    """Width and height in words."""
    return f"{hw[1]:g} x {hw[0]:g}"
