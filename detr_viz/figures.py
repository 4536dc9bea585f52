"""Head maps as a matplotlib Figure: a row a query, its photo and box, then a panel a head.

    fig = figures.head_grid(e, [17, 3], "position")
    figures.save(fig, "cat.png")                       # or .pdf, .svg

All panels are one image, composed at the size they are shown (compose.py); text and boxes are vector artists
on top. No pyplot, no rcParams: the figure looks the same whatever a user has configured, and matplotlib is
imported when a figure is drawn, not before. Layers and heads count from 0.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import detr_viz
from detr_viz import compose
from detr_viz.layout import CAP, SMALL_PT, FigureError, Group, Line, MapRow, Plan, luminance, plan
from detr_viz.lettering import Lettering, clean, drawable
from detr_viz.terms import MODES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from detr_viz.explanation import Explanation

WIDTH_IN, DPI = 7.0, 220.0  # a paper's page width, 1540 pixels
SUFFIXES = (".png", ".pdf", ".svg")
WEAK_SCORE = 0.5  # labels of detections below are dimmed

# Okabe and Ito (2008), told apart with any colour vision; a class has its colour in every figure.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")


def head_grid(
    explanation: Explanation,
    queries: Sequence[int],
    mode: str | Sequence[str] = "combine",
    *,
    layer: int | None = None,
    scale: str = "mode",
    width_in: float = WIDTH_IN,
    dpi: float = DPI,
    cmap: str | None = None,
    interpolation: str = "linear",
) -> Figure:
    """Maps of every head for some queries: label, photo with box, one panel a head; several modes are stacked.

    queries        ids in the order to show
    mode           one mode, or several: then a row a mode, grouped by query
    layer, scale   as in Explanation.maps; None: the last captured layer
    width_in, dpi  inches and pixels an inch; the height follows from the photo and the number of rows
    cmap           name of a matplotlib colour map; None: inferno without its darkest part
    interpolation  linear: between cell centres; nearest: the cells themselves
    Each panel is scaled to its own maximum, which is printed in it. The figure carries what it shows as
    `fig.facts` (Title, Software, Description), which `save` writes into the file.
    Raises FigureError for what cannot be drawn, ValueError for a mode, query or layer that is not there.
    """
    if interpolation not in compose.INTERPOLATIONS:
        raise FigureError(f"interpolation {interpolation!r} is not one of {', '.join(compose.INTERPOLATIONS)}")
    if not queries:
        raise FigureError("no queries to draw: name at least one")
    modes = list(dict.fromkeys([mode] if isinstance(mode, str) else mode))
    if not modes:
        raise FigureError(f"no mode to draw: name at least one of {', '.join(explanation.modes)}")
    layer = explanation.pick_layer(layer)
    place = compose.Placement(explanation.input_hw, explanation.stride, explanation.cell_rule)
    maps = {m: explanation.maps(m, queries, layer, scale) for m in modes}
    groups = [
        Group(
            title=_class_title(explanation, query),
            detail=f"{explanation.scores[query]:.2f} · query {query}",
            color=PALETTE[int(explanation.labels[query]) % len(PALETTE)],
            weak=bool(explanation.scores[query] < WEAK_SCORE),
            photo=explanation.image.rgb,
            box_xyxy_px=explanation.boxes_xyxy_px[query],
            rows=tuple(MapRow(maps[m][i], place, m if len(modes) > 1 else "") for m in modes),
        )
        for i, query in enumerate(queries)
    ]
    notes = _reading_rule(explanation, modes, layer, scale)
    heads = [str(i) for i in range(explanation.num_heads)]
    fig = draw(groups, heads, notes, width_in=width_in, dpi=dpi, lut=_lut(cmap), interpolation=interpolation)
    fig.facts = _facts(explanation, groups, modes, notes)
    return fig


def _class_title(explanation: Explanation, query: int) -> str:
    """Class name, or the class number (with a warning) where no font here has the name's characters."""
    name, number = clean(explanation.label_name(query)), int(explanation.labels[query])
    if name and not drawable(name):
        missing = f"no installed font has all characters of {name!r}: the figure says class {number}"
        warnings.warn(f"{missing} (install one, for instance Noto Sans CJK)", stacklevel=3)
        name = ""
    return name or f"class {number}"


