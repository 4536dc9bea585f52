"""Which queries look at which: rivals and their opacity, matrices, the command, what is refused."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import demo_model
from fake_explanation import fake
from figure_tools import (
    at_order,
    captions_of,
    check_page,
    check_texts,
    rows_of,
    segments,
    sheet_of,
    texts,
    tiles_of,
)
from look_tools import ember_alone, matrix_cells
from matplotlib.collections import PathCollection

from detr_viz import cli, explain
from detr_viz.common import assets
from detr_viz.figures.decoder import ITSELF, decoder_grid
from detr_viz.figures.decoder_matrix import query_matrix
from detr_viz.figures.page.elements import number
from detr_viz.figures.page.query_links import LEAST, MOST
from detr_viz.figures.styles import PRESETS, FigureError, PageFormat, Style

WEIGHTS = np.array(  # of 3 queries and 2 heads, (3, 2, 3)
    [
        [[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]],
        [[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]],
        [[0.9, 0.1, 0.0], [0.2, 0.0, 0.8]],
    ],
    np.float32,
)


@pytest.fixture(scope="module", params=["detr", "cd_detr"])
def explained(request):
    image = assets.find(assets.DEFAULT_IMAGE)
    return explain(demo_model(request.param), image, layers="all", sites=["decoder"])


def by_hand(weights=WEIGHTS, **more):
    """A stand-in of 200 x 100 pixels whose last layer has these weights."""
    count = len(weights)
    values = {"names": ("cat", "dog", "teapot")[:count], "scores": (0.9, 0.8, 0.7)[:count]}
    e = fake(image_hw=(100, 200), heads=weights.shape[1], **{**values, **more})
    e.sites, e.num_queries, e.model = (("cross", 5), ("decoder", 5)), count, SimpleNamespace()
    e.meta = {"weights": "w.pth", "weights_sha256": "ab", "image_sha256": "cd"}
    e.attention = lambda site, mode, rows, scale: weights[list(rows)]
    return e


def drawn(fig):
    """(paths, opacities) of lines and of rivals' boxes."""
    found = [c for c in fig.axes[0].collections if isinstance(c, PathCollection)]
    found.sort(key=lambda c: c.get_zorder())
    return [(c.get_paths(), c.get_edgecolors()[:, 3]) for c in found]


def own_boxes(fig):
    """The query's own box in each panel: a full line under rivals' boxes, dashes over them."""
    under, over = segments(fig, 5.0), segments(fig, 5.3)
    assert [line.tolist() for line in under] == [line.tolist() for line in over]
    assert at_order(fig, 5.3).get_linestyles()[0][1] is not None
    return over


def in_panel(fig, point):
    """Where a point of the page lies: (number of the panel, (x, y) as shares of it)."""
    panels = [tile for row in rows_of(fig) for tile in row[1:]]
    (k,) = [i for i, tile in enumerate(panels) if tile.holds(np.array([point]))]
    high, wide = panels[k].hw
    return k, ((point[0] - panels[k].left) / wide, (point[1] - panels[k].top) / high)


# ---- rivals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "expected"),
    [  # (head, query looked at) -> its share of the scale's end, where that is a quarter at least
        (None, {(0, 0): 1, (0, 1): 0.8, (1, 1): 2 / 7, (1, 2): 1}),
        ("query", {(0, 0): 5 / 7, (0, 1): 4 / 7, (1, 1): 2 / 7, (1, 2): 1}),
    ],
)
def test_rivals_by_hand(norm, expected):
    e = by_hand()
    fig = decoder_grid(e, [0], ["combine"], style=Style(norm=norm))
    (lines, opacity), (boxes, of_boxes) = drawn(fig)
    others = {key: share for key, share in expected.items() if key[1] != 0}
    assert sorted(of_boxes) == pytest.approx(sorted(expected.values()), abs=1e-5)
    assert list(of_boxes) == sorted(of_boxes) and list(opacity) == sorted(opacity)  # best on top
    middles = (e.boxes_xyxy_px[:, :2] + e.boxes_xyxy_px[:, 2:]) / 2 / (200, 100)
    found = {}
    for path, share in zip(lines, opacity, strict=True):
        (k, start), (_, end) = (in_panel(fig, point) for point in path.vertices)
        assert start == pytest.approx(middles[0], abs=0.01)
        (rival,) = [q for q in range(3) if np.abs(middles[q] - end).max() < 0.01]
        found[k, rival] = share
    assert found == pytest.approx(others, abs=1e-5)
    assert len(boxes) == len(expected) and len(own_boxes(fig)) == 2
    assert captions_of(fig) == [f"{ITSELF} .50", ".70"]
    check_page(fig)


