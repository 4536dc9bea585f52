"""Which models choose tokens of the image as their queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.models import with_proposals

if TYPE_CHECKING:
    from detr_viz.explanation.detector import DetectorInfo


def check_proposals(info: DetectorInfo) -> None:
    """UserError for a model whose queries are learned, before an image is read."""
    if not info.proposal_scores:
        raise UserError(
            f"{info.weights} ({info.title}) has no proposals, its queries are learned; models with "
            f"proposals: {', '.join(with_proposals())}"
        )
