"""Any network as a `Detector`: its sites are found, called and read as other modules here say.

One image runs at a time, whatever the batch, so that nothing is padded that would not be alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers, Facts, digest
from detr_viz.adapters.cells import grids_of
from detr_viz.adapters.find import find_sites
from detr_viz.adapters.joint import cells_of
from detr_viz.adapters.plans import keep, kept, key_of
from detr_viz.adapters.positions import Given
from detr_viz.adapters.probes import Probe, call_of, modules_of, read_call, references_of
from detr_viz.adapters.read import projection
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.redecode import RunsAgain, memory_of
from detr_viz.adapters.roles import Role, Sites
from detr_viz.adapters.run import Prepared, Run, input_size, run, to_device
from detr_viz.adapters.trial import Trial, try_out
from detr_viz.attention.base import Where
from detr_viz.attention.grids import CELL_RULES, Grid
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import folded
from detr_viz.explanation.detector import AttentionSite, DetectorInfo, Forwarded

_TRIAL_HW = (96, 128)  # of the picture that shows which call is which site


class AttachedDetector(RunsAgain):
    """A `Detector` that `Redecodes`, of a network that stays as it is; see `attach`."""

    precision = "float32"
    sets_mode = True  # each run is in evaluation mode, and a training goes on after it

    def __init__(
        self,
        network: nn.Module,
        answers: Answers,
        prepare: Callable[[NDArray[np.uint8]], Any],
        *,
        sites: Sites | None = None,
        position: Given | None = None,
        cell_rule: str = "centered",
        class_names: Sequence[str] | None = None,
        facts: Facts | None = None,
        pairwise: bool = True,
        settings: Hashable = None,
        in_order: bool = True,
    ) -> None:
        """settings: what tells `answers` and `prepare` from others; None: nothing does.

        in_order: whether it is known that rows of `answers` are in the order of queries
        With settings, what the trial saw of a network is kept for the next time (plans.py).
        """
        if cell_rule not in CELL_RULES:
            raise UserError(f"cell_rule {cell_rule!r} is not one of {', '.join(CELL_RULES)}")
        self.network, self._answers, self._prepare_one = network, answers, prepare
        self._position, self._rule = position, cell_rule
        facts = facts or Facts()
        if self.dtype == torch.bfloat16:
            self.precision = "bfloat16"
        if settings is None:
            trial = self._tried(sites, position, in_order)
        else:
            key = key_of(network, settings)
            facts = replace(facts, sha256=key[0])
            trial = kept(network, key)
            if trial is None:
                trial = self._tried(sites, position)
                keep(network, key, trial)
        self.trial = trial
        self._found, self._roles = trial.found, trial.roles
        self._probes = {where: Probe() for where in self._roles}
        self.info = self._facts(facts, trial, class_names, pairwise)

    def _tried(self, sites: Sites | None, position: Given | None, in_order: bool = True) -> Trial:
        """The network is called once, with noise."""
        noise = np.random.default_rng(0).integers(0, 255, (*_TRIAL_HW, 3), np.uint8)
        (prepared,) = self.prepare(noise[None])
        found = find_sites(self.network)
        return try_out(
            self.network, prepared, found, self._answers, sites, position, in_order=in_order
        )

    def __repr__(self) -> str:
        info = self.info
        return folded(
            f"{type(self).__name__} {info.title}: {info.num_queries} queries, "
            f"{len(info.class_names)} classes, {info.num_heads} heads, {info.num_encoder_layers} "
            f"encoder and {info.num_layers} decoder layers"
        )

    def _facts(
        self, facts: Facts, trial: Trial, class_names: Sequence[str] | None, pairwise: bool
    ) -> DetectorInfo:
        names = tuple(class_names or (f"class {i}" for i in range(trial.classes)))
        if len(names) != trial.classes:
            raise UserError(f"{len(names)} class names for {trial.classes} classes of scores(out)")
        notes = trial.notes
        if trial.count("cross") > 1 and not trial.layered:
            notes = (*notes, "boxes and scores of earlier decoder layers are those of the last")
        if self._rule == "centered":
            notes = (*notes, "cells are drawn at (i + 0.5) / cells of the input")
        title = facts.title or type(self.network).__name__
        return DetectorInfo(
            type=facts.type,
            title=title,
            weights=facts.weights or title,
            path=facts.path,
            sha256=facts.sha256 or digest(self.network),
            class_names=names,
            num_queries=trial.queries,
            num_heads=trial.heads,
            num_layers=trial.count("cross"),
            num_encoder_layers=trial.count("encoder"),
            modes=trial.modes,
            pairwise=pairwise,
            size=None,
            max_size=None,
            notes=(*facts.notes, *notes, *facts.preprocessing.notes),
            why_undivided=trial.why,
            preprocessing=facts.preprocessing,
            samples=trial.samples,
            num_levels=trial.levels,
        )

    # ---- Detector ------------------------------------------------------------------------------

    @property
    def _parameter(self) -> Tensor:
        return next((p for p in self.network.parameters() if p.is_floating_point()), torch.empty(0))

    @property
    def device(self) -> torch.device:
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        return self._parameter.dtype

    def input_hw(
        self, image_hw: tuple[int, int], size: int | None = None, max_size: int | None = None
    ) -> tuple[int, int]:
        """The image's own size: `prepare` resizes it."""
        return self.info.preprocessing_at(size, max_size).input_hw(image_hw)

    def prepare(self, rgb_BHW3: NDArray[np.uint8]) -> list[Prepared]:
        """One input for each picture."""
        prepared = []
        for rgb in rgb_BHW3:
            with torch.inference_mode(False), torch.no_grad():
                given = self._prepare_one(np.array(rgb))
                if not isinstance(given, Prepared):
                    if isinstance(given, Tensor) and given.ndim == 3:
                        given = given[None]
                    given = Prepared(given, input_size(given))
                inputs = to_device(given.inputs, self.device, self.dtype)
            prepared.append(replace(given, inputs=inputs))
        return prepared

    def attention_sites(self) -> dict[Where, AttentionSite]:
        return {where: self._site(where, role) for where, role in self._roles.items()}

    def _site(self, where: Where, role: Role) -> AttentionSite:
        return AttentionSite(
            module=self._probes[where],
            read=partial(read_call, where[0], role, self._position),
            project_out=projection(role.site),
            if_wrong=f"{role.site.name} attends in a way of its own",
        )

    def forward(self, pixels: Sequence[Prepared], layers: Sequence[int]) -> Forwarded:
        """One run for each image; only sites with a hook are recorded."""
        wanted = {where: role for where, role in self._roles.items() if self._hooked(where)}
        sites = modules_of(wanted.values(), self._found)
        runs = [run(self.network, each, sites, maps_too=bool(sites)) for each in pixels]
        if not wanted:  # the grids need a cross-attention
            wanted = {("cross", 0): self._roles["cross", 0]}
            sites = modules_of(wanted.values())
            runs = [run(self.network, each, sites, maps_too=True) for each in pixels]
        calls = {w: [call_of(r.calls, role) for r in runs] for w, role in wanted.items()}
        for where, own in calls.items():
            self._probes[where](own, [call.context[0] for call in own])
        return self._forwarded(pixels, runs, calls)

    def _forwarded(
        self, pixels: Sequence[Prepared], runs: Sequence[Run], calls: Mapping[Where, list[RawCall]]
    ) -> Forwarded:
        count = self.info.num_layers
        answers = [self._answers.of(r.out, count) for r in runs]
        crossing = {n: own for (kind, n), own in calls.items() if kind == "cross"}
        layer, own = next(iter(crossing.items()), (0, None))
        role = self._roles["cross", layer]
        grids: tuple[Grid, ...] = ()
        if own is not None:
            each = [
                grids_of(call, p.input_hw, p.valid_hw, self._rule, r.maps, cells_of(role, call))
                for call, p, r in zip(own, pixels, runs, strict=True)
            ]
            grids = each[0]
            if any(other != grids for other in each):
                raise UserError(
                    "images of one batch became inputs of several sizes: --batch-size 1"
                )
        return Forwarded(
            class_scores={n: torch.stack([a[n][1] for a in answers]) for n in range(count)},
            boxes={n: torch.stack([a[n][0] for a in answers]) for n in range(count)},
            memory=list(pixels),
            memory_of=memory_of,
            grids=grids,
            layer_references=references_of(crossing),
        )
