"""Text and names of files from anywhere, so that LaTeX shows them and runs nothing of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from detr_viz.figures.level_words import TIMES
from detr_viz.figures.reading_rule import DASH

NOT_IN_LATEX = re.compile(r'["`{}\\]')  # no engine finds a file of such a name
_PAIRS = re.compile(r"([-',]|\\textless\{\}|\\textgreater\{\})(?=\1)")
_FILE_SIGNS = {"%": r"\csname @percentchar\endcsname", "#": r"\csname c_hash_str\endcsname"}
# letters with single subscripts, products and sums: what this package itself writes as formulas
FORMULA = re.compile(r"(?:[A-Za-z]_[A-Za-z0-9](?!_)|[A-Za-z0-9](?!_)|[ ()+=·.,/*'⟨⟩|²-])*")
_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\texttt{\char34}",  # straight in this font, and a letter of its own to babel
    TIMES: r"$\times$",
    "·": r"$\cdot$",
    DASH: r"\textendash{}",
}
_SIGNS = {"·": r"\cdot ", "⟨": r"\langle ", "⟩": r"\rangle ", "²": "^2", "  ": " "}
# TeX sets a caption on one line first, and a line ends at 16,383 points: in 12 points of type
_WIDEST_PT = 13_000.0  # in 10 points of type
_CUTS = (400, 120, 40, 15)  # characters of a piece of text where the whole would be wider
_longest: ContextVar[int | None] = ContextVar("longest", default=None)


def fitting_one_line(text_of: Callable[[], str]) -> str:
    """What a function makes by escape(); again with shorter pieces where TeX has no line for it."""
    for most in (None, *_CUTS):
        with _cut_at(most):
            text = text_of()
        if _width_pt(text) <= _WIDEST_PT:
            break
    return text


@contextmanager
def _cut_at(most: int | None) -> Iterator[None]:
    token = _longest.set(most)
    try:
        yield
    finally:
        _longest.reset(token)


def _width_pt(text: str) -> float:
    """A bound of the width in Computer Modern of 10 points; the names of commands count too."""
    narrow = sum(map(text.count, " .,;:'()-/"))
    lower = sum(c.islower() and c not in "mw" for c in text)
    digits = sum(map(text.count, "0123456789"))
    return 4 * narrow + 5.6 * (lower + digits) + 10.6 * (len(text) - narrow - lower - digits)


def escape(text: str) -> str:
    """Text as LaTeX shows it literally."""
    most = _longest.get()
    if most is not None and len(text) > most:
        text = f"{text[: most - 3]}..."
    shown = "".join(c if c.isprintable() else " " for c in text)
    # two equal signs in a row would become another one; LuaTeX looks through {}
    return _PAIRS.sub(r"\1\\mbox{}", "".join(_ESCAPES.get(c, c) for c in shown))


def included(name: str) -> str:
    r"""A file's name for \includegraphics: \detokenize keeps every sign but % and #.

    TeX reads ^^7d as } before it knows of \detokenize: no two ^ stand together.
    """
    pieces = [piece for piece in re.split(r"([%#])|(?<=\^)(?=\^)", name) if piece]
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return name
    return "".join(_FILE_SIGNS.get(piece) or f"\\detokenize{{{piece}}}" for piece in pieces)


def with_formulas(note: str) -> str:
    """A note whose formulas stand between dollar signs; names may have that sign too."""
    pieces = note.split("$")
    if len(pieces) % 2 == 0:
        return escape(note)
    if not all(map(FORMULA.fullmatch, pieces[1::2])):  # a name has that sign
        return escape(note)
    return "".join(mathematics(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def mathematics(formula: str) -> str:
    for sign, command in _SIGNS.items():
        formula = formula.replace(sign, command)
    return f"${formula}$"
