"""How many objects were found, and why the others were not: by class and by size, for each model.

    summary = Summary(rows)             # of one model
    summary.lines()                     # to print
    list(summary.table())               # of summary.csv

Recall is the part of the objects that were found, as the COCO evaluation has it at one IoU (.5) and
one score: a class that the model does not have counts as missed. Wrong detections count under the
class that they were called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from detr_viz.common.console import short_name
from detr_viz.detections.mistakes import FOUND, MISSED, MISTAKES
from detr_viz.detections.reasons import REASONS
from detr_viz.errors.rows import SIZES, Verdict

COLUMNS = ("model", "by", "name", "objects", FOUND, "recall", *REASONS, *MISTAKES)
_EVERY = "all"
_WORDS = {  # of the columns of the printed table
    "given": "given",
    "suppressed": "suppr.",
    "misnamed": "misnamed",
    "box-off": "box off",
    "unsure": "unsure",
    "not-seen": "not seen",
    "no-class": "no class",
    "outside": "outside",
    "duplicate": "duplicate",
    "background": "backgr.",
    "bad-box": "bad box",
    "wrong-class": "wrong class",
    "both": "both",
}
_SHOWN = ("misnamed", "unsure", "suppressed", "given", "box-off", "not-seen", "no-class", "outside")
_MOST_CLASSES = 20  # of the printed table


class Summary:
    """The counts of one model: ("class", "cat") or ("size", "small") or ("all", "") -> Counter."""

    def __init__(self, model: str, rows: Iterable[Verdict] = ()) -> None:
        self.model = model
        self.counts: dict[tuple[str, str], Counter[str]] = {(_EVERY, ""): Counter()}
        self.counts |= {("size", size): Counter() for size in SIZES}
        for row in rows:
            self.add(row)

    def add(self, row: Verdict) -> None:
        """Count a row."""
        is_object = row.kind in (FOUND, MISSED)
        name = row.object_class if is_object else row.query_class
        for group in ((_EVERY, ""), ("size", row.size), ("class", name)):
            counter = self.counts.setdefault(group, Counter())
            counter[row.kind] += 1
            if is_object:
                counter["objects"] += 1
            if row.kind == MISSED:
                counter[row.reason] += 1

    @property
    def groups(self) -> list[tuple[str, str]]:
        """All, the sizes, the classes by name."""
        classes = sorted(group for group in self.counts if group[0] == "class")
        return [(_EVERY, ""), *(("size", size) for size in SIZES), *classes]

    def recall(self, group: tuple[str, str] = (_EVERY, "")) -> float | None:
        """Found objects over all objects; None where there is no object."""
        counter = self.counts[group]
        return counter[FOUND] / counter["objects"] if counter["objects"] else None

    def table(self) -> Iterator[tuple[str, ...]]:
        """The rows of summary.csv."""
        for group in self.groups:
            counter, recall = self.counts[group], self.recall(group)
            part = "" if recall is None else f"{recall:.6f}"
            numbers = [str(counter[name]) for name in (*REASONS, *MISTAKES)]
            yield (
                self.model,
                *group,
                str(counter["objects"]),
                str(counter[FOUND]),
                part,
                *numbers,
            )

    def lines(self) -> list[str]:
        """The table to print: columns without a number are left out, and rare classes."""
        everything = self.counts[_EVERY, ""]
        names = [name for name in _SHOWN if everything[name]]
        names += [name for name in MISTAKES if everything[name]]
        classes = [group for group in self.groups if group[0] == "class"]
        often = sorted(classes, key=lambda group: -self.counts[group].total())[:_MOST_CLASSES]
        shown = [group for group in self.groups if group[0] != "class" or group in often]
        cells = [["", "objects", FOUND, "recall", *(_WORDS[name] for name in names)]]
        for group in shown:
            counter, recall = self.counts[group], self.recall(group)
            part = "-" if recall is None else f"{recall:.3f}"
            numbers = [counter["objects"], counter[FOUND], part, *(counter[n] for n in names)]
            title = short_name(group[1]) if group[1] else _EVERY
            cells.append([title, *map(str, numbers)])
        lines = [self.model, *_aligned(cells)]
        if len(often) < len(classes):
            lines.append(f"and {len(classes) - len(often)} more classes, in summary.csv")
        return lines


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, numbers to the right."""
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in cells
    ]
