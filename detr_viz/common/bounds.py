"""What is read at most, so that a small file cannot take a machine; docs/limits.md lists them.

if count > bound("layers"): raise UserError(f"{name} has {beyond('layers', count)}")

--limit layers=500 raises one for a run; the workers of the run inherit it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from detr_viz.common.errors import UserError

VARIABLE = "DETR_VIZ_LIMITS"  # of the environment: "layers=500,pixels=4000000"
_MOST_DIGITS = 18


class Bound(NamedTuple):
    """most: of these units; what: for the documentation."""

    most: int
    units: str
    what: str


BOUNDS = {
    "pickle": Bound(16_000_000, "bytes", "of data.pkl and other members of a .pth but tensors"),
    "json": Bound(64_000_000, "bytes", "of config.json, an index and other JSON of a model"),
    "copies": Bound(256_000_000, "bytes", "that a pickle copies beyond 4 times its size"),
    "tensors": Bound(50_000, "tensors", "in a checkpoint"),
    "shared": Bound(8, "times", "that tensors may be larger than the bytes they share"),
    "layers": Bound(100, "layers", "or blocks of one kind in a checkpoint"),
    "pixels": Bound(8_000_000, "pixels", "of a network's input; images are resized to it"),
    "name": Bound(1_000, "characters", "of the name of a class, in a checkpoint or a list"),
    "queries": Bound(3_000, "queries", "in a file of saved maps"),
    "modes": Bound(64, "modes", "in a file of saved maps"),
    "deep": Bound(512_000_000, "bytes", "of an unpacked AVIF or HEIC, or of over 8 bits a sample"),
    "images": Bound(2_000_000, "images", "in an @list or a COCO file"),
    "boxes": Bound(10_000, "boxes", "that are annotated in one image"),
    "flight": Bound(200_000_000, "pixels", "that all helpers of a batch unpack at a time"),
    "scans": Bound(200, "scans", "of a progressive JPEG"),
    "seconds": Bound(600, "seconds", "that a worker takes to read or draw an image (--timeout)"),
    "pairs": Bound(4_000_000, "pairs", "of queries that are compared by their boxes"),
}


def bound(name: str) -> int:
    """The limit that holds now."""
    return raised().get(name, BOUNDS[name].most)


def beyond(name: str, value: int) -> str:
    """What is too large, in words, with the flag that allows it."""
    number = f"{value:,}" if value < 10**_MOST_DIGITS else "too many"
    flag = f"--limit {name}={value}" if value < 10**_MOST_DIGITS else f"--limit {name}=N"
    units = BOUNDS[name].units
    return f"{number} {units}, more than the {bound(name):,} that are read: {flag} allows it"


def raised() -> dict[str, int]:
    """The limits that this run has changed."""
    return parse(filter(None, os.environ.get(VARIABLE, "").split(",")))


def parse(words: Iterator[str] | Sequence[str]) -> dict[str, int]:
    """NAME=NUMBER, several times; UserError for another form."""
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        number = number.replace("_", "")
        if name not in BOUNDS:
            raise UserError(f"--limit {word[:40]!r}: there is {', '.join(BOUNDS)}")
        if not (number.isascii() and number.isdigit()) or len(number) > _MOST_DIGITS:
            raise UserError(f"--limit {word[:40]!r}: write {name}=NUMBER")
        found[name] = int(number)
    return found


@contextmanager
def raised_by(words: Sequence[str]) -> Iterator[None]:
    """These limits hold inside the block, for this process and those that it starts."""
    before, new = os.environ.get(VARIABLE), parse(words)
    if not new:
        yield
        return
    both = {**raised(), **new}
    os.environ[VARIABLE] = ",".join(f"{name}={number}" for name, number in both.items())
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
