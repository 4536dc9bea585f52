"""An explanation in a cell of a notebook: its figure, its table, and figures of words.

explanation/notebook.py calls these. A cell that only shows an explanation must not fail: where a
figure or a table cannot be made, its function returns None, and the notebook prints the text.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from detr_viz.attention.terms import ALL_TERMS, PROPOSALS, SALIENCE, SCALE_PLOT, Mode
from detr_viz.detections.judged import judged
from detr_viz.detections.queries import OBJECT_SCORE
from detr_viz.figures import words
from detr_viz.figures.head_maps import head_grid
from detr_viz.figures.page.text import clean
from detr_viz.figures.proposals import proposal_figure
from detr_viz.figures.salience import salience_figure
from detr_viz.figures.scales import scales_figure
from detr_viz.figures.styles import FigureError, PageFormat, Style, usual_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.results import ExplanationBase

_MOST_ROWS, _MOST_DRAWN = 10, 3
_MOST_HIGH_PX = 800  # of the figure on the screen
_DPI = 200  # of the figure in a cell: 920 pixels
_COLORS = 256
_OF_LOOK = ("cmap", "interpolation", "contours")
_OF_PAGE = ("width", "font", "letters", "notes")
_OF_GRID = ("scale", "ablations", "biography")
_NAMED = ("layer", "heads", "style", "level", "norm", "zoom", "preset", "dpi", "gt")


# ---- figures of words ----------------------------------------------------------------------------


def plot(
    e: ExplanationBase,
    mode: str | Mode | Sequence[str | Mode] = "combine",
    queries: str | int | Sequence[int] = "objects",
    *,
    layer: words.Numbers | None = None,
    heads: words.Numbers | None = None,
    style: Style | str | None = None,
    level: words.Numbers | None = None,
    norm: str | None = None,
    zoom: str | float | None = None,
    preset: PageFormat | str | None = None,
    dpi: float | None = None,
    gt: bool = False,
    **more: Any,
) -> Figure:
    """The figure of an explanation's `plot`; see there."""
    if unknown := {*more} - {*_OF_LOOK, *_OF_PAGE, *_OF_GRID}:
        known = [*_OF_LOOK, *_OF_PAGE, *_OF_GRID, *_NAMED]
        name = sorted(unknown)[0]
        near = words.did_you_mean(name, known)
        raise FigureError(f"plot has no {name!r}: {near or 'it takes ' + ', '.join(known)}")
    page = words.page(preset, dpi=dpi, **_some(more, _OF_PAGE))
    options = {"heads": heads, "level": level, "zoom": zoom, "norm": norm, **_some(more, _OF_LOOK)}
    look = words.look(style, **options)
    if gt:
        _check_truth(e)
        options["truth"] = True
    if isinstance(mode, str) and mode in _WHOLE:
        return _WHOLE[mode](e, queries, look, page)
    if style is None:
        plain = mode != ALL_TERMS and not more.get("ablations")
        points = plain and e.attention_kind == "sampled" and not more.get("biography")
        name = usual_style(look, points, plain and e.stages)
        look = words.look(name, **options)
    if layer is None and e.stages and not more.get("ablations"):
        layer = "all"
    grid = _some(more, _OF_GRID)
    return head_grid(e, queries, mode, layer=layer, style=look, page_format=page, **grid)


def _check_truth(e: ExplanationBase) -> None:
    if e.truth is None:
        raise FigureError(
            "gt draws annotated boxes, and this image has none: annotate it, or leave gt out"
        )


