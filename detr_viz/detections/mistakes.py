"""What a detector found, missed and got wrong in one image, against annotated boxes.

    truth = Truth(boxes, labels, names, crowd)
    verdicts = judge(truth, boxes_xyxy_px, labels, scores, least=0.5)
    verdicts.kinds[query]                           # "found", "duplicate", ...; None: no detection
    verdicts.missed                                 # indices of annotated objects

    explanation.truth                               # a Truth, where its image is annotated

Matching is that of the COCO evaluation (pycocotools, COCOeval.evaluateImg) at one IoU and without
ranges of areas: class by class, the best score first, each detection takes the free object of its
class that it overlaps most. What is left is named as in TIDE (Bolya et al., ECCV 2020, section
2.2), in the order of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr
from detr_viz.detections.boxes import area, iou

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

FOUND, MISSED = "found", "missed"
BAD_BOX, WRONG_CLASS, DUPLICATE, BACKGROUND, BOTH = MISTAKES = (
    "bad-box",
    "wrong-class",
    "duplicate",
    "background",
    "both",
)
SAME_OBJECT = 0.5  # least IoU of a detection with its object
SAME_PLACE = 0.1  # less IoU with every object: background


@dataclass(frozen=True, eq=False, repr=False)
class Truth(ShortRepr):
    """The annotated objects of one image.

    boxes_xyxy_px  (n, 4) pixels of the original image
    labels         (n,) indices into the detector's classes; -1: a class that it does not have
    names          (n,) what the annotation calls them
    crowd          (n,) True for a group in one box: detections in it are neither right nor wrong
    """

    boxes_xyxy_px: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    crowd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, annotated: Annotated, class_names: Sequence[str]) -> Truth:
        """Annotated objects with the classes of a detector, found by name in any case."""
        known: dict[str, int] = {}
        for i, name in enumerate(class_names):
            known.setdefault(name.casefold(), i)
        labels = [known.get(name.casefold(), -1) for name in annotated.names]
        boxes = np.asarray(annotated.boxes_xyxy_px, np.float64).reshape(-1, 4)
        return cls(boxes, np.asarray(labels, np.int64), annotated.names, annotated.crowd)


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts(ShortRepr):
    """kinds: of each query, FOUND, one of MISTAKES, or None: its score is too low, or it lies in a
    crowd. objects: of each query, the annotated object that it found or is nearest to, or -1.
    overlaps: (Q, n) IoU of every pair. missed: annotated objects that no query found.
    """

    kinds: tuple[str | None, ...]
    objects: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    missed: tuple[int, ...]

    def queries(self, kind: str) -> list[int]:
        """The queries of a kind, ascending."""
        return [q for q, one in enumerate(self.kinds) if one == kind]

    def finder(self, thing: int) -> int | None:
        """The query that found this object."""
        return next((q for q in self.queries(FOUND) if self.objects[q] == thing), None)


def judge(
    truth: Truth,
    boxes_xyxy_px: NDArray,
    labels: NDArray,
    scores: NDArray,
    least: float = 0.5,
    same: float = SAME_OBJECT,
) -> Verdicts:
    """Verdicts on the detections of all Q queries: boxes (Q, 4), labels (Q,), scores (Q,).

    least: scores below it are no detections. same: least IoU of a detection with its object.
    """
    overlaps = iou(boxes_xyxy_px, truth.boxes_xyxy_px)
    inside = _inside(boxes_xyxy_px, truth.boxes_xyxy_px)
    kinds: list[str | None] = [None] * len(scores)
    objects = np.full(len(scores), -1, np.int64)
    order = np.argsort(-scores, kind="mergesort")
    detected = [int(q) for q in order if scores[q] >= np.float32(least)]
    taken: dict[int, int] = {}
    left = []
    for q in detected:
        mine = (truth.labels == labels[q]) & ~truth.crowd
        free = np.array([mine[g] and g not in taken for g in range(len(truth))], bool)
        best = _largest(np.where(free, overlaps[q], -1.0))
        if best is not None and overlaps[q, best] >= min(same, 1 - 1e-10):
            taken[best] = q
            kinds[q], objects[q] = FOUND, best
        elif not (((truth.labels == labels[q]) & truth.crowd) & (inside[q] >= same)).any():
            left.append(q)
    real = ~truth.crowd
    for q in left:
        of_class = real & (truth.labels == labels[q])
        kinds[q], objects[q] = _mistake(overlaps[q], of_class, real, set(taken), same)
    missed = tuple(g for g in range(len(truth)) if real[g] and g not in taken)
    return Verdicts(tuple(kinds), objects, overlaps, missed)


def _mistake(
    overlap: NDArray, of_class: NDArray, real: NDArray, taken: set[int], same: float
) -> tuple[str, int]:
    """The kind of a detection that found nothing, and the object that it is nearest to, or -1."""
    own = _largest(np.where(of_class, overlap, -1.0))
    if own is not None and SAME_PLACE <= overlap[own] < same:
        return BAD_BOX, own
    other = _largest(np.where(real & ~of_class, overlap, -1.0))
    if other is not None and overlap[other] >= same:
        return WRONG_CLASS, other
    if own is not None and overlap[own] >= same and own in taken:
        return DUPLICATE, own
    nearest = _largest(np.where(real, overlap, -1.0))
    if nearest is None or overlap[nearest] < SAME_PLACE:
        return BACKGROUND, -1
    return BOTH, nearest


def _largest(values: NDArray) -> int | None:
    """Index of the largest value, the last of equal ones as in COCOeval; None where all are < 0."""
    if not len(values) or values.max() < 0:
        return None
    return len(values) - 1 - int(values[::-1].argmax())


def _inside(boxes: NDArray, crowds: NDArray) -> NDArray[np.float64]:
    """(Q, n) the part of each box that lies in each crowd, which COCO takes for its IoU."""
    a, b = np.asarray(boxes, np.float64), np.asarray(crowds, np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    whole = np.broadcast_to(area(a)[:, None], shared.shape)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
