"""How results print at a Python prompt: their type and sizes, in three lines at most.

@dataclass(frozen=True, eq=False, repr=False)
class Rollout(ShortRepr): ...       # Rollout(last float32 (2, 256), decoder float32 (2, 256), ...)
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

LINES, COLUMNS = 3, 100
_MOST_ITEMS, _MOST_LETTERS, _MOST_OF_TEXT = 4, 60, 20


class ShortRepr:
    """A dataclass that prints its fields by their sizes. The dataclass needs repr=False."""

    def __repr__(self) -> str:
        known = [f for f in fields(self) if f.repr]  # type: ignore[arg-type]
        parts = (f"{f.name} {brief(getattr(self, f.name))}" for f in known)
        return folded(f"{type(self).__name__}({', '.join(parts)})")


def brief_tuple(value: Any) -> str:
    """The repr of a NamedTuple, its fields by their sizes."""
    parts = (f"{name} {brief(item)}" for name, item in value._asdict().items())
    return folded(f"{type(value).__name__}({', '.join(parts)})")


def folded(*lines: str) -> str:
    """Lines of text as at most LINES lines of COLUMNS letters; what does not fit is left out."""
    folded: list[str] = []
    for line in lines:
        folded += textwrap.wrap(line, COLUMNS, subsequent_indent="  ")
    if len(folded) > LINES:
        folded = folded[:LINES]
        folded[-1] = f"{folded[-1][: COLUMNS - 4]} ..."
    return "\n".join(folded)


def one_line(text: str, most: int = COLUMNS) -> str:
    """A text of a file or a user on one line, without control characters; of a long one its end."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"...{line[3 - most :]}"


def brief(value: Any) -> str:
    """A value by its size: an array by dtype and shape, a mapping or a long list by its start."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
    if isinstance(value, Mapping):
        inside = next(iter(value.values()), None)
        of = f" of {brief(inside)}" if hasattr(inside, "shape") else ""
        return f"{{{_items([*value])}}}{of}"
    if isinstance(value, str):
        return _short_text(value)
    if isinstance(value, Sequence):
        return f"({_items(value)})"
    if isinstance(value, ShortRepr):
        return type(value).__name__
    return f"{value:.3g}" if isinstance(value, float) else _cut(repr(value))


def _short_text(text: str) -> str:
    """A text in quotes: of a long one its start, of a long path its end."""
    if len(text) > _MOST_OF_TEXT:
        end = text[-_MOST_OF_TEXT:]
        return f"'...{end}'" if "/" in text else f"{text[:_MOST_OF_TEXT]!r}..."
    return repr(text)


def _items(values: Sequence[Any]) -> str:
    shown = ", ".join(
        value if isinstance(value, str) else brief(value) for value in values[:_MOST_ITEMS]
    )
    more = f", ... {len(values)} in all" if len(values) > _MOST_ITEMS else ""
    return _cut(shown) + more


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]}..."
