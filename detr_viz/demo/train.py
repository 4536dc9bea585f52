"""Trainings of small detectors, about an hour each on one CPU core.

    python -m detr_viz.demo.train --type cd_detr --out weights/cd_detr_demo.pth
    python -m detr_viz.demo.train --type detr --coco annotations.json --images photos/ --out own.pth

The first makes demo weights from drawn scenes, the second a detector of one's own photos.

Two helpers exist in training only and are not saved: several groups of queries, each matched on its
own (the first is kept), and a class head on every cell of the projected feature map. The schedule
follows the clock (--minutes): on a busy machine training sees fewer images but ends on time.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detr_viz.common.errors import UserError, report
from detr_viz.common.files import replacing
from detr_viz.demo.coco_data import read_coco
from detr_viz.demo.recipe import MAX_SIZE, SIZE, SLOW_RATE, TrainingConfig
from detr_viz.demo.trainee import CONFIGS, Trainee
from detr_viz.demo.training_set import TrainingData, training_set
from detr_viz.models import get

_SMALLEST_PX, _LARGEST_PX = 64, 1024
_MOST_QUERIES = 100  # of a training on photos, unless --queries asks for more


def write_atomically(value: object, path: Path) -> None:
    """torch.save, in one rename."""
    with replacing(path) as part:
        torch.save(value, part)


def export(trainee: Trainee, path: Path, meta: dict[str, Any]) -> None:
    """Write the checkpoint that ships: {"model": fp16 state dict, "meta": plain values}."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trainee.shipped().items()}
    write_atomically({"model": state, "meta": meta}, path)


def measure(
    trainee: Trainee, kind: str, config: TrainingConfig, data: TrainingData, count: int, size: int
) -> str:
    """Accuracy of the model as it would ship now, on images that it has not learned from."""
    model = get(kind).build(trainee.recipe.network(config, trainee.focal))
    model.load_state_dict(trainee.shipped())
    return data.accuracy(model.eval(), trainee.focal, count, size)


def parameter_groups(trainee: Trainee, config: TrainingConfig) -> list[dict[str, Any]]:
    """Groups of the optimiser: matrices decay, vectors do not; `peak` is the largest rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trainee.named_parameters():
        slow = any(word in name for word in trainee.recipe.slow)
        groups.setdefault((parameter.dim() > 1, slow), []).append(parameter)
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

    def step(self, data: TrainingData) -> None:
        """One batch."""
        config, progress = self.config, self.progress
        size = config.size_px(progress, self.rng)
        images, labels, boxes = data.batch(self.rng, config.batch, size)
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
        del config["classes"]
        return {
            "type": self.args.type,
            "nheads": 8,
            "num_queries": self.config.queries,
            **self.trainee.recipe.meta(),
            "classes": list(self.config.classes),
            "size": self.config.size,
            "max_size": self.config.size * MAX_SIZE // SIZE,
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


def data_of(
    args: argparse.Namespace, config: TrainingConfig
) -> tuple[TrainingConfig, TrainingData]:
    """What is learned from, and the sizes that it asks for."""
    if not args.coco:
        cache = Path(args.cache)
        return config, training_set(args.seed, config.scenes, config.size, config.big_share, cache)
    data = read_coco(args.coco, args.images, args.val, MAX_SIZE / SIZE)
    for note in data.notes:
        print(note, flush=True)
    most = data.most_objects
    queries = args.queries or min(_MOST_QUERIES, max(config.queries, math.ceil(1.5 * most)))
    if queries < most:
        raise UserError(f"an image has {most} objects: --queries {queries} are too few")
    first = max(queries, round(config.queries_at_first / config.queries * queries))
    print(
        f"{len(data.learned)} images to learn from, {len(data.held_out)} held out, "
        f"{len(data.classes)} classes, {queries} queries, {args.size} px",
        flush=True,
    )
    config = replace(
        config,
        classes=data.classes,
        queries=queries,
        queries_at_first=first if config.queries_at_first else 0,
        size=args.size,
    )
    return config, data


def data_digest(args: argparse.Namespace) -> str:
    """Of what is learned from: another file does not go on with this training."""
    words = (args.coco, args.images, args.val, args.queries, args.size)
    return sha256(repr(words).encode()).hexdigest()[:8]


def train(args: argparse.Namespace, config: TrainingConfig) -> None:
    """Train until the time or the steps are used up, then write args.out."""
    cache = Path(args.cache)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)  # fails now rather than in an hour
    config, data = data_of(args, config)
    run = Run(args, config)
    name = f"{args.type}_{args.seed}" + (f"_{data_digest(args)}" if args.coco else "")
    kept = cache / f"{name}_resume.pth"
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
            export(run.trainee, cache / f"{name}_latest.pth", run.meta())
            share = 3 if run.progress < config.small_until else 4
            size = config.size * share // 4
            print(f"  {measure(run.trainee, args.type, config, data, 100, size)}", flush=True)
    run.save(kept)
    export(run.trainee, Path(args.out), run.meta())
    accuracy = measure(run.trainee, args.type, config, data, 300, config.size)
    print(f"  {accuracy}\nwrote {args.out}", flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--type", required=True, choices=sorted(CONFIGS), help="the model to train")
    add("--out", required=True, help="checkpoint to write")
    add("--coco", help="COCO annotation file to learn from (default: drawn scenes)")
    add("--images", help="folder of its images (default: that of the file)")
    add("--val", help="COCO file of held-out images (default: one image in ten)")
    add("--size", type=int, default=SIZE, help="shorter side in pixels (default %(default)s)")
    add("--queries", type=int, default=0, help="with --coco (default: by its largest image)")
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
    args = parser.parse_args(argv)
    if args.coco:
        args.images = args.images or str(Path(args.coco).parent)
        if not _SMALLEST_PX <= args.size <= _LARGEST_PX:
            parser.error(f"--size must be from {_SMALLEST_PX} to {_LARGEST_PX} pixels")
        if args.queries < 0:
            parser.error("--queries must be positive")
    elif args.images or args.val or args.queries or args.size != SIZE:
        parser.error("--images, --val, --queries and --size go with --coco")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train one demo checkpoint."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    train(args, CONFIGS[args.type])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(report(error))
