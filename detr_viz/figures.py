"""Head maps as a matplotlib Figure: a row a query, its photo and box, then a panel a head.

    fig = figures.head_grid(e, [17, 3], "position")
    figures.save(fig, "cat.png")                       # or .pdf, .svg

All panels are one image, composed at the size they are shown (compose.py); text and boxes are
vector artists on top, placed by layout.py. No pyplot, no rcParams: a figure looks the same whatever
a user has configured, and matplotlib is imported when one is drawn, not before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import detr_viz
from detr_viz import compose
from detr_viz.files import replacing
from detr_viz.layout import FigureError, Group, Line, MapRow, Plan, luminance, plan
from detr_viz.lettering import SVG_FALLBACKS, Lettering, clean, drawable
from detr_viz.terms import MODES, Mode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from detr_viz.explanation import Explanation

__all__ = ["FigureError", "draw", "head_grid", "save", "show"]

# 1541 pixels. Text of 6 to 7 pt at this width is still read when the figure is printed in a column
# (3.25 in) and is not too large across a page.
WIDTH_IN, DPI = 4.6, 335.0
SUFFIXES = (".png", ".pdf", ".svg")
WEAK_SCORE = 0.5  # labels of detections below are dimmed

# Okabe and Ito (2008), told apart with any colour vision. A class has its colour in every figure.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")


def head_grid(
    explanation: Explanation,
    queries: Sequence[int],
    mode: str | Mode | Sequence[str | Mode] = "combine",
    *,
    layer: int | None = None,
    scale: str = "mode",
    width_in: float = WIDTH_IN,
    dpi: float = DPI,
    cmap: str | None = None,
    interpolation: str = "cubic",
) -> Figure:
    """Maps of every head for some queries: label, photo with its box, one panel a head.

    queries        ids in the order to show
    mode           one mode (a name, or a Mode of your own), or several: then a row a mode,
                   grouped by query
    layer, scale   as in Explanation.maps; layer None: the last captured one
    width_in, dpi  inches and pixels an inch; the height follows from the photo and the rows
    cmap           name of a matplotlib colour map; None: inferno without its near-black end
    interpolation  between cell centres, cubic or linear; nearest shows the cells themselves
    Each panel is scaled to its own maximum, which is printed in it. The figure carries what it
    shows as `fig.facts` (Title, Software, Description), which `save` writes into the file.
    Raises FigureError for what cannot be drawn, ValueError for a mode, query or layer not there.
    """
    if interpolation not in compose.INTERPOLATIONS:
        have = ", ".join(compose.INTERPOLATIONS)
        raise FigureError(f"interpolation {interpolation!r} is not one of {have}")
    modes = list(dict.fromkeys([mode] if isinstance(mode, str | Mode) else mode))
    if not len(queries) or not modes:
        raise FigureError("nothing to draw: name at least one query and one mode")
    layer = explanation.pick_layer(layer)
    maps = {m: explanation.maps(m, queries, layer, scale) for m in modes}
    place = compose.Placement(explanation.input_hw, explanation.stride, explanation.cell_rule)
    groups = [
        Group(
            title=_class_title(explanation, query),
            detail=f"{explanation.scores[query]:.2f} · query {query}",
            color=PALETTE[int(explanation.labels[query]) % len(PALETTE)],
            weak=bool(explanation.scores[query] < WEAK_SCORE),
            photo=explanation.image.rgb,
            box_xyxy_px=explanation.boxes_xyxy_px[query],
            rows=tuple(MapRow(maps[m][i], place, _mode_name(m)) for m in modes),
        )
        for i, query in enumerate(queries)
    ]
    heads = [str(i) for i in range(explanation.num_heads)]
    notes = _reading_rule(explanation, modes, layer, scale)
    fig = draw(
        groups,
        heads,
        notes,
        lut=_lut(cmap),
        width_in=width_in,
        dpi=dpi,
        interpolation=interpolation,
    )
    fig.facts = _facts(explanation, groups, modes, layer, notes)
    return fig


def _mode_name(mode: str | Mode) -> str:
    return mode if isinstance(mode, str) else "own mode"


def _class_title(explanation: Explanation, query: int) -> str:
    """Class name, or its number, with a warning, where no font here has the characters."""
    name, label = clean(explanation.label_name(query)), int(explanation.labels[query])
    if name and not drawable(name):
        warnings.warn(
            f"no installed font has all characters of {name!r}: the figure says class {label} "
            "(install one that has them, for instance Noto Sans CJK)",
            stacklevel=3,
        )
        name = ""
    return name or f"class {label}"


def _reading_rule(
    explanation: Explanation, modes: Sequence[str | Mode], layer: int, scale: str
) -> list[str]:
    """What a reader must know, once, piece by piece; formulas between dollar signs."""
    h, w = explanation.grid_hw
    notes = [
        clean(explanation.model_title),
        f"decoder layer {layer} of 0\N{EN DASH}{explanation.num_layers - 1}",
    ]
    for mode in modes:
        parts = MODES[mode] if isinstance(mode, str) else mode
        notes.append(f"{_mode_name(mode)}  ${parts.formula}$")
    if scale == "layer":
        notes.append("logits at the layer's own scale")
    if layer == 0 and "content" in modes:
        notes.append("in layer 0 content is the same for every query")
    return [*notes, f"map of {w} \N{MULTIPLICATION SIGN} {h} cells"]


def _facts(
    explanation: Explanation,
    groups: Sequence[Group],
    modes: Sequence[str | Mode],
    layer: int,
    notes: Sequence[str],
) -> dict[str, str]:
    """What the file says of itself. No dates: the same figure is the same file."""
    plain = [" ".join(n.replace("$", "").split()) for n in notes]
    shown = [f"{g.title}, {g.detail.replace(' · ', ', ')}" for g in groups]
    hashes = [
        f"{key.replace('_', ' ')} {explanation.meta[key]}"
        for key in ("weights_sha256", "image_sha256")
        if explanation.meta.get(key)
    ]
    residual = explanation.residuals.get(layer, math.nan)
    checked = "untestable" if math.isnan(residual) else f"residual {residual:.1e}"
    names = ", ".join(map(_mode_name, modes))
    rule = "; ".join([*plain, "each panel scaled to its own maximum", f"self-check {checked}"])
    return {
        "Title": f"{explanation.model_title}: {names} attention of each head",
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([rule, "; ".join(shown), *hashes]),
    }


def draw(
    groups: Sequence[Group],
    heads: Sequence[str],
    notes: Sequence[str],
    *,
    lut: np.ndarray,
    width_in: float = WIDTH_IN,
    dpi: float = DPI,
    interpolation: str = "cubic",
) -> Figure:
    """A page of groups: panels as one image, the rest as vector artists in that image's pixels.

    heads: a name a column; notes: pieces of the reading rule; lut: 256 colours, (256, 3) uint8.
    Raises FigureError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not (0 < width_in < math.inf and 0 < dpi < math.inf):
        raise FigureError(f"a figure cannot be {width_in:g} in wide at {dpi:g} dpi")
    made = plan(groups, heads, notes, width_in=width_in, dpi=dpi)
    # matplotlib cuts inches * dpi down to whole pixels: a hair more keeps the last one. The axes
    # get the same hair, or versions before 3.11 would resample the sheet.
    wide, high = made.width + 1e-3, made.height + 1e-3
    size_in = (wide / dpi, high / dpi)
    fig = Figure(figsize=size_in, dpi=dpi, facecolor="white", layout="none")
    FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.imshow(
        _sheet(groups, made, lut, interpolation),
        extent=(0, made.width, made.height, 0),
        origin="upper",
        aspect="auto",
        interpolation="none",
        resample=False,
    )
    ax.set_xlim(0, wide)
    ax.set_ylim(high, 0)
    _add_boxes(ax, groups, made, dpi)
    pen = Lettering(dpi)
    for line in made.lines:
        _write(ax, line, pen)
    return fig


