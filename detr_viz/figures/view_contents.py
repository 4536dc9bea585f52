"""What a figure other than head_grid shows, in words: for its metadata and its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import detr_viz
from detr_viz.figures.page.text import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.results import ExplanationBase


@dataclass(frozen=True)
class ViewContents:
    """What a figure other than head_grid shows, in words; formulas stand between dollar signs.

    model, weights, sha256   of the explanation; "" where not known
    title     what is shown, without the model's name
    rule      notes: what a reader must know
    about     the queries or points shown
    """

    model: str
    weights: str
    sha256: str
    image: str
    image_sha256: str
    title: str
    rule: tuple[str, ...]
    about: str
    width_in: float = 4.6

    @property
    def facts(self) -> dict[str, str]:
        """Title, Software and Description."""
        rule = ". ".join(note.replace("$", "") for note in self.rule)
        return {
            "Title": f"{self.model}: {self.title}",
            "Software": f"detr_viz {detr_viz.__version__}",
            "Description": f"{rule}. {self.about}. weights {self.weights} "
            f"sha256 {self.sha256}. image sha256 {self.image_sha256}",
        }


def describe(
    figure: Figure, e: ExplanationBase, title: str, rule: Sequence[str], about: str
) -> None:
    """Set a figure's `shown`, from which captions are written, and its `facts`."""
    meta = e.meta
    figure.shown = ViewContents(
        model=clean(e.model_title),
        weights=str(meta.get("weights", "")),
        sha256=str(meta.get("weights_sha256", "")),
        image=clean(str(meta.get("image") or "")),
        image_sha256=str(meta.get("image_sha256", "")),
        title=title,
        rule=tuple(rule),
        about=about,
        width_in=float(figure.get_figwidth()),
    )
    figure.facts = figure.shown.facts