def _reading_rule(explanation: Explanation, modes: Sequence[str], layer: int, scale: str) -> list[str]:
    """What a reader must know, once, piece by piece; formulas between dollar signs."""
    h, w = explanation.grid_hw
    notes = [
        clean(explanation.model_title).replace("$", r"\$"),
        f"decoder layer {layer} of 0–{explanation.num_layers - 1}",
        *(f"{m}  ${MODES[m].formula.replace('·', chr(92) + 'cdot')}$" if m in MODES else m for m in modes),
    ]
    if scale == "layer":
        notes.append("at the layer's own scale")
    if layer == 0 and "content" in modes:
        notes.append("in layer 0 content is the same for every query")
    return [*notes, f"map of {w} × {h} cells"]


def _facts(explanation: Explanation, groups: Sequence[Group], modes: Sequence[str], notes: list[str]) -> dict[str, str]:
    """The file's metadata: no dates, so that the same figure is the same file."""
    shown = "; ".join(f"{g.title} {g.detail}".replace(" · ", ", ") for g in groups)
    meta = [f"{key} {explanation.meta[key]}" for key in ("weights_sha256", "image_sha256") if explanation.meta.get(key)]
    rule = ", ".join(notes).replace("$", "").replace(r"\cdot", "·")
    return {
        "Title": f"{explanation.model_title}, {', '.join(modes)}: what each head attends to",
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([f"{rule}, each panel scaled to its own maximum", shown, *meta]),
    }


def draw(
    groups: Sequence[Group],
    heads: Sequence[str],
    notes: Sequence[str],
    *,
    lut: np.ndarray,
    width_in: float = WIDTH_IN,
    dpi: float = DPI,
    interpolation: str = "linear",
) -> Figure:
    """A page of groups: panels as one image, everything else as vector artists in pixels of that image.

    heads: a name a column; notes: pieces of the reading rule; lut: (256, 3) uint8. Raises FigureError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not (math.isfinite(width_in) and math.isfinite(dpi) and width_in > 0 and dpi > 0):
        raise FigureError(f"a figure needs a width and a dpi above 0, not {width_in:g} in at {dpi:g} dpi")
    made = plan(groups, heads, notes, width_in=width_in, dpi=dpi)
    # matplotlib cuts width * dpi down to whole pixels: a hair more keeps the last one
    size = ((made.width + 1e-3) / dpi, (made.height + 1e-3) / dpi)
    fig = Figure(figsize=size, dpi=dpi, facecolor="white")
    FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    pen = Lettering(dpi)
    extent = (0, made.width, made.height, 0)
    sheet = _sheet(groups, made, pen, lut, interpolation)
    ax.imshow(sheet, extent=extent, origin="upper", aspect="auto", interpolation="none", resample=False)
    _add_boxes(ax, groups, made, dpi)
    for line in (*made.lines, *_numbers(groups, made)):
        _write(ax, line, pen)
    return fig


def _sheet(groups: Sequence[Group], made: Plan, pen: Lettering, lut: np.ndarray, interpolation: str) -> np.ndarray:
    """All photos and panels on one white page, (height, width, 4) uint8."""
    sheet = compose.blank_sheet(made.height, made.width)
    table = compose.blend_table(lut)
    grounds: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # photo and backdrop, once for all groups that share it
    numbers = _numbers(groups, made)
    shade_hw = _extent(numbers, pen, made.inset)
    tops = iter(made.row_tops)
    for group, photo_top in zip(groups, made.photo_tops, strict=True):
        if id(group.photo) not in grounds:
            under = compose.resize_photo(group.photo, made.panel_hw)
            same = made.photo_hw == made.panel_hw
            photo = under if same else compose.resize_photo(group.photo, made.photo_hw)
            grounds[id(group.photo)] = photo, compose.backdrop(under)
        photo, ground = grounds[id(group.photo)]
        compose.paste(sheet, photo, photo_top, made.photo_left)
        for row in group.rows:
            largest = row.maps.max((1, 2), keepdims=True)
            levels = compose.resample(row.maps / np.where(largest > 0, largest, 1), row.place, made.panel_hw, interpolation)
            tiles = compose.overlay(levels, ground, table)
            if numbers:
                compose.shade_corner(tiles, shade_hw)
            top = next(tops)
            for tile, left in zip(tiles, made.panel_lefts, strict=True):
                compose.paste(sheet, tile, top, left)
    return sheet


def _number(value: float) -> str:
    """A panel's maximum in at most five characters: .62, .041, <.001."""
    if value >= 0.995:
        return "1"
    if value < 0.0005:
        return "<.001"
    return f"{value:.2f}"[1:] if value >= 0.095 else f"{value:.3f}"[1:]


