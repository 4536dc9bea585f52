"""One file of annotated objects about one image, and globox, which reads the objects in it.

Files are read here, within limits: globox gets single objects. It is an extra of this package.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError

INSTALL = 'pip install "detr-viz[annotations]"'
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Marked:
    """What a file says: boxes (left, top, right, bottom), names, crowds, the size of its image.

    left_out: objects without a box.
    """

    boxes: tuple[Box, ...]
    names: tuple[str, ...]
    crowd: tuple[bool, ...]
    of_hw: tuple[float, float] | None = None
    left_out: int = 0


def has_globox() -> bool:
    """Whether files of single images can be read here."""
    return importlib.util.find_spec("globox") is not None


def check_globox() -> None:
    """UserError where it is missing."""
    if not has_globox():
        raise UserError(f"YOLO, Pascal VOC and LabelMe files are read by globox: {INSTALL}")


def box_by(read: Callable[..., Any], node: object, what: str, **more: Any) -> Box:
    """left, top, right, bottom of an object as globox reads it; ValueError with `what` in it."""
    try:
        box = read(node, **more).ltrb
    except Exception as error:  # its own errors, assertions, and those of Python's float()
        raise ValueError(f"{what} is not read ({_words(error)})") from None
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{what} is not read (its numbers are not finite)")
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom


def checked(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes; ValueError for too many."""
    if len(boxes) > bound("boxes"):
        raise ValueError(f"it has {beyond('boxes', len(boxes))}")
    return tuple(boxes)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
