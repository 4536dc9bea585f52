"""The figure of scale attention: each number stands in its place, its bar is as long as it says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from figure_tools import sheet_of

from detr_viz.attention.grids import Grid
from detr_viz.explanation.scales import ScaleAttention
from detr_viz.figures.page.elements import number, percent
from detr_viz.figures.scale_maps import scale_maps_figure
from detr_viz.figures.scales import scales_figure
from detr_viz.figures.styles import FigureError, PageFormat, Style

STRIDES = (8, 16, 32)


def scales(blocks: int = 2) -> ScaleAttention:
    """Numbers that are all different; none where there is no level."""
    weights = np.linspace(0.06, 0.97, blocks * 9, dtype=np.float32).reshape(blocks, 3, 3)
    shares = weights[::-1, ::-1, ::-1].copy()
    for values in (weights, shares):
        values[:, 0, 0] = values[:, 2, 2] = np.nan
    shares[0, 1, 1] = -0.04  # shares are signed
    grids = tuple(Grid((64 // s, 96 // s), (64, 96), s, "centered") for s in STRIDES)
    maps = tuple(np.full((blocks, 3, *grid.hw), np.nan, np.float32) for grid in grids)
    for level, values in enumerate(maps):
        values[:, level == 0 : 3 - (level == 2)] = 0.5  # in each cell of each part
    maps[1][1, 0] = 0.25
    maps[1][1, 0, 1, 4], maps[1][1, 0, 2, 0] = 1.3, -0.2
    return ScaleAttention(weights, shares, grids, maps)


def explanation(**changes):
    values = {
        "scales": scales(),
        "model_title": "Dynamic DETR",
        "image": SimpleNamespace(rgb=np.full((64, 96, 3), 200, np.uint8), hw=(64, 96)),
        "meta": {},
    }
    return SimpleNamespace(**values | changes)


@pytest.mark.parametrize("width", [7.0, 2.6])  # both tables in a line, or one below the other
def test_numbers_and_bars_stand_in_their_places(width):
    fig = scales_figure(explanation(), page_format=PageFormat(width, 200))
    lines, bars = fig.layout_.lines, fig.layout_.bars
    blocks = [line for line in lines if line.text.startswith("block ")]
    assert [line.text for line in blocks] == ["block 0", "block 1"]
    assert (blocks[0].baseline == blocks[1].baseline) == (width == 7.0)
    expected = scales()
    assert len(bars) == np.isfinite(expected.weights).sum() == 14
    for block, row, part in np.argwhere(np.isfinite(expected.weights)).tolist():
        weight = float(expected.weights[block, row, part])
        (bar,) = [bar for bar in bars if bar.value == pytest.approx(weight, abs=1e-7)]
        beside = [
            line for line in lines if abs(line.x - bar.left - bar.width / 2) < 1
        ]  # of this column
        above = max((t for t in beside if t.baseline <= bar.top), key=lambda t: t.baseline)
        below = min((t for t in beside if t.baseline > bar.top), key=lambda t: t.baseline)
        assert above.text == number(weight)
        assert below.text == percent(float(expected.shares[block, row, part]))
        same_line = [t.text for t in lines if t.baseline == above.baseline]
        assert f"stride {STRIDES[row]}" in same_line
        assert blocks[block].x <= bar.left + 1 and blocks[block].baseline < bar.top
    assert sum(line.text == "–" for line in lines) == 4  # noqa: RUF001
    assert max(bar.left + bar.width for bar in bars) <= fig.layout_.width
    assert fig.layout_.width <= width * 200 + 1


def test_its_facts_say_what_is_shown():
    fig = scales_figure(explanation())
    assert fig.facts["Title"] == "Dynamic DETR: scale attention of the encoder"
    assert "3 levels, 2 encoder blocks" in fig.facts["Description"]


def test_maps_of_parts_lie_where_their_cells_are():
    """A panel a block, level and part that there is; what is beyond 0 and 1 is drawn as these."""
    fig = scale_maps_figure(explanation(), page_format=PageFormat(7.0, 200))
    panels = {panel.row: panel for panel in fig.layout_.panels}
    assert sorted(panels) == [-1, *range(14)]  # the photo, and 7 parts a block
    names = [line.text for line in fig.layout_.lines if line.text.startswith("stride ")]
    assert names[:3] == ["stride 8: own", "stride 8: coarser", "stride 16: finer"]
    assert len(names) == 14
    sheet = sheet_of(fig)
    panel = panels[7 + 2]  # block 1, stride 16, finer: 4 x 6 cells
    high, wide = panel.hw[0] / 4, panel.hw[1] / 6

    def lightness(row: int, column: int) -> float:
        top, left = panel.top + round(row * high), panel.left + round(column * wide)
        part = sheet[top + 4 : top + round(high) - 4, left + 4 : left + round(wide) - 4, :3]
        return float(part.mean())

    plain, most, least = lightness(0, 0), lightness(1, 4), lightness(2, 0)
    assert most < plain - 30 and least > plain + 5
    assert lightness(3, 5) == pytest.approx(plain, abs=3)
    texts = [line.text for line in fig.layout_.lines if line.text.startswith("block 1:")]
    expected = scales()
    known = [
        f"block 1: {number(float(expected.weights[1, i, k]))}, "
        f"{percent(float(expected.shares[1, i, k]))}"
        for i, k in np.argwhere(np.isfinite(expected.weights[1])).tolist()
    ]
    assert texts == known
    assert "where the encoder takes which level" in fig.facts["Title"]


def test_what_cannot_be_drawn():
    with pytest.raises(FigureError, match="no scale attention"):
        scale_maps_figure(explanation(scales=None))
    with pytest.raises(FigureError, match="take style overlay or heat"):
        scale_maps_figure(explanation(), style=Style("points"))
    with pytest.raises(FigureError, match="no scale attention"):
        scales_figure(explanation(scales=None))
    with pytest.raises(FigureError, match="too narrow for its tables"):
        scales_figure(explanation(), page_format=PageFormat(1.2, 200))
