"""How an explanation prints at a Python prompt: three lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.short_repr import COLUMNS, one_line

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase


def summary(e: ExplanationBase) -> str:
    """Image and model, sizes, the three best queries; a line each."""
    height, width = e.image.hw
    best = ", ".join(
        f"{one_line(e.label_name(q), 40)} {e.scores[q]:.2f} (query {q})" for q in e.by_score()[:3]
    )
    levels = ", ".join(f"{grid.hw[0]} x {grid.hw[1]}" for grid in e.grids())
    layers = "stages" if e.stages else "layers"
    path = one_line(e.image.path or "an image", 60)
    heads = "" if e.stages else f"{e.num_heads} heads, "
    lines = (
        f"{type(e).__name__} of {path} ({width} x {height} px) by {one_line(e.model_title, 40)}",
        f"  {e.num_queries} queries, {len(e.class_names)} classes, {heads}"
        f"{e.attention_kind} attention on {levels} cells, "
        f"{layers} {', '.join(map(str, e.layers))} of 0..{e.num_layers - 1}",
        f"  best: {best}",
    )
    return "\n".join(
        line if len(line) <= COLUMNS else f"{line[: COLUMNS - 4]} ..." for line in lines
    )