@pytest.mark.parametrize("count", [MOST, MOST + 1, 900])
def test_of_many_queries_the_largest_weights_are_drawn(count):
    """Nearly even weights: all are above the least that is drawn, but they would hide the photo."""
    weights = np.linspace(0.9, 1.1, count, dtype=np.float32) / count
    weights = np.random.default_rng(1).permutation(weights)[None, None].repeat(8, 1)
    weights = np.broadcast_to(weights, (count, 8, count))
    more = {"names": ("cat",) * count, "scores": (0.9,) * count}
    fig = decoder_grid(by_hand(weights, **more), [0], ["combine"])
    _, (boxes, opacity) = drawn(fig)
    known = np.sort(weights[0, 0] / weights[0, 0].max())[-MOST:].repeat(8)
    assert len(boxes) == 8 * MOST and opacity.tolist() == pytest.approx(known.tolist(), abs=1e-5)
    foot = " ".join(texts(fig))
    assert f"all but the {MOST} largest of a panel" in fig.facts["Description"]
    assert (f"the {MOST} it looks at most" in foot) == (count > MOST)


def test_itself_is_inside_its_own_box():
    weights = np.zeros((3, 1, 3), np.float32)
    weights[:, 0] = np.eye(3)
    fig = decoder_grid(by_hand(weights), [1], ["combine"])
    ((lines, _), ((box,), (opacity,))), (own,) = drawn(fig), own_boxes(fig)
    assert not lines and opacity == 1
    low, high = own.min(0), own.max(0)
    assert (box.vertices.min(0) > low).all() and (box.vertices.max(0) < high).all()


@pytest.mark.parametrize("norm", ["head", "query", "figure"])
def test_rivals_are_those_of_the_model(explained, norm):
    """All and only those whose weight is a quarter of the scale's end, of every query there is."""
    e, layer = explained, explained.num_layers - 1
    ids = e.by_score()[:3]
    fig = decoder_grid(e, ids, ["content"], layers=[layer], style=Style(norm=norm))
    weights = e.attention(("decoder", layer), "content", ids)
    axes = {"head": 2, "query": (1, 2), "figure": (0, 1, 2)}[norm]
    shares = weights / weights.max(axes, keepdims=True)
    _, (boxes, opacity) = drawn(fig)
    assert sorted(opacity) == pytest.approx(sorted(shares[shares >= LEAST]), abs=1e-5)
    tiles = tiles_of(fig)
    for box in boxes:
        assert sum(tile.holds(box.vertices) for tile in tiles) == 1
    check_page(fig) if norm != "figure" else check_texts(fig)


def test_rivals_boxes_are_that_layers_own(explained):
    """Of layer 0, where the last layer has put them elsewhere."""
    e, query, heads = explained, explained.by_score()[0], (0, 5)
    fig = decoder_grid(e, [query], ["combine"], layers=[0], style=Style(heads=heads))
    _, (paths, _) = drawn(fig)
    weights = e.attention(("decoder", 0), "combine", [query])[0]
    found = {}  # head -> boxes as shares of its panel, the weakest first
    for path in paths:
        ends = [in_panel(fig, point(path.vertices, 0)) for point in (np.min, np.max)]
        found.setdefault(heads[ends[0][0]], []).append(np.ravel([xy for _, xy in ends]))
    apart = {0: [], e.num_layers - 1: []}
    for head in heads:
        shares = weights[head] / weights[head].max()
        rivals = [q for q in np.argsort(shares, kind="stable") if shares[q] >= LEAST]
        assert len(rivals) == len(found[head])
        for rival, box in zip(rivals, found[head], strict=True):
            if rival != query:  # its own is drawn smaller
                for layer, known in apart.items():
                    px = np.clip(e.output(layer).boxes_xyxy_px[rival], 0, 512)
                    known.append(np.abs(box - px / 512).max())
    assert max(apart[0]) < 0.01 < 0.02 < max(apart[e.num_layers - 1])


