"""Procedural scenes: coloured shapes on calm backgrounds, with exact boxes. Needs numpy and Pillow.

    from detr_viz.demo.shapes import CLASSES, scene
    s = scene(seed=7, size_px=512)
    s.rgb, s.boxes_xyxy_px, [CLASSES[i] for i in s.labels]

A scene is first described in units of the image side, then drawn at any size, so that one seed
shows the same scene at 128 and at 512 pixels. Held-out seeds lie above every training seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from detr_viz.images.drawn_scenes import BACKGROUNDS, CLASSES, INKS, SECOND_SHARE

HELD_OUT_FIRST_SEED = 1_000_000_000
_SUPERSAMPLE = 4
_GRAIN_CELLS = 160  # a side of the noise's grid, which is stretched to the size of the image

_TEXTURES = ("plain", "stripes", "dots", "checks", "rings", "shade")


@dataclass(frozen=True)
class Distribution:
    """The range of scenes; lengths in units of the image side."""

    long_side: tuple[float, float]
    max_objects: int
    aspect: tuple[float, float] = (0.4, 1.0)
    max_overlap: float = 0.2  # shared area over the smaller box, for each pair


DISTRIBUTIONS = {
    "default": Distribution(long_side=(0.18, 0.62), max_objects=6),
    "big": Distribution(long_side=(0.26, 0.75), max_objects=5),
}


@dataclass(frozen=True)
class Scene:
    """rgb uint8 (H, W, 3); boxes_xyxy_px float32 (n, 4); labels int64 (n,), index of CLASSES."""

    rgb: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Shape:
    """One object: its box (x0, y0, x1, y1) in units of the image side, and how it is painted."""

    label: int
    box: tuple[float, float, float, float]
    quarter_turns: int
    colors: tuple[tuple[float, ...], tuple[float, ...]]
    texture: str
    period: float
    angle: float


@dataclass(frozen=True)
class Backdrop:
    """A coarse grid of colours (rows, columns, 3), smoothed when drawn; noise in grey levels."""

    grid: np.ndarray
    grain: np.ndarray


def scene(seed: int, size_px: int, distribution: str = "default") -> Scene:
    """Draw the scene of a seed, size_px x size_px; the same seed is the same scene at every size.

    Boxes are those of the whole object, its hidden parts included. Raises KeyError for an unknown
    distribution.
    """
    backdrop, objects = describe(seed, distribution)
    canvas = paint_backdrop(backdrop, size_px)
    for shape in objects:
        _paint(canvas, shape)
    grain = Image.fromarray(backdrop.grain).resize((size_px, size_px), Image.Resampling.BILINEAR)
    rgb = np.clip(canvas + np.asarray(grain)[..., None] + 0.5, 0, 255).astype(np.uint8)
    boxes = np.array([s.box for s in objects], np.float32).reshape(-1, 4) * np.float32(size_px)
    return Scene(rgb, boxes, np.array([s.label for s in objects], np.int64))


def describe(seed: int, distribution: str = "default") -> tuple[Backdrop, list[Shape]]:
    """What is in the scene of a seed, before any pixel is drawn."""
    names = list(DISTRIBUTIONS)
    rng = np.random.default_rng([seed, names.index(distribution)])
    rule = DISTRIBUTIONS[distribution]
    tones = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))], np.float32)
    mix = rng.uniform(0, 1, (4, 4, 1)).astype(np.float32)
    grid = tones[0] + (tones[1] - tones[0]) * mix + rng.normal(0, 2.5, (4, 4, 3)).astype(np.float32)
    inks = [ink for ink in INKS if _difference(ink, tones.mean(0)) > 70]
    # A few inks for a whole scene look better than one for each object.
    inks = [inks[i] for i in rng.permutation(len(inks))[: rng.integers(3, 6)]]

    objects: list[Shape] = []
    for _ in range(int(rng.integers(1, rule.max_objects + 1))):
        box = _free_box(rng, rule, [s.box for s in objects])
        if box is not None:
            objects.append(_random_shape(rng, box, inks))
    # Drawn last: its many random numbers would change every later draw.
    strength = rng.uniform(2.0, 8.0)
    grain = rng.normal(0, strength, (_GRAIN_CELLS, _GRAIN_CELLS)).astype(np.float32)
    return Backdrop(grid, grain), objects


def training_seeds(seed: int, count: int) -> range:
    """Seeds of the scenes that a training with this seed may see."""
    first = seed * 1_000_000
    if not (seed >= 0 and 0 <= count <= 1_000_000 and first + count <= HELD_OUT_FIRST_SEED):
        raise ValueError(f"training seed {seed} with {count} scenes would reach held-out seeds")
    return range(first, first + count)


def held_out_seeds(count: int) -> range:
    """Seeds that no training may use: of the scenes that accuracy is measured on."""
    return range(HELD_OUT_FIRST_SEED, HELD_OUT_FIRST_SEED + count)


def _difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance of two colours, weighted roughly as the eye does."""
    return float(np.sqrt((((np.asarray(a) - np.asarray(b)) ** 2) * (0.9, 1.5, 0.6)).sum()))


def _free_box(
    rng: np.random.Generator, rule: Distribution, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float] | None:
    for _ in range(40):
        long, aspect = rng.uniform(*rule.long_side), rng.uniform(*rule.aspect)
        w, h = (long, long * aspect) if rng.random() < 0.5 else (long * aspect, long)
        x, y = rng.uniform(0.01, 0.99 - w), rng.uniform(0.01, 0.99 - h)
        box = (x, y, x + w, y + h)
        if all(_overlap(box, other) <= rule.max_overlap for other in taken):
            return box
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Shared area over the smaller box's area."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w * h / smaller