def _some(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _proposals(e: ExplanationBase, queries: Any, look: Style, page: PageFormat) -> Figure:
    if (proposals := getattr(e, "proposals", None)) is None:
        raise FigureError(f"{e.model_title} has no proposals: its queries are learned")
    ids = words.queries(e, queries)
    return proposal_figure(e, proposals, ids, style=look, page_format=page)


_WHOLE: dict[object, Callable[[ExplanationBase, Any, Style, PageFormat], Figure]] = {
    PROPOSALS: _proposals,
    SALIENCE: lambda e, _, look, page: salience_figure(e, style=look, page_format=page),
    SCALE_PLOT: lambda e, _, look, page: scales_figure(e, style=look, page_format=page),
}


# ---- an explanation as the last line of a cell ---------------------------------------------------


def _never_fails(show: Callable[[ExplanationBase], Any]) -> Callable[[ExplanationBase], Any]:
    """None in place of an error, and no warnings: the cell did not ask for a figure."""

    @wraps(show)
    def shown(e: ExplanationBase) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return show(e)
            except Exception:
                return None

    return shown


_pictures: WeakKeyDictionary[ExplanationBase, tuple[bytes, tuple[int, int]]] = WeakKeyDictionary()


def _picture(e: ExplanationBase) -> tuple[bytes, tuple[int, int]]:
    """The figure of the best queries as PNG, and its size on a screen; made once."""
    from detr_viz.figures.page.shown_figure import png_of, screen_size

    if e not in _pictures:
        kept = getattr(e, "kept", None)  # a StoredExplanation has maps of some queries and modes
        queries = [q for q in _best(e) if kept is None or q in kept] or list(kept or ())
        fig = _figure(e, queries[:_MOST_DRAWN])
        high = screen_size(fig)[1]
        if high > _MOST_HIGH_PX and len(queries) > 1:  # as many as have room, at least one
            count = len(queries[:_MOST_DRAWN])
            fig = _figure(e, queries[: max(1, count * _MOST_HIGH_PX // high)])
        _pictures[e] = png_of(fig, _COLORS), screen_size(fig)
    return _pictures[e]


def _figure(e: ExplanationBase, queries: Sequence[int]) -> Figure:
    return plot(e, _mode(e), queries, dpi=_DPI, scale=getattr(e, "scale", "mode"))


def _mode(e: ExplanationBase) -> str | Mode:
    """combine, or of stored maps without it the first mode that there is."""
    stored = getattr(e, "stored", None)
    modes = [mode for mode, _ in stored] if stored else []
    return "combine" if not modes or "combine" in modes else modes[0]


@_never_fails
def shown_png(e: ExplanationBase) -> bytes:
    return _picture(e)[0]


@_never_fails
def shown_html(e: ExplanationBase) -> str:
    """What it is, the figure, the table. No script and no colour: the notebook's theme has them."""
    height, width = e.image.hw
    title = f"{e.image.path or 'an image'} ({width} x {height} px) by {e.model_title}"
    return f"<div><p>{_inert(title)}</p>{_image(e) or ''}{_table(e)}</div>"


@_never_fails
def _image(e: ExplanationBase) -> str:
    data, (width, _) = _picture(e)
    text = base64.b64encode(data).decode()
    return (
        f'<img alt="attention maps of the best queries" width="{width}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{text}">'
    )


def _table(e: ExplanationBase) -> str:
    if not (best := _best(e)):
        return "<p>no query</p>"
    names = ["query", "class", "score", "box: left, top, right, bottom (px)"]
    verdicts = None
    if e.truth is not None:
        names.append("against the annotation")
        verdicts = judged(e, OBJECT_SCORE)
    lines = [_row("th", names)]
    for q in best:
        box = ", ".join(f"{side:.0f}" for side in e.boxes_xyxy_px[q])
        cells = [str(q), e.label_name(q), f"{e.scores[q]:.2f}", box]
        if verdicts is not None:
            cells.append(verdicts.words(q) or f"score below {OBJECT_SCORE:g}")
        lines.append(_row("td", cells))
    more = int((e.scores >= OBJECT_SCORE).sum()) - len(best)
    left = f"<p>and {more} more with a score of at least {OBJECT_SCORE:g}</p>" if more > 0 else ""
    if e.truth is not None:
        left += f"<p>{_inert(verdicts.summary)}</p>"
    return f"<table>{''.join(lines)}</table>{left}"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(_cells(tag, cells))}</tr>"


def _cells(tag: str, cells: Sequence[str]) -> Iterator[str]:
    for cell in cells:
        yield f'<{tag} style="text-align:left">{_inert(cell)}</{tag}>'


def _best(e: ExplanationBase) -> list[int]:
    """The queries with a score of at least .5; where there is none, the three best."""
    best = e.by_score()[:_MOST_ROWS]
    return [q for q in best if e.scores[q] >= OBJECT_SCORE] or best[:3]


def _inert(text: str) -> str:
    """Text that is nothing but text in a page, whatever a file or a class is called."""
    return escape(clean(text.encode(errors="replace").decode()), quote=True)