def test_heads_and_modes_and_layers(explained):
    e, ids = explained, explained.by_score()[:2]
    fig = decoder_grid(
        e, ids, ["combine", "cq.pk + pq.pk"], layers=[0, 2], style=Style(heads=(3, 0))
    )
    said = texts(fig)
    for layer in (0, 2):
        assert said.count(f"layer {layer}") == 2
        for mode in ("combine", "cq.pk + pq.pk"):
            weights = e.attention(("decoder", layer), mode, ids)[:, [3, 0]]
            for value in weights.max(-1).ravel():
                assert any(text.removeprefix(f"{ITSELF} ") == number(value) for text in said)
    assert "box, class and score: that layer's own" in fig.facts["Description"]
    name = e.class_names[e.output(0).labels[ids[0]]]
    assert f"{name} {e.output(0).scores[ids[0]]:.2f}".replace(" 0.", " .") in said


def test_heads_in_one():
    page = PageFormat.of(width_in=12, dpi=100)
    fig = decoder_grid(by_hand(), [0], ["combine"], style=Style(heads="mean"), page_format=page)
    assert "· mean of heads ·" in texts(fig)[-1]
    _, (_, opacity) = drawn(fig)
    assert sorted(opacity) == pytest.approx([0.75, 0.75, 1], abs=1e-5)  # of .3, .3, .4
    fig = decoder_grid(by_hand(), [0], ["combine"], style=Style(heads="sort"))
    assert captions_of(fig) == ["1: .70", f"0: {ITSELF} .50"]


@pytest.mark.parametrize(
    ("queries", "modes", "more", "says"),
    [
        ([], ["combine"], {}, "nothing to draw"),
        ([0], [], {}, "nothing to draw"),
        ([0], ["combine"], {"layers": [4]}, "layer 4 were not captured"),
        ([0], ["combine"], {"style": Style("heat")}, "no map of the image"),
        ([0], ["combine"], {"style": Style(interpolation="linear")}, "no interpolation"),
        ([0], ["combine"], {"style": Style(heads=(2,))}, "no head 2"),
    ],
)
def test_what_cannot_be_drawn(queries, modes, more, says):
    with pytest.raises(FigureError, match=says):
        decoder_grid(by_hand(), queries, modes, **more)
    if queries:  # a matrix of fewer than two has words of its own
        with pytest.raises(FigureError, match=says):
            query_matrix(by_hand(), [*queries, 1], modes, **more)


# ---- matrices -----------------------------------------------------------------------------------


def cells_of(fig):
    """Printed numbers, a list of (text, x, y) a line of text, from the top and from the left."""
    found = [t for t in fig.axes[0].texts if t.get_color() in ("#000000", "#ffffff")]
    lines = {}
    for text in found:
        x, y = text.get_position()
        lines.setdefault(round(y), []).append((x, y, text.get_text()))
    return [sorted(line) for _, line in sorted(lines.items())]


def test_cells_are_the_layers_weights(explained):
    """And what goes to the others is what is missing to 1."""
    e, ids, heads = explained, explained.by_score()[:3], (5, 0)
    fig = query_matrix(
        e,
        ids,
        ["position"],
        layers=[1],
        style=Style(heads=heads),
        page_format=PageFormat.of(width_in=9),
    )
    weights = e.attention(("decoder", 1), "position", ids)
    rows = cells_of(fig)
    assert len(rows) == len(ids)
    for i, row in enumerate(rows):
        expected = []
        for head in heads:
            values = [float(weights[i, head, q]) for q in ids]
            expected += [number(value) for value in (*values, 1 - sum(values))]
        assert [text for _, _, text in row] == [text for text in expected if len(text) <= 4]
    said = texts(fig)
    assert {"head 5", "head 0", "others", *map(str, ids)} <= set(said)
    facts = fig.facts
    assert "each row sums to 1" in facts["Description"]
    assert "self-attention between queries" in facts["Title"]
    assert f"query {ids[2]}" in facts["Description"]


