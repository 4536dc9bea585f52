"""Parts that can be removed from a cross-attention, by name. Imports nothing heavy, for --help.

parse("position"), parse("term:cq.pk"), parse("head:3"), parse("level:2"), parse("box:inside"),
parse("cells:row:0")
"""

from __future__ import annotations

from dataclasses import dataclass

from detr_viz.attention.terms import TERMS

SYNTAX = (
    "position, content, head:N, level:N, row, column, term:cq.pk, box:inside, box:outside, "
    "cells:row:N or cells:column:N"
)
_SIDES = {"inside", "outside"}
_LINES = {"row", "column"}


@dataclass(frozen=True)
class Removal:
    """The parts to remove from an attention.

    name   as the user wrote it
    terms  of the logits, by their names in TERMS
    head   the head whose output is removed, or None
    level  the level that is not read, of attention that samples several, or None
    axis   "row" or "column": all places along it get the same weight, of attention whose maps are
           products of both; or None
    cells  ("row" | "column", number) of the cells of each query's box that are not read, row 0 at
           the top; or None
    box    "inside" or "outside": the keys inside or outside each query's own box; or ""
    """

    name: str
    terms: tuple[str, ...] = ()
    head: int | None = None
    box: str = ""
    level: int | None = None
    axis: str | None = None
    cells: tuple[str, int] | None = None


NOTHING = Removal("nothing")


def parse(text: str) -> Removal:
    """The removal of a text such as "head:3"; ValueError for anything else.

    "position" and "content" remove every term with a part of that name: without position the logits
    are cq.ck, without content pq.pk.
    """
    kind, _, value = text.strip().partition(":")
    if kind in ("position", "content") and not value:
        letter = kind[0]
        return Removal(kind, tuple(name for name in TERMS if letter in (name[0], name[3])))
    if kind in ("row", "column") and not value:
        return Removal(kind, axis=kind)
    if kind == "term" and value in TERMS:
        return Removal(f"term:{value}", (value,))
    if kind == "head" and value.isdecimal() and len(value) < 5:
        return Removal(f"head:{int(value)}", head=int(value))
    if kind == "level" and value.isdecimal() and len(value) < 5:
        return Removal(f"level:{int(value)}", level=int(value))
    line, _, number = value.partition(":")
    if kind == "cells" and line in _LINES and number.isdecimal() and len(number) < 5:
        return Removal(f"cells:{line}:{int(number)}", cells=(line, int(number)))
    if kind == "box" and value in _SIDES:
        return Removal(f"box:{value}", box=value)
    raise ValueError(f"{text[:40]!r} cannot be removed: write {SYNTAX}")
