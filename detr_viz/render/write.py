"""One image by a recipe: which queries, what is written, what is said of them in tables.

Takes ExplanationBase, not networks, so it works in a process without torch too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import ALL_TERMS, modes_of_plot
from detr_viz.detections.objects import queries_of
from detr_viz.render.paths import Target
from detr_viz.render.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.results import ExplanationBase


@dataclass(frozen=True)
class Written:
    """The files of an image, what had to be said of them, and the figure where there is one."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    figure: Figure | None


def modes_of(found: Sequence[ExplanationBase], recipe: Recipe) -> list[str]:
    """The modes whose maps are shown, or saved."""
    return modes_of_plot(recipe.plot, found[0].modes)


def write(
    found: Sequence[ExplanationBase],
    objects: Sequence[SharedObject],
    recipe: Recipe,
    target: Target,
    ablations: Sequence[Sequence[Ablation]] = (),
) -> Written:
    """Draw the objects as the recipe says and write the target's files.

    found: of each model, the pixels of the image among it. OutputError for what the disk refuses,
    FigureError for what cannot be drawn.
    """
    digest = recipe.digest(found[0].image)
    files: list[Path] = []
    figure = None
    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        if target.figures:
            from detr_viz import figures
            from detr_viz.figures import latex_caption

            figure = figures.compare(
                found,
                objects,
                ALL_TERMS if recipe.plot == ALL_TERMS else modes_of(found, recipe),
                layer="all" if recipe.several_layers else None,  # of those captured
                scale=recipe.scale,
                style=recipe.style,
                page_format=recipe.page_format,
                ablations=ablations,
                biography=recipe.biography,
            )
            for path in target.figures:
                figures.save(figure, path, {"Recipe": digest})
                files.append(path)
            if target.caption:
                files.append(latex_caption.save_caption(figure.shown, target.captioned, digest))
    if target.saves_maps:
        files += _save_maps(found, objects, recipe, target, digest)
    return Written(tuple(files), tuple(dict.fromkeys(str(w.message) for w in caught)), figure)


def _save_maps(
    found: Sequence[ExplanationBase],
    objects: Sequence[SharedObject],
    recipe: Recipe,
    target: Target,
    digest: str,
) -> Iterator[Path]:
    """A file a model and layer; where there is only one, <stem>.npz."""
    from detr_viz import heatmaps

    tags = [""]
    if len(found) > 1:
        from detr_viz.figures.head_maps import names_of

        tags = [f"_{slug}" for slug in _slugs(names_of(found))]
    layered = any(len(e.layers) > 1 for e in found)
    for k, e in enumerate(found):
        ids = queries_of(objects, k)
        for layer in e.layers if ids else ():
            path = target.maps(tags[k] + (f"_layer{layer}" if layered else ""))
            modes = modes_of(found, recipe)
            yield heatmaps.save(path, e, ids, modes, layer=layer, scale=recipe.scale, recipe=digest)


def _slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of file names, no two the same."""
    slugs = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model" for name in names]
    same = len(set(slugs)) < len(slugs)
    return [f"{slug}_{i}" if same else slug for i, slug in enumerate(slugs, 1)]


def deviation(
    exact: Sequence[ExplanationBase],
    found: Sequence[ExplanationBase],
    objects: Sequence[SharedObject],
    recipe: Recipe,
) -> float:
    """How far the weights that are shown lie from those of an exacter run of the same models."""
    modes = modes_of(found, recipe)
    return max(
        float(
            np.abs(a.maps(m, ids, layer, recipe.scale) - b.maps(m, ids, layer, recipe.scale)).max()
        )
        for k, (a, b) in enumerate(zip(exact, found, strict=True))
        if (ids := queries_of(objects, k))
        for layer in a.layers
        for m in modes
    )


def moved(precision: str, apart: float, what: str = "attention weights") -> str:
    """How far another precision is from float32, as a line to print."""
    return f"note: {precision} moves {what} by up to {apart:.2g} from float32's"


def ledger_residual(found: Sequence[ExplanationBase], objects: Sequence[SharedObject]) -> float:
    """How far the sum of the terms that are shown lies from the network's own logits, at most."""
    return max(
        e.logit_terms(queries_of(objects, k), layer).residual
        for k, e in enumerate(found)
        for layer in e.layers
        if queries_of(objects, k)
    )


def rows(
    found: Sequence[ExplanationBase], objects: Sequence[SharedObject]
) -> tuple[tuple[str, ...], ...]:
    """What an index says of the queries, as texts, "object" to "bottom" (pixels).

    Queries of several models that have found the same object have the same number, from 1.
    """
    made = []
    for k, (e, model) in enumerate(zip(found, _told_apart(found), strict=True)):
        for layer in e.layers:
            output = e.output(layer)
            for number, shared in enumerate(objects, 1):
                if (q := shared.matches[k].query) is None:
                    continue
                box = [f"{side:.1f}" for side in output.boxes_xyxy_px[q]]
                name, score = e.class_names[output.labels[q]], f"{output.scores[q]:.4f}"
                made.append((str(number), model, str(layer), str(q), name, score, *box))
    return tuple(made)


def _told_apart(found: Sequence[ExplanationBase]) -> list[str]:
    """The names of the checkpoints, numbered where one stands for several."""
    names = [str(e.meta["weights"]) for e in found]
    return [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names, 1)]
