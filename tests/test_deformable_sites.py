"""The encoder of Deformable DETR, what is removed from it, and what must be equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_tools import deformable_file, explained_at_all_sites, with_photo
from figure_tools import SAMPLES, check_page, rows_of, texts
from matplotlib.collections import EllipseCollection
from network_tools import hooks, tiny
from toys.sampled_adapter import splat

from detr_viz import cli
from detr_viz.attention.grids import on_one_grid
from detr_viz.common.errors import UserError
from detr_viz.explanation.ablation import decoded
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.removals import NOTHING, parse
from detr_viz.figures.encoder import encoder_grid
from detr_viz.figures.styles import Style


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return deformable_file(tmp_path_factory.mktemp("deformable"))


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    return with_photo(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def explained(weights):
    return explained_at_all_sites(weights, "deformable_detr")


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "deformable_detr", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


def test_the_self_check_holds_at_every_site(explained):
    assert set(explained.sites) >= {("encoder", 0), ("decoder", 1), ("cross", 1)}
    for site in explained.sites:
        value = explained._call(site).residual
        assert value < 1e-5 or np.isnan(value)


def encoder_samples(e, layer: int, points) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in pixels of the photo (heads, levels * samples, 2) and weights, by the module."""
    grid, attention = e.grids()[0], e.attention_at(("encoder", layer))
    found = []
    for x, y in points:
        column, row = int(x / 150 * grid.hw[1]), int(y / 110 * grid.hw[0])
        xy, weight = attention.samples("combine", [row * grid.hw[1] + column])
        flat = xy[0].flatten(1, 2).numpy() * (150, 110)
        found.append((flat, weight[0].flatten(1).numpy()))
    return found


def test_cells_of_the_encoder_are_drawn_with_their_samples(explained):
    e, points = explained, [(40, 30), (98, 84)]
    fig = encoder_grid(e, points, ["combine"], style=Style("points"))
    check_page(fig)
    (circles,) = [
        c
        for c in fig.axes[0].collections
        if type(c) is EllipseCollection and c.get_zorder() == SAMPLES
    ]
    drawn = np.asarray(circles.get_offsets())
    panels, count = rows_of(fig), 0  # a row for each point: the photo, then the heads
    assert len(panels) == len(points)
    for (xy, weight), (photo, *heads) in zip(encoder_samples(e, 0, points), panels, strict=True):
        assert len(heads) == len(xy) == 2
        for head, tile in enumerate(heads):
            for panel in (tile, photo):
                scale = np.divide(panel.hw[::-1], (150, 110))
                at = xy[head] * scale + (panel.left, panel.top)
                inside = np.array([panel.holds(one) for one in at]) & (weight[head] > 0.004)
                count += inside.sum()
                if not inside.any():
                    continue
                near = np.abs(at[inside][:, None] - drawn).max(-1).min(1)
                assert near.max() < 0.05
    assert count > 12 and {"stride", "reference"} <= {*texts(fig)}


def test_stored_samples_of_the_encoder_are_those_of_the_network(here, weights, explained):
    """The command draws them in another process, and saves them."""
    more = ["--attention", "encoder", "--points", "40,30", "98,84", "--style", "points"]
    common = [word for word in argv(weights, *more, "--save-maps", "--out", "a.png")]
    del common[common.index("--queries") : common.index("--queries") + 2]
    assert cli.main(common) == 0
    with np.load("a.npz") as saved:
        xy, weight = saved["samples_combine"], saved["sample_weights_combine"]
        layers = saved["layers"].tolist()
    assert xy.shape[:3] == weight.shape[:3] == (len(layers), 2, 2)
    known = encoder_samples(explained, layers[-1], [(40, 30), (98, 84)])
    for i, (places, weights_of) in enumerate(known):
        flat = xy[-1, i].reshape(2, -1, 2) * (150, 110)
        np.testing.assert_allclose(flat, places, atol=1e-3)
        np.testing.assert_allclose(weight[-1, i].reshape(2, -1), weights_of, atol=1e-5)


def test_dense_encoders_take_no_samples(capsys, tmp_path):
    command = ["--attention", "encoder", "--style", "points", "--out", f"{tmp_path}/", "--quiet"]
    assert cli.main(command) == 2
    err = capsys.readouterr().err
    assert "style points shows where heads sample the image" in err and not [*tmp_path.iterdir()]


