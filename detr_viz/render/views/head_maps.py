"""--attention cross: maps of each head, the terms of their logits, ablations, a biography."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.base import AXES
from detr_viz.attention.terms import ALL_TERMS, modes_of_plot
from detr_viz.checkpoints.sources import named
from detr_viz.detections.detections import Detections
from detr_viz.detections.error_notes import error_notes
from detr_viz.detections.objects import queries_of
from detr_viz.detections.queries import asks_for_missed, needs_truth
from detr_viz.explanation.deviation import deviation
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.heatmaps.truth_arrays import truth_arrays
from detr_viz.render.numbers import Arrays, Maps, Numbers, Table
from detr_viz.render.pages import entries, page_maker
from detr_viz.render.tables import ablation_table, shares_table, table
from detr_viz.render.views.base import Drawn, Needs, View, Watch, resolved

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.removals import Removal
    from detr_viz.html.entry import Entry
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class StoredAblation:
    """An Ablation with the weights of some queries only: plain data, for another process.

    weights: decoder layer -> query -> (heads, K)
    """

    removal: Removal
    layers: tuple[int, ...]
    before: Detections
    after: Detections
    iou: NDArray[np.float64]
    weights: Mapping[int, Mapping[int, NDArray[np.float32]]]

    def kept_scores(self) -> NDArray[np.float32]:
        """(Q,): the score after the removal of the class that a query had before."""
        return self.after.class_scores[np.arange(len(self.before.labels)), self.before.labels]


@dataclass(frozen=True, eq=False)
class HeadMapsResult:
    """The maps of the objects' queries.

    residual   distance of the sum of the shown terms from the network's logits; None: no terms
    ablations  for each model, one for each part that is taken out
    notes      for each model, query -> why an object was missed; () where that is not asked for
    pages      of each model what a page shows; () where none is written
    """

    shown: tuple[StoredExplanation, ...]
    objects: tuple[SharedObject, ...]
    residual: float | None
    ablations: tuple[tuple[StoredAblation, ...], ...]
    notes: tuple[Mapping[int, str], ...] = ()
    pages: tuple[Entry, ...] = ()


class HeadMapsView(View):
    name = "cross"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(recipe.layer, redecode=bool(recipe.removed))

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> HeadMapsResult:
        shown = _stored(explanations, objects, recipe)
        residual = None
        if recipe.plot == ALL_TERMS:
            residual = max(terms.residual for e in shown for terms in e.stored_terms.values())
        ablations = tuple(
            tuple(_without(e, part, queries_of(objects, k), recipe) for part in recipe.removed)
            for k, e in enumerate(explanations)
        )
        notes, pages = _notes(explanations, recipe), entries(explanations, objects, recipe)
        return HeadMapsResult(shown, tuple(objects), residual, ablations, notes, pages)

    def deviation(
        self, result: HeadMapsResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        return deviation(_stored(exact, result.objects, recipe), result.shown)

    def draw(self, result: HeadMapsResult, recipe: Recipe) -> Drawn:
        def figure() -> Figure:
            from detr_viz import figures

            return figures.compare_models(
                result.shown,
                result.objects,
                ALL_TERMS if recipe.plot == ALL_TERMS else _modes(result.shown, recipe),
                layer="all" if recipe.several_layers else None,  # of those captured
                scale=recipe.scale,
                style=recipe.style,
                page_format=recipe.page_format,
                ablations=result.ablations,
                biography=recipe.biography,
                notes=result.notes,
            )

        numbers, lines = dict(_numbers(result, recipe)), list(_lines(result))
        return Drawn({"": figure}, numbers, (), lines, page_maker(result.pages))


def _notes(explanations: Sequence[Explanation], recipe: Recipe) -> tuple[Mapping[int, str], ...]:
    """For each model, what the words about errors have to say of its queries."""
    if not needs_truth(recipe.queries):
        return ()
    missed = asks_for_missed(recipe.queries)
    return tuple(error_notes(e, recipe.score, missed) for e in explanations)


def _modes(explanations: Sequence[StoredExplanation], recipe: Recipe) -> list[str]:
    """The modes of the maps that are shown or saved."""
    return modes_of_plot(recipe.plot, explanations[0].modes)


def _stored(
    explanations: Sequence[Explanation], objects: Sequence[SharedObject], recipe: Recipe
) -> tuple[StoredExplanation, ...]:
    modes = modes_of_plot(recipe.plot, explanations[0].modes)
    # beside ablations stands the attention as the network uses it
    scale = "layer" if recipe.removed else recipe.scale
    return tuple(
        store(
            e,
            queries_of(objects, k),
            modes,
            scale,
            recipe.plot == ALL_TERMS,
            layers=resolved(recipe, e.num_layers),
        )
        for k, e in enumerate(explanations)
    )


def _without(e: Explanation, part: str, queries: Sequence[int], recipe: Recipe) -> StoredAblation:
    with named(str(e.meta["weights"]), len(recipe.models)):
        ablation: Ablation = e.ablate(part, recipe.removed_in)
    shown = resolved(recipe, e.num_layers)
    return StoredAblation(
        ablation.removal,
        ablation.layers,
        ablation.before,
        ablation.after,
        ablation.iou,
        {
            n: {q: weights[q].copy() for q in queries}
            for n, weights in ablation.weights.items()
            if n in shown
        },
    )


# ---- lines --------------------------------------------------------------------------------------


def _lines(result: HeadMapsResult) -> Iterator[str]:
    explanations, headed = result.shown, len(result.shown) > 1
    if result.residual is not None:
        yield f"the terms add up to the network's logits within {result.residual:.1e}"
    for k, e in enumerate(explanations):
        early = e.layers[-1] < e.num_layers - 1
        # the drawn layer; queries are chosen by the last
        yield from query_lines(
            e, queries_of(result.objects, k), headed, e.layers[-1] if early else None
        )
    for k, e in enumerate(explanations):
        ids = queries_of(result.objects, k)
        for layer in e.stored_terms if ids else ():
            if headed or len(e.layers) > 1:
                yield f"{_model_name(e)}, {e.layer_noun} {layer}"
            yield shares_table(e, ids, layer)
    for k, e in enumerate(explanations):
        ids = queries_of(result.objects, k)
        if result.ablations and result.ablations[k] and ids:
            if headed:
                yield _model_name(e)
            yield ablation_table(e, ids, result.ablations[k])


def query_lines(
    e: StoredExplanation | Explanation,
    ids: Sequence[int],
    headed: bool,
    layer: int | None = None,
    least: float | None = None,
) -> Iterator[str]:
    """The table of these queries; headed: with the model's name above; least: see `table`."""
    if headed:
        yield _model_name(e)
    yield table(e, ids, layer, least)