def _sheet(groups: Sequence[Group], made: Plan, lut: np.ndarray, interpolation: str) -> np.ndarray:
    """All photos and panels on one white page, (height, width, 4) uint8."""
    sheet = compose.blank_sheet(made.height, made.width)
    table = compose.blend_table(lut)
    photos: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # once for all groups that share one
    tops = iter(made.row_tops)
    for i, group in enumerate(groups):
        if id(group.photo) not in photos:
            under = compose.resize_photo(group.photo, made.panel_hw)
            same = made.photo_hw == made.panel_hw
            photo = under if same else compose.resize_photo(group.photo, made.photo_hw)
            photos[id(group.photo)] = photo, compose.backdrop(under)
        photo, ground = photos[id(group.photo)]
        compose.paste(sheet, photo, made.photo_tops[i], made.photo_left)
        plate = None
        if made.number_hw:
            plate = compose.corner_plate(made.panel_hw, made.number_hw, made.corners[i])
        for row in group.rows:
            largest = row.maps.max((1, 2), keepdims=True)
            relative = row.maps / np.where(largest > 0, largest, 1)
            levels = compose.resample(relative, row.place, made.panel_hw, interpolation)
            tiles, top = compose.overlay(levels, ground, table, plate), next(tops)
            for tile, left in zip(tiles, made.panel_lefts, strict=True):
                compose.paste(sheet, tile, top, left)
    return sheet


def _write(ax: Axes, line: Line, pen: Lettering) -> None:
    ax.text(
        line.x,
        line.baseline,
        line.text,
        fontproperties=pen.properties(line.text, line.size_pt, line.style),
        parse_math=False,
        usetex=False,
        color=line.color,
        ha=line.align,
        va="baseline",
        zorder=4,
    )


