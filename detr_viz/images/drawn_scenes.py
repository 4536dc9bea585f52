"""The drawn scenes that the demo checkpoints know: their classes, their colours, and which picture
is one.

The rule: a picture is a drawn scene where nearly all of it has the colours of the scenes, a calm
background on at least 3 tenths and the inks of objects on the rest. It looks at the pixels alone,
averaged over 64 x 64 fields, so that scenes that were saved again, resized or cropped count too; a
photo on which shapes were drawn does not. Where the demo checkpoints meet another picture, the run
says ONLY_SHAPES in its last line and in the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from detr_viz.images import large

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
ONLY_SHAPES = "these weights know six drawn shapes only"
# Backgrounds are calm and close to grey; objects have inks that stand out from them.
BACKGROUNDS = (
    ((236, 230, 218), (222, 214, 203)),  # cream
    ((222, 230, 224), (200, 214, 208)),  # pale sage
    ((221, 228, 238), (196, 208, 224)),  # morning blue
    ((238, 226, 224), (220, 202, 204)),  # blush
    ((206, 203, 212), (182, 180, 194)),  # lilac grey
    ((196, 204, 200), (168, 180, 178)),  # stone
    ((168, 182, 192), (140, 156, 170)),  # dusk
    ((62, 76, 96), (46, 58, 76)),  # slate
    ((48, 72, 76), (36, 54, 60)),  # deep teal
    ((74, 62, 80), (56, 48, 64)),  # aubergine
    ((78, 76, 74), (58, 57, 57)),  # charcoal
    ((46, 58, 92), (34, 42, 70)),  # navy
)
INKS = (
    (214, 90, 74),  # terracotta
    (232, 152, 74),  # apricot
    (238, 196, 96),  # honey
    (122, 164, 92),  # leaf
    (52, 132, 120),  # pine
    (88, 170, 186),  # lagoon
    (62, 106, 168),  # denim
    (122, 98, 172),  # iris
    (196, 104, 148),  # mallow
    (150, 62, 82),  # wine
    (246, 238, 224),  # chalk
    (52, 58, 74),  # ink
    (228, 156, 160),  # rose
    (158, 118, 86),  # cocoa
)
SECOND_SHARE = (0.14, 0.34)  # of the way to white or black: the second colour of a texture

_SIDE_PX = 64
_NEAR_BACKGROUND, _NEAR_INK = 9.0, 22.0  # distances of RGB; inks vary by 7 in each channel
_LEAST_BACKGROUND, _LEAST_INK, _LEAST_BOTH = 0.3, 0.004, 0.85  # shares of the picture
_GREY = 6.0  # largest difference of the channels of a picture without colours


def is_beyond(class_names: Sequence[str], rgb: np.ndarray) -> bool:
    """Whether weights with these classes know drawn shapes only, and rgb (H, W, 3) is no scene."""
    return tuple(class_names) == CLASSES and not is_drawn_scene(rgb)


def is_drawn_scene(rgb: np.ndarray) -> bool:
    """Whether a picture, uint8 (H, W, 3), is one of the drawn scenes."""
    fields = large.resized(rgb, (_SIDE_PX, _SIDE_PX), Image.Resampling.BOX, reducing_gap=2.0)
    colours = np.asarray(fields, np.float64).reshape(-1, 3)
    if np.percentile(np.ptp(colours, axis=1), 99) < _GREY:
        return False
    of_ink = np.min([_distance(colours, ink, _second(ink)) for ink in INKS], axis=0) < _NEAR_INK
    for tones in BACKGROUNDS:
        behind = _distance(colours, *tones) < _NEAR_BACKGROUND
        inked = (of_ink & ~behind).mean() >= _LEAST_INK
        known = (of_ink | behind).mean() >= _LEAST_BOTH
        if inked and known and behind.mean() >= _LEAST_BACKGROUND:
            return True
    return False


def _second(ink: Sequence[int]) -> np.ndarray:
    """The farthest second colour that a texture of an ink can have."""
    first = np.asarray(ink, np.float64)
    toward = 255.0 if first.mean() < 128 else 0.0
    return first + (toward - first) * SECOND_SHARE[1]


def _distance(colours: np.ndarray, first: Sequence[float], last: Sequence[float]) -> np.ndarray:
    """Distance of colours (n, 3) from the line between two: (n,)."""
    start = np.asarray(first, np.float64)
    way = np.asarray(last, np.float64) - start
    along = np.clip((colours - start) @ way / (way @ way), 0, 1)
    return np.linalg.norm(colours - start - along[:, None] * way, axis=1)