@pytest.mark.parametrize(
    ("norm", "scales"),
    [  # of head 0 and 1, for each row: the weight that has the last colour
        (None, [[0.8, 0.8], [0.8, 0.8]]),
        ("head", [[0.5, 0.5], [0.8, 0.8]]),
        ("query", [[0.7, 0.8], [0.7, 0.8]]),
    ],
)
def test_colours_are_the_weights(norm, scales):
    """Of queries 0 and 2: in head 0 .5 .1 and .05 0, in head 1 .1 .7 and .2 .8."""
    weights = WEIGHTS.copy()
    weights[2, 0] = [0.05, 0.95, 0]
    fig = query_matrix(by_hand(weights), [0, 2], ["combine"], style=Style(norm=norm))
    sheet, cells = sheet_of(fig), matrix_cells(fig)
    assert len(cells) == 2 * 2 * (2 + 1)
    for i, query in enumerate((0, 2)):
        for head in (0, 1):
            given = weights[query, head, [0, 2]]
            of_row = cells[6 * i + 3 * head : 6 * i + 3 * head + 3]
            inks = [sheet[tile.top, tile.left] for tile in of_row]
            for ink, weight in zip(inks, given, strict=False):
                # to the nearest of 256 tones, and of as many inks
                tone = round(float(weight) / scales[head][i] * 255) / 255
                np.testing.assert_allclose(ink, ember_alone(tone), atol=1)
            assert inks[2] == pytest.approx(246 - 126 * (1 - given.sum()), abs=1)


def test_all_queries_leave_no_others():
    said = texts(query_matrix(by_hand(), [0, 1, 2], ["combine"]))
    assert "others" not in said and ".90" in said


def test_heads_of_matrices():
    def rows(heads):
        fig = query_matrix(by_hand(), [2, 1], ["combine"], style=Style(heads=heads))
        rows = [[text for _, _, text in row] for row in cells_of(fig)]
        return rows, [*texts(fig), fig.facts["Description"]]

    mean, _ = rows("mean")  # of (0, .1 | .9) and (.8, 0 | .2); of (0, 1 | 0) and (.4, .3 | .3)
    assert mean == [[".40", ".05", ".55"], [".20", ".65", ".15"]]
    largest, said = rows("max")
    assert largest == [[".80", ".10", ".90"], [".40", "1", ".30"]]
    assert "rows do not sum to 1" in " ".join(said)
    _, said = rows("sort")  # head 0 looks at fewer
    assert said.index("head 0") < said.index("head 1")


def test_sorted_heads_keep_their_matrices():
    """Head 1 looks at fewer: its name is over its own numbers and colours, before head 0."""
    turned = WEIGHTS[:, ::-1].copy()
    turned[1, 1] = [0, 0.95, 0.05]
    fig = query_matrix(by_hand(turned), [2, 1], ["combine"], style=Style(norm="head", heads="sort"))
    rows = [[text for _, _, text in row] for row in cells_of(fig)]
    assert rows == [  # a 0 is left out
        [".10", ".90", ".80", ".20"],
        [".05", ".95", ".40", ".30", ".30"],
    ]
    tiles = matrix_cells(fig)[:6]
    for name, (left, right) in {"head 1": tiles[:3:2], "head 0": tiles[3::2]}.items():
        (x,) = [t.get_position()[0] for t in fig.axes[0].texts if t.get_text() == name]
        assert left.left <= x <= right.right
    inks = [sheet_of(fig)[tile.top, tile.left].tolist() for tile in tiles]
    assert inks[3] == [0x26, 0x07, 0x2F]  # .80, the largest of head 0
    assert inks[0] == [255, 255, 255]  # 0


@pytest.mark.filterwarnings("ignore:the figure is")
@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("count", [2, 5, pytest.param(12, marks=pytest.mark.slow), 40])
def test_nothing_overlaps(preset, count):
    """Long names and many queries included; numbers stay in their cells."""
    rng = np.random.default_rng(count)
    weights = rng.dirichlet(np.full(count + 3, 0.3), (count + 3, 8)).astype(np.float32)
    names = tuple(f"a very long name of the class {i} there is" for i in range(count + 3))
    e = by_hand(weights, names=names, scores=tuple(np.linspace(1, 0, count + 3)))
    page = PageFormat.of(preset, dpi=100)
    modes = ["combine", "position"] if count < 40 else ["combine"]
    fig = query_matrix(e, [*range(count)], modes, page_format=page)
    check_texts(fig)
    assert sheet_of(fig).shape[1] <= round(page.width_in * page.dpi)
    points = np.array([(x, y) for row in cells_of(fig) for x, y, _ in row]).reshape(-1, 2)
    low, high = (np.array(matrix_cells(fig))[:, ends] for ends in ([1, 0], [3, 2]))
    in_tile = ((points[:, None] >= low) & (points[:, None] <= high)).all(-1)
    assert in_tile.any(1).all()


