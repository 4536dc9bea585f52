"""Preprocessing that another package does: pictures reach it as they are. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detr_viz.common.errors import UserError
from detr_viz.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class OwnSizes(Preprocessing):
    """Images stay as they are here; `words` says who resizes them."""

    size: int | None = None
    max_size: int | None = None
    words: str = "the model's own preprocessing"

    def at(self, size: int | None, max_size: int | None) -> OwnSizes:
        """Itself; UserError where --size or --max-size is given."""
        if size or max_size:
            raise UserError(
                f"{self.words} decides the size of images: leave --size and --max-size out"
            )
        return self

    @property
    def sizes(self) -> str:
        return f"sizes of {self.words}"

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"images are resized by {self.words}", *self.remarks)

    def as_meta(self) -> dict[str, Any]:
        return {"resize": self.words}
