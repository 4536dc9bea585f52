"""What can be taken out of a cross-attention, by name. Imports nothing heavy, for --help.

parse("position"), parse("term:cq.pk"), parse("head:3"), parse("box:inside")
"""

from __future__ import annotations

from dataclasses import dataclass

from detr_viz.attention.terms import TERMS

SYNTAX = "position, content, head:N, term:cq.pk, box:inside or box:outside"
_SIDES = {"inside", "outside"}


@dataclass(frozen=True)
class Removal:
    """What is taken out of an attention.

    name   as it was said
    terms  of the logits, by their names in TERMS
    head   a head's output, or None
    box    "inside" or "outside": the keys there, of each query's own box; or ""
    """

    name: str
    terms: tuple[str, ...] = ()
    head: int | None = None
    box: str = ""

    @property
    def words(self) -> str:
        """For a row of a figure."""
        if self.box:
            return f"{self.box} hidden"
        if self.head is not None:
            return f"no head {self.head}"
        if self.name.startswith("term:"):
            return f"no {self.terms[0].replace('.', ' · ')}"
        return f"no {self.name}"


NOTHING = Removal("nothing")


def parse(text: str) -> Removal:
    """A removal by its name; ValueError for anything else.

    position and content take every term that they have a part in; what is left of position is
    cq.ck, of content pq.pk.
    """
    kind, _, what = text.strip().partition(":")
    if kind in ("position", "content") and not what:
        letter = kind[0]
        return Removal(kind, tuple(name for name in TERMS if letter in (name[0], name[3])))
    if kind == "term" and what in TERMS:
        return Removal(f"term:{what}", (what,))
    if kind == "head" and what.isdecimal() and len(what) < 5:
        return Removal(f"head:{int(what)}", head=int(what))
    if kind == "box" and what in _SIDES:
        return Removal(f"box:{what}", box=what)
    raise ValueError(f"{text[:40]!r} is nothing that can be taken out: say {SYNTAX}")
