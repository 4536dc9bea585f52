"""How the pictures of a training vary: turns, crops, colours.

Boxes are xyxy in [0, 1] of their picture until `finish`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.demo.evaluate import normalize

_SMALLEST_CROP = 0.6  # of each side
_LEAST_LEFT = 0.3  # of an object's area in a crop; with less of it, it is no object there


def augment(
    rgb: np.ndarray, boxes: np.ndarray, size_px: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """For drawn scenes: flips and quarter turns, channel order, colours; then resized, normalised.

    rgb uint8 (B, S, S, 3), boxes xyxy float32 (B, T, 4) in [0, 1] -> images
    (B, 3, size_px, size_px), boxes cxcywh (B, T, 4).
    """
    pictures, placed = [], []
    for picture, box in zip(rgb, boxes, strict=True):
        flip_x, flip_y, transpose = rng.random(3) < 0.5
        if flip_x:
            picture, box = picture[:, ::-1], mirrored(box)
        if flip_y:
            picture, box = (
                picture[::-1],
                np.stack([box[:, 0], 1 - box[:, 3], box[:, 2], 1 - box[:, 1]], -1),
            )
        if transpose:
            picture, box = picture.swapaxes(0, 1), box[:, [1, 0, 3, 2]]
        pictures.append(picture[..., rng.permutation(3)])
        placed.append(box)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
    images = recoloured(images, rng)
    if size_px != images.shape[-1]:
        images = F.interpolate(images, size=(size_px, size_px), mode="bilinear", antialias=True)
    return normalize(images), cxcywh(placed)


def augment_photos(
    pictures: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    hw: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, list[np.ndarray], list[np.ndarray]]:
    """For photos: mirror images, crops, colours; then all resized to h, w and normalised.

    pictures uint8 (H, W, 3), each of its own size, boxes xyxy float32 (T, 4) in [0, 1] -> images
    (B, 3, h, w), boxes, and which of the given boxes they are.
    """
    images, placed, kept = [], [], []
    for picture, box in zip(pictures, boxes, strict=True):
        left = np.arange(len(box))
        if rng.random() < 0.5:
            picture, box = picture[:, ::-1], mirrored(box)
        if rng.random() < 0.5:
            picture, box, left = cropped(picture, box, rng)
        tensor = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
        images.append(F.interpolate(tensor.div_(255), size=hw, mode="bilinear", antialias=True))
        placed.append(box)
        kept.append(left)
    return normalize(recoloured(torch.cat(images).clamp_(0, 1), rng)), placed, kept


def mirrored(boxes: np.ndarray) -> np.ndarray:
    """Boxes (T, 4) of the picture with left and right exchanged."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], -1)


def cropped(
    picture: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part of a picture with its own proportions, its boxes, and which of the given they are."""
    hw = picture.shape[:2]
    share = rng.uniform(_SMALLEST_CROP, 1)
    sides = [max(1, round(side * share)) for side in hw]
    y, x = (int(rng.integers(whole - side + 1)) for whole, side in zip(hw, sides, strict=True))
    scale = np.array([hw[1], hw[0]] * 2, np.float32)
    size = np.array([sides[1], sides[0]] * 2, np.float32)
    moved = (boxes * scale - np.array([x, y, x, y], np.float32)) / size
    inside = moved.clip(0, 1)

    def area(b: np.ndarray) -> np.ndarray:
        return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])

    left = np.flatnonzero(area(inside) >= _LEAST_LEFT * area(moved))
    return picture[y : y + sides[0], x : x + sides[1]], inside[left], left


def recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Another gain and offset for each of the images (B, 3, H, W) in [0, 1]."""
    count = len(images)
    gain = rng.uniform(0.8, 1.2, (count, 1, 1, 1)) * rng.uniform(0.93, 1.07, (count, 3, 1, 1))
    offset = rng.uniform(-0.1, 0.1, (count, 1, 1, 1))
    gain, offset = (torch.from_numpy(v).float() for v in (gain, offset))
    return (images * gain + offset).clamp_(0, 1)


def cxcywh(boxes: Sequence[np.ndarray]) -> Tensor:
    """xyxy (T, 4) of each image -> cx, cy, w, h (B, T, 4)."""
    xyxy = torch.from_numpy(np.stack(boxes)).float()
    return torch.cat([(xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]], -1)
