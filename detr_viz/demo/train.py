"""How weights/ was made: small genuine detectors, trained on procedural scenes in about an hour of one CPU core.

    python -m detr_viz.demo.train --type cd_detr --out weights/cd_detr_demo.pth
    python -m detr_viz.demo.train --type detr --out weights/detr_demo.pth

Two helpers exist in training only and are dropped on saving: several groups of queries that are matched
apart (the first is kept), and a class head on every cell of the projected feature map.
The schedule follows the clock (--minutes), so a busy machine sees fewer images but ends on time.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.demo.evaluate import evaluate, normalize
from detr_viz.demo.losses import cell_targets, set_loss
from detr_viz.demo.shapes import CLASSES, SceneSet, scene, training_seeds, training_set
from detr_viz.models import get
from detr_viz.models.config import BackboneConfig, DetrConfig

SIZE = 128  # short side that ships; the longest keeps the official 800 : 1333
MAX_SIZE = 213
_PROGRESS_SEED = 999  # scenes that show progress; neither trained on nor held out


@dataclass(frozen=True)
class Recipe:
    """What a training is made of; lengths of phases are shares of its time."""

    enc_layers: int = 2
    dec_layers: int = 3
    blocks: tuple[int, ...] = (2, 3)
    widths: tuple[int, ...] = (32, 64)
    d_model: int = 128
    dim_feedforward: int = 256
    queries: int = 20
    groups: int = 3
    lr: float = 6e-4
    warmup_steps: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    batch: int = 8
    scenes: int = 24_000
    big_share: float = 0.25
    small_until: float = 0.55  # at 96 px, then at 96, 112 or 128
    mixed_until: float = 0.75  # then at 128 px: accuracy at a size not finished at is poor

    def config(self, focal: bool, groups: int = 1) -> DetrConfig:
        """Sizes of the network; one more logit, no-object, for the softmax model."""
        return DetrConfig(
            num_queries=self.queries * groups,
            num_logits=len(CLASSES) + (0 if focal else 1),
            d_model=self.d_model,
            nheads=8,
            enc_layers=self.enc_layers,
            dec_layers=self.dec_layers,
            dim_feedforward=self.dim_feedforward,
            backbone=BackboneConfig("basic", 32, self.widths, self.blocks),
        )

    def size_px(self, progress: float, rng: np.random.Generator) -> int:
        if progress < self.small_until:
            return 96
        return int(rng.choice((96, 112, 128))) if progress < self.mixed_until else SIZE


# One encoder layer and a shallower body leave more of the localising to Conditional DETR's decoder, whose
# maps are the point; DETR needs the deeper net to be accurate in the same time.
RECIPES = {
    "detr": Recipe(lr=5e-4),
    "cd_detr": Recipe(lr=6e-4, enc_layers=1, blocks=(2, 2)),
}


def initialise(model: nn.Module, focal: bool) -> None:
    """The authors' initial values: Xavier in the transformer, boxes that start at their reference."""
    for name, p in model.named_parameters():
        if p.dim() > 1 and name.startswith("transformer."):
            nn.init.xavier_uniform_(p)
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if focal:
        nn.init.constant_(model.class_embed.bias, -math.log(99))
        nn.init.zeros_(model.bbox_embed.layers[-1].weight)
        nn.init.zeros_(model.bbox_embed.layers[-1].bias)


