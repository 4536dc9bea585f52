"""The figure of salience against a map made by hand, and the arithmetic of its panels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from detr_viz.attention.grids import Grid, shown_cells
from detr_viz.explanation.salience import Salience
from detr_viz.figures.salience import levels_kept, salience_figure
from detr_viz.figures.styles import FigureError, Style

# a photo of 64 x 96 pixels on a canvas of 64 x 128: a quarter of the columns is padding
GRIDS = tuple(
    Grid((64 // s, 128 // s), (64, 128), s, "centered", (64, 96), f"level {i}, stride {s}")
    for i, s in enumerate((8, 16))
)


def salience() -> Salience:
    """One hot token on each level; layer 1 refines half of what layer 0 does."""
    fine, coarse = np.full((8, 16), 0.1, np.float32), np.full((4, 8), 0.1, np.float32)
    fine[2, 3], coarse[3, 5] = 0.9, 0.5
    fine[0, 13] = 1.0  # on padding: it must not set the scale
    kept = np.array([2 * 16 + 3, 128 + 3 * 8 + 5, 128 + 8 + 1, 5 * 16 + 7])
    return Salience((fine, coarse), (kept, kept[:2]), GRIDS)


def explanation(**changes):
    values = {
        "salience": salience(),
        "model_title": "Salience DETR",
        "image": SimpleNamespace(rgb=np.full((64, 96, 3), 200, np.uint8), hw=(64, 96)),
        "meta": {},
    }
    return SimpleNamespace(**values | changes)


def test_masks_shares_and_counts():
    s = salience()
    assert s.num_tokens == 8 * 12 + 4 * 6
    assert s.shares(0) == (2 / 96, 2 / 24) and s.shares(1) == (1 / 96, 1 / 24)
    assert np.argwhere(s.masks(0)[0]).tolist() == [[2, 3], [5, 7]]
    assert np.argwhere(s.masks(1)[1]).tolist() == [[3, 5]]
    assert s.kept_by_all([0, 1]).tolist() == [35, 128 + 29]
    assert [shown_cells(grid) for grid in GRIDS] == [(8, 12), (4, 6)]


def test_a_place_counts_the_levels_whose_cell_there_is_refined():
    """Coarse (1, 1) covers fine rows and columns 2 and 3; fine (2, 3) is refined too."""
    got = levels_kept(salience(), 0)
    expected = np.zeros((8, 16), np.float32)
    expected[2:4, 2:4] += 0.5
    expected[6:8, 10:12] += 0.5
    expected[2, 3] += 0.5
    expected[5, 7] += 0.5
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["overlay", "heat"])
def test_colours_lie_where_the_scores_are(name):
    """The darkest places of a level's panel are those of its hot token; padding is cut off."""
    fig = salience_figure(explanation(), style=Style(name))
    pixels = np.asarray(fig.axes[0].images[0].get_array())[..., :3].astype(float).sum(-1)
    panels = {panel.row: panel for panel in fig.layout_.panels}
    assert sorted(panels) == [-1, 0, 1, 2, 3]
    for row, (y, x), cells in ((0, (2, 3), (8, 12)), (1, (3, 5), (4, 6))):
        panel = panels[row]
        part = pixels[panel.top : panel.top + panel.height, panel.left : panel.left + panel.width]
        hot = [
            slice(round((i + 0.25) * n / c), round((i + 0.75) * n / c))
            for i, n, c in ((y, panel.height, cells[0]), (x, panel.width, cells[1]))
        ]
        inside = part[tuple(hot)]
        assert inside.max() < np.percentile(part, 90) - 60
        assert (part < inside.max() + 1).mean() < 1.6 / (cells[0] * cells[1])
    words = " ".join(line.text for line in fig.layout_.lines)
    assert "encoder layer 1" in words and "stride 16" in words and "4 of 120 tokens" in words
    assert "salience: .10" in words and ".90" in words


def test_what_cannot_be_drawn():
    with pytest.raises(FigureError, match="its encoder refines all tokens"):
        salience_figure(explanation(salience=None))
    with pytest.raises(FigureError, match="take style overlay or heat"):
        salience_figure(explanation(), style=Style("points"))
