"""Models that agree and disagree on known objects, and what a figure of them shows where."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from fake_explanation import FakeExplanation, fake, photo
from figure_tools import (
    BOX,
    TICK,
    Tile,
    layout_of,
    segments,
    texts,
    tile_of,
)
from matplotlib.figure import Figure

from detr_viz.detections.matching import SharedObject, shared_objects
from detr_viz.figures.page.elements import PHOTO
from detr_viz.figures.styles import DEFAULT_PAGE_FORMAT

NAMES = ("cat", "dog", "teapot", "tiger", "an exceedingly long class name that never ends")
IMAGE = SimpleNamespace(rgb=photo(96, 128))


def model(
    boxes: list[list[float]],
    labels: list[int],
    scores: list[float],
    title: str = "DETR",
    **more: object,
) -> FakeExplanation:
    """A stand-in with queries of one's own on the one image, 128 x 96."""
    example = fake(names=NAMES, scores=[0.9] * len(NAMES), **more)
    count = len(boxes)
    return replace(
        example,
        image=IMAGE,
        model_title=title,
        made=example.made[:count],
        boxes_xyxy_px=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        labels=np.array(labels),
    )


# A and B agree on the first object: 30 x 40 of 40 x 40 each in common, 1200 / 2000 = 0.60; on the
# second they agree but for its class, 1 / 1. A's third has B's nearest, which is taken, at
# 20 x 40 / (1600 + 1600 - 800) = 0.33. B's third overlaps nothing of A's.
A = model([[10, 20, 50, 60], [80, 10, 120, 50], [60, 10, 100, 50]], [0, 1, 2], [0.98, 0.75, 0.62])
B = model(
    [[20, 20, 60, 60], [80, 10, 120, 50], [10, 70, 40, 90]],
    [0, 3, 2],
    [0.97, 0.35, 0.71],
    "Cond-DETR",
    heads=5,
    input_hw=(192, 256),
    stride=16,
)
C = model([[12, 20, 52, 60], [79, 9, 119, 49]], [0, 1], [0.88, 0.81], "DAB-DETR", heads=3)


def shared(*models: FakeExplanation, chosen: list[list[int]] | None = None) -> list[SharedObject]:
    ids = chosen or [list(range(len(e.scores))) for e in models]
    return shared_objects([e.boxes_xyxy_px for e in models], ids)


def all_text(fig: Figure) -> str:
    return " ".join(texts(fig))


def placed(fig: Figure, *wanted: str) -> list[float]:
    """Baselines of the texts that read so, from the top down."""
    return sorted(t.get_position()[1] for t in fig.axes[0].texts if t.get_text() in wanted)


def two(value: float) -> str:
    """Two decimals as figures have them: .60, 1.00."""
    return f"{value:.2f}".removeprefix("0")


def photo_rows(fig: Figure) -> list[list[Tile]]:
    """A list a group that has panels, from the top down: its photo, then its maps."""
    groups: dict[int, list[Tile]] = {}
    for panel in sorted(layout_of(fig).panels, key=lambda p: (p.group, p.row, p.head)):
        assert panel.row >= PHOTO  # no views: boxes are large here
        groups.setdefault(panel.group, []).append(tile_of(panel))
    tops = [row[0].top for row in groups.values()]
    assert tops == sorted(tops)
    return list(groups.values())


def check_boxes(row: list[Tile], fig: Figure, box_xyxy_px: np.ndarray) -> None:
    """The box on a photo is this one of the image, to a pixel; the ticks on its maps are just so
    far outside of it that their line (.45 pt) touches it.
    """
    photo, *maps = row
    (line,) = (line for line in segments(fig, BOX) if photo.holds(line))
    drawn = np.hstack([line.min(0), line.max(0)]) - [photo.left, photo.top] * 2
    assert np.abs(drawn - box_xyxy_px * scale_of(photo)).max() <= 1
    out = 0.45 / 2 * DEFAULT_PAGE_FORMAT.dpi / 72
    for tile in maps:
        corners = np.array([tick[1] for tick in segments(fig, TICK) if tile.holds(tick)])
        assert len(corners) == 4
        drawn = np.hstack([corners.min(0) + out, corners.max(0) - out])
        expected = box_xyxy_px * scale_of(tile) + [tile.left, tile.top] * 2
        np.testing.assert_allclose(drawn, expected, atol=0.01)


def scale_of(tile: Tile) -> np.ndarray:
    return np.array([tile.hw[1] / 128, tile.hw[0] / 96] * 2)
