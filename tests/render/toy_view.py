"""A view of its own: where on the grid each query's mean map has its peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detr_viz.detections.objects import queries_of
from detr_viz.explanation.stored import store
from detr_viz.render.numbers import Arrays
from detr_viz.render.views.base import Drawn, Needs, View


@dataclass(frozen=True, eq=False)
class ToyResult:
    shown: tuple
    queries: tuple[int, ...]
    peaks: np.ndarray  # (q, 2) row, column


class ToyView(View):
    name = "toy"

    def needs(self, recipe):
        return Needs("last")

    def measure(self, explanations, objects, recipe, watch=iter):
        (e,), queries = explanations, tuple(queries_of(objects, 0))
        maps = e.maps("combine", queries, e.num_layers - 1).mean(1)
        peaks = [np.unravel_index(one.argmax(), one.shape) for one in maps]
        return ToyResult((store(e, (), ()),), queries, np.array(peaks))

    def deviation(self, result, exact, recipe):
        return float(abs(self.measure(exact, (), recipe).peaks - result.peaks).max())

    def draw(self, result, recipe):
        def figure():
            from matplotlib.figure import Figure

            from detr_viz.figures.view_contents import describe

            fig = Figure(figsize=(2, 2), dpi=50)
            fig.add_subplot().scatter(*result.peaks.T)
            (e,) = result.shown
            describe(fig, e, "peaks", ["a dot a query"], f"Queries {result.queries}")
            return fig

        return Drawn(
            {"": figure},
            {"": lambda: Arrays({"peaks": result.peaks}, {"queries": list(result.queries)})},
            lines=[f"peak of query {q}: {r}, {c}" for q, (r, c) in self._named(result)],
        )

    def _named(self, result):
        return zip(result.queries, result.peaks.tolist(), strict=True)


VIEW = ToyView()
