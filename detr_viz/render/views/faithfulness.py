"""--faithfulness: does a query's score rest on its map's top cells?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.common.errors import UserError
from detr_viz.common.progress import Progress
from detr_viz.detections.queries import select
from detr_viz.render.views import CROSS, Made
from detr_viz.render.write import moved

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.faithfulness import Faithfulness
    from detr_viz.images.read import LoadedImage
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go with it."""
    for flag, given, why in (
        ("--attention", set(args.attention or [CROSS]) != {CROSS}, "is about cross-attention"),
        ("--heads", args.heads is not None, "ranks cells by the mean of the heads"),
        ("--layer", args.layer != "last", "ranks cells by the last layer (--ablate-in: hides in)"),
    ):
        if given:
            raise UserError(f"--faithfulness {why}: leave {flag} out")


def make(
    args: argparse.Namespace,
    model: LoadedModel,
    exact: LoadedModel | None,
    picture: LoadedImage,
    recipe: Recipe,
) -> Made:
    """Explain, hide and draw."""
    from detr_viz.explanation.explain_image import explain
    from detr_viz.explanation.faithfulness import faithfulness
    from detr_viz.explanation.sites import resolve_layers
    from detr_viz.figures.faithfulness import check_width, faithfulness_grid

    resolve_layers(recipe.removed_in, model.info.num_layers)  # before time is spent
    e = explain(model, picture, size=recipe.size, max_size=recipe.max_size)
    ids, modes = select(e, recipe.queries), modes_of_plot(recipe.plot, e.modes)
    lines = []
    if exact:
        other = explain(exact, picture, size=recipe.size, max_size=recipe.max_size)
        apart = max(
            float(abs(e.maps(mode, ids, scale=recipe.scale) - known).max())
            for mode in modes
            for known in [other.maps(mode, ids, scale=recipe.scale)]
        )
        lines.append(moved(recipe.precision, apart))
    check_width(e, ids, len(modes), recipe.page_format)
    found = faithfulness(
        e, ids, modes, recipe.removed_in, recipe.scale, watch=partial(_told, quiet=args.quiet)
    )
    figure = faithfulness_grid(e, found, style=recipe.style, page_format=recipe.page_format)
    lines.append(table(e, found))
    return Made({"": figure}, lines, f"{ids} {found.layers}")


def _told(queries: Sequence[int], quiet: bool) -> Iterator[int]:
    """The queries, and how far the run is."""
    with Progress(len(queries), quiet=quiet, what=("a query", "queries")) as progress:
        for query in queries:
            yield query
            progress.advance()


def table(e: Explanation, found: Faithfulness) -> str:
    """Lines of query, class, score, and the areas under the curves of each mode."""
    from detr_viz.explanation.faithfulness import area

    names = [e.label_name(q) for q in found.queries]
    wide, long = _width("class", names), _width("cells by", found.maps)
    lines = [
        f"query  {'class':<{wide}}  score  {'cells by':<{long}}  area: deletion  insertion  random"
    ]
    for i, (query, name) in enumerate(zip(found.queries, names, strict=True)):
        random = area(found.random[i], found.shares).mean()
        for mode in found.maps:
            deleted = area(found.deletion[mode][i], found.shares)
            inserted = area(found.insertion[mode][i], found.shares)
            lines.append(
                f"{query:>5}  {name:<{wide}}  {found.scores[i]:5.3f}  {mode:<{long}}  "
                f"{deleted:14.3f}  {inserted:9.3f}  {random:6.3f}"
            )
    return "\n".join(lines)


def _width(header: str, words: Sequence[str]) -> int:
    return max(len(header), *map(len, words))