def _numbers(groups: Sequence[Group], made: Plan) -> list[Line]:
    """Every panel's maximum, at its bottom right."""
    if not made.numbers_fit:
        return []
    rows = [row for group in groups for row in group.rows]
    height, width = made.panel_hw
    return [
        Line(_number(largest), left + width - made.inset, top + height - made.inset, SMALL_PT, "white", align="right")
        for row, top in zip(rows, made.row_tops, strict=True)
        for largest, left in zip(row.maps.max((1, 2)), made.panel_lefts, strict=True)
    ]


def _extent(lines: Sequence[Line], pen: Lettering, inset: int) -> tuple[int, int]:
    """Pixels of the panel's corner that the numbers take, (height, width)."""
    width = max((pen.width(t, SMALL_PT) for t in {line.text for line in lines}), default=0)
    return pen.px(SMALL_PT * CAP) + inset, int(width) + inset


def _write(ax: Axes, line: Line, pen: Lettering) -> None:
    font = pen.properties(line.text, line.size_pt, line.bold)
    ax.text(
        line.x,
        line.baseline,
        line.text,
        fontproperties=font,
        math_fontfamily="dejavusans",
        color=line.color,
        ha=line.align,
        va="baseline",
        parse_math=line.math,
        usetex=False,
        zorder=4,
    )


def _add_boxes(ax: Axes, groups: Sequence[Group], made: Plan, dpi: float) -> None:
    """The box on every photo in the class colour and on every panel in white.

    Each is drawn twice, a wider line of the opposite lightness below, so that it stands out on any ground.
    Whole pixels and even widths keep the lines sharp.
    """
    from matplotlib.collections import PolyCollection

    def even(pt: float) -> int:
        return 2 * max(1, round(pt * dpi / 144))

    corners, widths, halo_widths, colors, halo_colors = [], [], [], [], []

    def add(group: Group, top: int, left: int, hw: tuple[int, int], color: str, width: int) -> None:
        halo = width + even(0.5)
        dark = luminance([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]) < 0.3
        corners.append(_corners(group, top, left, hw, halo // 2))
        widths.append(width)
        halo_widths.append(halo)
        colors.append(color)
        halo_colors.append((1, 1, 1, 0.75) if dark else (0, 0, 0, 0.55))

    tops = iter(made.row_tops)
    for group, photo_top in zip(groups, made.photo_tops, strict=True):
        add(group, photo_top, made.photo_left, made.photo_hw, group.color, even(1.2))
        for _ in group.rows:
            top = next(tops)
            for left in made.panel_lefts:
                add(group, top, left, made.panel_hw, "#ffffff", even(0.6))
    for width, color, order in ((halo_widths, halo_colors, 2), (widths, colors, 3)):
        boxes = PolyCollection(
            corners,
            closed=True,
            facecolors="none",
            edgecolors=color,
            linewidths=[w * 72 / dpi for w in width],
            antialiaseds=True,
            joinstyle="miter",
            snap=False,
            zorder=order,
        )
        ax.add_collection(boxes, autolim=False)


def _corners(group: Group, top: int, left: int, hw: tuple[int, int], inset: int) -> list[tuple[float, float]]:
    """Corners of the box in a panel, whole pixels, kept inside the panel by half a line's width."""
    (height, width), (photo_h, photo_w) = hw, group.photo.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in group.box_xyxy_px)
    xs = [left + min(max(round(x * width / photo_w), inset), width - inset) for x in (x0, x1)]
    ys = [top + min(max(round(y * height / photo_h), inset), height - inset) for y in (y0, y1)]
    return [(xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]), (xs[0], ys[1])]