def separate_groups(model: nn.Module, groups: int) -> None:
    """Keep decoder self-attention within each query group: (B, G * Q, C) becomes (B * G, Q, C) inside."""

    def apart(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        batch = max(x.shape[0] for x in args if isinstance(x, Tensor))
        known: dict[int, Tensor] = {}  # one object stays one object: sites tell self-attention by it
        for x in args:
            if isinstance(x, Tensor) and id(x) not in known:
                rows = x.expand(batch, -1, -1)
                known[id(x)] = rows.reshape(batch * groups, -1, x.shape[-1])
        return tuple(known[id(x)] if isinstance(x, Tensor) else x for x in args)

    def together(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out.reshape(out.shape[0] // groups, -1, out.shape[-1])

    for (kind, _), site in model.attention_sites().items():
        if kind == "self":
            site.register_forward_pre_hook(apart)
            site.register_forward_hook(together)


class Trainee(nn.Module):
    """A model with its training-only helpers; forward gives the weighted losses by name."""

    def __init__(self, kind: str, recipe: Recipe) -> None:
        super().__init__()
        self.focal = kind != "detr"
        self.groups, self.stride = recipe.groups, 4 * 2 ** (len(recipe.blocks) - 1)
        config = recipe.config(self.focal, recipe.groups)
        self.model = get(kind).build(config, norm_layer=nn.BatchNorm2d)
        initialise(self.model, self.focal)
        separate_groups(self.model, recipe.groups)
        self.cell_head = nn.Conv2d(recipe.d_model, len(CLASSES) + 1, 1)
        self.cells: Tensor | None = None
        self.model.input_proj.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self.cells = out

    def forward(self, images: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        out = self.model(images, None, aux=True)
        layers = [*out["aux_outputs"], out]
        logits = torch.stack([o["pred_logits"] for o in layers])
        found = torch.stack([o["pred_boxes"] for o in layers])
        logits, found = (x.unflatten(2, (self.groups, -1)) for x in (logits, found))
        losses = set_loss(logits, found, labels, boxes, self.focal)
        cells = self.cell_head(self.cells)
        wanted = cell_targets(labels, boxes, cells.shape[-2:], self.stride, images.shape[-2:])
        losses["cells"] = F.cross_entropy(cells, torch.where(wanted < 0, len(CLASSES), wanted))
        return losses

    def shipped(self) -> dict[str, Tensor]:
        """State dict with the official keys: the first query group, no batch counters."""
        state = {k: v for k, v in self.model.state_dict().items() if "num_batches" not in k}
        rows = state["query_embed.weight"]
        state["query_embed.weight"] = rows[: rows.shape[0] // self.groups]
        return {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}


def augment(
    rgb: np.ndarray, boxes: np.ndarray, size_px: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random flips and quarter turns, channel order, gain and offset; then resize and normalise.

    rgb uint8 (B, S, S, 3), boxes xyxy float32 (B, T, 4) in [0, 1] -> images (B, 3, size_px, size_px),
    boxes cxcywh (B, T, 4).
    """
    pictures, placed = [], []
    for picture, box in zip(rgb, boxes, strict=True):
        flip_x, flip_y, transpose = rng.random(3) < 0.5
        if flip_x:
            picture, box = picture[:, ::-1], np.stack(
                [1 - box[:, 2], box[:, 1], 1 - box[:, 0], box[:, 3]], -1
            )
        if flip_y:
            picture, box = picture[::-1], np.stack(
                [box[:, 0], 1 - box[:, 3], box[:, 2], 1 - box[:, 1]], -1
            )
        if transpose:
            picture, box = picture.swapaxes(0, 1), box[:, [1, 0, 3, 2]]
        pictures.append(picture[..., rng.permutation(3)])
        placed.append(box)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
    count = len(pictures)
    gain = rng.uniform(0.8, 1.2, (count, 1, 1, 1)) * rng.uniform(0.93, 1.07, (count, 3, 1, 1))
    offset = rng.uniform(-0.1, 0.1, (count, 1, 1, 1))
    images = (images * torch.from_numpy(gain).float() + torch.from_numpy(offset).float()).clamp_(0, 1)
    if size_px != images.shape[-1]:
        images = F.interpolate(images, size=(size_px, size_px), mode="bilinear", antialias=True)
    xyxy = torch.from_numpy(np.stack(placed)).float()
    cxcywh = torch.cat([(xyxy[..., :2] + xyxy[..., 2:]) / 2, xyxy[..., 2:] - xyxy[..., :2]], -1)
    return normalize(images), cxcywh


def write_atomically(value: object, path: Path) -> None:
    """torch.save under a temporary name beside the target, then one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save(value, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def export(trainee: Trainee, path: Path, meta: dict[str, Any]) -> None:
    """Write the checkpoint that ships: {"model": fp16 state dict, "meta": plain values}."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trainee.shipped().items()}
    write_atomically({"model": state, "meta": meta}, path)


def measure(trainee: Trainee, kind: str, recipe: Recipe, scenes: int, size_px: int) -> str:
    """Accuracy of what would ship now, on scenes that are neither trained on nor held out."""
    model = get(kind).build(recipe.config(trainee.focal))
    model.load_state_dict(trainee.shipped())
    seen = [scene(seed, size_px) for seed in training_seeds(_PROGRESS_SEED, scenes)]
    return f"{evaluate(model.eval(), seen, trainee.focal)}  ({scenes} scenes at {size_px} px)"


class Run:
    """One training: everything that must survive an interruption, and the loop."""

    def __init__(self, args: argparse.Namespace, recipe: Recipe) -> None:
        self.args, self.recipe = args, recipe
        torch.manual_seed(args.seed)
        self.rng = np.random.default_rng([args.seed, 1])
        self.trainee = Trainee(args.type, recipe).to(args.device)
        self.trainee.model.backbone.to(memory_format=torch.channels_last)  # 4 % quicker on a CPU
        weights = [p for p in self.trainee.parameters() if p.dim() > 1]
        rest = [p for p in self.trainee.parameters() if p.dim() <= 1]
        groups = [{"params": weights}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        self.steps = self.images = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.since = 0

    @property
    def progress(self) -> float:
        """Share of the training that is done, by steps when --steps is given, else by the clock."""
        if self.args.steps:
            return self.steps / self.args.steps
        return self.seconds / (60 * self.args.minutes)

    def step(self, data: SceneSet) -> None:
        """One batch."""
        recipe, progress = self.recipe, self.progress
        pick = self.rng.integers(len(data.rgb), size=recipe.batch)
        size = recipe.size_px(progress, self.rng)
        images, boxes = augment(data.rgb[pick], data.boxes_xyxy[pick], size, self.rng)
        labels = torch.from_numpy(data.labels[pick])
        device = self.args.device
        losses = self.trainee(images.to(device), labels.to(device), boxes.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), recipe.clip)
        warm = min(1.0, (self.steps + 1) / recipe.warmup_steps)
        rate = recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.steps += 1
        self.images += recipe.batch
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
        recipe = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.recipe).items()}
        return {
            "type": self.args.type,
            "nheads": 8,
            "classes": list(CLASSES),
            "size": SIZE,
            "max_size": MAX_SIZE,
            "stride": self.trainee.stride,
            "seed": self.args.seed,
            "recipe": recipe,
            "steps": self.steps,
            "images": self.images,
            "minutes": round(self.seconds / 60, 1),
        }

    def report(self) -> str:
        means = "  ".join(f"{k} {v / self.since:.3f}" for k, v in self.sums.items())
        self.sums, self.since = {}, 0
        return f"{self.seconds / 60:6.1f} min  {self.steps:6d} steps  {self.images:7d} images  {means}"


def train(args: argparse.Namespace, recipe: Recipe) -> None:
    """Train until the time or the steps are used up, then write args.out."""
    cache = Path(args.cache)
    data = training_set(args.seed, recipe.scenes, SIZE, recipe.big_share, cache)
    run = Run(args, recipe)
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
            size = 96 if run.progress < recipe.small_until else SIZE
            print(f"  {measure(run.trainee, args.type, recipe, 100, size)}", flush=True)
    run.save(kept)
    export(run.trainee, Path(args.out), run.meta())
    print(f"  {measure(run.trainee, args.type, recipe, 300, SIZE)}\nwrote {args.out}", flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--type", required=True, choices=sorted(RECIPES), help="the model to train")
    add("--out", required=True, help="checkpoint to write")
    add("--minutes", type=float, default=55.0, help="length of the training (default %(default)s)")
    add("--steps", type=int, default=0, help="length in batches instead: repeatable to the digit")
    add("--seed", type=int, default=1, help="of scenes, first values and batches (default %(default)s)")
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
    train(args, RECIPES[args.type])


if __name__ == "__main__":
    sys.exit(main())
