"""A map in one's own Axes against the same panel of a page: its pixels, and the lines over it."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT, demo_model
from figure_tools import layout_of, sheet_of, tile_of, widths_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure

from detr_viz import draw_map, explain, head_grid, select, store
from detr_viz.attention.terms import Mode
from detr_viz.figures.styles import FigureError, PageFormat, Style

DPI = 335
FORMAT = PageFormat.of(dpi=DPI)


@pytest.fixture(scope="module")
def explained():
    """Of one image by each kind of attention, and the query to show."""
    found = {}

    def of(kind: str):
        if kind not in found:
            layers = "all" if kind == "sparse_rcnn" else "last"
            e = explain(demo_model(kind), str(ROOT / "image/scene_3.jpg"), layers=layers)
            found[kind] = e, select(e, "top:1")[0]
        return found[kind]

    return of


def own_axes(hw: tuple[int, int], dpi: float = DPI):
    """Axes of so many pixels, in the middle of a figure."""
    fig = Figure((4, 4), dpi=dpi)
    FigureCanvasAgg(fig)
    wide, high = (side / (4 * dpi) for side in hw[::-1])
    return fig.add_axes((0.3, 0.2, wide, high))


def lines_in(ax, to_page, tile) -> list[tuple]:
    """(order, points in pixels of the tile, rounded) of all lines that lie in it."""
    found = []
    for drawn in ax.collections:
        if not isinstance(drawn, LineCollection):
            continue
        for line in drawn.get_segments():
            page = to_page(line)
            inside = (page >= (tile.left - 3, tile.top - 3)).all()
            if inside and (page <= (tile.right + 3, tile.bottom + 3)).all():
                corners = np.rint((page - (tile.left, tile.top)) * 8).astype(int)
                found.append((drawn.get_zorder(), corners.tobytes()))
    return sorted(found)


def circles_in(ax, to_page, scale, tile) -> list[tuple]:
    found = []
    for drawn in ax.collections:
        if isinstance(drawn, EllipseCollection):
            for xy, wide in zip(drawn.get_offsets(), widths_of(drawn), strict=True):
                page = to_page(np.asarray(xy))
                if tile.holds(page):
                    place = np.rint((page - (tile.left, tile.top)) * 4).astype(int)
                    found.append((*place, round(float(wide) * scale * 4)))
    return sorted(found)


CASES = [
    ("detr", "content", Style(), 5, {}),
    ("detr", "combine", Style(zoom="none"), 5, {"norm": "head"}),
    ("cd_detr", "position", Style("contour", zoom="none"), 1, {}),
    ("cd_detr", "cq.ck+pq.pk", Style("heat"), 7, {"norm": "query"}),
    ("cd_detr", Mode("cpb", "p", "q"), Style(zoom=3), 2, {}),
    ("deformable_detr", "combine", Style("points", zoom="none"), 4, {}),
    ("deformable_detr", "content", Style("points", zoom="none"), "all-in-one", {}),
    ("detr", "combine", Style("heat", zoom="none"), "max", {}),
    ("deformable_detr", "position", Style("overlay", zoom="none"), 4, {}),
    ("deformable_detr", "combine", Style("heat", levels=(1,), zoom="none"), 0, {}),
    ("anchor_detr", "combine", Style(zoom="none", cmap="viridis"), 3, {"scale": "layer"}),
    ("sparse_rcnn", "combine", Style("cells"), None, {"layer": 1}),
    ("sparse_rcnn", "combine", Style("overlay", zoom="none"), None, {"layer": 3}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[2].name}-{c[1]}"[:40])
def test_it_is_the_panel_of_a_page(case, explained):
    kind, mode, style, head, more = case
    e, query = explained(kind)
    scale = more.get("scale", "mode")
    together = head if isinstance(head, str) else None
    page_style = Style(**{**vars(style), "norm": more.get("norm"), "heads": together})
    page = head_grid(e, [query], mode, style=page_style, page_format=FORMAT, scale=scale,
                     layer="all" if e.stages else None)  # fmt: skip
    place = more["layer"] if e.stages else 0 if together else head
    (panel,) = [p for p in layout_of(page).maps if p.head == place]
    tile = tile_of(panel)
    ax = own_axes(tile.hw)
    image = draw_map(ax, e, query, head, mode, style=style, dpi=DPI, **more)
    expected = sheet_of(page)[tile.top : tile.bottom, tile.left : tile.right]
    assert np.array_equal(np.asarray(image.get_array())[..., :3], expected)

    (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
    per_px = tile.hw[1] / (x1 - x0), tile.hw[0] / (y1 - y0)

    def to_page(xy):
        return (np.asarray(xy) - (x0, y0)) * per_px + (tile.left, tile.top)

    own = lines_in(ax, to_page, tile)
    # on the page strips may stand beside a panel: they are no lines
    assert own == lines_in(page.axes[0], np.asarray, tile) and own
    dots = circles_in(ax, to_page, per_px[0], tile)
    there = circles_in(page.axes[0], np.asarray, 1, tile)
    assert len(dots) == len(there) and bool(dots) == (style.name == "points")
    assert np.abs(np.array(dots) - np.array(there)).max(initial=0) <= 1


def test_lines_have_the_widths_of_a_page(explained):
    e, query = explained("detr")
    page = head_grid(e, [query], page_format=FORMAT)
    ax = own_axes((200, 200))
    draw_map(ax, e, query, 0, dpi=DPI)
    of_page = {c.get_zorder(): c.get_linewidth()[0] for c in page.axes[0].collections}
    for drawn in ax.collections:
        assert drawn.get_linewidth()[0] == pytest.approx(of_page[drawn.get_zorder()])


def test_the_axes_are_in_pixels_of_the_image(explained):
    e, query = explained("cd_detr")
    ax = own_axes((200, 300))
    ax.set_title("mine")
    image = draw_map(ax, e, query, "mean", "position")
    height, width = e.image.hw
    assert ax.get_xlim() == (0, width) and ax.get_ylim() == (height, 0)
    assert image.get_extent() == [0, width, height, 0] and ax.get_title() == "mine"
    ticks = np.concatenate([s for c in ax.collections for s in c.get_segments()])
    x0, y0, x1, y1 = e.boxes_xyxy_px[query]
    reach = 0.02 * width
    assert ticks.min(0) == pytest.approx((x0, y0), abs=reach)
    assert ticks.max(0) == pytest.approx((x1, y1), abs=reach)


def test_a_map_of_all_heads(explained):
    e, query = explained("detr")
    maps = e.maps("combine", [query])[0]
    pictures = []
    for head in ("mean", None, "max"):
        ax = own_axes((240, 240))
        image = draw_map(ax, e, query, head, style=Style("heat", norm="head", zoom="none"))
        pictures.append(np.asarray(image.get_array())[..., :3].astype(int))
    assert np.array_equal(pictures[0], pictures[1]) and (pictures[0] != pictures[2]).any()
    for picture, one in zip(pictures[1:], (maps.mean(0), maps.max(0)), strict=True):
        darkest = np.unravel_index(picture.sum(-1).argmin(), picture.shape[:2])
        rows = [(np.arange(240) + 0.5) / 240 * 16]
        assert abs(rows[0][darkest[0]] - np.unravel_index(one.argmax(), one.shape)[0]) <= 1.6


@pytest.mark.parametrize("kind", ["detr", "deformable_detr", "anchor_detr", "sparse_rcnn"])
def test_a_stored_explanation_is_drawn_the_same(kind, explained):
    e, query = explained(kind)
    pictures = [
        np.asarray(draw_map(own_axes((160, 160)), one, query, style="heat").get_array())
        for one in (e, store(e, [query], ["combine"], layers=e.layers))
    ]
    assert np.array_equal(*pictures) and pictures[0].std() > 1


def test_without_a_box(explained):
    e, query = explained("detr")
    with_box, without = own_axes((200, 200)), own_axes((200, 200))
    images = [draw_map(ax, e, query, 2, box=ax is with_box) for ax in (with_box, without)]
    assert with_box.collections and not without.collections
    one, other = (np.asarray(image.get_array()) for image in images)
    assert (one != other).any()
    e, query = explained("sparse_rcnn")
    ax = own_axes((200, 200))
    cells = draw_map(ax, e, query, style="cells", box=False)
    assert not ax.collections and (np.asarray(cells.get_array()) < 250).any()


def test_a_users_own_settings_change_nothing(explained):
    import matplotlib

    e, query = explained("cd_detr")
    pictures = []
    for own in ({}, {"image.aspect": "auto", "image.origin": "lower", "lines.linewidth": 9}):
        with matplotlib.rc_context(own):
            ax = own_axes((200, 200))
            draw_map(ax, e, query, 1)
            ax.figure.canvas.draw()
            pictures.append(np.asarray(ax.figure.canvas.buffer_rgba()).copy())
    assert np.array_equal(*pictures)


def polar(fig):
    return fig.add_axes((0, 0, 1, 1), polar=True)


@pytest.mark.parametrize(("kind", "more", "says"), [
    ("detr", {"head": 8}, "no head 8: DETR has 0..7"),
    ("detr", {"head": -1}, "no head -1"),
    ("detr", {"head": "median"}, "heads 'median' is not one of"),
    ("detr", {"head": "all-in-one"}, "take style points"),
    ("detr", {"style": "points"}, "sample the image"),
    ("detr", {"style": "cells"}, "style cells"),
    ("detr", {"style": "overlayed"}, "did you mean"),
    ("detr", {"norm": "figure"}, "take even"),
    ("detr", {"style": Style(norm="figure")}, "take even"),
    ("detr", {"style": "contour", "norm": "head"}, "says nothing about contours"),
    ("detr", {"mode": "terms"}, "one mode"),
    ("detr", {"mode": ["position", "content"]}, "one mode"),
    ("detr", {"style": Style(heads=(1, 2))}, "name it as head="),
    ("detr", {"style": Style(levels="all")}, "1 level"),
    ("deformable_detr", {"style": Style(levels="all")}, "one level"),
    ("sparse_rcnn", {"head": 0}, "has no heads"),
    ("detr", {"query": 99}, "query 99 is not one of 0..19"),
    ("detr", {"layer": 0}, "layer 0 was not captured"),
    ("detr", {"mode": "context"}, "context"),
    ("detr", {"dpi": 1e6}, "choose another dpi"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_one_line(kind, more, says, explained):
    e, query = explained(kind)
    ax = own_axes((200, 200))
    with pytest.raises(ValueError, match=says) as caught:
        draw_map(ax, e, **{"query": query, **more})
    assert "\n" not in str(caught.value)
    assert not ax.images and not ax.collections


@pytest.mark.parametrize("ax", [None, Figure(), Figure().subplots(1, 2),
                                polar(Figure())])  # fmt: skip
def test_what_is_no_axes_is_one_line(ax, explained):
    e, query = explained("detr")
    with pytest.raises(FigureError, match="matplotlib Axes"):
        draw_map(ax, e, query)


@pytest.mark.parametrize("style", ["overlay", "heat"])
@pytest.mark.parametrize("norm", ["even", "head"])
def test_a_color_bar_of_the_image_is_its_key(explained, norm, style):
    """By matplotlib's own means: what colour a weight has, and from where to where."""
    e, query = explained("cd_detr")
    ax = own_axes((300, 300))
    image = draw_map(ax, e, query, 2, norm=norm, style=style)
    bar = ax.figure.colorbar(image)
    largest = float(e.maps("combine", [query])[0, 2].max()) if norm == "head" else 256.0
    assert (bar.vmin, bar.vmax) == (int(norm == "even"), pytest.approx(largest))
    if norm == "even":
        words = [tick.get_text() for tick in bar.ax.get_yticklabels()]
        assert words == [f"\N{MULTIPLICATION SIGN}{4**n}" for n in range(5)]
        # bent: 4 times lies at a quarter of the logarithm
        tones = [float(image.norm(times)) for times in (0.5, 1, 4, 16, 256, 1000)]
        assert tones == pytest.approx([0, 0, 1 - 0.75**1.6, 1 - 0.5**1.6, 1, 1])
        assert np.asarray(image.norm.inverse(image.norm(np.array([16.0])))) == pytest.approx(16)


def test_the_color_bar_has_the_colors_of_the_key_of_a_page(explained):
    e, query = explained("detr")
    fig = head_grid(e, [query], "combine", page_format=FORMAT)
    (ramp,) = [r for r in layout_of(fig).ramps if r.kind == "even"]
    shown = sheet_of(fig)[ramp.top + ramp.height - 2, ramp.left : ramp.left + ramp.width, :3]
    image = draw_map(own_axes((300, 300)), e, query, 2)
    tones = (np.arange(ramp.width) + 0.5) / ramp.width
    expected = image.cmap(tones, bytes=True)[:, :3]
    assert np.abs(shown.astype(int) - expected).max() <= 3  # a tone more or less
