"""The protocol of what runs a batch: it takes images and gives a result for each.

local_engine.py is one process with worker processes beside it; ray/ has several such processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detr_viz.batch.index import Done
from detr_viz.batch.scheduler import Item, Outcome

DIGITS = 16  # of a recipe in an index


@dataclass(frozen=True)
class Result:
    """The result of image i.

    done: its entry in the index, without the files; None for a failure and for an image that is
    skipped because an earlier run drew it.
    """

    i: int
    outcome: Outcome | None
    done: Done | None


class Engine(Protocol):
    """Runs the images of batch.run."""

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        """Yield each item's result, in any order. temporary: the folder for unfinished files."""

    def stop(self) -> None:
        """Begin nothing new; for a signal handler."""

    def kill(self) -> None:
        """End all worker processes at once; for a signal handler."""
