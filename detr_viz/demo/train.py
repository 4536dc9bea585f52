"""The training of the demo weights: small detectors, about an hour each on one CPU core.

    python -m detr_viz.demo.train --type cd_detr --out weights/cd_detr_demo.pth
    python -m detr_viz.demo.train --type detr --out weights/detr_demo.pth

Two helpers exist in training only and are not saved: several groups of queries, each matched on its
own (the first is kept), and a class head on every cell of the projected feature map. The schedule
follows the clock (--minutes): on a busy machine training sees fewer images but ends on time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.common.files import replacing
from detr_viz.demo.evaluate import evaluate, normalize
from detr_viz.demo.sampled_training import SLOW_RATE, is_slow
from detr_viz.demo.shapes import CLASSES, scene, training_seeds
from detr_viz.demo.trainee import CONFIGS, MAX_SIZE, SIZE, Trainee, TrainingConfig
from detr_viz.demo.training_set import SceneSet, training_set
from detr_viz.models import get

_PROGRESS_SEED = 999  # scenes that show progress; neither trained on nor held out


def augment(
    rgb: np.ndarray, boxes: np.ndarray, size_px: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random flips and quarter turns, channel order, gain and offset; then resize and normalise.

    rgb uint8 (B, S, S, 3), boxes xyxy float32 (B, T, 4) in [0, 1] -> images
    (B, 3, size_px, size_px), boxes cxcywh (B, T, 4).
    """
    pictures, placed = [], []
    for picture, box in zip(rgb, boxes, strict=True):
        flip_x, flip_y, transpose = rng.random(3) < 0.5
        if flip_x:
            picture, box = (
                picture[:, ::-1],
                np.stack([1 - box[:, 2], box[:, 1], 1 - box[:, 0], box[:, 3]], -1),
            )
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
    count = len(pictures)
    gain = rng.uniform(0.8, 1.2, (count, 1, 1, 1)) * rng.uniform(0.93, 1.07, (count, 3, 1, 1))
    offset = rng.uniform(-0.1, 0.1, (count, 1, 1, 1))
    gain, offset = (torch.from_numpy(v).float() for v in (gain, offset))
    images = (images * gain + offset).clamp_(0, 1)
    if size_px != images.shape[-1]:
        images = F.interpolate(images, size=(size_px, size_px), mode="bilinear", antialias=True)
    xyxy = torch.from_numpy(np.stack(placed)).float()
    cxcywh = torch.cat([(xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]], -1)
    return normalize(images), cxcywh


def write_atomically(value: object, path: Path) -> None:
    """torch.save, in one rename."""
    with replacing(path) as part:
        torch.save(value, part)


