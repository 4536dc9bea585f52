"""--gt: annotated boxes in figures, read off the artists."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_explanation import fake, photo
from figure_tools import BOX, at_order, check_page, layout_of, maps_of, photos_of, segments, texts
from matplotlib.colors import to_hex

from detr_viz import figures
from detr_viz.figures.latex_caption import latex
from detr_viz.figures.page.elements import TRUTH_GREEN
from detr_viz.figures.styles import PRESETS, PageFormat, Style
from detr_viz.images.annotated import Annotated

HW = (96, 128)
WHITE, GREEN = 4.15, 4.35
NEAREST, NEAREST_CROWD, OTHER, CROWD, ON_MAP = (0.001 * k for k in range(5))
SHOWN = Style(truth=True)
# the queries of `fake` have the boxes (12.8, 19.2, 44.8, 67.2), (38.4, ...), (64, ...)
BOXES = [[12.8, 19.2, 44.8, 67.2], [80, 40, 120, 90], [2, 70, 30, 94]]


def explained(boxes=BOXES, names=("cat", "bench", "sheep"), crowd=(False, False, True), **more):
    annotated = Annotated.of_boxes(boxes, names, crowd, "a.json")
    return fake(image=SimpleNamespace(rgb=photo(*HW), annotated=annotated), **more)


def lines_at(fig, order):
    found = at_order(fig, order)
    return found, [] if found is None else segments(fig, order)


def on_page(box, tile):
    """Corners of a box of the photo, which the tile shows as a whole."""
    high, wide = tile.hw
    x = np.array(box[::2]) / HW[1] * wide + tile.left
    y = np.array(box[1::2]) / HW[0] * high + tile.top
    return [x[0], y[0], x[1], y[1]]


def bounds(lines):
    points = np.concatenate(lines)
    return [*points.min(0), *points.max(0)]


def test_all_boxes_on_the_photo_and_the_nearest_on_each_map():
    fig = figures.head_grid(explained(), [0], style=replace(SHOWN, zoom="none"))
    (tile,) = photos_of(fig)
    for order, box in ((NEAREST, BOXES[0]), (OTHER, BOXES[1]), (CROWD, BOXES[2])):
        lines, sides = lines_at(fig, GREEN + order)
        assert len(sides) == 4
        np.testing.assert_allclose(bounds(sides), on_page(box, tile), atol=2)
        assert to_hex(lines.get_color()[0]) == TRUTH_GREEN
        _, under = lines_at(fig, WHITE + order)
        np.testing.assert_array_equal(np.concatenate(under), np.concatenate(sides))
    assert lines_at(fig, GREEN + NEAREST_CROWD)[0] is None
    _, sides = lines_at(fig, GREEN + ON_MAP)
    for tile, own in zip(maps_of(fig), np.split(np.array(sides), 8), strict=True):
        np.testing.assert_allclose(bounds(own), on_page(BOXES[0], tile), atol=1.5)
    check_page(fig)


def test_dashes_and_widths():
    fig = figures.head_grid(explained(), [0], style=SHOWN)
    width = {
        k: float(lines_at(fig, GREEN + k)[0].get_linewidths()[0]) for k in (NEAREST, OTHER, CROWD)
    }
    assert width[NEAREST] > 1.5 * width[OTHER] and width[CROWD] == width[OTHER]
    for order in (NEAREST, OTHER, CROWD):
        ((_, dashes),) = lines_at(fig, GREEN + order)[0].get_linestyles()
        on, off = dashes
        assert on > 0 and off > 0
        assert (on < off) == (order == CROWD)  # dots
        ((_, dashes),) = lines_at(fig, WHITE + order)[0].get_linestyles()
        assert dashes is None  # the white under it is a full line
    assert at_order(fig, BOX).get_linestyles()[0][1] is None  # as the predicted box


def test_labels_name_the_nearest_object_and_its_iou():
    fig = figures.head_grid(explained(), [0, 1, 2], style=SHOWN)
    shown = " ".join(texts(fig))
    assert "ground truth cat, IoU 1.00" in shown
    # query 1: 32 x 48 at 38.4; with the cat 6.4 x 48 = 307.2 of 2 * 1536 - 307.2
    assert f"ground truth cat, IoU {307.2 / 2764.8:.2f}".replace("0.", ".") in shown
    # query 2: 64..96 x 19.2..67.2; with the bench 16 x 27.2 = 435.2 of 1536 + 2000 - 435.2
    assert f"ground truth bench, IoU {435.2 / 3100.8:.2f}".replace("0.", ".") in shown


def test_a_query_far_from_all_and_an_image_without_objects():
    far = explained([[120, 90, 127, 95]], ["cat"], [False])
    fig = figures.head_grid(far, [0], style=SHOWN)
    assert "no ground truth there" in " ".join(texts(fig))
    assert at_order(fig, GREEN + NEAREST) is None and at_order(fig, GREEN + ON_MAP) is None
    fig = figures.head_grid(explained([], [], []), [0], style=SHOWN)
    assert "ground truth: no object" in " ".join(texts(fig))


def test_a_crowd_is_nearest_only_where_nothing_else_is():
    e = explained([BOXES[0], [12.8, 19.2, 44.8, 40]], ["sheep", "cat"], [True, False])
    assert "ground truth cat" in " ".join(texts(figures.head_grid(e, [0], style=SHOWN)))
    e = explained([BOXES[0]], ["sheep"], [True])
    fig = figures.head_grid(e, [0], style=SHOWN)
    assert "crowd of sheep, IoU 1.00" in " ".join(texts(fig))
    assert at_order(fig, GREEN + NEAREST_CROWD) is not None


@pytest.mark.parametrize("style", [Style(), Style("heat"), Style("contour")])
def test_without_truth_a_figure_is_as_it_was(style):
    with_boxes, without = explained(), fake()
    a, b = (figures.head_grid(e, [0, 1], style=style) for e in (with_boxes, without))
    assert texts(a) == texts(b) and a.facts == b.facts
    assert len(a.axes[0].collections) == len(b.axes[0].collections)
    # and an image without a file is drawn as without the flag
    bare = fake(image=SimpleNamespace(rgb=photo(*HW), annotated=None))
    c = figures.head_grid(bare, [0, 1], style=replace(style, truth=True))
    assert texts(c) == texts(b)


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("style", ["overlay", "heat", "contour"])
def test_every_layout_and_style(preset, style):
    page_format = PageFormat.of(preset)
    fig = figures.head_grid(
        explained(), [0, 2], style=Style(style, truth=True), page_format=page_format
    )
    check_page(fig)
    _, sides = lines_at(fig, GREEN + NEAREST)
    photos = photos_of(fig)
    assert sides and all(any(tile.holds(side) for tile in photos) for side in sides)


def test_in_a_view_only_the_sides_that_it_shows():
    """A view of .05 of the photo: the object that holds it all has no side there."""
    boxes = [[0, 0, 128, 96], [20, 30, 24, 90]]
    e = explained(boxes, ["sky", "mast"], [False, False])
    e.boxes_xyxy_px[0] = [18, 40, 26, 46]
    fig = figures.head_grid(e, [0], style=replace(SHOWN, zoom=5.0))
    layout = layout_of(fig)
    (panel,) = [p for p in layout.panels if p.row == -1]
    crop = layout.crop_of(panel)
    assert crop.is_part and crop.y0 > 30 and crop.y1 < 90 and crop.x0 < 20 and crop.x1 > 24
    assert at_order(fig, GREEN + OTHER) is None
    _, sides = lines_at(fig, GREEN + NEAREST)
    assert len(sides) == 2  # left and right of the mast; its ends lie outside
    for side, x in zip(sides, (20, 24), strict=True):
        at = (x - crop.x0) / (crop.x1 - crop.x0) * panel.width + panel.left
        np.testing.assert_allclose(side[:, 0], at, atol=1e-6)
        assert side[:, 1].max() - side[:, 1].min() > 0.9 * panel.height


def test_the_foot_the_notes_the_caption_and_the_metadata_say_what_dashes_are():
    fig = figures.head_grid(
        explained(), [0], style=SHOWN, page_format=replace(PageFormat.of(), notes=True)
    )
    assert any("dashed green: ground truth, dotted: crowd" in text for text in _lines(fig))
    assert "Dashed green boxes: annotated objects (ground truth)" in latex(fig.shown, "a.png")
    assert "dashed green boxes: annotated objects" in fig.facts["Description"]
    assert "dotted green: a crowd" in fig.facts["Description"]
    plain = figures.head_grid(explained(crowd=(False,) * 3), [0], style=SHOWN)
    assert not any("dotted" in text for text in [*_lines(plain), plain.facts["Description"]])


def _lines(fig):
    """Texts of the page; runs of one line are joined."""
    rows: dict[int, list] = {}
    for text in fig.axes[0].texts:
        rows.setdefault(round(text.get_position()[1]), []).append(text)
    return [" ".join(t.get_text() for t in row) for row in rows.values()]


def test_hostile_names():
    e = explained([BOXES[0]], ["$\\frac{x$ \x1b[31m\n" + "y" * 900], [False])
    fig = figures.head_grid(e, [0], style=SHOWN)
    check_page(fig)
    assert not re.search(r"[\x00-\x1f]", "".join(texts(fig)))


def test_draw_map_shows_the_nearest_one():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    figures.draw_map(ax, explained(), 0, 2, style=Style(truth=True, zoom="none"))
    green = [c for c in ax.collections if abs(c.get_zorder() - GREEN - ON_MAP) < 1e-9]
    np.testing.assert_allclose(bounds([p.vertices for p in green[0].get_paths()]), BOXES[0], atol=1)
    plt.close(fig)
