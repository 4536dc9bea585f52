"""index.csv and failures.csv: the results of the images of a run, as tables."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

from detr_viz.common.errors import UserError
from detr_viz.common.files import reason
from detr_viz.common.regular import open_regular

COLUMNS = (
    *("image", "object", "model", "layer", "query", "class", "score"),
    *("left", "top", "right", "bottom", "files", "recipe"),
)
_OWN = 3  # columns that are no part of a row: image, files, recipe
_LONGEST_CELL = 1 << 24  # characters; the limit of csv, 131072, is less than many files' names


@dataclass(frozen=True)
class Done:
    """An image that is done. ValueError where a row does not have one text for each column.

    A table of another kind of run is a subclass with another name and other columns; they begin
    with the image and end with files and recipe.
    """

    table: ClassVar[str] = "index"  # the stem of the table's name
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    image: str  # as the input is named
    rows: tuple[tuple[str, ...], ...]  # one a query: "object" to "bottom"; empty: nothing to draw
    files: tuple[str, ...]  # relative to the output folder, '/' between folders
    recipe: str = ""  # digest of its recipe

    def __post_init__(self) -> None:
        wide = len(self.columns) - _OWN
        if any(len(row) != wide for row in self.rows):
            raise ValueError(f"rows of {wide} columns are needed: {self}")


def read_index(path: Path, kind: type[Done] = Done) -> Iterator[Done]:
    """The outcomes in an index.csv, in its order. UserError where no run wrote the file.

    kind: of the table's rows.
    """
    end = len(kind.columns) + 1 - _OWN  # where files and recipe begin
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with TextIOWrapper(
            open_regular(path), encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            table = csv.reader(map(_whole, file), strict=True)
            if tuple(next(table, ())) != kind.columns:
                raise ValueError("another header")
            for (image, files, recipe), group in groupby(table, lambda row: (row[0], *row[end:])):
                rows = tuple(tuple(row[1:end]) for row in group)
                yield kind(image, rows if any(map(any, rows)) else (), _parted(files), recipe)
    except (ValueError, IndexError, csv.Error) as error:
        raise UserError(f"{path} is not the index of a run: {reason(error)}; remove it") from error
    finally:
        csv.field_size_limit(limit)


def _whole(line: str) -> str:
    if not line.endswith(("\n", "\r")):
        raise ValueError("cut off")
    return line


@contextmanager
def opened(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[str]], object]]:
    """Open a csv file with a header; yields the function that adds a row.

    At the end of the block all rows are on the disk.
    """
    with path.open("w", encoding="utf-8", errors="detr_viz.as_named", newline="") as file:
        # csv only quotes a lone \r where lines end with it, so the \r goes afterwards
        lines = SimpleNamespace(write=lambda line: file.write(line[:-2] + "\n"))
        add = csv.writer(lines).writerow
        add(header)
        yield add
        file.flush()
        os.fsync(file.fileno())  # some disks report only here that they are full


def _as_named(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write bytes of a name that are not UTF-8 as they are; other surrogates as \\ud800."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error("detr_viz.as_named", _as_named)


def in_rows(done: Done) -> Iterator[tuple[str, ...]]:
    """The rows of an image in the index; one row where there was nothing to draw."""
    for row in done.rows or [("",) * (len(done.columns) - _OWN)]:
        yield (done.image, *row, _joined(done.files), done.recipe)


def _joined(files: Sequence[str]) -> str:
    """Files in one cell; a ; or \\ of a name has a \\ before it."""
    return ";".join(re.sub(r"([;\\])", r"\\\1", file) for file in files)


def _parted(cell: str) -> tuple[str, ...]:
    files = re.findall(r"(?:[^;\\]|\\.)+", cell, re.DOTALL)
    return tuple(re.sub(r"\\(.)", r"\1", file, flags=re.DOTALL) for file in files)
