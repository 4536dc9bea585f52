"""How a figure is asked for in words, on the command line and in Python alike.

heads("0-3")          # (0, 1, 2, 3)           look("contour", heads="mean")    # a Style
layers("0,2")         # [0, 2]                 page("column", dpi=150)          # a PageFormat

What is no such word is a FigureError of one line that says what to write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING, Any

from detr_viz.attention.terms import ALL_TERMS, MODES, Mode, is_sum, modes_of_plot, parse_terms
from detr_viz.common.lists import items, numbers
from detr_viz.common.words import did_you_mean
from detr_viz.detections.queries import select
from detr_viz.figures.styles import (
    HEADS,
    LEVELS,
    STYLES,
    ZOOMS,
    FigureError,
    PageFormat,
    Style,
)

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

_MOST_ZOOM = 1000
_UNITS_IN = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_WIDTHS_IN, _DPIS = (0.5, 200.0), (20.0, 2400.0)
Numbers = str | int | Sequence[int]


def heads(text: str) -> str | tuple[int, ...] | None:
    """Numbers of heads from 0, each once, or one of styles.HEADS; None: all, the default."""
    return None if text == "all" else _numbers_or_word(text, "heads", HEADS, "0,3")


def levels(text: str) -> str | tuple[int, ...]:
    """Numbers of levels from 0, each once, or one of styles.LEVELS."""
    return _numbers_or_word(text, "levels", LEVELS, "0,2")


def _numbers_or_word(
    text: str, what: str, known: Iterable[str], example: str
) -> str | tuple[int, ...]:
    if text in known:
        return text
    found = numbers(text, digits=4)
    if not found or len(set(found)) < len(found):
        near = did_you_mean(text, known)
        raise FigureError(
            f"{text[:40]!r} are not {what}{f'; {near}' if near else ''} "
            f"(write {example} or 0-3 or one of {', '.join(known)})"
        )
    return tuple(found)


def zoom(text: str) -> str | float:
    """auto, none, or a factor from 1 on."""
    if text in ZOOMS:
        return text
    factor = number(text)
    if not 1 <= factor <= _MOST_ZOOM:
        raise FigureError(
            f"{text[:40]!r} is no zoom: write auto, none, or a factor from 1 to {_MOST_ZOOM}"
        )
    return factor


def contour_shares(text: str) -> tuple[float, ...]:
    """Per cent of a map, 1 to 99, as shares; each once."""
    found = numbers(text, digits=2)
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise FigureError(
            f"{text[:40]!r} are no contours: write per cent from 1 to 99, such as 50,80,95"
        )
    return tuple(share / 100 for share in found)


def layers(text: str) -> str | int | list[int]:
    """ "last", "all", a decoder layer counted from 0, or several: 0,2,5 or 0-3."""
    if text in ("last", "all"):
        return text
    found = numbers(text)
    if found is None:
        raise FigureError(
            f"{text[:40]!r} is not last, all, a layer from 0 or several layers (0,2,5)"
        )
    return found if len(found) > 1 else found[0]


def width_in(text: str) -> float:
    """A width: inches, or with a unit (85mm, "85 mm"; pt are 1/72 in); returned in inches."""
    unit = text[-2:].lower() if text[-2:].lower() in _UNITS_IN else ""
    value = number(text.removesuffix(text[-2:] if unit else "")) * _UNITS_IN[unit or "in"]
    if not _WIDTHS_IN[0] <= value <= _WIDTHS_IN[1]:
        low, high = _WIDTHS_IN
        raise FigureError(
            f"{text[:40]!r} is not a width of {low:g} to {high:g} inches (write 3.25 or 85mm)"
        )
    return value


def dpi(text: str) -> float:
    """Pixels per inch."""
    value = number(text)
    if not _DPIS[0] <= value <= _DPIS[1]:
        low, high = _DPIS
        raise FigureError(f"{text[:40]!r} is not a resolution of {low:g} to {high:g} dpi")
    return value


def number(text: str) -> float:
    """A finite number, or NaN, which no range contains."""
    try:
        return float(text)
    except ValueError:
        return math.nan


# ---- words as settings -------------------------------------------------------------------------


def queries(explanation: ExplanationBase, chosen: str | int | Sequence[int]) -> list[int]:
    """Ids of queries, of words such as "top:3" (see detections.queries), a number, or ids."""
    if isinstance(chosen, str):
        return select(explanation, chosen)
    return list(chosen) if isinstance(chosen, Iterable) else [index(chosen)]


def modes(
    explanation: ExplanationBase, chosen: str | Mode | Sequence[str | Mode]
) -> tuple[str | Mode, ...]:
    """Modes, each once: "position", "position,content", "all", "terms", "cq.pk+pq.pk", or objects.

    "all" are those of the explanation. FigureError for a word that is no mode of any model.
    """
    found: list[str | Mode] = []
    for one in [chosen] if isinstance(chosen, str | Mode) else chosen:
        found += _modes_of_text(explanation, one) if isinstance(one, str) else [one]
    return tuple(dict.fromkeys(found))


def _modes_of_text(explanation: ExplanationBase, text: str) -> list[str]:
    if is_sum(text):
        return ["+".join(parse_terms(text))]
    known = dict.fromkeys([*MODES, *explanation.modes, "all", ALL_TERMS])
    for word in (given := items(text)):
        if word not in known:
            near = did_you_mean(word, known)
            raise FigureError(
                f"mode {word[:40]!r} is not one of {', '.join(known)}{f'; {near}' if near else ''}"
            )
    of_all = modes_of_plot("all", explanation.modes)
    return [mode for word in given for mode in (of_all if word == "all" else [word])]


def look(
    style: Style | str | None = None,
    *,
    heads: Numbers | None = None,
    level: Numbers | None = None,
    zoom: str | float | None = None,
    contours: str | Sequence[float] | None = None,
    **more: Any,
) -> Style:
    """A style by its name (None: overlay) or itself, with what else is given in place of its own.

    heads, level, zoom, contours as on the command line, or as in a Style; more: norm, cmap and
    interpolation; None: the style's own.
    """
    changes = {name: value for name, value in more.items() if value is not None}
    for name, value, read in (
        ("heads", heads, _heads),
        ("levels", level, _levels),
        ("zoom", zoom, _zoom),
        ("contours", contours, _contours),
    ):
        if value is not None:
            changes[name] = read(value)
    if isinstance(style, Style):
        return replace(style, **changes)
    if style is not None and style not in STYLES:
        return Style(style)  # which says what there is
    return Style(style or "overlay", **changes)


def page(
    page_format: PageFormat | str | None = None,
    *,
    width: str | float | None = None,
    dpi: float | None = None,
    **more: Any,
) -> PageFormat:
    """A page by the name of a preset (None: the default) or itself, of another width or resolution.

    width: inches, or a text with a unit. more: other fields of PageFormat; None: the page's own.
    """
    inches = width_in(width) if isinstance(width, str) else width
    if isinstance(page_format, PageFormat):
        changes = {"width_in": inches, "dpi": dpi} | more
    else:
        page_format, changes = PageFormat.of(page_format, inches, dpi), more
    return replace(
        page_format, **{name: value for name, value in changes.items() if value is not None}
    )


def layer_numbers(layer: Numbers | None) -> str | int | Sequence[int] | None:
    """A layer, layers or their word, of a text or as they are."""
    return layers(layer) if isinstance(layer, str) else layer


def _texts(read: Callable[[str], Any], number: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A reader that takes numbers too, as a tuple. number: makes one a number of Python."""

    def either(value: Any) -> Any:
        if isinstance(value, str):
            return read(value)
        return tuple(map(number, value if isinstance(value, Iterable) else (value,)))

    return either


_heads, _levels = _texts(heads, index), _texts(levels, index)
_contours = _texts(contour_shares, float)


def _zoom(value: str | float) -> str | float:
    return zoom(value) if isinstance(value, str) else value
