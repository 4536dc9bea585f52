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
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from detr_viz.common.errors import UserError, report
from detr_viz.common.files import OutputError
from detr_viz.demo.coco_data import read_coco
from detr_viz.demo.recipe import MAX_SIZE, SIZE, TrainingConfig
from detr_viz.demo.trainee import CONFIGS, Trainee
from detr_viz.demo.training_files import (
    Interrupt,
    check_place,
    write_atomically,
)
from detr_viz.demo.training_run import Run
from detr_viz.demo.training_set import TrainingData, training_set
from detr_viz.models import get

INTERRUPTED = 130  # exit code after Ctrl-C, as of a shell
_SMALLEST_PX, _LARGEST_PX = 64, 1024
_MOST_QUERIES = 100  # of a training on photos, unless --queries asks for more


def export(trainee: Trainee, path: Path, meta: dict[str, Any], flag: str = "--out") -> None:
    """Write the checkpoint that ships: {"model": fp16 state dict, "meta": plain values}."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trainee.shipped().items()}
    write_atomically({"model": state, "meta": meta}, path, flag)


def measure(
    trainee: Trainee, kind: str, config: TrainingConfig, data: TrainingData, count: int, size: int
) -> str:
    """Accuracy of the model as it would ship now, on images that it has not learned from."""
    model = get(kind).build(trainee.recipe.network(config, trainee.focal))
    model.load_state_dict(trainee.shipped())
    return data.accuracy(model.eval(), trainee.focal, count, size)


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


def train(args: argparse.Namespace, config: TrainingConfig) -> int:
    """Train until the time or the steps are used up, then write args.out; returns the exit code.

    After Ctrl-C, or where an image cannot be read, what was learned is kept for --resume.
    """
    name = f"{args.type}_{args.seed}" + (f"_{data_digest(args)}" if args.coco else "")
    kept = Path(args.cache) / f"{name}_resume.pth"
    check_place(Path(args.out), "--out")
    check_place(kept, "--cache")
    config, data = data_of(args, config)
    run = Run(args, config)
    if args.resume and kept.exists():
        run.restore(kept)
        print(f"going on from {kept} at {run.seconds / 60:.1f} min", flush=True)
    elif args.resume:
        print(f"note: {kept} is not there: this training begins at its first step", flush=True)
    with Interrupt().watched() as interrupt:
        try:
            learn(run, data, kept, interrupt)
        except OutputError:
            raise
        except UserError:
            run.save(kept)
            raise
        run.save(kept)
        if run.progress < 1:
            print(f"stopped after {run.steps} steps: --resume goes on from {kept}", flush=True)
            return INTERRUPTED
    export(run.trainee, Path(args.out), run.meta())
    accuracy = measure(run.trainee, args.type, config, data, 300, config.size)
    print(f"  {accuracy}\nwrote {args.out}", flush=True)
    return 0


def learn(run: Run, data: TrainingData, kept: Path, interrupt: Interrupt) -> None:
    """All steps that are left, with a report each half minute and a save now and then.

    kept: where the unfinished training goes; what would ship is beside it.
    """
    args, config = run.args, run.config
    latest = kept.with_name(kept.name.replace("_resume", "_latest"))
    last_report = last_save = run.seconds
    run.trainee.train()
    while run.progress < 1 and not interrupt.asked:
        started = time.perf_counter()
        run.step(data)
        run.seconds += time.perf_counter() - started
        if run.seconds - last_report >= 30 or run.progress >= 1:
            last_report = run.seconds
            print(run.report(), flush=True)
        if run.seconds - last_save >= 60 * args.save_every:
            last_save = run.seconds
            run.save(kept)
            export(run.trainee, latest, run.meta(), "--cache")
            share = 3 if run.progress < config.small_until else 4
            size = config.size * share // 4
            print(f"  {measure(run.trainee, args.type, config, data, 100, size)}", flush=True)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Train one demo checkpoint; returns the exit code."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    return train(args, CONFIGS[args.type])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:  # before the first step, or a second time
        sys.exit(INTERRUPTED)
