"""Any network as a `Detector`: its sites are found, called and read as other modules here say.

One image runs at a time, whatever the batch, so that nothing is padded that would not be alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detr_viz.adapters.cells import grids_of
from detr_viz.adapters.find import SiteModule, find_sites
from detr_viz.adapters.one_level import LevelAttention
from detr_viz.adapters.own_sizes import OwnSizes
from detr_viz.adapters.positions import Given
from detr_viz.adapters.read import checked, projection, read
from detr_viz.adapters.read_sampled import reference_of, shapes_of
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role, Sites, roles_of
from detr_viz.adapters.run import Prepared, Run, input_size, run, to_device
from detr_viz.attention.base import Attention, Where
from detr_viz.attention.grids import CELL_RULES, Grid
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import folded
from detr_viz.explanation.detector import AttentionSite, DetectorInfo, Forwarded
from detr_viz.explanation.removals import NOTHING
from detr_viz.images.preprocessing import Preprocessing

_TRIAL_HW = (96, 128)  # of the picture that shows which call is which site


@dataclass(frozen=True)
class Facts:
    """What is known of a network beside its modules; fields as in DetectorInfo."""

    type: str = "attached"
    title: str = ""
    weights: str = ""
    path: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=OwnSizes)


class Probe(nn.Module):
    """Stands for a site: called with its recorded calls, it gives their contexts.

    A hook on it sees all images' calls of the site after a run, and may give another context in a
    run that decodes again.
    """

    def forward(self, calls: Sequence[RawCall], contexts: list[Tensor]) -> list[Tensor]:
        return contexts


@dataclass(frozen=True)
class Answers:
    """How a network's output is read.

    boxes(out) -> (Q, 4) or (1, Q, 4) cx, cy, w, h in [0, 1];  scores(out) -> the same of classes
    layers(out) -> (boxes, scores) of each decoder layer, or None where only the last is known
    """

    boxes: Callable[[Any], Tensor]
    scores: Callable[[Any], Tensor]
    layers: Callable[[Any], Sequence[tuple[Tensor, Tensor]] | None] | None = None

    def of(self, out: Any, num_layers: int) -> list[tuple[Tensor, Tensor]]:
        """(boxes (Q, 4), scores (Q, classes)) of each layer; UserError for other shapes."""
        last = _one(self.boxes(out), "boxes", 4), _one(self.scores(out), "scores")
        if len(last[0]) != len(last[1]):
            raise UserError(f"boxes(out) has {len(last[0])} rows and scores(out) {len(last[1])}")
        own = self.layers(out) if self.layers else None
        if own is None or len(own) != num_layers:
            return [last] * num_layers
        return [*((_one(b, "boxes", 4), _one(s, "scores")) for b, s in own[:-1]), last]


def _one(x: Any, name: str, width: int | None = None) -> Tensor:
    x = torch.as_tensor(x)
    x = x[0] if x.ndim == 3 and len(x) == 1 else x
    if x.ndim != 2 or (width is not None and x.shape[1] != width):
        raise UserError(f"{name}(out) has shape {tuple(x.shape)}, not (Q, {width or 'classes'})")
    return x.float()


class AttachedDetector:
    """A `Detector` that `Redecodes`, of a network that stays as it is; see `attach`."""

    precision = "float32"

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
        facts: Facts = Facts(),
        pairwise: bool = True,
    ) -> None:
        if cell_rule not in CELL_RULES:
            raise UserError(f"cell_rule {cell_rule!r} is not one of {', '.join(CELL_RULES)}")
        self.network, self._answers, self._prepare_one = network, answers, prepare
        self._position, self._rule = position, cell_rule
        self._found = find_sites(network)
        if self.dtype == torch.bfloat16:
            self.precision = "bfloat16"
        trial, prepared = self._trial()
        boxes, scores = answers.of(trial.out, 1)[0]
        self._roles = roles_of(trial.calls, len(boxes), sites)
        self._probes = {where: Probe() for where in self._roles}
        self._spare = _modules_of(self._roles.values())
        self._why, notes = self._parts(trial)
        self.info = self._facts(facts, trial, prepared, boxes, scores, class_names, pairwise, notes)

    def __repr__(self) -> str:
        info = self.info
        return folded(
            f"{type(self).__name__} {info.title}: {info.num_queries} queries, "
            f"{len(info.class_names)} classes, {info.num_heads} heads, {info.num_encoder_layers} "
            f"encoder and {info.num_layers} decoder layers"
        )

    # ---- the network is called once, to see which call is which site ---------------------------

    def _trial(self) -> tuple[Run, Prepared]:
        noise = np.random.default_rng(0).integers(0, 255, (*_TRIAL_HW, 3), np.uint8)
        (prepared,) = self.prepare(noise[None])
        return run(self.network, prepared, self._found, maps_too=True), prepared

    def _parts(self, trial: Run) -> tuple[str, list[str]]:
        """(why there is only combine, or "", notes on how content and position were divided)."""
        whys, single, notes = set(), [], []
        for (kind, layer), role in self._roles.items():
            if kind != "cross":
                continue
            attention, _, positions = checked(_call_of(trial.calls, role), 0, self._position)
            whys.add(getattr(attention, "why", ""))
            if any(p is not None and p.error is None for p in positions):
                single.append(layer)
        if single and self._position is None and whys == {""}:
            notes.append(
                "content and position are divided by one rule alone, unchecked, in decoder layers "
                f"{', '.join(map(str, single))}"
            )
        return max(whys), notes

    def _facts(
        self,
        facts: Facts,
        trial: Run,
        prepared: Prepared,
        boxes: Tensor,
        scores: Tensor,
        class_names: Sequence[str] | None,
        pairwise: bool,
        notes: Sequence[str],
    ) -> DetectorInfo:
        count = {kind: sum(k == kind for k, _ in self._roles) for kind in ("cross", "encoder")}
        call = _call_of(trial.calls, self._roles["cross", 0])
        attention = checked(call, 0, self._position)[0]
        names = tuple(class_names or (f"class {i}" for i in range(scores.shape[1])))
        if len(names) != scores.shape[1]:
            raise UserError(
                f"{len(names)} class names for {scores.shape[1]} classes of scores(out)"
            )
        outputs = self._answers.layers and self._answers.layers(trial.out)
        if count["cross"] > 1 and (outputs is None or len(outputs) != count["cross"]):
            notes = [*notes, "boxes and scores of earlier decoder layers are those of the last"]
        if self._rule == "centered":
            notes = [*notes, "cells are drawn at (i + 0.5) / cells of the input"]
        title = facts.title or type(self.network).__name__
        return DetectorInfo(
            type=facts.type,
            title=title,
            weights=facts.weights or title,
            path=facts.path,
            sha256=facts.sha256 or digest(self.network),
            class_names=names,
            num_queries=len(boxes),
            num_heads=attention.num_heads,
            num_layers=count["cross"],
            num_encoder_layers=count["encoder"],
            modes=tuple(attention.modes),
            pairwise=pairwise,
            size=None,
            max_size=None,
            notes=(*facts.notes, *notes, *facts.preprocessing.notes),
            why_undivided=self._why,
            preprocessing=facts.preprocessing,
            samples=attention.kind == "sampled",
            num_levels=len(grids_of(call, prepared.input_hw, None, self._rule, trial.maps)),
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
            read=partial(_read, where[0], role, self._position),
            project_out=projection(role.site),
            if_wrong=f"{role.site.name} attends in a way of its own",
        )

    def forward(self, pixels: Sequence[Prepared], layers: Sequence[int]) -> Forwarded:
        """One run for each image; only sites with a hook are recorded."""
        wanted = {where: role for where, role in self._roles.items() if self._hooked(where)}
        sites = _modules_of(wanted.values(), self._found)
        runs = [run(self.network, each, sites, maps_too=bool(sites)) for each in pixels]
        if not wanted:  # the grids need a cross-attention
            wanted = {("cross", 0): self._roles["cross", 0]}
            sites = _modules_of(wanted.values())
            runs = [run(self.network, each, sites, maps_too=True) for each in pixels]
        calls = {w: [_call_of(r.calls, role) for r in runs] for w, role in wanted.items()}
        for where, own in calls.items():
            self._probes[where](own, [call.context[0] for call in own])
        return self._forwarded(pixels, runs, calls)

    def _hooked(self, where: Where) -> bool:
        return bool(self._probes[where]._forward_hooks)

    def _forwarded(
        self, pixels: Sequence[Prepared], runs: Sequence[Run], calls: Mapping[Where, list[RawCall]]
    ) -> Forwarded:
        count = self.info.num_layers
        answers = [self._answers.of(r.out, count) for r in runs]
        crossing = {n: own for (kind, n), own in calls.items() if kind == "cross"}
        own = next(iter(crossing.values()), None)
        grids: tuple[Grid, ...] = ()
        if own is not None:
            each = [
                grids_of(call, p.input_hw, p.valid_hw, self._rule, r.maps)
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
            memory_of=_memory_of,
            grids=grids,
            layer_references=_references(crossing),
        )

    # ---- Redecodes -----------------------------------------------------------------------------

    def decode(self, memory: Prepared, layers: Sequence[int]) -> Forwarded:
        """The network once more; a hook on a site's probe may give another context."""
        wanted = {where: role for where, role in self._roles.items() if self._hooked(where)}

        def finish(call: RawCall) -> Tensor | None:
            where = next((w for w, role in wanted.items() if role.is_call(call)), None)
            if where is None:
                return None
            before = [call.context[0]]
            after = self._probes[where]([call], before)
            return None if after is before else after[0][None]

        done = run(self.network, memory, _modules_of(wanted.values(), self._found), finish)
        answers = self._answers.of(done.out, self.info.num_layers)
        return Forwarded(
            class_scores={n: scores[None] for n, (_, scores) in enumerate(answers)},
            boxes={n: boxes[None] for n, (boxes, _) in enumerate(answers)},
            memory=[memory],
            memory_of=_memory_of,
            grids=(),
        )

    def scores_with_hidden(self, memory: Prepared, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """One run of the network for each mask."""
        wanted = {n: self._roles["cross", n] for n in layers}
        sites = _modules_of(wanted.values(), self._found)
        scores = []
        for mask in hidden:

            def finish(call: RawCall, mask: Tensor = mask) -> Tensor | None:
                if not any(role.is_call(call) for role in wanted.values()):
                    return None
                attention = read(call, 0, (), self._position)
                context = attention.without(NOTHING, mask)[1].transpose(0, 1).flatten(1)
                return projection(call.site)(context)[None]

            done = run(self.network, memory, sites, finish)
            scores.append(self._answers.of(done.out, self.info.num_layers)[-1][1])
        return torch.stack(scores)


def _modules_of(roles: Any, found: Sequence[SiteModule] = ()) -> list[SiteModule]:
    """Modules of these roles, and the others of their layers, which tell positions."""
    own = list({id(role.site): role.site for role in roles}.values())
    layers = {site.layer_name for site in own}
    known = {id(site) for site in own}
    return own + [s for s in found if s.layer_name in layers and id(s) not in known]


def _call_of(calls: Sequence[RawCall], role: Role) -> RawCall:
    for call in calls:
        if role.is_call(call):
            return call
    raise UserError(
        f"{role.site.name} was not called with this image: the model takes another way, or runs "
        "compiled code without hooks"
    )


def _read(
    kind: str,
    role: Role,
    position: Given | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Any,
    image: int,
    grids: tuple[Grid, ...],
) -> Attention:
    calls = args[0]
    own = () if kind == "decoder" else grids
    if role.level is not None and grids:
        alone = read(calls[image], 0, (grids[role.level],), position)
        return LevelAttention(alone, role.level, grids)
    return read(calls[image], 0, own, position)


def _memory_of(memory: Sequence[Prepared], i: int) -> Prepared:
    return memory[i]


def _references(crossing: Mapping[int, Sequence[RawCall]]) -> dict[int, Tensor]:
    """Decoder layer -> (B, Q, 2 or 4) reference points of the finest level, where samples move."""
    found = {}
    for layer, calls in crossing.items():
        if calls[0].site.kind == "sampled":
            levels = [reference_of(call, 1 if call is None else _levels(call)) for call in calls]
            found[layer] = torch.stack([x[0, :, 0] for x in levels])
    return found


def _levels(call: RawCall) -> int:
    return len(shapes_of(call))


def digest(network: nn.Module) -> str:
    """sha256 of all parameters and buffers."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        if isinstance(value, Tensor):
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
