"""The network run again with another output of its cross-attention, for ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers
from detr_viz.adapters.find import SiteModule
from detr_viz.adapters.positions import Given
from detr_viz.adapters.probes import Probe, modules_of, read_as
from detr_viz.adapters.read import projection
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role
from detr_viz.adapters.run import Prepared, run
from detr_viz.attention.base import Where
from detr_viz.explanation.detector import DetectorInfo, Forwarded
from detr_viz.explanation.removals import NOTHING


class RunsAgain:
    """What a `Detector` needs beside its own to be one that `Redecodes`; the fields are of it.

    All of the network runs, so that a removal is exact whatever lies between image and decoder.
    """

    network: nn.Module
    info: DetectorInfo
    _answers: Answers
    _found: Sequence[SiteModule]
    _roles: Mapping[Where, Role]
    _probes: Mapping[Where, Probe]
    _position: Given | None

    def _hooked(self, where: Where) -> bool:
        return bool(self._probes[where]._forward_hooks)

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

        done = run(self.network, memory, modules_of(wanted.values(), self._found), finish)
        answers = self._answers.of(done.out, self.info.num_layers)
        return Forwarded(
            class_scores={n: scores[None] for n, (_, scores) in enumerate(answers)},
            boxes={n: boxes[None] for n, (boxes, _) in enumerate(answers)},
            memory=[memory],
            memory_of=memory_of,
            grids=(),
        )

    def scores_with_hidden(self, memory: Prepared, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """One run of the network for each mask."""
        wanted = {n: self._roles["cross", n] for n in layers}
        sites = modules_of(wanted.values(), self._found)
        scores = []
        for mask in hidden:

            def finish(call: RawCall, mask: Tensor = mask) -> Tensor | None:
                role = next((role for role in wanted.values() if role.is_call(call)), None)
                if role is None:
                    return None
                attention = read_as(role, call, (), self._position)
                context = attention.without(NOTHING, mask)[1].transpose(0, 1).flatten(1)
                return projection(call.site)(context)[None]

            done = run(self.network, memory, sites, finish)
            scores.append(self._answers.of(done.out, self.info.num_layers)[-1][1])
        return torch.stack(scores)


def memory_of(memory: Sequence[Prepared], i: int) -> Prepared:
    return memory[i]
