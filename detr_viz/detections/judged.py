"""The detections of an explanation, each judged against the annotated objects of its image.

    e = judged(explanation)
    e.queries("duplicate")              # ids of queries, best first
    e.verdicts.missed                   # annotated objects that no detection found

A query of DETR is one detection, with its best class. A model with focal losses is evaluated by its
100 best pairs of query and class, so there a query may be several detections, of several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.console import short_name
from detr_viz.common.short_repr import ShortRepr
from detr_viz.detections.mistakes import FOUND, MISTAKES, Truth, Verdicts, judge
from detr_viz.detections.query_grammar import QueryError

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

MOST_DETECTIONS = 100  # of an image, as in the COCO evaluation
NO_TRUTH = "annotated objects are needed: give images with annotations, --image instances.json"


@dataclass(frozen=True, eq=False, repr=False)
class Judged(ShortRepr):
    """n detections, best first, and the verdicts on them.

    ids     (n,) their queries
    labels  (n,) what each is called
    scores  (n,) float32
    boxes_xyxy_px  (n, 4) pixels of the image
    least   scores below it are no detections
    """

    truth: Truth
    ids: NDArray[np.int64]  # (n,)
    labels: NDArray[np.int64]  # (n,)
    scores: NDArray[np.float32]  # (n,)
    boxes_xyxy_px: NDArray[np.float32]  # (n, 4)
    verdicts: Verdicts
    least: float

    def queries(self, kind: str) -> list[int]:
        """The queries with a detection of this kind ("found", "duplicate", ...), best first."""
        return list(dict.fromkeys(int(self.ids[d]) for d in self.detections(kind)))

    def detections(self, kind: str) -> list[int]:
        """Indices of the detections of a kind, best first."""
        return self.verdicts.queries(kind)

    def finds(self, query: int, label: int | None = None) -> int | None:
        """The object that this query found, as this class; None if it found none."""
        for d in self.detections(FOUND):
            if self.ids[d] == query and label in (None, self.labels[d]):
                return int(self.verdicts.objects[d])
        return None

    def words(self, query: int) -> str:
        """The verdicts on a query in words; "" where its score is too low for one."""
        kinds = []
        for d in np.flatnonzero(self.ids == query):
            kind, thing = self.verdicts.kinds[d], int(self.verdicts.objects[d])
            if kind is not None:
                kinds.append(self._kind(kind, int(d), thing))
        return ", ".join(dict.fromkeys(kinds))

    def _kind(self, kind: str, detection: int, thing: int) -> str:
        if thing < 0:
            return kind
        overlap = f"{self.verdicts.overlaps[detection, thing]:.2f}".lstrip("0")
        return f"{kind} ({short_name(self.truth.names[thing])}, IoU {overlap})"

    @property
    def summary(self) -> str:
        """How many objects were found, and how many detections are wrong."""
        objects = int((~self.truth.crowd).sum())
        found = len(self.detections(FOUND))
        wrong = {kind: len(self.detections(kind)) for kind in MISTAKES}
        more = [f"{count} {kind}" for kind, count in wrong.items() if count]
        are = "1 annotated object" if objects == 1 else f"{objects} annotated objects"
        return ", ".join([f"{found} of {are} found at score {self.least:g}", *more])


def judged(explanation: ExplanationBase, least: float = 0.5) -> Judged:
    """The verdicts on an explanation's detections.

    least: scores below it are no detections. QueryError where the image has no annotation file.
    """
    truth = explanation.truth
    if truth is None:
        raise QueryError(f"{NO_TRUTH}; of {explanation.image.path or 'this image'} there are none")
    rows = explanation.detections(MOST_DETECTIONS)
    ids, labels = (np.array([row[k] for row in rows], np.int64) for k in (0, 1))
    scores = np.array([row[2] for row in rows], np.float32)
    boxes = np.asarray(explanation.boxes_xyxy_px)[ids]
    verdicts = judge(truth, boxes, labels, scores, least)
    return Judged(truth, ids, labels, scores, boxes, verdicts, least)
