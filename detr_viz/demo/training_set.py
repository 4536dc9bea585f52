"""What a training learns from; its drawn scenes, made by several processes and kept in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from detr_viz.demo.augment import augment
from detr_viz.demo.evaluate import evaluate
from detr_viz.demo.shapes import CLASSES, DISTRIBUTIONS, scene, training_seeds

_PROGRESS_SEED = 999  # scenes that show progress; neither trained on nor held out


class TrainingData(Protocol):
    """Images with boxes: the drawn scenes, or photos of one's own (coco_data)."""

    classes: tuple[str, ...]

    def batch(
        self, rng: np.random.Generator, count: int, size_px: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, h, w), labels (B, T) with -1 in empty slots, boxes cxcywh (B, T, 4)."""
        ...

    def accuracy(self, model: nn.Module, focal: bool, count: int, size_px: int) -> str:
        """Of a model in eval mode, on images that it does not learn from."""
        ...


@dataclass(frozen=True)
class SceneSet:
    """Many scenes of one size.

    rgb: uint8 (N, S, S, 3); boxes_xyxy: float32 (N, 6, 4) in units of the image side;
    labels: int64 (N, 6), -1 where there is no object.
    """

    rgb: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray

    classes: ClassVar[tuple[str, ...]] = CLASSES

    def batch(
        self, rng: np.random.Generator, count: int, size_px: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of TrainingData."""
        pick = rng.integers(len(self.rgb), size=count)
        images, boxes = augment(self.rgb[pick], self.boxes_xyxy[pick], size_px, rng)
        return images, torch.from_numpy(self.labels[pick]), boxes

    def accuracy(self, model: nn.Module, focal: bool, count: int, size_px: int) -> str:
        """As of TrainingData."""
        drawn = [scene(seed, size_px) for seed in training_seeds(_PROGRESS_SEED, count)]
        return f"{evaluate(model, drawn, focal)}  ({count} scenes at {size_px} px)"


def _draw_chunk(job: tuple[Sequence[int], int, float]) -> tuple[np.ndarray, ...]:
    seeds, size_px, big_share = job
    most = max(d.max_objects for d in DISTRIBUTIONS.values())
    rgb = np.empty((len(seeds), size_px, size_px, 3), np.uint8)
    boxes = np.zeros((len(seeds), most, 4), np.float32)
    labels = np.full((len(seeds), most), -1, np.int64)
    for i, seed in enumerate(seeds):
        kind, fine = np.random.default_rng([seed, 99]).random(2)
        # Half of them are drawn larger and shrunk like a user's picture, which blurs a little.
        drawn_px = size_px * 2 if fine < 0.5 else size_px
        one = scene(seed, drawn_px, "big" if kind < big_share else "default")
        picture = Image.fromarray(one.rgb)
        if drawn_px != size_px:
            picture = picture.resize((size_px, size_px), Image.Resampling.BILINEAR)
        rgb[i] = np.asarray(picture)
        boxes[i, : len(one.labels)] = one.boxes_xyxy_px / drawn_px
        labels[i, : len(one.labels)] = one.labels
    return rgb, boxes, labels


def training_set(
    seed: int, count: int, size_px: int, big_share: float, cache: Path, workers: int = 2
) -> SceneSet:
    """The scenes of a training, drawn once and kept in the folder `cache`.

    big_share: of the scenes, from the distribution "big"; the others are from the default one.
    """
    path = Path(cache) / f"scenes_{seed}_{count}_{size_px}_{round(big_share * 100)}.npz"
    if not path.exists():
        seeds = training_seeds(seed, count)
        jobs = [(seeds[i : i + 250], size_px, big_share) for i in range(0, count, 250)]
        if workers > 1:
            # spawn: the caller may hold threads, which a fork does not survive
            with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                parts = list(pool.map(_draw_chunk, jobs))
        else:
            parts = [_draw_chunk(job) for job in jobs]
        rgb, boxes, labels = (np.concatenate(p) for p in zip(*parts, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        with open(unfinished, "wb") as file:
            np.savez(file, rgb=rgb, boxes=boxes, labels=labels)
        os.replace(unfinished, path)
        return SceneSet(rgb, boxes, labels)
    with np.load(path, allow_pickle=False) as arrays:
        return SceneSet(arrays["rgb"], arrays["boxes"], arrays["labels"])
