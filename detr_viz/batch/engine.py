"""What runs a batch, as a protocol: images in, what became of them out.

local_engine.py is one process with its workers; ray/ has several such processes.
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
    """What became of image i. done: its entry in the index but for the files; None for a failure
    and for what an earlier run made.
    """

    i: int
    outcome: Outcome | None
    done: Done | None


class Engine(Protocol):
    """What batch.run drives."""

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        """Every item with its result, in any order. temporary: the folder for unfinished files."""

    def stop(self) -> None:
        """Begin nothing new; for a signal handler."""

    def kill(self) -> None:
        """End all helper processes at once; for a signal handler."""
