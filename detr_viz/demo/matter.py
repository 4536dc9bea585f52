"""The share of each term in the last layer's logits, and the effect of removing parts.

    python -m detr_viz.demo.matter --scenes 100

It reads demo checkpoints and held-out scenes. For every query that matches an object (as in
measure.py): the mean share of each term, over heads; and for each part that is removed from all
decoder layers, how many of the objects keep their class with a score of one half, the score of that
class, and the overlap of the boxes with and without the part. Last, the areas under deletion and
insertion curves (faithfulness.py) of each mode's top cells, and of cells in random order.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from detr_viz import models
from detr_viz.attention.terms import TERMS
from detr_viz.checkpoints.load_model import load_model
from detr_viz.cli.arguments import positive
from detr_viz.demo.measure import SCORE, matched_queries, scenes
from detr_viz.explanation.explain_image import explain
from detr_viz.explanation.faithfulness import area, faithfulness

PARTS = ("position", "content", *(f"term:{name}" for name in TERMS), "box:inside", "box:outside")


def measurements(name: str, weights: str | None, count: int) -> tuple[np.ndarray, dict]:
    """(shares (objects, heads, terms), part -> (objects, 3): kept, score, IoU)."""
    model = load_model(weights, name, device="cpu")
    parts = [*PARTS, *(f"head:{i}" for i in range(model.config.nheads))]
    shares, rows = [], {part: [] for part in parts}
    for picture in scenes(count):
        e = explain(model, picture.rgb)
        ids = matched_queries(e, picture)
        if not len(ids):
            continue
        terms = e.logit_terms(ids)
        shares.append(np.stack([terms.shares[term] for term in TERMS], -1))
        for part in parts:
            ablation = e.ablate(part)
            score = ablation.kept_scores()[ids]
            rows[part].append(np.stack([score >= SCORE, score, ablation.iou[ids]], -1))
    return np.concatenate(shares), {part: np.concatenate(parts) for part, parts in rows.items()}


def areas(name: str, weights: str | None, count: int) -> dict[str, np.ndarray]:
    """Mode or "random" -> (objects, 2): areas under the deletion and the insertion curve."""
    model = load_model(weights, name, device="cpu")
    rows: dict[str, list[np.ndarray]] = {}
    for picture in scenes(count):
        e = explain(model, picture.rgb)
        ids = matched_queries(e, picture)
        if not ids:
            continue
        curves = faithfulness(e, ids, e.modes)
        for mode in e.modes:
            pair = curves.deletion[mode], curves.insertion[mode]
            both = np.stack([area(scores, curves.shares) for scores in pair], -1)
            rows.setdefault(mode, []).append(both)
        random = area(curves.random, curves.shares).mean(-1)
        rows.setdefault("random", []).append(np.stack([random, random], -1))
    return {mode: np.concatenate(parts) for mode, parts in rows.items()}


def report(name: str, weights: str | None, count: int) -> str:
    """Markdown: shares, then a row for each part, heads as the range of their rows; then areas."""
    shares, rows = measurements(name, weights, count)
    title = models.REGISTRY[name].title
    means = ", ".join(
        f"{term} {share:.0%}" for term, share in zip(TERMS, shares.mean((0, 1)), strict=True)
    )
    lines = [f"{title}, {count} scenes, {len(shares)} objects found; shares: {means}", ""]
    lines += ["| without | objects kept | score | box IoU |", "|---|---|---|---|"]
    single = {part: of_part.mean(0) for part, of_part in rows.items() if part in PARTS}
    lines += [f"| {part} | {a:.0%} | {b:.2f} | {c:.2f} |" for part, (a, b, c) in single.items()]
    heads = np.stack([of_part.mean(0) for part, of_part in rows.items() if part not in PARTS])
    (a, b, c), (d, e, f) = heads.min(0), heads.max(0)
    lines.append(f"| one head | {a:.0%} to {d:.0%} | {b:.2f} to {e:.2f} | {c:.2f} to {f:.2f} |")
    lines += ["", "| cells by | deletion | insertion |", "|---|---|---|"]
    curves = {mode: of_mode.mean(0) for mode, of_mode in areas(name, weights, count).items()}
    lines += [f"| {mode} | {a:.2f} | {b:.2f} |" for mode, (a, b) in curves.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report of each type's demo, or of one checkpoint."""
    parser = argparse.ArgumentParser(
        description="What matters for detections on held-out scenes.", allow_abbrev=False
    )
    parser.add_argument("--type", choices=models.demos(), nargs="+", default=models.demos())
    parser.add_argument("--weights", help="a demo checkpoint of one type (default: those shipped)")
    parser.add_argument(
        "--scenes", type=positive, default=100, help="how many (default %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.weights and len(args.type) > 1:
        parser.error("--weights is a checkpoint of one type: name that type with --type")
    for name in args.type:
        print(report(name, args.weights, args.scenes), end="\n\n")


if __name__ == "__main__":
    main()
