"""Baselines computed again and compared, one after the other."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError, in_a_line
from detr_viz.common.files import printable
from detr_viz.detections.queries import NoQueryError, select
from detr_viz.heatmaps.compare import Outcome, judge
from detr_viz.heatmaps.limits import Limits, between, of_run
from detr_viz.heatmaps.npz import Heatmaps, load, of
from detr_viz.regression.baselines import KEY, Baseline, ModelKey, read
from detr_viz.regression.options import CheckOptions, chosen
from detr_viz.regression.reach import check_reach

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector


def outcomes(options: CheckOptions, own: Mapping[str, float]) -> Iterator[Outcome]:
    """The outcome of every baseline, grouped by model. UserError for no baseline.

    own: limits by name, which replace the defaults.
    """
    start = time.perf_counter()
    for outcome in _outcomes(options, own):
        yield replace(outcome, seconds=time.perf_counter() - start)
        start = time.perf_counter()


def _outcomes(options: CheckOptions, own: Mapping[str, float]) -> Iterator[Outcome]:
    places = list(chosen(options))
    if options.device != "auto":
        from detr_viz.checkpoints.load_model import pick_device

        pick_device(options.device)  # here, so that a mistake is reported once
    if options.root is not None and not os.path.isdir(options.root):
        raise UserError(f"--root {options.root} is not a folder: check the path")
    known: list[Baseline] = []
    for path, name in places:
        try:
            baseline = read(path, name, options.root)
            if not options.anywhere:
                check_reach(baseline, options.root)
            known.append(baseline)
        except UserError as error:
            yield Outcome(name, trouble=str(error))
    known.sort(key=lambda baseline: (repr(baseline.model), *_input(baseline)))
    for key, group in groupby(known, lambda baseline: baseline.model):
        yield from _of_model(options, key, list(group), own)


def _input(baseline: Baseline) -> tuple[str, int, int]:
    """The network's input: baselines with the same input share a forward pass."""
    how = baseline.remake
    return str(baseline.image), how.size or 0, how.max_size or 0


def _of_model(
    options: CheckOptions, key: ModelKey, group: Sequence[Baseline], own: Mapping[str, float]
) -> Iterator[Outcome]:
    from detr_viz.checkpoints.load_model import load_model

    try:
        model = load_model(
            key.weights,
            key.type,
            classes=key.classes,
            nheads=key.nheads,
            dilation=key.dilation,
            cache=options.cache,
            device=options.device,
            precision=key.precision,
            progress=not options.quiet,
        )
    except Exception as error:
        yield from _not_run(options, group, error)
        return
    for _, same in groupby(group, _input):
        yield from _of_input(options, model, list(same), own)


def _of_input(
    options: CheckOptions,
    model: Detector,
    group: Sequence[Baseline],
    own: Mapping[str, float],
) -> Iterator[Outcome]:
    """Baselines of one image at one size: one forward pass for all of their layers."""
    from detr_viz.explanation.explain_image import explain

    how = group[0].remake
    layers = sorted({baseline.remake.layer for baseline in group})
    try:
        e = explain(model, group[0].image, layers=layers, size=how.size, max_size=how.max_size)
    except Exception as error:
        if len(layers) == 1:
            yield from _not_run(options, group, error)
            return
        for layer in layers:  # a layer that no longer exists must not make the others fail
            alone = [baseline for baseline in group if baseline.remake.layer == layer]
            yield from _of_input(options, model, alone, own)
        return
    for baseline in group:
        try:
            old = load(baseline.path)
            new = current_maps(baseline, old, e)
            limits = _limits(options, baseline, old, new, own)
            verdict = judge(old, new, limits, strict=True)
        except Exception as error:
            yield from _not_run(options, [baseline], error)
        else:
            yield Outcome(baseline.name, baseline.path, verdict, old, new)


def _limits(
    options: CheckOptions,
    baseline: Baseline,
    old: Heatmaps,
    new: Heatmaps,
    own: Mapping[str, float],
) -> Limits:
    """The limits of what was run; UserError for maps of another precision, unless it is allowed."""
    runs, says = new.meta["precision"], old.meta.get("precision", "float32")
    if options.other_precision:
        return between(old.meta, new.meta, **own)
    if says != runs:
        raise UserError(
            f"it was made in {printable(says)[:40]}, and this check runs {runs}: record it again, "
            "or compare them by the limits of the coarser with --other-precision"
        )
    return of_run(runs, **own)


def _not_run(
    options: CheckOptions, group: Sequence[Baseline], error: Exception
) -> Iterator[Outcome]:
    if options.traceback:
        traceback.print_exception(error)
    for baseline in group:
        yield Outcome(baseline.name, trouble=in_a_line(error)[0])


def current_maps(baseline: Baseline, old: Heatmaps, e: Explanation) -> Heatmaps:
    """The maps of a baseline, computed now.

    For the same queries. With other weights an id may mean another object, so the queries are
    chosen again.
    """
    how = baseline.remake
    if e.meta["weights_sha256"] == old.meta.get("weights_sha256"):
        ids = [int(q) for q in old.query_ids if q < e.num_queries]
    else:
        try:
            ids = select(e, how.queries)
        except NoQueryError:
            ids = []
    return of(e, ids, how.modes, layer=how.layer, scale=how.scale, **{KEY: how.as_meta()})
