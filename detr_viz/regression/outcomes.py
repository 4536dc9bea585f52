"""Baselines made again and judged, one after the other."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.errors import UserError, in_a_line
from detr_viz.heatmaps import Heatmaps, of
from detr_viz.queries import select
from detr_viz.regression.baselines import KEY, Baseline, ModelKey, find, read
from detr_viz.regression.limits import Limits
from detr_viz.regression.verdict import Outcome, judge

if TYPE_CHECKING:
    from detr_viz.loading import LoadedModel


def outcomes(args: argparse.Namespace, limits: Limits) -> Iterator[Outcome]:
    """Every baseline with its outcome, those of one model together. UserError for no baseline."""
    places = list(chosen(args))
    if args.root is not None and not os.path.isdir(args.root):
        raise UserError(f"--root {args.root} is no folder: check the path")
    known: list[Baseline] = []
    for path, name in places:
        try:
            known.append(read(path, name, args.root))
        except UserError as error:
            yield Outcome(name, trouble=str(error))
    known.sort(key=lambda baseline: (repr(baseline.model), baseline.remake.image))
    for key, group in groupby(known, lambda baseline: baseline.model):
        yield from _of_model(args, key, list(group), limits)


def chosen(args: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """The files that are asked for. UserError where --only leaves none."""
    found = list(find(args.baselines))
    kept = [(path, name) for path, name in found if fnmatch(name, args.only or "*")]
    if not kept:
        names = ", ".join(name for _, name in found[:3])
        raise UserError(f"no baseline is called {args.only!r}: there is {names}")
    yield from kept


def _of_model(
    args: argparse.Namespace, key: ModelKey, group: Sequence[Baseline], limits: Limits
) -> Iterator[Outcome]:
    from detr_viz.loading import load_model

    try:
        model = load_model(
            key.weights,
            key.type,
            classes=key.classes,
            nheads=key.nheads,
            dilation=key.dilation,
            cache=args.cache,
            device=args.device,
            precision=key.precision,
            progress=not args.quiet,
        )
    except Exception as error:
        for baseline in group:
            yield Outcome(baseline.name, trouble=in_a_line(error)[0])
        return
    for baseline in group:
        try:
            made = remade(baseline, model)
            verdict = judge(baseline.maps, made, limits, strict=True)
        except Exception as error:
            yield Outcome(baseline.name, trouble=in_a_line(error)[0])
        else:
            yield Outcome(baseline.name, baseline.path, verdict, baseline.maps, made)


def remade(baseline: Baseline, model: LoadedModel) -> Heatmaps:
    """A baseline's maps as they are now.

    Of the queries that it has; where the weights are others, an id may stand for another object,
    and the queries are chosen again.
    """
    from detr_viz.explanation import explain

    how, old = baseline.remake, baseline.maps
    e = explain(model, baseline.image, layers=how.layer, size=how.size, max_size=how.max_size)
    if model.sha256 == old.meta.get("weights_sha256"):
        ids = [int(q) for q in old.query_ids if q < e.num_queries]
    else:
        ids = select(e, how.queries)
    return of(e, ids, how.modes, layer=how.layer, scale=how.scale, **{KEY: how.as_meta()})
