"""One image as rows of the tables: its annotated objects, then the detections that are wrong.

A row of verdicts.csv is an object, found or missed, or a wrong detection; errors.csv has the rows
of errors only. Numbers of an object stand before those of the query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from detr_viz.batch.index import Done
from detr_viz.detections.attention_mass import area_shares, attention_mass, widened
from detr_viz.detections.boxes import area
from detr_viz.detections.judged import Judged, judged
from detr_viz.detections.mistakes import FOUND, MISSED, MISTAKES
from detr_viz.detections.reasons import Miss, misses_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.explanation.results import ExplanationBase

SIZES = ("small", "medium", "large")
_LARGEST = (32**2, 96**2)  # areas of small and of medium ones, in pixels, as in the COCO evaluation


class Verdict(NamedTuple):
    """A row, all as text; "" where there is nothing.

    kind        found, missed or one of mistakes.MISTAKES
    size        by the area of the object's box, or of the detection's where there is no object
    object      the number of the object in its file; then its class, box, area and share of the
                image's area: the object that was found or missed, or that a wrong detection is
                nearest to; the class as the model writes it, where it has it
    query       of the detection; of a missed object, the query whose box overlaps it most; then
                what it says (class, score, box), the IoU of its box with the object's, the part of
                its attention in the object's box (where there is one, but not of found objects)
    looking     of a missed object: the query with most of its attention in it; then the same of it
    reason      why it was missed, one of reasons.REASONS; words: the same as a sentence; about: the
                query that it is about
    """

    model: str
    kind: str
    size: str
    object: str = ""
    object_class: str = ""
    object_left: str = ""
    object_top: str = ""
    object_right: str = ""
    object_bottom: str = ""
    object_area: str = ""
    object_share: str = ""
    query: str = ""
    query_class: str = ""
    score: str = ""
    left: str = ""
    top: str = ""
    right: str = ""
    bottom: str = ""
    iou: str = ""
    attention: str = ""
    looking: str = ""
    looking_class: str = ""
    looking_score: str = ""
    looking_iou: str = ""
    looking_attention: str = ""
    reason: str = ""
    words: str = ""
    about: str = ""


@dataclass(frozen=True)
class JudgedImage(Done):
    """An image in verdicts.csv: rows are Verdicts."""

    table: ClassVar[str] = "verdicts"
    columns: ClassVar[tuple[str, ...]] = ("image", *Verdict._fields, "files", "recipe")


def size_of(area_px: float) -> str:
    """small, medium or large."""
    small, medium = _LARGEST
    return SIZES[0] if area_px < small else SIZES[1] if area_px < medium else SIZES[2]


def rows_of(e: ExplanationBase, model: str, least: float) -> list[Verdict]:
    """The rows of an image and a model. QueryError where it has no annotated objects.

    least: scores below it are no detections. Crowds have no row.
    """
    verdicts = judged(e, least)
    image = _Image(e, model, verdicts)
    missed = {miss.thing: miss for miss in misses_of(e, verdicts)}
    return [*image.objects(missed), *image.mistakes()]


@dataclass(frozen=True)
class _Image:
    e: ExplanationBase
    model: str
    judged: Judged

    @cached_property
    def attention(self) -> NDArray[np.float64]:
        """(Q, n): of each query in each object."""
        return attention_mass(self.e, widened(self.e, self.judged.truth.boxes_xyxy_px))

    def objects(self, missed: dict[int, Miss]) -> Iterator[Verdict]:
        verdicts = self.judged.verdicts
        finders = {int(verdicts.objects[d]): d for d in self.judged.detections(FOUND)}
        for thing in range(len(self.judged.truth)):
            if thing in finders:
                yield self._row(FOUND, thing, finders[thing])
            elif thing in missed:
                yield self._missed(missed[thing])

    def mistakes(self) -> Iterator[Verdict]:
        for d, kind in enumerate(self.judged.verdicts.kinds):
            if kind not in MISTAKES:
                continue
            thing = int(self.judged.verdicts.objects[d])
            row = self._row(kind, thing, d)
            if thing >= 0:
                row = row._replace(attention=_part(self.attention[self.judged.ids[d], thing]))
            yield row

    def _row(self, kind: str, thing: int, d: int) -> Verdict:
        """An object (-1: none) and the d-th detection."""
        box, verdicts = self.judged.boxes_xyxy_px[d], self.judged.verdicts
        called = self.e.class_names[self.judged.labels[d]]
        row = Verdict(self.model, kind, size_of(float(area(box))))
        if thing >= 0:
            row = self._about(row, thing)._replace(iou=_part(verdicts.overlaps[d, thing]))
        said = (str(self.judged.ids[d]), called, f"{self.judged.scores[d]:.6f}")
        return _said(row, *said, box)

    def _missed(self, miss: Miss) -> Verdict:
        row = self._about(Verdict(self.model, MISSED, ""), miss.thing)
        row = row._replace(
            reason=miss.reason,
            words=miss.words,
            about="" if miss.about is None else str(miss.about),
        )
        if (near := miss.overlap) is not None:
            said = (str(near.query), near.name, f"{near.score:.6f}")
            row = _said(row, *said, near.box_xyxy_px)
            row = row._replace(iou=_part(near.iou), attention=_part(near.mass))
        if (most := miss.attention) is not None:
            row = row._replace(
                looking=str(most.query),
                looking_class=most.name,
                looking_score=f"{most.score:.6f}",
                looking_iou=_part(most.iou),
                looking_attention=_part(most.mass),
            )
        return row

    def _class_of(self, thing: int) -> str:
        """The class of an object as the model has it, or as the file has it."""
        label = int(self.judged.truth.labels[thing])
        return self.judged.truth.names[thing] if label < 0 else self.e.class_names[label]

    def _about(self, row: Verdict, thing: int) -> Verdict:
        """The row with the facts of an object."""
        truth, annotated, hw = self.judged.truth, self.e.image.annotated, self.e.image.hw
        box = truth.boxes_xyxy_px[thing]
        inside = np.clip(box, 0, [*hw[::-1], *hw[::-1]])
        number = annotated.ids[thing] if annotated is not None else thing
        left, top, right, bottom = map(_px, box)
        return row._replace(
            size=size_of(float(area(box))),
            object=str(number),
            object_class=self._class_of(thing),
            object_left=left,
            object_top=top,
            object_right=right,
            object_bottom=bottom,
            object_area=_px(area(box)),
            object_share=_part(area_shares(inside[None], hw)[0]),
        )


def _said(row: Verdict, query: str, called: str, score: str, box: NDArray) -> Verdict:
    left, top, right, bottom = map(_px, box)
    return row._replace(
        query=query,
        query_class=called,
        score=score,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
    )


def _px(value: float) -> str:
    return f"{value:.1f}"


def _part(value: float) -> str:
    return f"{value:.4f}"
