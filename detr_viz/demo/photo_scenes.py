"""The scenes of `shapes` as if photographed: backgrounds and textures of photos, soft shadows.

    s = photo_scene(seed=7, size_px=512, photos=sample_photos())

Objects, boxes and labels of a seed are those of `shapes.scene`: accuracy on both can be compared.
For trainings to come; the shipped checkpoints have seen none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from detr_viz.demo.shapes import Scene, Shape, coverage, describe, fill_of, paint_backdrop

PHOTOS = ("photo_coffee.jpg", "photo_cat.jpg")  # in image/, both CC0
_PHOTO_SHARE = (0.55, 0.9)  # of the background, the rest is the calm one of `shapes`
_CROP = (0.45, 1.0)  # of a photo's shorter side
_TEXTURE = 0.55  # of a photo's detail in the fill of an object
_SHADOW = (0.25, 0.5)  # how dark it is
_SHADOW_BLUR, _SHADOW_OFFSET = 0.014, 0.02  # of the image side
_LIGHT = 0.18  # from the lit side of an object to the other


@cache
def sample_photos(folder: Path | None = None) -> tuple[np.ndarray, ...]:
    """The photos of image/, or of another folder, (H, W, 3) uint8, in order of name."""
    root = Path(__file__).resolve().parent.parent.parent / "image"
    paths = [root / name for name in PHOTOS] if folder is None else sorted(folder.glob("*.jpg"))
    return tuple(np.asarray(Image.open(path).convert("RGB")) for path in paths)


def photo_scene(
    seed: int,
    size_px: int,
    photos: Sequence[np.ndarray],
    distribution: str = "default",
) -> Scene:
    """The scene of a seed on a background that is cut from one of the photos."""
    backdrop, objects = describe(seed, distribution)
    rng = np.random.default_rng([seed, 7_919])  # the draws of `describe` stay as they are
    ground = _cut(rng, photos, size_px)
    share = rng.uniform(*_PHOTO_SHARE)
    canvas = share * ground + (1 - share) * paint_backdrop(backdrop, size_px)
    angle = rng.uniform(0, 2 * np.pi)
    toward = np.array([np.sin(angle), np.cos(angle)])  # y, x: away from the light
    for shape in objects:
        _paint(canvas, shape, toward, rng, photos)
    grain = Image.fromarray(backdrop.grain).resize((size_px, size_px), Image.Resampling.BILINEAR)
    rgb = np.clip(canvas + 0.6 * np.asarray(grain)[..., None] + 0.5, 0, 255).astype(np.uint8)
    boxes = np.array([s.box for s in objects], np.float32).reshape(-1, 4) * np.float32(size_px)
    return Scene(rgb, boxes, np.array([s.label for s in objects], np.int64))


def _cut(rng: np.random.Generator, photos: Sequence[np.ndarray], size_px: int) -> np.ndarray:
    """A square part of a photo, flipped or not, float (size, size, 3)."""
    photo = photos[rng.integers(len(photos))]
    height, width = photo.shape[:2]
    side = rng.uniform(*_CROP) * min(height, width)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    image = Image.fromarray(photo).resize(
        (size_px, size_px), Image.Resampling.BICUBIC, (x, y, x + side, y + side)
    )
    flipped = np.asarray(image, np.float32)[:, :: -1 if rng.random() < 0.5 else 1]
    return flipped.copy()


def _paint(
    canvas: np.ndarray,
    shape: Shape,
    toward: np.ndarray,
    rng: np.random.Generator,
    photos: Sequence[np.ndarray],
) -> None:
    """A shadow, then the object with a photo's texture in its colour, lit from one side."""
    size = canvas.shape[0]
    whole = (0, 0, size, size)
    mask = coverage(shape, whole, size)
    shadow = ndimage.gaussian_filter(mask, _SHADOW_BLUR * size)
    shadow = ndimage.shift(shadow, toward * _SHADOW_OFFSET * size, order=1, mode="constant")
    canvas *= 1 - rng.uniform(*_SHADOW) * shadow[..., None]
    detail = _cut(rng, photos, size).mean(-1)
    detail -= ndimage.gaussian_filter(detail, 0.03 * size)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    middle = np.array([shape.box[1] + shape.box[3], shape.box[0] + shape.box[2]]) / 2
    across = ((y - middle[0]) * toward[0] + (x - middle[1]) * toward[1]) / max(
        shape.box[2] - shape.box[0], shape.box[3] - shape.box[1]
    )
    fill = (fill_of(shape, whole, size) + _TEXTURE * detail[..., None]) * (
        1 - 2 * _LIGHT * across[..., None]
    )
    canvas += (fill - canvas) * mask[..., None]
