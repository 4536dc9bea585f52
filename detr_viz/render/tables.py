"""Tables of queries as text: classes and boxes, ablations, shares of terms, areas; index rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from detr_viz.common.console import short_name
from detr_viz.render.recipe import Recipe
from detr_viz.render.views import CROSS

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.curves import Faithfulness
    from detr_viz.explanation.proposals import Proposals
    from detr_viz.explanation.results import ExplanationBase


def ablation_table(
    explanation: ExplanationBase, queries: Sequence[int], ablations: Sequence[Ablation]
) -> str:
    """Lines with the effect of each removal on these queries: score, new class, IoU."""
    e, names = explanation, [*map(short_name, explanation.class_names)]
    parts = [ablation.removal.name for ablation in ablations]
    wide = max([len("without"), *map(len, parts)])
    empty = ~e.cells_inside().any(-1)
    longest = max([len("class"), *(len(names[e.labels[q]]) for q in queries)])
    lines = [f"query  {'class':<{longest}}  {'without':<{wide}}  score before, after  box IoU  now"]
    for q in queries:
        for ablation, part in zip(ablations, parts, strict=True):
            before, after = ablation.before.scores[q], ablation.kept_scores()[q]
            now = ablation.after.labels[q]
            other = names[now] if now != ablation.before.labels[q] else ""
            if ablation.removal.box and empty[q]:
                other = f"{other} (no cell in its box)".strip()
            line = f"{q:>5}  {names[e.labels[q]]:<{longest}}  {part:<{wide}}  {before:12.3f}  "
            lines.append(f"{line}{after:5.3f}  {ablation.iou[q]:7.2f}  {other}".rstrip())
    return "\n".join(lines)


def shares_table(
    explanation: ExplanationBase, queries: Sequence[int], layer: int | None = None
) -> str:
    """Lines with the share of each term in the logits of these queries, one column per head."""
    e, terms = explanation, explanation.logit_terms(queries, layer)
    names = [short_name(e.label_name(q)) for q in queries]
    longest = max([len("class"), *map(len, names)])
    wide = max(len("share of"), *map(len, terms.shares))
    heads = "".join(f"{f'head {i}':>8}" for i in range(e.num_heads))
    lines = [f"query  {'class':<{longest}}  {'share of':<{wide}}{heads}"]
    for i, (query, name) in enumerate(zip(queries, names, strict=True)):
        for term, shares in terms.shares.items():
            columns = "".join(f"{'-' if x != x else f'{x:.0%}':>8}" for x in shares[i])
            lines.append(f"{query:>5}  {name:<{longest}}  {term:<{wide}}{columns}")
    return "\n".join(lines)


def table(
    explanation: ExplanationBase,
    queries: Sequence[int],
    layer: int | None = None,
    least: float | None = None,
) -> str:
    """Lines of id, class, score and box (left, top, right, bottom in pixels) of these queries.

    They are those of the last decoder layer or, where the header says so, of a captured `layer`.
    least: scores below it are no detections; a last column then has the verdict on each query,
    where the image has annotated objects.
    """
    output = explanation if layer is None else explanation.output(layer)
    names = [short_name(explanation.class_names[output.labels[q]]) for q in queries]
    wide = max([len("class"), *map(len, names)])
    source = "" if layer is None else f" of {explanation.layer_word} {layer}"
    lines = [f"{'query':>5}  {'class':<{wide}}  score  box: left top right bottom (px){source}"]
    for q, name in zip(queries, names, strict=True):
        box = " ".join(f"{value:7.1f}" for value in output.boxes_xyxy_px[q])
        lines.append(f"{q:>5}  {name:<{wide}}  {output.scores[q]:5.3f}  {box}")
    if least is not None and explanation.truth is not None:
        lines = _with_verdicts(explanation, queries, least, lines)
    return "\n".join(lines)


def _with_verdicts(
    e: ExplanationBase, queries: Sequence[int], least: float, lines: Sequence[str]
) -> list[str]:
    """The lines with the verdict on each query, and one on all of them."""
    from detr_viz.detections.judged import judged

    verdicts = judged(e, least)
    wide = max(map(len, lines))
    words = ["verdict", *(verdicts.words(q) for q in queries)]
    joined = [f"{line:<{wide}}  {word}".rstrip() for line, word in zip(lines, words, strict=True)]
    return [*joined, verdicts.summary]


def proposals_table(
    explanation: ExplanationBase, queries: Sequence[int], proposals: Proposals
) -> str:
    """Lines of query, class and score, and the token it is made of: rank, level, cell, score."""
    e, count = explanation, len(proposals.tokens)
    names = [short_name(e.label_name(q)) for q in queries]
    wide = max([len("class"), *map(len, names)])
    rank = f"rank of {count}"
    lines = [f"query  {'class':<{wide}}  score  token: {rank}  score  level  column, row"]
    for q, name in zip(queries, names, strict=True):
        level, row, column = proposals.cells[q]
        place = f"{proposals.ranks[q]:>{len('token: ' + rank)}}"
        score = f"{proposals.token_scores[q]:5.3f}  {level:>5}  {f'{column}, {row}':>11}"
        lines.append(f"{q:>5}  {name:<{wide}}  {e.scores[q]:5.3f}  {place}  {score}")
    lines.append(f"score of tokens: {proposals.rule}")
    return "\n".join(lines)


def areas_table(explanation: ExplanationBase, curves: Faithfulness) -> str:
    """Lines of query, class, score, and the areas under the curves of each mode."""
    from detr_viz.explanation.curves import area

    names = [short_name(explanation.label_name(q)) for q in curves.queries]
    wide = max([len("class"), *map(len, names)])
    long = max([len("cells by"), *map(len, curves.maps)])
    lines = [
        f"query  {'class':<{wide}}  score  {'cells by':<{long}}  area: deletion  insertion  random"
    ]
    for i, (query, name) in enumerate(zip(curves.queries, names, strict=True)):
        random = area(curves.random[i], curves.shares).mean()
        for mode in curves.maps:
            deleted = area(curves.deletion[mode][i], curves.shares)
            inserted = area(curves.insertion[mode][i], curves.shares)
            lines.append(
                f"{query:>5}  {name:<{wide}}  {curves.scores[i]:5.3f}  {mode:<{long}}  "
                f"{deleted:14.3f}  {inserted:9.3f}  {random:6.3f}"
            )
    return "\n".join(lines)


def index_rows(
    explanations: Sequence[Explanation], objects: Sequence[SharedObject], recipe: Recipe
) -> tuple[tuple[str, ...], ...]:
    """The rows of queries in an index, as texts, "object" to "bottom" (pixels).

    Queries of several models for the same object have the same number, from 1. Where all views
    start at points, there is a row for each point, source box is that point.
    """
    names = [str(e.meta["weights"]) for e in explanations]  # numbered where one stands for several
    names = [f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names, 1)]
    if recipe.points and not {*recipe.views} - {"encoder", "rollout_encoder"}:
        from detr_viz.render.views.encoder import points_of

        points = points_of(explanations[0], (), recipe).xy
        return tuple(
            (str(number), names[0], "", "", "", "", *2 * (f"{x:.1f}", f"{y:.1f}"))
            for number, (x, y) in enumerate(points, 1)
        )
    from detr_viz.render.views.base import resolved

    rows = []
    own = recipe.layer if {CROSS, "decoder"} & {*recipe.views} else "last"
    for k, (e, model) in enumerate(zip(explanations, names, strict=True)):
        for layer in sorted(resolved(replace(recipe, layer=own), e.num_layers)):
            output = e.output(layer)
            for number, shared in enumerate(objects, 1):
                if (q := shared.matches[k].query) is None:
                    continue
                box = [f"{side:.1f}" for side in output.boxes_xyxy_px[q]]
                name, score = e.class_names[output.labels[q]], f"{output.scores[q]:.4f}"
                rows.append((str(number), model, str(layer), str(q), name, score, *box))
    return tuple(rows)
