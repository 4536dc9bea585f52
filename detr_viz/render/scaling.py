"""Which models weigh the levels of their encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import DetectorInfo


def check_scales(info: DetectorInfo) -> None:
    """UserError for a model without scale attention, before an image is read."""
    if not info.scales:
        raise UserError(
            f"{info.weights} ({info.title}) has no scale attention in its encoder: give a "
            "checkpoint of Dynamic DETR"
        )
