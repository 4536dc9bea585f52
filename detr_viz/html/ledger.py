"""The ledger of a page: what each product of parts adds to the logits, in 8 bits.

Four terms of all heads are as much as four more modes, and they are of both signs and rough: of
many queries only the best have a ledger, so many as fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.html.quantise import Block, linear, packed

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

TERMS_BYTES = 260_000  # of one layer, in the page
_FINEST = 0.08  # logits from code to code, where the terms are small enough


def ledger_of(
    e: ExplanationBase, kept: Sequence[int], first: Sequence[int], layers: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Block], float]:
    """The facts of the ledger, its blocks, and the largest error of a term.

    first: queries that come before the others of `kept`. UserError for attention whose logits are
    no sums of products.
    """
    order = [*first, *(q for q in kept if q not in first)]
    most = len(order)
    while True:
        blocks: dict[str, Block] = {}
        steps: dict[str, dict[str, list[float]]] = {}
        largest = 0
        for layer in layers:
            terms = e.logit_terms(order[:most], layer).terms
            here, steps[str(layer)] = _layer(terms, f"terms/{layer}/")
            blocks |= here
            largest = max(largest, sum(len(block.text) for block in here.values()))
        if largest <= TERMS_BYTES or most <= 1:
            every = [step for layer in steps.values() for heads in layer.values() for step in heads]
            return {"queries": order[:most], "steps": steps}, blocks, max(every, default=0.0) / 2
        most = max(min(int(most * TERMS_BYTES / largest), most - 1), 1)


def _layer(
    terms: Mapping[str, NDArray[np.float32]], start: str
) -> tuple[dict[str, Block], dict[str, list[float]]]:
    """The blocks of a layer's terms (q, M, h, w), and the logits from code to code of each head.

    Terms that a model does not have, zero everywhere, are left out.
    """
    blocks: dict[str, Block] = {}
    steps: dict[str, list[float]] = {}
    for name, part in terms.items():
        if not np.any(part):
            continue
        largest = np.abs(part).max((0, 2, 3), initial=0).astype(np.float64)
        step = np.maximum(largest / 127, _FINEST)
        blocks[start + name] = packed(linear(part, step[:, None, None]))
        steps[name] = step.tolist()
    return blocks, steps
