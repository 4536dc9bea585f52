"""References of queries through the layers of a biography, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import NDArray

from detr_viz.explanation.results import ExplanationBase


def reference_of(
    e: ExplanationBase, query: int, layer: int
) -> tuple[tuple[float, float] | None, NDArray | None]:
    """The point and the box that enter a layer as a query's reference; None where there is none."""
    points = e.layer_references.get(layer, e.reference_px)
    boxes = e.reference_boxes.get(layer)
    return (
        None if points is None else tuple(map(float, points[query])),
        None if boxes is None else boxes[query],
    )


def reference_notes(explanations: Sequence[ExplanationBase]) -> list[str]:
    """What a biography draws of the references."""
    notes = []
    # the point of attention along rows and columns is its anchor, and the key says so
    if any(e.reference_px is not None and not e.has_axes for e in explanations):
        moves = any(e.layer_references for e in explanations)
        entering = " as it enters the layer" if moves else ""
        notes.append(f"the ring: the query's reference point{entering}")
    if any(e.reference_boxes for e in explanations):
        notes.append(entering_note("layer"))
    return notes


def entering_note(noun: str) -> str:
    """What the white boxes are; noun: a layer or a stage."""
    return f"white: the box that enters the {noun} as its reference"