def _add_boxes(ax: Axes, groups: Sequence[Group], made: Plan, dpi: float) -> None:
    """The box: in the class colour on the photo, white on every panel.

    Each is drawn twice, first wider in the opposite lightness, so that it stands out on any ground.
    """
    from matplotlib.collections import PolyCollection

    px = max(1, round(0.25 * dpi / 72))  # whole pixels: the lines stay sharp
    corners, colors, widths = [], [], []
    tops = iter(made.row_tops)
    for group, photo_top in zip(groups, made.photo_tops, strict=True):
        corners.append(_corners(group, photo_top, made.photo_left, made.photo_hw, 5 * px))
        colors.append(group.color)
        widths.append(3 * px)
        for _ in group.rows:
            top = next(tops)
            for left in made.panel_lefts:
                corners.append(_corners(group, top, left, made.panel_hw, 4 * px))
                colors.append("#ffffff")
                widths.append(2 * px)
    halos = [(1, 1, 1, 0.8) if luminance(c) < 0.3 else (0, 0, 0, 0.6) for c in colors]
    for order, edges, extra in ((2, halos, 2 * px), (3, colors, 0)):
        boxes = PolyCollection(
            corners,
            closed=True,
            facecolors="none",
            edgecolors=edges,
            linewidths=[(w + extra) * 72 / dpi for w in widths],
            antialiaseds=True,
            joinstyle="miter",
            snap=False,
            zorder=order,
        )
        ax.add_collection(boxes, autolim=False)


def _corners(
    group: Group, top: int, left: int, hw: tuple[int, int], line_px: int
) -> list[tuple[float, float]]:
    """Corners of the box in a panel: the line's edges on whole pixels, all of it inside."""
    (height, width), (photo_h, photo_w) = hw, group.photo.shape[:2]
    half, odd = line_px / 2, line_px % 2 / 2
    x0, y0, x1, y1 = (float(v) for v in group.box_xyxy_px)
    xs = [min(max(round(x * width / photo_w - odd) + odd, half), width - half) for x in (x0, x1)]
    ys = [min(max(round(y * height / photo_h - odd) + odd, half), height - half) for y in (y0, y1)]
    return [(left + xs[i], top + ys[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]


def _lut(cmap: str | None) -> np.ndarray:
    """256 colours of a map, (256, 3) uint8. None: inferno without its near-black end, which would
    draw dark rims around what is attended."""
    import matplotlib

    name, start = (cmap, 0.0) if cmap else ("inferno", 0.18)
    if name not in matplotlib.colormaps:
        raise FigureError(f"no colour map {name!r}: try inferno, magma, viridis or cividis")
    return matplotlib.colormaps[name](np.linspace(start, 1, 256), bytes=True)[:, :3]


def save(fig: Figure, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix; an older file is replaced in one rename.

    `fig.facts` and `metadata`, which wins, go into the file: Title, Software, Description, and into
    a PNG any other. No dates: the same figure gives the same bytes. Fonts are embedded as TrueType
    (PDF), text stays text (SVG). Missing folders are made. Raises FigureError for another suffix,
    OutputError for what the disk refuses; nothing half-written is left.
    """
    import matplotlib

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FigureError(f"cannot write {path}: the name must end in {', '.join(SUFFIXES)}")
    kind = path.suffix.lower()[1:]
    options: dict[str, Any] = {"format": kind, "dpi": "figure", "facecolor": "white"}
    options["metadata"] = _metadata(kind, {**getattr(fig, "facts", {}), **(metadata or {})})
    if kind == "png":
        options["pil_kwargs"] = {"compress_level": 4}
    if kind == "svg":
        _name_fallbacks(fig)
    settings = {
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "detr_viz",
        "savefig.bbox": None,
        "savefig.transparent": False,
    }
    with replacing(path) as part, matplotlib.rc_context(settings):
        fig.savefig(part, **options)


def _name_fallbacks(fig: Figure) -> None:
    """Fonts for a viewer that has no DejaVu Sans; only names, what is drawn here stays the same."""
    from matplotlib.text import Text

    for text in fig.findobj(Text):
        families = [f for f in text.get_fontfamily() if f not in SVG_FALLBACKS]
        text.set_fontfamily([*families, *SVG_FALLBACKS])


def _metadata(kind: str, facts: Mapping[str, str]) -> dict[str, str | None]:
    """The facts under the names that each format has for them."""
    if kind == "png":
        return dict(facts)
    names = {"Title": "Title", "Software": "Creator", "Description": "Description"}
    if kind == "pdf":
        names["Description"] = "Subject"
    known: dict[str, str | None] = {names[k]: v for k, v in facts.items() if k in names}
    known["CreationDate" if kind == "pdf" else "Date"] = None
    return known


def show(fig: Figure) -> None:
    """Open a window and wait until it is closed; FigureError where none can be opened."""
    try:
        import matplotlib.pyplot as plt

        # pyplot opens windows only for figures it has made: its factory hands it this one
        plt.figure(FigureClass=lambda *_, **__: fig)
        if fig.canvas.required_interactive_framework is None:
            plt.close(fig)
            raise FigureError("no display to open a window on: write a file instead")
        plt.show()
    except FigureError:
        raise
    except Exception as error:  # every GUI toolkit has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FigureError(f"cannot open a window ({reason}): write a file instead") from error
