"""Photos and COCO annotations of one's own as the data of a training.

    data = read_coco("annotations.json", "photos/")       # a tenth of the images is held out

Images of like proportions come together in a batch, all resized to one height and width, so none is
padded: a detector sees them as the tool will show them to it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text, reason
from detr_viz.demo.augment import augment_photos, cxcywh
from detr_viz.demo.evaluate import average_precision, detections, normalize
from detr_viz.demo.shapes import Scene
from detr_viz.images.locate import locate
from detr_viz.images.read import load_image

_PROPORTIONS = (0.4, 0.5, 2 / 3, 3 / 4, 1.0, 4 / 3, 1.5, 2.0, 2.5)  # width / height of a batch
_KEPT_BYTES = 1_500_000_000  # of small pictures in memory; further ones are read each time
_HELD_OUT = 10  # one image in so many, if no --val is given
_LEAST_PX = 1.0  # sides of a box; smaller ones are marks of something else


@dataclass(frozen=True)
class Annotated:
    """One image: its file, pixels (width, height), xyxy boxes (n, 4) in [0, 1], labels (n,)."""

    path: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray

    @property
    def proportion(self) -> float:
        """The one of _PROPORTIONS that is nearest to its width / height."""
        return min(_PROPORTIONS, key=lambda p: abs(np.log(p * self.height / self.width)))


@dataclass
class CocoData:
    """Images to learn from, and images held out.

    classes: names, in the order of category ids. max_size: bound on the longer side, in units of
    the shorter one.
    """

    classes: tuple[str, ...]
    learned: Sequence[Annotated]
    held_out: Sequence[Annotated]
    longest: float
    notes: tuple[str, ...] = ()
    _pictures: dict[str, np.ndarray] = field(default_factory=dict)
    _bytes: int = 0

    @property
    def most_objects(self) -> int:
        """In one image that is learned from."""
        return max(len(image.labels) for image in self.learned)

    def batch(
        self, rng: np.random.Generator, count: int, size_px: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, h, w), labels (B, T) with -1 in empty slots, boxes cxcywh (B, T, 4)."""
        first = self.learned[rng.integers(len(self.learned))]
        alike = self._groups[first.proportion]
        chosen = [first, *(alike[i] for i in rng.integers(len(alike), size=count - 1))]
        hw = self.input_hw(first.proportion, size_px)
        pictures = [self._picture(image, 2 * size_px) for image in chosen]
        images, boxes, kept = augment_photos(pictures, [c.boxes for c in chosen], hw, rng)
        slots = max(1, max(map(len, boxes)))
        labels = np.full((count, slots), -1, np.int64)
        placed = np.zeros((count, slots, 4), np.float32)
        for i, (image, box, left) in enumerate(zip(chosen, boxes, kept, strict=True)):
            labels[i, : len(box)] = image.labels[left]
            placed[i, : len(box)] = box
        return images, torch.from_numpy(labels), cxcywh(placed)

    def input_hw(self, proportion: float, size_px: int) -> tuple[int, int]:
        """Pixels of a batch: a shorter side of size_px, less where the longer meets its bound."""
        longer = max(proportion, 1 / proportion)
        short = round(size_px * min(1.0, self.longest / longer))
        long = round(short * longer)
        return (short, long) if proportion >= 1 else (long, short)

    @torch.no_grad()
    def accuracy(self, model: nn.Module, focal: bool, count: int, size_px: int) -> str:
        """COCO's averages of a model in eval mode on held-out images."""
        device = next(model.parameters()).device
        scenes, predicted = [], []
        for image in self.held_out[:count]:
            h, w = self.input_hw(image.proportion, size_px)
            rgb = np.asarray(
                Image.fromarray(_pixels(image)).resize((w, h), Image.Resampling.BILINEAR)
            )
            pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float().div(255)
            out = model(normalize(pixels).to(device), None)
            logits, boxes = (out[name][0].float().cpu() for name in ("pred_logits", "pred_boxes"))
            scores, labels, corners = detections(logits, boxes, focal)
            size = np.array([image.width, image.height] * 2, np.float32)
            predicted.append((scores, labels, corners * torch.from_numpy(size)))
            scenes.append(Scene(rgb, image.boxes * size, image.labels))
        result = average_precision(scenes, predicted, self.classes)
        return f"{result}  ({len(scenes)} held-out images at {size_px} px)"

    @cached_property
    def _groups(self) -> Mapping[float, Sequence[Annotated]]:
        groups: dict[float, list[Annotated]] = {}
        for image in self.learned:
            groups.setdefault(image.proportion, []).append(image)
        return groups

    def _picture(self, image: Annotated, short_px: int) -> np.ndarray:
        """A picture, not larger than it is needed; kept while there is room."""
        if image.path in self._pictures:
            return self._pictures[image.path]
        rgb = _pixels(image)
        scale = short_px / min(rgb.shape[:2])
        if scale < 1:
            size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
            rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
        if self._bytes + rgb.nbytes <= _KEPT_BYTES:
            self._pictures[image.path] = rgb
            self._bytes += rgb.nbytes
        return rgb


