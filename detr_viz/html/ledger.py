"""The ledger of a page: what each product of parts adds to the logits, in 8 bits.

Four terms of all heads are as much as four more modes, and they are of both signs and rough: of
many queries only the best have a ledger, so many as fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.html.quantise import Block, linear, packed

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

TERMS_BYTES = 240_000  # of one layer, in the page
_FINEST = 0.05  # logits from code to code, where the terms are small enough


def ledger_of(
    e: ExplanationBase, kept: Sequence[int], layers: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Block], float]:
    """The facts of the ledger, its blocks, and the largest error of a term.

    UserError for attention whose logits are no sums of products.
    """
    most = len(kept)
    while True:
        blocks: dict[str, Block] = {}
        steps: dict[str, float] = {}
        names: dict[str, list[str]] = {}
        worst, largest = 0.0, 0
        for layer in layers:
            terms = e.logit_terms(list(kept[:most]), layer).terms
            shown = {name: part for name, part in terms.items() if np.any(part)}
            step = _step(shown.values())
            codes = {name: linear(part, step) for name, part in shown.items()}
            here = {f"terms/{layer}/{name}": packed(part) for name, part in codes.items()}
            for name, part in shown.items():
                back = (codes[name].astype(np.float64) - 128) * step
                worst = max(worst, float(np.abs(back - part).max(initial=0)))
            steps[str(layer)], names[str(layer)] = step, list(shown)
            blocks |= here
            largest = max(largest, sum(len(block.text) for block in here.values()))
        if largest <= TERMS_BYTES or most <= 1:
            return {"queries": most, "steps": steps, "terms": names}, blocks, worst
        most = max(min(int(most * TERMS_BYTES / largest), most - 1), 1)


def _step(parts: Any) -> float:
    """Logits from code to code: one for all terms of a layer, so that their sum is as exact."""
    largest = max((_largest(part) for part in parts), default=0.0)
    return max(largest / 127, _FINEST)


def _largest(part: NDArray) -> float:
    return float(np.abs(part).max(initial=0))
