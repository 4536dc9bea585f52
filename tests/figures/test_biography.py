"""A query's life: what each layer says of it, and where it changed its mind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import demo_explanation, demo_model
from fake_explanation import fake
from figure_tools import texts, tiles_of
from matplotlib.collections import EllipseCollection

from detr_viz import cli, figures
from detr_viz.explanation.stored import store
from detr_viz.figures.page.elements import ALERT
from detr_viz.figures.styles import PageFormat, Style


def figure(e, query: int, **more):
    return figures.head_grid(e, [query], layer="all", biography=True, **more)


def life(e, query: int, **more) -> list[str]:
    return texts(figure(e, query, **more))


def alerts(fig) -> dict[int, str]:
    """What is said in red, by the layer in whose line it stands."""
    drawn = fig.axes[0].texts
    bases = {t.get_position()[1]: t.get_text() for t in drawn if t.get_text().startswith("layer ")}
    return {
        int(bases[t.get_position()[1]].removeprefix("layer ")): t.get_text()
        for t in drawn
        if t.get_color() == ALERT
    }


def with_outputs(e, change):
    outputs = {layer: change(layer, output) for layer, output in e.outputs.items()}
    return replace(e, outputs=outputs)


def still(layer, output):
    """All layers say what the last one says."""
    return demo_explanation("detr").outputs[2]


def test_a_query_that_stays_what_it_is():
    e = with_outputs(demo_explanation("detr"), still)
    fig = figure(e, 13)
    assert [t for t in texts(fig) if t.startswith("layer")] == ["layer 0", "layer 1", "layer 2"]
    assert alerts(fig) == {}


def test_another_class_is_said_where_it_happens():
    def change(layer, output):
        output = still(layer, output)
        if layer == 0:
            return output
        labels = output.labels.copy()
        labels[13] = (labels[13] + 1) % 6
        return replace(output, labels=labels)

    e = demo_explanation("detr")
    fig = figure(with_outputs(e, change), 13)
    label = e.outputs[2].labels[13]
    was, now = (e.class_names[i] for i in (label, (label + 1) % 6))
    assert alerts(fig) == {1: f"was {was}"}
    details = [t.split()[0] for t in texts(fig) if " · " in t and not t.startswith("DETR")]
    assert details == [was, now, now]
    rule = "red: another class than in the row above, or a box whose IoU with it is < 0.5"
    assert rule in fig.facts["Description"] and "red" not in " ".join(texts(fig))
    notes = " ".join(life(e, 13, page_format=PageFormat(4.6, 100, notes=True)))
    assert notes.count(rule) == 1


@pytest.mark.parametrize(("share", "moved"), [(0.3, False), (0.4, True), (0.7, True)])
def test_a_box_that_moved(share, moved):
    """Along its own width by a share s, it keeps an IoU of (1 - s) / (1 + s): .54, .43 and .18."""

    def change(layer, output):
        output = still(layer, output)
        boxes = output.boxes_xyxy_px.copy()
        if layer == 2:
            boxes[13, [0, 2]] += share * (boxes[13, 2] - boxes[13, 0])
        return replace(output, boxes_xyxy_px=boxes)

    fig = figure(with_outputs(demo_explanation("detr"), change), 13)
    left = f"{(1 - share) / (1 + share):.2f}".removeprefix("0")
    assert alerts(fig) == ({2: f"box moved, IoU {left}"} if moved else {})


def test_the_next_best_classes_of_each_layer():
    """In each layer's line: its own class, then the two that come next, from the best."""
    e = demo_explanation("detr")
    said = life(e, 13)
    for layer, output in e.outputs.items():
        best = np.argsort(-output.class_scores[13], kind="stable")[:3]
        scores = (f"{output.class_scores[13, i]:.2f}".removeprefix("0") for i in best)
        words = [f"{e.class_names[i]} {s}" for i, s in zip(best, scores, strict=True)]
        assert said[said.index(f"layer {layer}") + 1] == " · ".join(words)


def test_reference_points_are_the_networks_own():
    """As the decoder's head of two numbers puts them; DETR's queries have none."""
    import torch

    e, network = demo_explanation("cd_detr"), demo_model("cd_detr").network
    with torch.inference_mode():
        head = network.transformer.decoder.ref_point_head
        expected = head(network.query_embed.weight).sigmoid().numpy() * 512
    np.testing.assert_allclose(e.reference_px, expected, atol=0.02)
    assert demo_explanation("detr").reference_px is None


@pytest.mark.parametrize(("name", "rings"), [("cd_detr", 2 * 3 * 9), ("detr", 0)])
def test_the_reference_point_is_marked(name, rings):
    e = demo_explanation(name)
    fig = figure(e, 9)
    found = [c for c in fig.axes[0].collections if isinstance(c, EllipseCollection)]
    assert sum(len(c.get_offsets()) for c in found) == rings
    assert ("the ring: the query's reference point" in fig.facts["Description"]) is bool(rings)


def test_the_reference_point_is_where_the_network_has_it():
    """One ring in the photo and in every panel, in each at the same place."""
    e = demo_explanation("cd_detr")
    fig = figure(e, 9, style=Style(zoom="none"))
    rings = next(c for c in fig.axes[0].collections if isinstance(c, EllipseCollection))
    at = np.asarray(rings.get_offsets())
    for tile in tiles_of(fig):
        (one,) = [point for point in at if tile.holds(point)]
        share = (one - (tile.left, tile.top)) / tile.hw[::-1]
        np.testing.assert_allclose(share, e.reference_px[9] / 512, atol=0.01)


def test_a_snapshot_draws_the_same():
    e = demo_explanation("cd_detr")
    kept = store(e, [9], ["combine"])
    assert life(kept, 9) == life(e, 9)


def test_the_command(tmp_path, capsys):
    out = f"{tmp_path}/"
    assert cli.main(["--type", "cd_detr", "--biography", "9", "--out", out, "--quiet"]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "scene_1_cd_detr_combine_biography_9.png"
    argv = ["--type", "cd_detr", "--queries", "9", "--layer", "all", "--out", out, "--quiet"]
    assert cli.main(argv) == 0
    assert (tmp_path / "scene_1_cd_detr_combine_layers.png").read_bytes() != path.read_bytes()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--biography", "x"], "is not the number of a query"),
        (["--biography", "-1"], "is not the number of a query"),
        (["--biography", "99"], "99"),
        (["--biography", "3", "--queries", "top:1"], "leave --queries and --layer out"),
        (["--biography", "3", "--layer", "1"], "leave --queries and --layer out"),
        (["--biography", "3", "--attention", "encoder"], "--biography is not for"),
        (["--biography"], "expected one argument"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", *argv], says)


def test_one_letter_an_object_whatever_the_layout():
    for heads in (None, "mean"):
        example, style = fake(layers=tuple(range(6))), Style(heads=heads)
        page = replace(PageFormat.of(), letters=True)
        fig = figures.head_grid(example, [0, 1], layer=[0, 5], style=style, page_format=page)
        found = [t for t in texts(fig) if t.startswith("(")]
        assert found == ["(a) cat", "(b) dog"]