def export(trainee: Trainee, path: Path, meta: dict[str, Any]) -> None:
    """Write the checkpoint that ships: {"model": fp16 state dict, "meta": plain values}."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trainee.shipped().items()}
    write_atomically({"model": state, "meta": meta}, path)


def measure(trainee: Trainee, kind: str, config: TrainingConfig, scenes: int, size_px: int) -> str:
    """Accuracy of the model as it would ship now, on scenes neither trained on nor held out."""
    model = get(kind).build(config.network(trainee.focal))
    model.load_state_dict(trainee.shipped())
    drawn = [scene(seed, size_px) for seed in training_seeds(_PROGRESS_SEED, scenes)]
    return f"{evaluate(model.eval(), drawn, trainee.focal)}  ({scenes} scenes at {size_px} px)"


def parameter_groups(trainee: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Groups of the optimiser: matrices decay, vectors do not; `peak` is the largest rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trainee.named_parameters():
        groups.setdefault((parameter.dim() > 1, is_slow(name)), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "peak": config.lr * SLOW_RATE if slow else config.lr,
        }
        for (decays, slow), parameters in groups.items()
    ]


class Run:
    """One training: all state that must survive an interruption, and its steps."""

    def __init__(self, args: argparse.Namespace, config: TrainingConfig) -> None:
        self.args, self.config = args, config
        torch.manual_seed(args.seed)
        self.rng = np.random.default_rng([args.seed, 1])
        self.trainee = Trainee(args.type, config).to(args.device)
        self.trainee.model.backbone.to(memory_format=torch.channels_last)  # 4 % quicker on a CPU
        groups = parameter_groups(self.trainee, config)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
        self.steps = self.images = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.since = 0

    @property
    def progress(self) -> float:
        """Finished share of the training: by steps where --steps is given, else by the clock."""
        if self.args.steps:
            return self.steps / self.args.steps
        return self.seconds / (60 * self.args.minutes)

    def step(self, data: SceneSet) -> None:
        """One batch."""
        config, progress = self.config, self.progress
        pick = self.rng.integers(len(data.rgb), size=config.batch)
        size = config.size_px(progress, self.rng)
        images, boxes = augment(data.rgb[pick], data.boxes_xyxy[pick], size, self.rng)
        labels = torch.from_numpy(data.labels[pick])
        device = self.args.device
        self.trainee.begin_step(progress)
        losses = self.trainee(images.to(device), labels.to(device), boxes.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), config.clip)
        warm = min(1.0, (self.steps + 1) / config.warmup_steps)
        rate = warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        self.optimizer.step()
        self.steps += 1
        self.images += config.batch
        self.since += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def save(self, path: Path) -> None:
        """Everything needed to go on."""
        state = {
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "images": self.images,
            "seconds": self.seconds,
            "rng": self.rng.bit_generator.state,
        }
        write_atomically(state, path)

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        self.trainee.load_state_dict(state["trainee"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.images = state["steps"], state["images"]
        self.seconds = state["seconds"]
        self.rng.bit_generator.state = state["rng"]

    def meta(self) -> dict[str, Any]:
        config = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.config).items()}
        untraced = {"anchor_size": self.config.anchor_size} if self.config.anchor_size else {}
        return {
            "type": self.args.type,
            "nheads": 8,
            "num_queries": self.config.queries,
            **untraced,
            "classes": list(CLASSES),
            "size": SIZE,
            "max_size": MAX_SIZE,
            "stride": self.trainee.stride,
            "seed": self.args.seed,
            "recipe": config,
            "steps": self.steps,
            "images": self.images,
            "minutes": round(self.seconds / 60, 1),
        }

    def report(self) -> str:
        means = "  ".join(f"{k} {v / self.since:.3f}" for k, v in self.sums.items())
        self.sums, self.since = {}, 0
        return (
            f"{self.seconds / 60:6.1f} min  {self.steps:6d} steps  {self.images:7d} images  {means}"
        )


def train(args: argparse.Namespace, config: TrainingConfig) -> None:
    """Train until the time or the steps are used up, then write args.out."""
    cache = Path(args.cache)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)  # fails now rather than in an hour
    data = training_set(args.seed, config.scenes, SIZE, config.big_share, cache)
    run = Run(args, config)
    kept = cache / f"{args.type}_{args.seed}_resume.pth"
    if args.resume and kept.exists():
        run.restore(kept)
        print(f"going on from {kept} at {run.seconds / 60:.1f} min", flush=True)
    last_report = last_save = run.seconds
    run.trainee.train()
    while run.progress < 1:
        started = time.perf_counter()
        run.step(data)
        run.seconds += time.perf_counter() - started
        if run.seconds - last_report >= 30 or run.progress >= 1:
            last_report = run.seconds
            print(run.report(), flush=True)
        if run.seconds - last_save >= 60 * args.save_every:
            last_save = run.seconds
            run.save(kept)
            export(run.trainee, cache / f"{args.type}_{args.seed}_latest.pth", run.meta())
            size = 96 if run.progress < config.small_until else SIZE
            print(f"  {measure(run.trainee, args.type, config, 100, size)}", flush=True)
    run.save(kept)
    export(run.trainee, Path(args.out), run.meta())
    print(f"  {measure(run.trainee, args.type, config, 300, SIZE)}\nwrote {args.out}", flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--type", required=True, choices=sorted(CONFIGS), help="the model to train")
    add("--out", required=True, help="checkpoint to write")
    add("--minutes", type=float, default=55.0, help="length of the training (default %(default)s)")
    add("--steps", type=int, default=0, help="length in batches instead: repeatable to the digit")
    add(
        "--seed",
        type=int,
        default=1,
        help="of scenes, first values, batches (default %(default)s)",
    )
    add("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    add("--device", default="cpu", help="cpu, cuda or mps (default %(default)s)")
    add(
        "--cache",
        default=str(Path(tempfile.gettempdir()) / "detr_viz_train"),
        help="folder of the drawn scenes and the unfinished training (default %(default)s)",
    )
    add("--save-every", type=float, default=4.0, help="minutes between saves (default %(default)s)")
    add("--resume", action="store_true", help="go on from the unfinished training in the cache")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train one demo checkpoint."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    train(args, CONFIGS[args.type])


if __name__ == "__main__":
    main()