def _lut(cmap: str | None) -> np.ndarray:
    """256 colours of a map, (256, 3) uint8. Without its near-black end inferno glows over the dark photo."""
    import matplotlib

    name, start = (cmap, 0.0) if cmap else ("inferno", 0.18)
    try:
        found = matplotlib.colormaps[name]
    except KeyError:
        raise FigureError(f"no colour map {name!r}: matplotlib has inferno, magma, viridis, cividis and more") from None
    return found(np.linspace(start, 1, 256), bytes=True)[:, :3]


def save(fig: Figure, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix; an older file is replaced in one rename.

    Title, Software, Description of `fig.facts` and `metadata` (which wins) go into the file, no dates: the same
    figure gives the same bytes. Fonts are embedded as TrueType (PDF), text stays text (SVG). Missing folders are
    made. Raises FigureError for another suffix and for what the disk refuses; nothing half-written is left.
    """
    import matplotlib

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if f".{kind}" not in SUFFIXES:
        raise FigureError(f"cannot write {path}: the name must end in {', '.join(SUFFIXES)}")
    facts = {**getattr(fig, "facts", {}), **(metadata or {})}
    options = {"metadata": _metadata(kind, facts)}
    if kind == "png":
        options["pil_kwargs"] = {"compress_level": 4}
    settings = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "detr_viz", "savefig.bbox": None}
    part = path.with_name(f".{secrets.token_hex(6)}.part")  # the whole name: a long one may have no room for more
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(settings), part.open("xb") as file:
            fig.savefig(file, format=kind, dpi="figure", facecolor="white", transparent=False, **options)
        os.replace(part, path)
    except OSError as error:
        raise FigureError(f"cannot write {path}: {error.strerror or error}") from error
    finally:  # Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _metadata(kind: str, facts: Mapping[str, str]) -> dict[str, str | None]:
    """The facts under the names each format has for them."""
    if kind == "png":
        return dict(facts)
    names = {"Software": "Creator"} if kind == "svg" else {"Software": "Creator", "Description": "Subject"}
    known = {names.get(k, k): v for k, v in facts.items() if k in ("Title", "Software", "Description")}
    return {**known, **({"CreationDate": None} if kind == "pdf" else {"Date": None})}


def show(fig: Figure) -> None:
    """Open a window and wait until it is closed. FigureError where there is no display or no GUI toolkit."""
    way_out = "write a file instead"
    try:
        import matplotlib.pyplot as plt

        # pyplot makes its windows around figures that it made itself; here it is handed ours
        plt.figure(FigureClass=lambda *_, **__: fig)
        window = fig.canvas.required_interactive_framework
        if window is None:
            plt.close(fig)
            raise FigureError(f"no window can be opened here: {way_out}")
        plt.show()
    except FigureError:
        raise
    except Exception as error:  # each toolkit has its own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FigureError(f"no window can be opened here ({first}): {way_out}") from error