def _model_name(e: StoredExplanation | Explanation) -> str:
    return f"{e.model_title} ({e.meta['weights']})"


# ---- numbers ------------------------------------------------------------------------------------


def _numbers(result: HeadMapsResult, recipe: Recipe) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """One file per model and layer; a single one is <stem>.npz. Ablations are one table."""
    if recipe.removed:
        yield "", partial(_ablations, result)
        return
    explanations, tags = result.shown, [""]
    if len(explanations) > 1:
        from detr_viz.figures.labels import names_of

        tags = [f"_{slug}" for slug in _slugs(names_of(explanations))]
    layered = any(len(e.layers) > 1 for e in explanations)
    for k, e in enumerate(explanations):
        ids = queries_of(result.objects, k)
        for layer in e.layers if ids else ():
            end = tags[k] + (f"_{e.layer_noun}{layer}" if layered else "")
            numbers_of = _terms if recipe.plot == ALL_TERMS else _maps
            yield end, partial(numbers_of, e, ids, layer, recipe)


def _slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of file names, no two the same."""
    slugs = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model" for name in names]
    same = len(set(slugs)) < len(slugs)
    return [f"{slug}_{i}" if same else slug for i, slug in enumerate(slugs, 1)]


def _maps(e: StoredExplanation, ids: Sequence[int], layer: int, recipe: Recipe) -> Maps:
    from detr_viz.heatmaps.npz import of

    maps = of(e, ids, _modes([e], recipe), layer=layer, scale=recipe.scale)
    return Maps(replace(maps, truth=truth_arrays(e.truth)) if recipe.style.truth else maps)


def _terms(e: StoredExplanation, ids: Sequence[int], layer: int, recipe: Recipe) -> Arrays:
    terms, output = e.logit_terms(ids, layer), e.output(layer)
    arrays = {
        "query_ids": np.asarray(ids, np.int64),
        "scores": output.scores[list(ids)],
        "labels": output.labels[list(ids)],
        "boxes_xyxy_px": output.boxes_xyxy_px[list(ids)],
        "grid_hw": np.asarray(e.grid_hw, np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
        "layers": np.asarray([layer], np.int64),
        "total": terms.total,  # (q, heads, h, w), as the terms
        "weights": terms.weights,
    }
    arrays |= {f"logits_{name}": part for name, part in terms.terms.items()}
    arrays |= {f"shares_{name}": share for name, share in terms.shares.items()}  # (q, heads)
    for name, pair in terms.axes.items():  # row (q, heads, w), column (q, heads, h)
        arrays |= {f"logits_{axis}_{name}": part for axis, part in zip(AXES, pair, strict=True)}
    arrays |= truth_arrays(e.truth) if recipe.style.truth else {}
    meta = {**e.meta, "view": "terms", "layer": layer, "terms": list(terms.terms)}
    return Arrays(arrays, {**meta, "residual": terms.residual})


_ABLATION_COLUMNS = (
    *("model", "query", "class", "without", "in layers", "score before", "score after"),
    *("class after", "box IoU", "left", "top", "right", "bottom"),
)


def _ablations(result: HeadMapsResult) -> Table:
    rows = []
    for k, (e, ablations) in enumerate(zip(result.shown, result.ablations, strict=True)):
        for query in queries_of(result.objects, k):
            for one in ablations:
                box = [f"{side:.1f}" for side in one.after.boxes_xyxy_px[query]]
                scores = one.before.scores[query], one.kept_scores()[query]
                row = [e.meta["weights"], query, e.class_names[one.before.labels[query]]]
                row += [one.removal.name, " ".join(map(str, one.layers))]
                row += [*(f"{score:.6f}" for score in scores)]
                row += [e.class_names[one.after.labels[query]], f"{one.iou[query]:.6f}", *box]
                rows.append(tuple(row))
    return Table(_ABLATION_COLUMNS, tuple(rows))


VIEW = HeadMapsView()