def read_coco(
    annotations: str, images: str, val: str | None = None, longest: float = 5 / 3
) -> CocoData:
    """A training's data from a COCO annotation file and the folder of its images.

    val: another annotation file with the same categories, whose images (in the same folder) are
    held out; without it one image in ten is, always the same ones. UserError for what is not such a
    file, for images that are not there, and for boxes that name no image or category.
    """
    content = _read(annotations)
    classes, labels = _categories(content, annotations)
    learned, notes = _annotated(content, annotations, images, labels)
    if val is None:
        held_out = [one for one in learned if zlib.crc32(_name(one)) % _HELD_OUT == 0]
        learned = [one for one in learned if zlib.crc32(_name(one)) % _HELD_OUT]
        if not held_out and len(learned) > 1:
            held_out = [learned.pop()]
    else:
        other = _read(val)
        if _categories(other, val)[0] != classes:
            raise UserError(
                f"{path_text(val)} has other categories than {path_text(annotations)}: "
                "both files must list the same ones"
            )
        held_out, more = _annotated(other, val, images, _categories(other, val)[1])
        notes += more
    if not any(len(one.labels) for one in learned):
        raise UserError(
            f"{path_text(annotations)} has no boxes to learn from: give one with annotations"
        )
    if not held_out:
        raise UserError(f"{path_text(val or annotations)} has too few images: one must be held out")
    return CocoData(classes, learned, held_out, longest, tuple(notes))


def _pixels(image: Annotated) -> np.ndarray:
    """uint8 (H, W, 3); UserError where the file is turned against its annotations."""
    rgb = load_image(image.path).rgb
    if rgb.shape[:2] == (image.width, image.height) != (image.height, image.width):
        raise UserError(
            f"{path_text(image.path)} is shown as {rgb.shape[1]} x {rgb.shape[0]} pixels (EXIF "
            f"turns it), annotated as {image.width} x {image.height}: save it upright"
        )
    return rgb


def _name(image: Annotated) -> bytes:
    return os.path.basename(image.path).encode("utf-8", "surrogatepass")


def _read(path: str) -> dict[str, Any]:
    title = path_text(path)
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {title} as COCO annotations: {reason(error)[:120]}; check the path"
        ) from None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in lists):
        raise UserError(f"{title} lacks one of the lists {', '.join(lists)}: give a COCO file")
    return content


def _categories(content: Mapping[str, Any], path: str) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Names in the order of their ids, and id -> label."""
    try:
        named = sorted((int(c["id"]), str(c["name"])) for c in content["categories"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path_text(path)}: a category has no id and name") from None
    ids = [number for number, _ in named]
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{path_text(path)}: categories are missing, or two have the same id")
    return tuple(name for _, name in named), {number: i for i, number in enumerate(ids)}


def _annotated(
    content: Mapping[str, Any], path: str, folder: str, labels: Mapping[Any, int]
) -> tuple[list[Annotated], list[str]]:
    """The images of a file with their boxes, and notes on what was left out."""
    title = path_text(path)
    try:
        entries = [
            (e["id"], str(e["file_name"]), int(e["width"]), int(e["height"]))
            for e in content["images"]
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{title}: an image has no id, file_name, width or height") from None
    if any(min(w, h) < 1 for *_, w, h in entries):
        raise UserError(f"{title}: an image has no positive width and height")
    names = [name for _, name, _, _ in entries]
    if not Path(folder).is_dir():
        raise UserError(f"{path_text(folder)} is not a folder: give that of the images")
    found = locate(names, folder, title)
    if gone := found.missing(names, folder):
        raise UserError(f"{title}: {gone}: give their folder as --images")
    boxes: dict[Any, list[tuple[list[float], int]]] = {number: [] for number, *_ in entries}
    sizes = {number: (w, h) for number, _, w, h in entries}
    skipped = 0
    for i, one in enumerate(content["annotations"]):
        try:
            x, y, w, h = map(float, one["bbox"])
            label, (width, height), of_image = (
                labels[one["category_id"]],
                sizes[one["image_id"]],
                boxes[one["image_id"]],
            )
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{title}: annotations[{i}] has no bbox of four numbers, or names an image or "
                "category that the file does not list"
            ) from None
        corners = np.array([x / width, y / height, (x + w) / width, (y + h) / height])
        corners = corners.clip(0, 1)
        sides = (corners[2:] - corners[:2]) * (width, height)
        if one.get("iscrowd") or not (sides >= _LEAST_PX).all():
            skipped += 1
        else:
            of_image.append((corners, label))
    notes = [f"{title}: {skipped} crowds or boxes below a pixel are left out"] if skipped else []
    annotated = [
        Annotated(
            os.path.join(folder, file),
            width,
            height,
            np.array([box for box, _ in boxes[number]], np.float32).reshape(-1, 4),
            np.array([label for _, label in boxes[number]], np.int64),
        )
        for (number, _, width, height), file in zip(entries, found.files, strict=True)
    ]
    return annotated, notes