def test_ablation_of_position_is_the_content_mode(explained):
    """In the first layer, whose queries no other removal has touched."""
    e = explained
    for part, mode in (("position", "content"), ("content", "position")):
        found = e.ablate(part, layers=0)
        expected = e.maps(mode, layer=0)
        np.testing.assert_allclose(found.weights[0].reshape(expected.shape), expected, atol=2e-5)
        assert np.abs(found.before.boxes_xyxy_px - found.after.boxes_xyxy_px).max() > 0.01


def test_ablation_of_a_level_reads_the_others_more(explained):
    e = explained
    attention = e.attention_at(("cross", 0))
    kept = attention.samples()[1].numpy()  # (Q, M, L, P)
    found = e.ablate("level:1", layers=0)
    total = found.weights[0].sum(-1)
    weights, _ = attention.without(parse("level:1"))
    flat = weights.transpose(0, 1).numpy()
    cells = [grid.cells for grid in e.grids(0)]
    assert not flat[..., cells[0] : cells[0] + cells[1]].any()
    np.testing.assert_allclose(on_one_grid(flat, e.grids(0)).sum((2, 3)), total, atol=1e-5)
    assert kept[:, :, 1].sum(-1).mean() > 0.05


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_boxes_are_removed_by_the_places_of_samples(explained, side):
    """In the first layer: the samples left, and their weights, worked out from saved points."""
    e = explained
    found = e.ablate(f"box:{side}", layers=0)
    xy, weight = e.samples(layer=0)  # (Q, M, L, P, 2), (Q, M, L, P)
    low, high = (e.boxes_xyxy_px[:, None, None, None, k : k + 2] for k in (0, 2))
    px = xy * np.array(e.image.hw[::-1])  # no padding
    within = ((low <= px) & (px <= high)).all(-1)
    assert 0.02 < within.mean() < 0.98
    left = np.where(within if side == "outside" else ~within, weight, 0)
    total = left.sum((2, 3), keepdims=True)
    left = np.divide(left, total, out=np.zeros_like(left), where=total > 0)
    flat = [
        splat(torch.from_numpy(xy[:, :, level]), torch.from_numpy(left[:, :, level]), grid.hw)
        for level, grid in enumerate(e.grids(0))
    ]
    expected = on_one_grid(torch.cat(flat, -1).numpy(), e.grids(0))
    np.testing.assert_allclose(found.weights[0].reshape(expected.shape), expected, atol=2e-5)


def test_hidden_cells_by_the_networks_own_kernel_are_those_of_ablations():
    model = tiny("deformable_detr")
    with torch.inference_mode():
        memory = model.network.encode(torch.rand(1, 3, 40, 56))
        cells = memory.shapes[0][0] * memory.shapes[0][1]
        hidden = torch.zeros(3, 4, cells, dtype=torch.bool)
        hidden[1, 2, : cells // 2] = True
        hidden[2, 2] = True
        scores = model.scores_with_hidden(memory, hidden, [0, 1])
        plain = model.decode(memory, [1]).class_scores[1]
    torch.testing.assert_close(scores[:1], plain, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(scores[0, 2], scores[1, 2])
    assert not torch.allclose(scores[1, 2], scores[2, 2])
    assert hooks(model) == 0


def test_faithfulness_hides_cells_of_all_levels(explained):
    """The map's own cells, largest first: each point of the curve by the kernel of ablations."""
    found = faithfulness(explained, [4], ["combine"])
    cells, e = explained.grid().cells, explained
    order = np.argsort(-e.maps(queries=[4])[0].mean(0).ravel(), kind="stable")
    assert sum(grid.cells for grid in e.grids()) > cells
    for share, score in zip(found.shares, found.deletion["combine"][0], strict=True):
        hidden = torch.zeros(12, cells, dtype=torch.bool)
        hidden[4, order[: round(share * cells)].copy()] = True
        out, _ = decoded(e.model, e.memory, NOTHING, found.layers, hidden)
        assert score == pytest.approx(float(out.class_scores[1][0, 4, e.labels[4]]), abs=1e-5)
    score = explained.class_scores[4, explained.labels[4]]
    np.testing.assert_allclose(found.deletion["combine"][0, 0], score, atol=1e-5)
    np.testing.assert_allclose(found.insertion["combine"][0, -1], score, atol=1e-5)
    # nothing left to read: the same end in every order
    ends = {*found.random[0, :, -1].tolist(), float(found.deletion["combine"][0, -1])}
    assert np.ptp(list(ends)) < 1e-6


def test_too_few_tokens_for_the_proposals(tmp_path):
    model = tiny("deformable_detr", refine=True, two_stage=True, num_queries=300)
    with pytest.raises(UserError, match=r"187 tokens, too few for 300 proposals"):
        model.network(torch.rand(1, 3, 40, 56))
