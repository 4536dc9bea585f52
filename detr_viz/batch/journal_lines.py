"""The lines of a journal: the result of one image, as JSON on one line."""

from __future__ import annotations

import json
from typing import NamedTuple

from detr_viz.batch.index import Done

_json = json.JSONEncoder(separators=(",", ":")).encode  # ASCII, on one line


class Failed(NamedTuple):
    """An image that failed, and the reason."""

    image: str
    reason: str


def encoded(outcome: Done | Failed) -> bytes:
    """The line of a result."""
    if isinstance(outcome, Done):
        entry = vars(outcome)  # asdict() would copy each row
    else:
        entry = {"image": outcome.image, "failed": outcome.reason}
    return _json(entry).encode() + b"\n"


def decoded(line: bytes, kind: type[Done] = Done) -> Done | Failed | None:
    """The result in a line of the journal; None where the line is incomplete or damaged.

    kind: of the rows of an image that is done.
    """
    try:
        entry = json.loads(line)
        if "failed" in entry:
            return Failed(str(entry["image"]), str(entry["failed"]))
        rows, files = tuple(map(tuple, entry["rows"])), tuple(entry["files"])
        return kind(entry["image"], rows, files, str(entry.get("recipe", "")))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
