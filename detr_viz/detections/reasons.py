"""Why an annotated object was missed: the queries nearest to it, and the reason in words.

    for miss in misses(explanation):
        miss.reason, miss.words      # "suppressed", "suppressed by score: query 41 has the box ..."
        miss.overlap, miss.attention   # the query whose box overlaps most, the one that looks there

The reason is the first of these that holds. A box is the object's from an IoU of .5 on; a query is
sure from the score on that makes a detection.

    no-class    the model has no class of this name
    outside     the annotated box has no area in the image
    given       a query has the box and the class, but is matched with another object
    suppressed  a query has the box and the class, but its score is too low
    misnamed    a query has the box, and is sure of another class
    box-off     a query is sure of the class, and its box has an IoU from .1 to .5
    unsure      a query has the box, but neither the class nor the score
    given       a query has the box, and found an object of another class there

Where no box is there, a query may look there (it is `seen` in the words):

    given       that query found another object
    misnamed    it is sure of another class; box-off: it is sure of the class, its box is elsewhere
    unsure      its score is too low
    not-seen    no query looks there

To look there: the query's attention in the box is at least SEEN beyond chance, see
attention_mass.py. A box of 60 % of the image has .6 of even attention, so it needs .7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.console import short_name
from detr_viz.common.short_repr import ShortRepr, folded
from detr_viz.detections.attention_mass import (
    area_shares,
    attention_mass,
    beyond_chance,
    cell_px,
    widened,
)
from detr_viz.detections.judged import MOST_DETECTIONS, Judged, judged
from detr_viz.detections.mistakes import FOUND, SAME_OBJECT, SAME_PLACE

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

REASONS = (
    *("no-class", "outside", "given", "suppressed", "misnamed", "box-off", "unsure", "not-seen"),
)
NO_CLASS, OUTSIDE, GIVEN, SUPPRESSED, MISNAMED, BOX_OFF, UNSURE, NOT_SEEN = REASONS
# The query that found an object has more in 99 of 100 cases (all eight demo detectors); the best of
# the queries whose boxes lie elsewhere has less in 95 of 100 (DETR, Dynamic DETR). Drawn scenes.
SEEN = 0.25
FAINT = 0.05  # a query with a lower score says nothing by its box alone


@dataclass(frozen=True, eq=False, repr=False)
class Nearest(ShortRepr):
    """A query near a missed object, and what it says instead.

    iou   of its box with the object's
    mass  the part of its attention in the object's box
    beyond  of the attention that could be beyond chance, see beyond_chance
    """

    query: int
    label: int
    name: str
    score: float
    box_xyxy_px: NDArray[np.float32]  # (4,)
    iou: float
    mass: float
    beyond: float


@dataclass(frozen=True, eq=False, repr=False)
class Miss(ShortRepr):
    """An annotated object that no detection found.

    thing      its index in the Truth
    share      its share of the image's area
    overlap    the query whose box overlaps it most; None where no box does
    attention  the query with most of its attention in its box; None where it lies outside
    reason     one of REASONS
    words      the same as a sentence with numbers
    about      the query that the sentence is about; None for none
    """

    thing: int
    name: str
    box_xyxy_px: NDArray[np.float64]  # (4,)
    share: float
    overlap: Nearest | None
    attention: Nearest | None
    reason: str
    words: str
    about: int | None = None

    def __repr__(self) -> str:
        return folded(f"Miss({short_name(self.name)}: {self.words})")

    @property
    def queries(self) -> list[int]:
        """Its nearest queries and the one that the sentence is about, each once."""
        near = [one.query for one in (self.overlap, self.attention) if one is not None]
        near += [] if self.about is None else [self.about]
        return list(dict.fromkeys(near))


class Why(NamedTuple):
    """The last fields of a Miss."""

    reason: str
    words: str
    about: int | None = None


def misses(explanation: ExplanationBase, least: float = 0.5) -> list[Miss]:
    """The missed objects of an annotated image, as annotated; needs maps of all queries.

    least: scores below it are no detections. QueryError where the image has no annotation file.
    """
    return misses_of(explanation, judged(explanation, least))


def misses_of(explanation: ExplanationBase, verdicts: Judged) -> list[Miss]:
    """`misses` by verdicts that are there."""
    missed = list(verdicts.verdicts.missed)
    if not missed:
        return []
    looks = _Looks(explanation, verdicts, missed)
    return [looks.miss(i, thing) for i, thing in enumerate(missed)]


class _Looks:
    """What each query has to do with each missed object."""

    def __init__(self, e: ExplanationBase, verdicts: Judged, missed: list[int]) -> None:
        from detr_viz.detections.boxes import iou

        self.e, self.judged, truth = e, verdicts, verdicts.truth
        self.boxes, hw = truth.boxes_xyxy_px[missed], e.image.hw
        self.overlaps = iou(e.boxes_xyxy_px, self.boxes)  # (Q, n)
        wide = widened(e, self.boxes)
        self.mass = attention_mass(e, wide)
        self.chance = area_shares(wide, hw)
        self.beyond = beyond_chance(self.mass, self.chance[None])
        limits = np.array([*hw[::-1], *hw[::-1]])
        self.shares = area_shares(np.clip(self.boxes, 0, limits), hw)

    def miss(self, i: int, thing: int) -> Miss:
        """The i-th missed object, `thing` of the Truth."""
        overlap = attention = None
        if self.shares[i] > 0 and self.e.num_queries:
            best = int(self.overlaps[:, i].argmax())
            overlap = self._near(best, i) if self.overlaps[best, i] > 0 else None
            attention = self._near(int(self.mass[:, i].argmax()), i)
        why = self._reason(i, thing, attention)
        name = self.judged.truth.names[thing]
        box, share = self.boxes[i], float(self.shares[i])
        return Miss(thing, name, box, share, overlap, attention, *why)

    def _near(self, query: int, i: int) -> Nearest:
        e = self.e
        return Nearest(
            query,
            int(e.labels[query]),
            e.label_name(query),
            float(e.scores[query]),
            e.boxes_xyxy_px[query],
            float(self.overlaps[query, i]),
            float(self.mass[query, i]),
            float(self.beyond[query, i]),
        )

    def _reason(self, i: int, thing: int, attention: Nearest | None) -> Why:
        label, name = int(self.judged.truth.labels[thing]), self.judged.truth.names[thing]
        if label < 0:
            return Why(NO_CLASS, f"no class: the model has none of the name {short_name(name)!r}")
        if not self.e.num_queries:
            return Why(NOT_SEEN, "not seen: there is no query in this image")
        if attention is None:
            return Why(OUTSIDE, "outside: the annotated box has no area in the image")
        return self._by_box(i, label) or self._by_attention(i, label, attention)

    def _by_box(self, i: int, label: int) -> Why | None:
        """The reason where the box of a query is there, or nearly."""
        e, least, overlap = self.e, self.judged.least, self.overlaps[:, i]
        of_class, scores = e.class_scores[:, label], e.scores
        has_box, called = overlap >= SAME_OBJECT, e.labels == label
        claims = (of_class >= np.float32(least)) & (called | e.pairwise)
        busy = self.finders(label)
        if (q := _first(has_box & claims & busy, of_class)) is not None:
            other = f"another {self._thing(self.judged.finds(q, label))}"
            words = f"given to another object: query {q} has the box ({self._iou(q, i)}) and the"
            return Why(GIVEN, f"{words} class, but is matched with {other}", q)
        if (q := _first(has_box & called & (scores >= FAINT), of_class)) is not None:
            words = f"suppressed by score: query {q} has the box ({self._iou(q, i)}) and the class"
            if of_class[q] >= np.float32(least):  # of more pairs than are counted
                return Why(SUPPRESSED, f"{words}, but is not among the {MOST_DETECTIONS} best", q)
            return Why(SUPPRESSED, f"{words}, score {below(float(of_class[q]), least)}", q)
        sure, finder = scores >= np.float32(least), self.finders()
        if (q := _first(has_box & sure & ~finder, scores)) is not None:
            words = f"misnamed: query {q} has the box ({self._iou(q, i)}), but calls it"
            return Why(MISNAMED, f"{words} {self._said(q)}", q)
        if (q := _first(claims & ~busy & (overlap >= SAME_PLACE), overlap)) is not None:
            said = f"{short_name(e.class_names[label])} {two(float(of_class[q]))}"
            off, _ = _apart(float(overlap[q]), SAME_OBJECT)
            return Why(BOX_OFF, f"box off: query {q} calls it {said}, but its IoU is {off}", q)
        if (q := _first(has_box & (scores >= FAINT) & ~finder, scores)) is not None:
            words = f"unsure: query {q} has the box ({self._iou(q, i)}), but calls it"
            return Why(UNSURE, f"{words} {self._said(q)}", q)
        if (q := _first(has_box & finder, scores)) is not None:
            words = f"given to another object: query {q} has the box ({self._iou(q, i)}), but found"
            return Why(GIVEN, f"{words} the {self._thing(self.judged.finds(q))} there", q)
        return None

    def _by_attention(self, i: int, label: int, most: Nearest) -> Why:
        """The reason where no box is there."""
        if most.beyond < SEEN:
            words = f"not seen: no query has more than {two(most.mass)} of its attention there"
            wide, high = self.boxes[i, 2:] - self.boxes[i, :2]
            cell_high, cell_wide = cell_px(self.e)
            if wide < cell_wide or high < cell_high:
                words += ", the box is smaller than a cell of the map"
            elif self.chance[i] >= SEEN:
                words += f", {two(float(self.chance[i]))} would be there by chance"
            return Why(NOT_SEEN, words)
        words = f"seen: query {most.query} has {two(most.mass)} of its attention there"
        found = self.judged.finds(most.query)
        if found is not None:
            return Why(
                GIVEN, f"{words}, but found another object, {self._thing(found)}", most.query
            )
        words += f", but calls it {self._said(most.query)}"
        if most.label == label:
            words += f", IoU {two(most.iou)}"
        if most.score < np.float32(self.judged.least):
            return Why(UNSURE, words, most.query)
        return Why(BOX_OFF if most.label == label else MISNAMED, words, most.query)

    def finders(self, label: int | None = None) -> NDArray[np.bool_]:
        """(Q,) whether a query found an object, as this class."""
        found = np.zeros(self.e.num_queries, bool)
        for d in self.judged.detections(FOUND):
            found[self.judged.ids[d]] |= label is None or self.judged.labels[d] == label
        return found

    def _said(self, query: int) -> str:
        return f"{short_name(self.e.label_name(query))} {two(float(self.e.scores[query]))}"

    def _iou(self, query: int, i: int) -> str:
        return f"IoU {two(float(self.overlaps[query, i]))}"

    def _thing(self, thing: int) -> str:
        return short_name(self.judged.truth.names[thing])


def _first(fits: NDArray[np.bool_], values: NDArray) -> int | None:
    """Of those that fit, the one with the largest value; of equal ones the first."""
    if not fits.any():
        return None
    return int(np.argmax(np.where(fits, values, -np.inf)))


def two(value: float) -> str:
    """A share in two decimals: .63, 1.00."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def below(value: float, limit: float) -> str:
    """.31 below .50, in as many decimals as tell them apart."""
    return " below ".join(_apart(value, limit))


def _apart(value: float, limit: float) -> list[str]:
    """Two numbers in as many decimals as tell them apart, at least two."""
    digits = next((n for n in range(2, 7) if f"{value:.{n}f}" != f"{limit:.{n}f}"), 6)
    texts = [f"{number:.{digits}f}" for number in (value, limit)]
    return [text[1:] if text.startswith("0") else text for text in texts]
