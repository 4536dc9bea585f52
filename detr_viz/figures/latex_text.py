"""Text and formulas as LaTeX shows them."""

from __future__ import annotations

import re

from detr_viz.figures.level_words import TIMES
from detr_viz.figures.reading_rule import DASH

_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    TIMES: r"$\times$",
    "·": r"$\cdot$",
    DASH: r"\textendash{}",
}
_SIGNS = {"·": r"\cdot ", "⟨": r"\langle ", "⟩": r"\rangle ", "²": "^2", "  ": " "}


def escape(text: str) -> str:
    """Text as LaTeX shows it literally."""
    return re.sub("-(?=-)", "-{}", "".join(_ESCAPES.get(c, c) for c in text))


def with_formulas(note: str) -> str:
    """A note whose formulas stand between dollar signs; names may have that sign too."""
    pieces = note.split("$")
    if len(pieces) % 2 == 0:
        return escape(note)
    return "".join(mathematics(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def mathematics(formula: str) -> str:
    for sign, command in _SIGNS.items():
        formula = formula.replace(sign, command)
    return f"${formula}$"