def test_too_many_for_the_page():
    weights = np.full((200, 8, 200), 1 / 200, np.float32)
    e = by_hand(weights, names=("cat",) * 200, scores=(0.5,) * 200)
    with pytest.raises(FigureError, match="too narrow for a matrix of 200 queries"):
        query_matrix(e, [*range(200)], ["combine"], page_format=PageFormat.of(width_in=2, dpi=100))


@pytest.mark.parametrize("queries", [[], [0]])
def test_one_is_no_matrix(queries):
    with pytest.raises(FigureError, match="at least two queries"):
        query_matrix(by_hand(), queries, ["combine"])


# ---- the command --------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    argv = ["--type", "cd_detr", "--attention", "decoder", "--queries", "top:3", "--quiet"]
    assert cli.main([*argv, "--out", f"{tmp_path}/", "--format", "png,svg"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    stem = "scene_1_cd_detr_combine_decoder"
    assert names == [f"{stem}{end}" for end in (".png", ".svg", "_matrix.png", "_matrix.svg")]
    svg = (tmp_path / names[1]).read_text()
    assert "triangle" in svg and "decoder self-attention" in svg
    assert cli.main([*argv, "--out", str(tmp_path / "b.png")]) == 0
    for end in (".png", "_matrix.png"):
        assert (tmp_path / f"b{end}").read_bytes() == (tmp_path / f"{stem}{end}").read_bytes()


def test_one_query_has_no_matrix_and_layers_their_own_output(tmp_path, capsys):
    argv = ["--type", "detr", "--attention", "decoder", "--layer", "all", "--out", f"{tmp_path}/"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert "a matrix of query against query needs two" in said
    assert [path.name for path in tmp_path.iterdir()] == ["scene_1_detr_combine_layers_decoder.png"]


def test_several_at_once(tmp_path):
    argv = ["--type", "detr", "--attention", "cross", "encoder", "decoder", "--queries", "top:2"]
    assert cli.main([*argv, "--out", f"{tmp_path}/folder/", "--quiet"]) == 0
    ends = ("", "_decoder", "_decoder_matrix", "_encoder")
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == sorted(f"scene_1_detr_combine{end}.png" for end in ends)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_another_precision_says_how_far_it_is(tmp_path, capsys, kind):
    argv = ["--type", "detr", "--attention", kind, "--queries", "top:2", "--precision", "bfloat16"]
    assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
    said = re.search(
        r"bfloat16 moves attention weights by up to (\S+) from", capsys.readouterr().out
    )
    assert 0 < float(said[1]) < 0.5


def test_nothing_is_written_where_one_cannot_be(tmp_path, capsys):
    (tmp_path / "a_matrix.png").mkdir()
    argv = ["--type", "detr", "--attention", "decoder", "--out", str(tmp_path / "a.png")]
    assert cli.main([*argv, "--quiet"]) == 2
    assert "a_matrix.png: it is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a_matrix.png"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--style", "heat"], "--style heat is for maps of the image"),
        (["--style", "contour"], "--style contour is for maps of the image"),
        (["--interpolation", "linear"], "--interpolation is for maps of the image"),
        (["--points", "3,4"], "are for --attention encoder"),
        (["--layer", "5"], "no decoder layer 5: this model has 0..2"),
        (["--plot", "terms"], "leave one of them out"),
        (["--ablate", "content"], "--ablate is not for"),
        (["--biography", "3"], "--biography is not for"),
        (["--list-queries"], "--list-queries is not for"),
        (["--type", "cd_detr"], "is for one model"),
        (["--heads", "8"], "no head 8"),
        (["--queries", "99"], "no query 99"),
        (["--queries", "class:dragon"], "no class is named"),
        (["--cmap", "nope"], "no colour map"),
        (["--width", "0.5"], "too narrow"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", "--attention", "decoder", *argv], says)
