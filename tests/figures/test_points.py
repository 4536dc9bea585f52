"""The style of sampling points, and the refusals of styles of another kind of attention."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import fake
from figure_tools import at_order, check_page, layout_of, maps_of, photos_of, texts, widths_of
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex

from detr_viz import cli, figures
from detr_viz.attention.grids import Grid
from detr_viz.figures.styles import FigureError, Style

HEADS, STRIDES, POINTS = 4, (8, 16), 2
COLORS = {8: "#0072b2", 16: "#009e73"}  # FIGURES.md
SAMPLES = 5.4  # zorder


def sampled(image_hw=(96, 128), padding: int = 0, reference=None):
    """Two levels; head m's points lie at column (m + 1) / 10, level by level and point by point."""
    example = fake(image_hw, image_hw, heads=HEADS)
    high, wide = image_hw
    xy = np.zeros((3, HEADS, 2, POINTS, 2), np.float32)
    for m in range(HEADS):
        for level in range(2):
            for p in range(POINTS):
                xy[:, m, level, p] = (m + 1) / 10, (1 + level + 2 * p) / 10
    weights = np.zeros((3, HEADS, 2, POINTS), np.float32)
    weights[:] = np.array([[0.4, 0.1], [0.3, 0.2]])
    inside = wide / (wide + padding)
    xy[..., 0] *= inside  # of the padded grid
    grids = tuple(
        Grid(
            (high // s, (wide + padding) // s),
            (high, wide + padding),
            s,
            "centered",
            valid_hw=(high, wide),
        )
        for s in STRIDES
    )
    example.samples = lambda mode, queries, layer=None: (xy[queries], weights[queries])
    example.grids = lambda layer=None: grids
    example.reference_px = reference
    return example, xy / [inside, 1], weights


def circles(fig):
    (found,) = [
        c
        for c in fig.axes[0].collections
        if type(c) is EllipseCollection and c.get_zorder() == SAMPLES
    ]
    return found


@pytest.mark.parametrize("padding", [0, 32])
def test_each_point_is_a_circle_at_its_place_in_each_panel_and_once_for_all_heads(padding):
    example, xy, weights = sampled(padding=padding)
    fig = figures.head_grid(example, [1], style=Style("points"))
    check_page(fig)
    drawn = circles(fig)
    assert len(drawn.get_offsets()) == 2 * HEADS * 2 * POINTS  # in its head's panel, and in all
    panels = dict(enumerate(maps_of(fig)))
    (whole,) = photos_of(fig)
    expected = []
    for m, panel in panels.items():
        for tile in (panel, whole):
            size = np.array([tile.right - tile.left, tile.bottom - tile.top])
            for level, stride in enumerate(STRIDES):
                for p in range(POINTS):
                    at = xy[1, m, level, p] * size + (tile.left, tile.top)
                    expected.append((*at, COLORS[stride], weights[1, m, level, p]))
    found = list(zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True))
    for x, y, color, _ in expected:
        near = [to_hex(c) for (a, b), c in found if abs(a - x) < 0.01 and abs(b - y) < 0.01]
        assert near == [color]


def test_the_area_of_a_circle_follows_its_weight():
    example, _, weights = sampled()
    fig = figures.head_grid(example, [0], style=Style("points"))
    areas = np.sort(widths_of(circles(fig)) ** 2)
    own = np.sort(weights[0].ravel())
    small = areas[: len(areas)][np.argsort(areas)]
    ratios = {round(float(a / small[0]), 3) for a in small}
    shares = {round(float(w / own[0]), 3) for w in own}
    assert shares <= ratios  # in the panels of one size: 1, 2, 3, 4 times the least


def test_a_point_outside_the_photo_is_not_drawn():
    example, xy, weights = sampled()
    beyond = xy.copy()
    beyond[:, 0] = 1.2
    example.samples = lambda mode, queries, layer=None: (beyond[queries], weights[queries])
    fig = figures.head_grid(example, [0], style=Style("points"))
    assert len(circles(fig).get_offsets()) == 2 * (HEADS - 1) * 2 * POINTS


def test_the_key_names_strides_and_weights_and_the_reference():
    example, *_ = sampled(reference=np.full((3, 2), 30.0, np.float32))
    said = texts(figures.head_grid(example, [0], style=Style("points")))
    for words in ("stride", "8", "16", "weight", "10 %", "50 %", "reference"):
        assert words in said
    assert "reference" not in texts(figures.head_grid(sampled()[0], [0], style=Style("points")))


def test_heads_by_number_keep_their_own_points():
    example, xy, _ = sampled()
    fig = figures.head_grid(example, [0], style=Style("points", heads=(2,)))
    (panel,) = maps_of(fig)
    x = {
        round(float(a), 2) for a, _ in circles(fig).get_offsets() if panel.left <= a <= panel.right
    }
    assert x == {round(panel.left + xy[0, 2, 0, 0, 0] * (panel.right - panel.left), 2)}


@pytest.mark.parametrize("style", ["points", "cells"])
def test_attention_of_another_kind_is_one_line(style, refused):
    example = fake()
    example.samples = lambda *_: None
    with pytest.raises(FigureError, match=f"style {style} shows"):
        figures.head_grid(example, [0], style=Style(style))
    refused(["--style", style], f"style {style} shows")


def test_points_and_cells_have_no_norm_and_no_merged_heads():
    with pytest.raises(FigureError, match="says nothing about points"):
        Style("points", "head")
    with pytest.raises(FigureError, match="single heads"):
        figures.head_grid(sampled()[0], [0], style=Style("points", heads="mean"))
    assert layout_of(figures.head_grid(sampled()[0], [0], style=Style("points"))).ramps == ()
    assert at_order(figures.head_grid(sampled()[0], [0], style=Style("points")), 4.3) is None


def test_the_command_names_the_styles(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help-all"])
    assert "circles where a head samples" in " ".join(capsys.readouterr().out.split())
