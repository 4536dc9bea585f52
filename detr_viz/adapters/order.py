"""Whether the rows of a network's output are in the order of its queries.

Outputs that are sorted by score have the right boxes beside the maps of others, and no self-check
sees it. So it is tried.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.roles import Role
from detr_viz.adapters.run import Prepared, run
from detr_viz.common.errors import UserError

_CHANGE = 0.05  # of the largest number that the attention gave


def check_order(
    network: nn.Module, prepared: Prepared, answers: Answers, last: Role, count: int
) -> None:
    """UserError where boxes(out) and scores(out) are in another order.

    Some rows of the last cross-attention's output are changed a little: the same rows of boxes and
    scores must change most.
    """
    if last.part is not None:  # of one sequence: joint.py has tried it
        return
    rows = sorted({0, count // 3, count // 2 + (count > 3)})

    def finish(call: RawCall) -> Tensor | None:
        if not last.is_call(call):
            return None
        context = call.context.clone()
        own = context[:, rows]
        context[:, rows] = own + _CHANGE * own.abs().amax() * own.sign().flip(-1)
        return context

    (boxes, scores), (new_boxes, new_scores) = (
        answers.of(run(network, prepared, [last.site], how).out, 1)[0] for how in (None, finish)
    )
    change = torch.cat((new_boxes - boxes, new_scores - scores), 1).abs().amax(1)
    most = sorted(change.topk(len(rows)).indices.tolist())
    best = scores.amax(1)
    is_sorted = bool((best[1:] <= best[:-1]).all()) and not bool((best == best[0]).all())
    # all rows change a little where queries meet once more, or numbers are rounded by the largest
    alone = 0 < int((change > 0).sum()) <= max(len(rows), count // 2)
    if most != rows and (is_sorted or alone):
        raise UserError(
            f"queries {_listed(rows)} change rows {_listed(most)} of boxes(out) and scores(out): "
            "give rows in the order of the queries, not sorted by score"
        )


def _listed(rows: list[int]) -> str:
    return ", ".join(map(str, rows))
