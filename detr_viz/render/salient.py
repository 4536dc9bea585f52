"""Which models refine only the salient tokens in their encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import DetectorInfo


def check_salience(info: DetectorInfo) -> None:
    """UserError for a model that refines all tokens, before an image is read."""
    if not info.salience:
        raise UserError(
            f"{info.weights} ({info.title}) has no salience, its encoder refines all tokens: give "
            "a checkpoint of Salience DETR"
        )