def _random_shape(
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    inks: list[tuple[int, int, int]],
) -> Shape:
    ink = np.array(inks[rng.integers(len(inks))], np.float32) + rng.normal(0, 7, 3)
    toward = 255.0 if ink.mean() < 128 else 0.0
    second = ink + (toward - ink) * rng.uniform(*SECOND_SHARE)
    short = min(box[2] - box[0], box[3] - box[1])
    return Shape(
        label=int(rng.integers(len(CLASSES))),
        box=box,
        quarter_turns=int(rng.integers(4)),
        colors=(tuple(ink), tuple(second)),
        texture=_TEXTURES[rng.integers(len(_TEXTURES))],
        period=max(0.04, short * rng.uniform(0.2, 0.4)),
        angle=rng.uniform(0, math.pi),
    )


def paint_backdrop(backdrop: Backdrop, size_px: int) -> np.ndarray:
    """Float canvas (H, W, 3), grey levels 0 to 255."""
    rows, columns, _ = backdrop.grid.shape
    planes = [
        Image.fromarray(np.ascontiguousarray(backdrop.grid[..., c])).resize(
            (size_px, size_px), Image.Resampling.BICUBIC, (0.5, 0.5, columns - 0.5, rows - 0.5)
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(p) for p in planes], axis=-1).copy()


def _paint(canvas: np.ndarray, shape: Shape) -> None:
    size = canvas.shape[0]
    # The crop of whole pixels that the object touches.
    left, top = (math.floor(v * size) for v in shape.box[:2])
    right, bottom = (min(size, math.ceil(v * size)) for v in shape.box[2:])
    mask = coverage(shape, (left, top, right, bottom), size)[..., None]
    fill = fill_of(shape, (left, top, right, bottom), size)
    crop = canvas[top:bottom, left:right]
    crop += (fill - crop) * mask


def outline(label: int, quarter_turns: int = 0) -> list[np.ndarray]:
    """Polygons (n, 2) of a class in the unit square, each touching it; a second one is a hole."""
    name = CLASSES[label]
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    round_ = 0.5 + 0.5 * np.stack([np.cos(turn), np.sin(turn)], -1)
    if name == "circle":
        polygons = [round_]
    elif name == "ring":
        polygons = [round_, 0.5 + (round_ - 0.5) * 0.52]
    elif name == "square":
        polygons = [np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)]
    elif name == "triangle":
        polygons = [np.array([(0.5, 0), (1, 1), (0, 1)], float)]
    elif name == "cross":
        a, b = 0.32, 0.68
        corners = [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b)]
        corners += [(b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
        polygons = [np.array(corners, float)]
    else:
        tip = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
        star = radius[:, None] * np.stack([np.sin(tip), -np.cos(tip)], -1)
        polygons = [(star - star.min(0)) / (star.max(0) - star.min(0))]
    for _ in range(quarter_turns % 4):
        polygons = [np.stack([1 - p[:, 1], p[:, 0]], -1) for p in polygons]
    return polygons


def coverage(shape: Shape, crop: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Share of each pixel of the crop (left, top, right, bottom) that the object covers, (h, w)."""
    left, top, right, bottom = crop
    x0, y0, x1, y1 = shape.box
    s = _SUPERSAMPLE
    plane = Image.new("L", ((right - left) * s, (bottom - top) * s), 0)
    draw = ImageDraw.Draw(plane)
    for i, polygon in enumerate(outline(shape.label, shape.quarter_turns)):
        corners = polygon * (x1 - x0, y1 - y0) + (x0, y0)
        # Pillow's coordinates name pixel centres, hence the half.
        corners = (corners * size - (left, top)) * s - 0.5
        draw.polygon([tuple(c) for c in corners], fill=0 if i else 255)
    return np.asarray(plane.reduce(s), np.float32) / 255


def fill_of(shape: Shape, crop: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Colour of the object's texture at every pixel of the crop, float (h, w, 3)."""
    left, top, right, bottom = crop
    x0, y0, x1, y1 = shape.box
    x = ((np.arange(left, right) + 0.5) / size - (x0 + x1) / 2)[None, :]
    y = ((np.arange(top, bottom) + 0.5) / size - (y0 + y1) / 2)[:, None]
    along = x * math.cos(shape.angle) + y * math.sin(shape.angle)
    across = y * math.cos(shape.angle) - x * math.sin(shape.angle)
    wave = 2 * math.pi / shape.period
    hard = shape.period * size / 4  # an edge of the texture is about a pixel wide
    if shape.texture == "plain":
        amount = np.zeros_like(along)
    elif shape.texture == "stripes":
        amount = 0.5 + hard * np.sin(wave * along)
    elif shape.texture == "checks":
        amount = 0.5 + hard * np.sin(wave * along) * np.sin(wave * across)
    elif shape.texture == "dots":
        amount = 0.5 + hard * (np.cos(wave * along) + np.cos(wave * across) - 0.8) / 2
    elif shape.texture == "rings":
        amount = 0.5 + hard * np.sin(wave * np.hypot(x, y))
    else:
        amount = 0.5 + along / max(x1 - x0, y1 - y0)
    first, second = np.array(shape.colors, np.float32)
    return first + (second - first) * np.clip(amount, 0, 1)[..., None].astype(np.float32)
