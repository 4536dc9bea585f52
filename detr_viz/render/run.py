"""The one loop: an image is read once, each detector runs once, views measure, then views draw.

explanations = explain_all(models, [picture.facts], pixels, recipe, needs)   # with the network
measured = measure(explanations[0], recipe)                # plain data, for another process
written = draw(measured, picture, recipe, paths, name)     # in any process, without torch

For one image all three run in one process (render_image); a batch draws in other processes
(batch/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.checkpoints.sources import named
from detr_viz.detections.objects import choose
from detr_viz.explanation.deviation import deviation_note
from detr_viz.images.drawn_scenes import ONLY_SHAPES
from detr_viz.render import views
from detr_viz.render.file_digests import replaced_by
from detr_viz.render.notes import (
    REPLACED,
    add_fact,
    beyond_note,
    caught_notes,
    is_beyond_models,
    size_notes,
)
from detr_viz.render.numbers import with_truth
from detr_viz.render.paths import OutputPaths
from detr_viz.render.proposing import check_proposals
from detr_viz.render.recipe import Recipe
from detr_viz.render.salient import check_salience
from detr_viz.render.saving import save_figure, save_page
from detr_viz.render.scaling import check_scales
from detr_viz.render.tables import index_rows
from detr_viz.render.views.base import Needs, Result, Watch

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input
    from detr_viz.images.loaded_image import ImageFacts, LoadedImage


@dataclass(frozen=True, eq=False)
class MeasuredImage:
    """The results of all views for an image: plain data, from which figures are drawn.

    results  name of a view -> its result
    rows     of an index, see tables.index_rows
    """

    results: Mapping[str, Result]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Written:
    """The files and lines of a view. figures: filled only if the caller keeps them.

    replaced: files that were there, drawn with other settings (or by another program).
    """

    view: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    lines: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    replaced: tuple[Path, ...] = ()


# ---- with the network ---------------------------------------------------------------------------


def needs_of(recipe: Recipe) -> Needs:
    """The needs of all its views together: a detector runs once for them."""
    return reduce(or_, (views.view(name).needs(recipe.of_view(name)) for name in recipe.views))


def check_needs(recipe: Recipe, models: Sequence[Detector]) -> None:
    """UserError for a layer that one of the models lacks, before an image is read."""
    from detr_viz.explanation.ablation import check_redecodes
    from detr_viz.explanation.sites import resolve_layers

    for model in models:
        info = model.info
        stacks = {"encoder": (info.num_encoder_layers, "encoder layer")}
        decoder = info.num_layers, info.layer_word
        with named(info.weights, len(models)):
            for name in recipe.views:
                needs = views.view(name).needs(recipe.of_view(name))
                for kind, layer in needs.sites:
                    resolve_layers(layer, *stacks.get(kind, decoder))
                resolve_layers(needs.layers, *decoder)
                if needs.proposals:
                    check_proposals(info)
                if needs.salience:
                    check_salience(info)
                if needs.scales:
                    check_scales(info)
                if needs.redecode:
                    check_redecodes(model)
                    resolve_layers(recipe.removed_in, *decoder)


def explain_all(
    models: Sequence[Detector],
    pictures: Sequence[LoadedImage | ImageFacts],
    pixels: Sequence[np.ndarray],
    recipe: Recipe,
    needs: Needs,
) -> list[tuple[Explanation | Exception, ...]]:
    """For each image the explanation of each model, or its error; one forward pass per model.

    pixels: for each model, uint8 (B, h, w, 3), from inputs_of.
    """
    from detr_viz.explanation.explain_image import explain_batch

    columns = []
    for model, array in zip(models, pixels, strict=True):
        with named(model.info.weights, len(models)):
            columns.append(
                explain_batch(
                    model, pictures, array, needs.layers, recipe.size, recipe.max_size, needs.sites
                )
            )
    return list(zip(*columns, strict=True))


def inputs_of(picture: LoadedImage, recipe: Recipe) -> tuple[np.ndarray, ...]:
    """An image as the input of each model, uint8 (h, w, 3)."""
    hows = recipe.preprocessings
    arrays = {how: how.resized(picture) for how in dict.fromkeys(hows)}
    return tuple(arrays[how] for how in hows)


def measure(
    explanations: Sequence[Explanation], recipe: Recipe, watch: Watch = iter
) -> MeasuredImage:
    """The results of all views for an image. NoQueryError where the recipe chooses no query."""
    objects = choose(explanations, recipe.queries, recipe.score)
    with caught_notes():  # the same warnings come again when it is drawn
        results = {
            name: views.view(name).measure(explanations, objects, recipe.of_view(name), watch)
            for name in recipe.views
        }
    return MeasuredImage(results, index_rows(explanations, objects, recipe))


def deviations(
    measured: MeasuredImage, exact: Sequence[Explanation], recipe: Recipe
) -> dict[str, tuple[str, float]]:
    """View -> (name of its weights, their distance from those of the same models in float32)."""
    distances = {}
    for name, result in measured.results.items():
        view = views.view(name)
        distances[name] = view.what, view.deviation(result, exact, recipe.of_view(name))
    return distances


def all_or_raise(
    explanations: Sequence[Explanation | Exception], recipe: Recipe
) -> list[Explanation]:
    """The explanations of all models; raises the error of a model that failed."""
    for e, model in zip(explanations, recipe.models, strict=True):
        if isinstance(e, Exception):
            with named(model.weights, len(explanations)):
                raise e
    return list(explanations)


# ---- drawing ------------------------------------------------------------------------------------


def draw(
    measured: MeasuredImage,
    picture: LoadedImage,
    recipe: Recipe,
    paths: OutputPaths,
    name: str,
    keep: bool = False,
) -> list[Written]:
    """Draw all views and write their files.

    name: the start of the names of the image's files. keep: whether to return the figures.
    OutputError where the disk refuses, FigureError for what cannot be drawn; if one file cannot be
    written, none is.
    """
    beyond = is_beyond_models(recipe, picture)
    drawings = []
    for view, result in measured.results.items():
        shown = tuple(replace(e, image=picture) for e in result.shown)
        with caught_notes() as notes:
            drawn = views.view(view).draw(replace(result, shown=shown), recipe.of_view(view))
        target = paths.at(recipe.stem(name, view))
        target.check_all(drawn.figures, drawn.numbers)
        drawings.append((view, drawn, target, notes))
    written = []
    for view, drawn, target, notes in drawings:
        digest = recipe.of_view(view).digest(picture)
        files: list[Path] = []
        replaced: list[Path] = []
        figures: dict[str, Figure] = {}
        with caught_notes() as more:
            if target.figures:  # all figures are drawn before one is written
                figures = {end: figure_of() for end, figure_of in drawn.figures.items()}
                for end, figure in figures.items():
                    if beyond:
                        add_fact(figure, ONLY_SHAPES)
                    replaced += replaced_by(digest, target.ending(end).figures)
                    files += save_figure(figure, target.ending(end), digest)
            for end, numbers_of in drawn.numbers.items() if target.saves_maps else ():
                numbers = with_truth(numbers_of(), picture, recipe)
                path = target.numbers(end, numbers.suffix)
                replaced += replaced_by(digest, [path])
                numbers.write(path, digest)
                files.append(path)
            if target.page is not None and drawn.page is not None:
                replaced += replaced_by(digest, [target.page])
                files.append(save_page(drawn.page(picture, digest), target.page))
        all_notes = tuple(dict.fromkeys([*notes, *more, *drawn.notes]))
        kept = tuple(figures.values()) if keep else ()
        lines = tuple(drawn.lines)
        written.append(Written(view, tuple(files), all_notes, lines, kept, tuple(replaced)))
    return written


# ---- one image in this process ------------------------------------------------------------------


def render_image(
    models: Sequence[Detector],
    image: Input,
    recipe: Recipe,
    paths: OutputPaths,
    *,
    exact: Sequence[Detector] | None = None,
    watch: Watch = iter,
    show: Callable[[Figure], None] | None = None,
) -> Iterator[str]:
    """Explain and draw one image in this process; yields the lines to print.

    exact: the same models in float32, where `models` are of another precision.
    """
    from detr_viz.images.onto_picture import load_onto

    for view in recipe.views:
        paths.at(recipe.stem(image.name, view)).check()  # all views, before the work starts
    picture = load_onto(image.path, image.annotated)
    yield from (f"note: {image.path}: {note}" for note in picture.notes)
    pixels = inputs_of(picture, recipe)
    needs = needs_of(recipe)
    explanations = explain_one(models, picture, pixels, recipe, needs)
    yield from size_notes(explanations, recipe)
    measured = measure(explanations, recipe, watch)
    distances: dict[str, tuple[str, float]] = {}
    if exact is not None:
        distances = deviations(measured, explain_one(exact, picture, pixels, recipe, needs), recipe)
    for one in draw(measured, picture, recipe, paths, image.name, keep=show is not None):
        if one.view in distances:
            what, value = distances[one.view]
            yield deviation_note(recipe.precision, value, what)
        yield from (f"note: {note}" for note in one.notes)
        yield from one.lines
        yield from (f"replaced {path}, {REPLACED}" for path in one.replaced)
        yield from (f"wrote {path}" for path in one.files)
        for figure in one.figures if show is not None else ():
            show(figure)
    if is_beyond_models(recipe, picture):
        yield beyond_note(recipe)


def explain_one(
    models: Sequence[Detector],
    picture: LoadedImage,
    pixels: Sequence[np.ndarray],
    recipe: Recipe,
    needs: Needs,
) -> list[Explanation]:
    """The explanation of each model for one image. SelfCheckError where a self-check fails."""
    (explanations,) = explain_all(
        models, [picture], [array[None] for array in pixels], recipe, needs
    )
    return all_or_raise(explanations, recipe)
