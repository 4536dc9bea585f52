"""--plot proposals: which tokens of the image became queries, by which scores, and their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import PROPOSALS
from detr_viz.detections.objects import queries_of
from detr_viz.explanation.proposals import Proposals
from detr_viz.render.numbers import Arrays
from detr_viz.render.tables import proposals_table
from detr_viz.render.views.base import Drawn, Needs, Watch
from detr_viz.render.views.without_maps import (
    ResultWithoutMaps,
    ViewWithoutMaps,
    without_maps,
)

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class ProposalsResult(ResultWithoutMaps):
    """queries: those whose tokens and boxes are marked."""

    queries: tuple[int, ...]
    proposals: Proposals


class ProposalsView(ViewWithoutMaps):
    name = PROPOSALS
    what = "scores of tokens"
    required = Needs(proposals=True)

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> ProposalsResult:
        (e,), queries = explanations, tuple(queries_of(objects, 0))
        assert e.proposals is not None  # as of needs
        return ProposalsResult((without_maps(explanations),), queries, e.proposals)

    def deviation(
        self, result: ProposalsResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        pairs = zip(exact[0].proposals.scores, result.proposals.scores, strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    def draw(self, result: ProposalsResult, recipe: Recipe) -> Drawn:
        from detr_viz.figures.proposals import proposal_figure

        (e,), queries, proposals = result.shown, result.queries, result.proposals
        return Drawn(
            {
                "": lambda: proposal_figure(
                    e, proposals, queries, style=recipe.style, page_format=recipe.page_format
                )
            },
            {"": lambda: _numbers(e, queries, proposals)},
            lines=[proposals_table(e, queries, proposals)],
        )


def _numbers(e: StoredExplanation, queries: Sequence[int], proposals: Proposals) -> Arrays:
    """query_ids are those shown; all else is of all queries, or of all tokens of a level."""
    arrays = {
        "query_ids": np.asarray(queries, np.int64),
        "tokens": proposals.tokens,
        "ranks": proposals.ranks,
        "cells": proposals.cells,  # level, row, column
        "token_scores": proposals.token_scores,
        "proposals_xyxy_px": proposals.boxes_xyxy_px,
        "boxes_xyxy_px": e.boxes_xyxy_px,
        "scores": e.scores,
        "labels": e.labels,
        "strides": np.asarray([grid.stride for grid in proposals.grids], np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }
    for level, (scores, invalid) in enumerate(
        zip(proposals.scores, proposals.invalid, strict=True)
    ):
        arrays |= {f"scores_level{level}": scores, f"invalid_level{level}": invalid}
    return Arrays(arrays, {**e.meta, "view": PROPOSALS, "score": proposals.rule})


VIEW = ProposalsView()
