"""Ablations where the answer is known, and what the command makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import demo_explanation, demo_model
from figure_tools import BOX, OLD_BOX, layout_of, photos_of, segments, texts
from matplotlib.collections import PolyCollection
from network_tools import DENSE, hooks, tiny

from detr_viz import cli, explain, figures, models
from detr_viz.attention import kernel
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.explanation import ablation
from detr_viz.explanation.capture import record
from detr_viz.explanation.removals import NOTHING, parse
from detr_viz.figures.styles import Style

IMAGE = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(4))


def encoded(name: str):
    model = tiny(name)
    with torch.inference_mode():
        return model, model.network.encode(IMAGE)


# ---- known answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.names())
def test_nothing_taken_out_is_the_network(name):
    """The kernel that adds term by term against the fused one."""
    model, given = encoded(name)
    with torch.inference_mode():
        plain = model.forward(IMAGE, [1])
    ours, weights = ablation.decoded(model, given, NOTHING, ())
    for key in ("class_scores", "boxes"):
        ours_last, plain_last = getattr(ours, key)[1], getattr(plain, key)[1]
        torch.testing.assert_close(ours_last, plain_last, atol=1e-5, rtol=1e-5)
    assert sorted(weights) == [0, 1] and hooks(model) == 0


def test_a_term_that_is_zero_changes_nothing_to_the_bit():
    """Conditional DETR lays content and position apart, but for its first layer."""
    e = demo_explanation("cd_detr")
    for name in ("term:cq.pk", "term:pq.ck"):
        found = e.ablate(name, layers=[1, 2])
        np.testing.assert_array_equal(found.before.class_scores, found.after.class_scores)
        np.testing.assert_array_equal(found.before.boxes_xyxy_px, found.after.boxes_xyxy_px)
        first = e.ablate(name, layers=0)
        assert not np.array_equal(first.before.class_scores, first.after.class_scores)


@pytest.mark.parametrize("name", DENSE)
def test_one_key_left_gives_its_value(name):
    model, given = encoded(name)
    hidden = torch.ones(1, 4, given.memory.shape[1], dtype=torch.bool)
    keys = [7, 0, 20, 34]
    hidden[0, range(4), keys] = False
    given_on = []
    site = model.attention_sites()["cross", 1]
    # once for what the network itself attended with, then for what is put in its place
    handle = site.module.out_proj.register_forward_hook(lambda _, args, out: given_on.append(out))
    with record(model.attention_sites(), [("cross", 1)]) as calls:
        _, weights = ablation.decoded(model, given, parse("box:outside"), [0, 1], hidden[0])
    handle.remove()
    for query, key in enumerate(keys):
        assert (weights[1][:, query, key] == 1).all()
    with torch.inference_mode():
        value = calls["cross", 1].attention.value[:, keys]
        expected = site.project_out(kernel.merge_heads(value))
    torch.testing.assert_close(given_on[-1], expected)


def test_no_key_left_is_no_attention():
    model, given = encoded("detr")
    hidden = torch.zeros(1, 4, given.memory.shape[1], dtype=torch.bool)
    hidden[0, 2] = True
    out, weights = ablation.decoded(model, given, parse("box:inside"), [0, 1], hidden[0])
    assert not weights[0][:, 2].any() and out.class_scores[1].isfinite().all()
    np.testing.assert_allclose(weights[0][:, 1].sum(-1), 1, atol=1e-5)


def test_a_head_that_is_taken_out_adds_nothing():
    """Against a network whose output projection has no columns for it."""
    model, given = encoded("detr")
    without, weights = ablation.decoded(model, given, parse("head:1"), [0, 1])
    assert not weights[1][1].any() and weights[1][0].all()
    for layer in model.network.transformer.decoder.layers:
        layer.multihead_attn.out_proj.weight.unflatten(1, (2, -1))[:, 1] = 0
    cut, _ = ablation.decoded(model, given, NOTHING, ())
    torch.testing.assert_close(without.class_scores[1], cut.class_scores[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "left"),
    [("position", "cq.ck"), ("content", "pq.pk"), ("term:cq.pk", "cq.ck+pq.ck+pq.pk")],
)
def test_what_is_left_attends(name, left):
    """In the first layer, whose queries no other removal has touched."""
    e = demo_explanation("detr")
    found = e.ablate(name, layers=0)
    maps = found.weights[0].reshape(e.num_queries, 8, *e.grid_hw)
    np.testing.assert_allclose(maps, e.maps(left, layer=0), atol=2e-5)


def test_cells_in_a_box():
    """By hand: 16 x 16 cells of stride 8 on 128 x 128, of an image of 256 x 256."""
    e = explain(demo_model("detr"), np.full((256, 256, 3), 120, np.uint8))
    assert e.grid_hw == (16, 16) and e.input_hw == (128, 128)
    y, x = e.cell_centers_px()
    np.testing.assert_allclose(x[:3], [1, 17, 33])  # (8 i + 0.5) * 2
    np.testing.assert_allclose(y, x)
    object.__setattr__(e, "boxes_xyxy_px", np.asarray([[0, 16, 40, 20]], np.float32))
    object.__setattr__(e, "scores", np.ones(1, np.float32))
    inside = e.cells_inside().reshape(16, 16)
    assert np.argwhere(inside).tolist() == [[1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_what_is_hidden_has_no_weight(side):
    e = demo_explanation("cd_detr")
    found = e.ablate(f"box:{side}")
    hidden = e.cells_inside() if side == "inside" else ~e.cells_inside()
    for weights in found.weights.values():
        assert not weights.transpose(0, 2, 1)[hidden].any()
        full = ~hidden.all(-1)
        np.testing.assert_allclose(weights.sum(-1)[full], 1, atol=1e-5)


def test_the_layers_that_were_not_named_stay():
    e = demo_explanation("detr")
    found = e.ablate("head:2", layers="last")
    assert found.layers == (2,) and sorted(found.weights) == [0, 1, 2]
    assert found.weights[1][:, 2].any() and not found.weights[2][:, 2].any()


def test_iou_and_scores_are_of_the_same_queries():
    e = demo_explanation("detr")
    found = e.ablate("head:3")
    from detr_viz.detections.boxes import iou

    for query in (0, 13):
        boxes = found.before.boxes_xyxy_px[[query]], found.after.boxes_xyxy_px[[query]]
        assert found.iou[query] == pytest.approx(iou(*boxes)[0, 0])
        label = found.before.labels[query]
        assert found.kept_scores()[query] == found.after.class_scores[query, label]
    # another kernel: rounding, as much as between machines (README, the table of noise)
    np.testing.assert_allclose(found.before.scores, e.scores, atol=5e-5)


@pytest.mark.parametrize(
    "text", ["", "positions", "head:", "head:-1", "term:", "term:cq.pp", "box", "box:in", "x:1"]
)
def test_what_cannot_be_taken_out(text):
    with pytest.raises(ValueError, match="cannot be removed"):
        parse(text)
    with pytest.raises(ValueError):
        demo_explanation("detr").ablate(text)


def test_heads_and_layers_that_there_are_not():
    with pytest.raises(UserError, match=r"no head 8: this model has 0\.\.7"):
        demo_explanation("detr").ablate("head:8")
    with pytest.raises(UserError, match="no decoder layer 3"):
        demo_explanation("detr").ablate("head:0", layers=3)


# ---- figure and command -------------------------------------------------------------------------


def test_the_figure():
    e = demo_explanation("detr")
    query = e.by_score()[0]
    found = [e.ablate(name) for name in ("position", "box:inside")]
    fig = figures.head_grid(e, [query], layer=2, style=Style(heads=(0, 3)), ablations=found)
    said = texts(fig)
    assert "as it is" in said
    was = e.class_names[e.labels[query]]
    for words, part in zip(("without position", "box hidden"), found, strict=True):
        left = f"{part.kept_scores()[query]:.2f}".removeprefix("0")
        now, row = part.after.labels[query], said[said.index(words) + 1]
        changed = now != part.before.labels[query]
        assert row == (
            f"becomes {e.class_names[now]}, {was} {left}" if changed else f"{was} {left}"
        )
        (drawn,) = [t for t in fig.axes[0].texts if t.get_text() == row]
        assert (drawn.get_color() == "#b3261e") == bool(changed)
    rule = fig.facts["Description"]
    assert "layers 0, 1 and 2" in rule and "hidden: the cells" in rule


@pytest.mark.parametrize("heads", [(0, 3), "mean"])
def test_bars_are_the_scores_that_are_left(heads):
    """Under each photo, as wide as it is; a removed head is crossed out."""
    e = demo_explanation("detr")
    query = e.by_score()[0]
    found = [e.ablate(name) for name in ("position", "head:3")]
    fig = figures.head_grid(e, [query], layer=2, style=Style(heads=heads), ablations=found)
    scores = [e.scores[query], *(part.kept_scores()[query] for part in found)]
    (bars,) = [c for c in fig.axes[0].collections if isinstance(c, PolyCollection)]
    ends = [np.hstack([p.vertices.min(0), p.vertices.max(0)]) for p in bars.get_paths()]
    for photo, score, whole, part in zip(
        photos_of(fig), scores, ends[::2], ends[1::2], strict=True
    ):
        assert (whole[0], whole[2]) == (photo.left, photo.right)
        assert photo.bottom < whole[1] < photo.bottom + photo.hw[0] / 4
        np.testing.assert_allclose(part[[0, 1, 3]], whole[[0, 1, 3]])
        assert part[2] - part[0] == pytest.approx(score * photo.hw[1], abs=1e-3)
    if heads == "mean":  # no panel is of one head alone
        return
    (cross,) = segments(fig, 5.0)
    (removed,) = [p for p in layout_of(fig).maps if (p.group, p.head) == (2, 1)]
    assert cross.min(0).tolist() == [removed.left, removed.top]
    assert np.ptp(cross, 0).tolist() == [removed.width, removed.height]
    assert "removed" in texts(fig)


def test_the_command(tmp_path, capsys):
    out = tmp_path / "a.png"
    argv = ["--type", "cd_detr", "--ablate", "position", "head:2", "--ablate-in", "last"]
    assert cli.main([*argv, "--queries", "top:2", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if "score before, after" in line]
    e = explain(demo_model("cd_detr"), assets.find(assets.DEFAULT_IMAGE))
    rows = [line.split() for line in lines[at + 1 : at + 5]]
    for row, (query, name) in zip(
        rows, [(q, n) for q in e.by_score()[:2] for n in ("position", "head:2")], strict=True
    ):
        found = e.ablate(name, layers="last")
        assert row[:1] + row[2:3] == [str(query), name]
        assert float(row[4]) == pytest.approx(found.kept_scores()[query], abs=6e-4)
        assert float(row[5]) == pytest.approx(found.iou[query], abs=6e-3)
    assert out.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ablate", "nose"], "write position, content, head:N"),
        (["--ablate", "head:9"], "no head 9"),
        (["--ablate", "head:1", "--ablate-in", "5"], "no decoder layer 5"),
        (["--ablate", "head:1", "--ablate-in", "x"], "--ablate-in"),
        (["--ablate", "content", "--plot", "position"], "leave --plot and --terms out"),
        (["--ablate", "content", "--terms", "cq.ck"], "leave --plot and --terms out"),
        (["--ablate"], "expected at least one argument"),
        (["--ablate-in", "0"], "--ablate-in is for --ablate"),
        (["--ablate", "content", "--list-queries"], "leave --list-queries out"),
        (["--ablate", "content", "--layer", "all"], "--ablate shows the last layer"),
        (["--ablate", "content", "--biography", "3"], "--ablate shows the last layer"),
        (["--plot", "terms", "--style", "contour"], "terms have no contours"),
        (["--plot", "terms", "--heads", "mean"], "terms are those of single heads"),
        (["--heads", "0,00"], "are not heads"),
        (["--heads", "8"], "no head 8: DETR has 0..7"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", *argv], says)


def test_a_row_has_the_maps_and_the_box_of_its_own_query():
    from detr_viz.figures.panel_rows import AblationPanels
    from detr_viz.figures.reading_rule import ShownModel

    e = demo_explanation("detr")
    found = e.ablate("position")
    panels = AblationPanels(Style(), [[found]])
    subject = ShownModel(e, "DETR", (2,))
    panels.collect(subject, [13, 14])
    for query in (13, 14):
        (as_it_is,) = panels.rows(subject, 2, query)
        (without,) = panels.without(subject, 2, query, found)
        np.testing.assert_array_equal(without.maps.reshape(8, -1), found.weights[2][query])
        np.testing.assert_allclose(as_it_is.maps, e.maps("combine", [query], 2)[0], atol=1e-6)
        assert as_it_is.boxes_xyxy_px is without.boxes_xyxy_px is None  # that of its group


def test_the_box_of_a_row_is_drawn():
    """And the box before in white under it."""
    e = demo_explanation("detr")
    found = e.ablate("position")
    fig = figures.head_grid(e, [13], layer=2, style=Style(heads=(0,)), ablations=[found])
    corners = [*segments(fig, BOX), *segments(fig, OLD_BOX)]  # as it is, without; before
    sizes = [np.ptp(c[:, 0]) / np.ptp(c[:, 1]) for c in corners]
    wanted = [e.outputs[2].boxes_xyxy_px[13], found.after.boxes_xyxy_px[13]]
    before, after = ((b[2] - b[0]) / (b[3] - b[1]) for b in wanted)
    np.testing.assert_allclose(sizes, [before, after, before], rtol=0.12)
    assert photos_of(fig)[1].holds(corners[2])
    assert abs(before / after - 1) > 0.15  # a real test


def test_no_cell_in_the_box_is_said():
    from detr_viz.render.tables import ablation_table

    e = demo_explanation("detr")
    tiny = e.boxes_xyxy_px.copy()
    tiny[13] = [100, 100, 101, 101]
    small = replace(e, boxes_xyxy_px=tiny)
    found = [small.ablate("box:outside")]
    assert "(no cell in its box)" in ablation_table(small, [13], found)
    assert "(no cell in its box)" not in ablation_table(small, [14], found)
    fig = figures.head_grid(small, [13], layer=2, ablations=found)
    assert "no cell in its box" in texts(fig)
    assert "all but the box hidden" in texts(fig)


def test_an_object_that_a_model_does_not_have(tmp_path, capsys):
    """Two models, an object that one of them lacks; each table says whose it is."""
    from PIL import Image

    image = tmp_path / "wide.jpg"
    Image.open(assets.find(assets.DEFAULT_IMAGE)).resize((1200, 100)).save(image)
    argv = ["--type", "detr", "cd_detr", "--ablate", "position", "--image", str(image)]
    for query in ("5", "7", "17"):
        assert cli.main([*argv, "--queries", query, "--out", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert out.count("DETR (detr_demo.pth)\nquery  class") >= 3
