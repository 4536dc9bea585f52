"""--attention cross: maps of each head, their terms, what is left without a part, a biography."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import ALL_TERMS, modes_of_plot
from detr_viz.checkpoints.sources import named
from detr_viz.detections.detections import Detections
from detr_viz.detections.objects import queries_of
from detr_viz.explanation.deviation import deviation
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Arrays, Maps, Numbers, Table
from detr_viz.render.tables import ablation_table, shares_table, table
from detr_viz.render.views.base import Drawn, Needs, View, Watch, resolved

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.removals import Removal
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class StoredAblation:
    """An Ablation with the weights of some queries alone: plain data, to be sent.

    weights: decoder layer -> query -> (heads, K)
    """

    removal: Removal
    layers: tuple[int, ...]
    before: Detections
    after: Detections
    iou: NDArray[np.float64]
    weights: Mapping[int, Mapping[int, NDArray[np.float32]]]

    def kept_scores(self) -> NDArray[np.float32]:
        """(Q,): what the class that a query had before is still given."""
        return self.after.class_scores[np.arange(len(self.before.labels)), self.before.labels]


@dataclass(frozen=True, eq=False)
class HeadMapsResult:
    """The maps of the objects' queries.

    residual   how far the terms that are shown lie from the network's logits; None: none are shown
    ablations  of each model, one for each part that is taken out
    """

    shown: tuple[StoredExplanation, ...]
    objects: tuple[SharedObject, ...]
    residual: float | None
    ablations: tuple[tuple[StoredAblation, ...], ...]


class HeadMapsView(View):
    name = "cross"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(recipe.layer, redecode=bool(recipe.removed))

    def measure(
        self,
        found: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> HeadMapsResult:
        shown = _stored(found, objects, recipe)
        residual = None
        if recipe.plot == ALL_TERMS:
            residual = max(book.residual for e in shown for book in e.stored_terms.values())
        ablations = tuple(
            tuple(_without(e, part, queries_of(objects, k), recipe) for part in recipe.removed)
            for k, e in enumerate(found)
        )
        return HeadMapsResult(shown, tuple(objects), residual, ablations)

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
            )

        return Drawn({"": figure}, dict(_numbers(result, recipe)), (), list(_lines(result)))


def _modes(found: Sequence[StoredExplanation], recipe: Recipe) -> list[str]:
    """The modes whose maps are shown, or saved."""
    return modes_of_plot(recipe.plot, found[0].modes)


def _stored(
    found: Sequence[Explanation], objects: Sequence[SharedObject], recipe: Recipe
) -> tuple[StoredExplanation, ...]:
    modes = modes_of_plot(recipe.plot, found[0].modes)
    # what is shown beside ablations is the attention as it is used
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
        for k, e in enumerate(found)
    )


def _without(e: Explanation, part: str, queries: Sequence[int], recipe: Recipe) -> StoredAblation:
    with named(str(e.meta["weights"]), len(recipe.models)):
        made: Ablation = e.ablate(part, recipe.removed_in)
    shown = resolved(recipe, e.num_layers)
    return StoredAblation(
        made.removal,
        made.layers,
        made.before,
        made.after,
        made.iou,
        {
            n: {q: weights[q].copy() for q in queries}
            for n, weights in made.weights.items()
            if n in shown
        },
    )


# ---- lines --------------------------------------------------------------------------------------


def _lines(result: HeadMapsResult) -> Iterator[str]:
    found, headed = result.shown, len(result.shown) > 1
    if result.residual is not None:
        yield f"the terms add up to the network's logits within {result.residual:.1e}"
    for k, e in enumerate(found):
        early = e.layers[-1] < e.num_layers - 1
        # what is drawn; the last layer is what chooses
        yield from query_lines(
            e, queries_of(result.objects, k), headed, e.layers[-1] if early else None
        )
    for k, e in enumerate(found):
        ids = queries_of(result.objects, k)
        for layer in e.stored_terms if ids else ():
            if headed or len(e.layers) > 1:
                yield f"{_called(e)}, layer {layer}"
            yield shares_table(e, ids, layer)
    for k, e in enumerate(found):
        ids = queries_of(result.objects, k)
        if result.ablations and result.ablations[k] and ids:
            if headed:
                yield _called(e)
            yield ablation_table(e, ids, result.ablations[k])


def query_lines(
    e: StoredExplanation | Explanation, ids: Sequence[int], headed: bool, layer: int | None = None
) -> Iterator[str]:
    """The table of these queries; headed: under the model's name."""
    if headed:
        yield _called(e)
    yield table(e, ids, layer)


def _called(e: StoredExplanation | Explanation) -> str:
    return f"{e.model_title} ({e.meta['weights']})"


# ---- numbers ------------------------------------------------------------------------------------


def _numbers(result: HeadMapsResult, recipe: Recipe) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """A file a model and layer; where there is only one, <stem>.npz. Of ablations one table."""
    if recipe.removed:
        yield "", partial(_ablations, result)
        return
    found, tags = result.shown, [""]
    if len(found) > 1:
        from detr_viz.figures.labels import names_of

        tags = [f"_{slug}" for slug in _slugs(names_of(found))]
    layered = any(len(e.layers) > 1 for e in found)
    for k, e in enumerate(found):
        ids = queries_of(result.objects, k)
        for layer in e.layers if ids else ():
            end = tags[k] + (f"_layer{layer}" if layered else "")
            made = _terms if recipe.plot == ALL_TERMS else _maps
            yield end, partial(made, e, ids, layer, recipe)


def _slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of file names, no two the same."""
    slugs = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model" for name in names]
    same = len(set(slugs)) < len(slugs)
    return [f"{slug}_{i}" if same else slug for i, slug in enumerate(slugs, 1)]


def _maps(e: StoredExplanation, ids: Sequence[int], layer: int, recipe: Recipe) -> Maps:
    from detr_viz.heatmaps.npz import of

    return Maps(of(e, ids, _modes([e], recipe), layer=layer, scale=recipe.scale))


def _terms(e: StoredExplanation, ids: Sequence[int], layer: int, recipe: Recipe) -> Arrays:
    book, output = e.logit_terms(ids, layer), e.output(layer)
    arrays = {
        "query_ids": np.asarray(ids, np.int64),
        "scores": output.scores[list(ids)],
        "labels": output.labels[list(ids)],
        "boxes_xyxy_px": output.boxes_xyxy_px[list(ids)],
        "grid_hw": np.asarray(e.grid_hw, np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
        "layers": np.asarray([layer], np.int64),
        "total": book.total,  # (q, heads, h, w), as the terms
        "weights": book.weights,
    }
    arrays |= {f"logits_{name}": part for name, part in book.terms.items()}
    arrays |= {f"shares_{name}": share for name, share in book.shares.items()}  # (q, heads)
    meta = {**e.meta, "view": "terms", "layer": layer, "terms": list(book.terms)}
    return Arrays(arrays, {**meta, "residual": book.residual})


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
