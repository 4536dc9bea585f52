"""Several models in one figure: what is said of each, and where it stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from comparison_tools import (
    A,
    B,
    C,
    all_text,
    check_boxes,
    photo_rows,
    placed,
    shared,
    two,
)
from fake_explanation import MODES, fake, one_hot
from figure_tools import (
    BOX,
    TICK,
    captions_of,
    check_page,
    layout_of,
    photos_of,
    segments,
    texts,
)

from detr_viz import figures
from detr_viz.attention.grids import Grid, onto
from detr_viz.detections.matching import Match, SharedObject, shared_objects
from detr_viz.figures.one_grid import one_grid
from detr_viz.figures.panel_rows import MapPanels
from detr_viz.figures.reading_rule import ShownModel
from detr_viz.figures.styles import FigureError, PageFormat, Style

# --- two models -------------------------------------------------------------------------------


def test_an_object_has_a_heading_and_a_row_a_model():
    fig = figures.compare_models([A, B], shared(A, B))
    found = texts(fig)
    assert found.count("DETR") == found.count("Cond-DETR") == 4  # each object: both
    for heading, texts_under in {
        "cat": [
            "boxes: IoU .60",
            "DETR",
            ".98",
            "query 0",
            "Cond-DETR",
            ".97",
            "query 0",
            "dog",
        ],
        "dog": [
            "boxes: IoU 1.00",
            "DETR",
            ".75",
            "query 1",
            "Cond-DETR",
            ".35",
            "tiger · query 1",
            "teapot",
        ],
    }.items():
        (at,) = placed(fig, heading)
        for text in texts_under:  # each not above the one before
            at = min(y for y in placed(fig, text) if y >= at)
        once = [text for text in texts_under if "·" in text or "boxes" in text or text[0] == "."]
        assert len(once) > 2 and all(found.count(text) == 1 for text in once)
    check_page(fig)


def test_a_class_that_differs_is_said_beside_the_model():
    fig = figures.compare_models([A, B], shared(A, B))
    (tiger,), (heading,) = placed(fig, "tiger · query 1"), placed(fig, "dog")
    assert tiger > heading and texts(fig).count("cat") == 1
    last_detr = [y for y in placed(fig, "DETR") if y < tiger][-1]
    model_b = [y for y in placed(fig, "Cond-DETR") if y <= tiger][-1]
    assert heading < last_detr < model_b == tiger == placed(fig, ".35")[0]


def test_what_a_model_does_not_find_is_said_with_its_nearest_query():
    fig = figures.compare_models([A, B], shared(A, B))
    said = all_text(fig)
    nearest = "no matching box (the nearest: query 1, tiger .35, IoU .33)"
    assert said.count(nearest) == 1 and said.count("no matching box") == 2
    alone = [t for t in fig.axes[0].texts if t.get_text() == "no matching box"]
    assert len(alone) == 1 and alone[0].get_style() in ("italic", "oblique")
    assert "IoU .00" not in said
    assert len(photos_of(fig)) == 2 * 4 - 2  # neither photo nor panels for what is not there
    assert len(layout_of(fig).maps) == 3 * 8 + 3 * 5


def test_the_heading_is_the_reference_models():
    """Which has the object's box, whatever the other calls it or in which order they come."""
    objects = shared(A, B)
    assert objects[-1].reference == 1
    fig = figures.compare_models([A, B], objects[-1:])
    assert placed(fig, "teapot") and not placed(fig, "cat", "dog")
    assert {".71", "query 2"} <= set(texts(fig))
    overlap = f"boxes: IoU {two(box_iou(A.boxes_xyxy_px[1], B.boxes_xyxy_px[1]))}"
    fig = figures.compare_models([A, B], [SharedObject(1, (Match(1, 0.6), Match(1, 1.0)))])
    assert placed(fig, "tiger") < placed(fig, "DETR") and not placed(fig, "dog")
    assert {overlap, ".75", "dog · query 1", ".35", "query 1"} <= set(texts(fig))


def test_boxes_are_each_models_own():
    fig = figures.compare_models([A, B], shared(A, B)[:2])
    rows = photo_rows(fig)
    for row, (example, query) in zip(rows, [(A, 0), (B, 0), (A, 1), (B, 1)], strict=True):
        check_boxes(row, fig, example.boxes_xyxy_px[query])


def test_models_with_fewer_heads_leave_columns_empty():
    fig = figures.compare_models([A, B], shared(A, B)[:1])
    first, second = photo_rows(fig)
    assert (len(first), len(second)) == (1 + 8, 1 + 5)
    assert [t.left for t in second] == [t.left for t in first][: 1 + 5]
    found = texts(fig)
    names = ["head 0", *map(str, range(1, 9))]
    assert [found.count(name) for name in names] == [1] * 8 + [0]
    assert len(list(filter(None, captions_of(fig)))) == 8 + 5


def test_maps_are_each_models_own():
    """A looks at the upper left cell of each panel, B at the lower right."""
    a, b = replace(A), replace(B)
    a.made = np.broadcast_to(one_hot(A.grid_hw, (1, 1)), A.made.shape)
    b.made = np.broadcast_to(one_hot(B.grid_hw, (10, 14)), B.made.shape)
    fig = figures.compare_models([a, b], shared(a, b)[:1], style=Style("heat", cmap="gray"))
    sheet = np.asarray(fig.axes[0].images[0].get_array())
    for row, (y, x) in zip(photo_rows(fig), [(8.5 / 96, 8.5 / 128), (160.5 / 192, 224.5 / 256)],
                           strict=True):  # fmt: skip
        for tile in row[1:]:
            at = tile.top + int(y * tile.hw[0]), tile.left + int(x * tile.hw[1])
            assert sheet[at][:3].min() > 200
            opposite = tile.top + tile.bottom - at[0], tile.left + tile.right - at[1]
            assert sheet[opposite][:3].max() < 80


def test_the_reading_rule_says_how_queries_were_matched_and_whose_grid_it_is():
    """In the facts always, under the figure where notes are asked for."""
    notes = PageFormat(4.6, 100, notes=True)
    fig = figures.compare_models([A, B], shared(A, B)[:1], page_format=notes)
    for rule in (all_text(fig), fig.facts["Description"]):
        assert rule.count("queries matched by box IoU") == 1
        assert rule.count("map of 16 \N{MULTIPLICATION SIGN} 12 cells") == 1  # both have that
    finer = replace(B, grid_hw=(24, 32), stride=8)
    finer.made = np.full((3, 5, 24, 32), 1 / 768, np.float32)
    fig = figures.compare_models([A, finer], shared(A, finer)[:1])
    rule = fig.facts["Description"]
    assert "all models: map of 32 \N{MULTIPLICATION SIGN} 24 cells" in rule
    assert "coarser cells spread evenly over these: DETR 16 \N{MULTIPLICATION SIGN} 12" in rule
    assert "matched" not in all_text(fig)
    assert "1 of 32 \N{MULTIPLICATION SIGN} 24 cells" in texts(fig)
    alone = figures.head_grid(A, [0])
    assert "matched" not in alone.facts["Description"]
    alike = figures.compare_models([A, B], shared(A, B)[:1])
    assert "1 of 16 \N{MULTIPLICATION SIGN} 12 cells" in texts(alike)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_models_of_other_grids_are_shown_on_the_finest(order):
    """A cell of 16 x 12 is four of 32 x 24, each with a quarter of its weight."""
    coarse = replace(A, cell_rule="centered")
    finer = replace(B, grid_hw=(24, 32), stride=8, cell_rule="centered")
    finer.made = np.random.default_rng(1).dirichlet(np.ones(768), (3, 5)).astype(np.float32)
    finer.made = finer.made.reshape(3, 5, 24, 32)
    models = [(coarse, finer)[i] for i in order]
    subjects = [ShownModel(e, e.model_title, (5,)) for e in models]
    grid = one_grid(subjects)
    assert grid.hw == (24, 32)
    panels = MapPanels(["combine"], "mode", Style(), grid)
    for subject in subjects:
        panels.collect(subject, [0, 2])
    for subject in subjects:
        (row,) = panels.rows(subject, 5, 2)
        own = subject.explanation.made[2]
        if subject.explanation is coarse:
            own = np.kron(own, np.full((2, 2), 0.25))
        np.testing.assert_allclose(row.maps, own, atol=1e-6)
        assert row.grid.hw == (24, 32)
    fig = figures.compare_models(models, shared(*models)[:1])
    assert fig.shown.grid_hw == (24, 32)
    assert one_grid([ShownModel(e, "x", (5,)) for e in (A, B)]) is None  # both have 16 x 12


def test_a_map_onto_the_grid_of_another_network():
    """By hand: a photo of half a padded input, and a grid of four cells across the photo alone."""
    padded = Grid((1, 4), (8, 32), 8, "centered", valid_hw=(8, 16))
    whole = Grid((1, 4), (8, 32), 8, "centered")
    maps = np.array([[[0.5, 0.25, 0.25, 0.0]]])
    # two cells of the photo over four; the others are padding
    np.testing.assert_allclose(onto(maps, padded, whole), [[[0.25, 0.25, 0.125, 0.125]]])
    np.testing.assert_allclose(onto(maps, whole, padded), [[[0.75, 0.25, 0, 0]]])
    np.testing.assert_allclose(onto(maps, whole, whole), maps)


def test_the_facts_name_all_models_and_what_has_no_match():
    fig = figures.compare_models([A, B], shared(A, B), MODES[:2])
    assert fig.facts["Title"] == ("DETR and Cond-DETR: combine and position attention of each head")
    for part in (
        "DETR: cat, 0.98, query 0; Cond-DETR: cat, 0.97, query 0",
        "DETR: dog, 0.75, query 1; Cond-DETR: tiger, 0.35, query 1",
        "DETR: teapot, 0.62, query 2; Cond-DETR: no match",
        "DETR: no match; Cond-DETR: teapot, 0.71, query 2",
    ):
        assert part in fig.facts["Description"]
    assert [s.name for s in fig.shown.subjects] == ["DETR", "Cond-DETR"]


def test_one_model_compared_is_the_plain_figure():
    pair = [figures.compare_models([A], shared(A)), figures.head_grid(A, [0, 1, 2])]
    assert texts(pair[0]) == texts(pair[1])
    sheets = [np.asarray(fig.axes[0].images[0].get_array()) for fig in pair]
    assert np.array_equal(*sheets)


# --- three models -----------------------------------------------------------------------------


def test_three_models_say_each_ones_iou_with_the_reference():
    """C's first box is A's moved by 2: 38 x 40 in common, 1520 / 1680 = 0.90."""
    fig = figures.compare_models([A, B, C], shared(A, B, C)[:1])
    found = texts(fig)
    joined = {" ".join(found[i : i + 3]) for i in range(len(found))}
    assert "DETR .98 query 0" in joined
    assert {"Cond-DETR .97 query 0 · IoU .60", "DAB-DETR .88 query 0 · IoU .90"} <= joined
    assert not any("boxes: IoU" in text for text in found)
    assert [len(row) for row in photo_rows(fig)] == [9, 6, 4]
    check_page(fig)
    assert fig.facts["Title"].startswith("DETR, Cond-DETR and DAB-DETR: ")


def test_an_object_that_only_the_last_model_has():
    """The two before say so each, and its class is the heading."""
    extra = replace(C, labels=np.array([0, 4]), boxes_xyxy_px=C.boxes_xyxy_px - [[0], [60]])
    objects = shared(A, B, extra)
    fig = figures.compare_models([A, B, extra], objects[-1:])
    assert objects[-1].reference == 2 and all_text(fig).count("no matching box") == 2
    assert "an exceedingly long class name that never ends" in texts(fig)
    check_page(fig)


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("titles", "weights", "names"),
    [
        (("DETR", "DAB-DETR"), ("a.pth", "a.pth"), ["DETR", "DAB-DETR"]),
        (("DETR", "DETR"), ("x/r50.pth", "r101-dc5.pth"), ["r50", "r101-dc5"]),
        (("DETR", "DETR"), ("x/r50.pth", "y/r50.pth"), ["r50 (1)", "r50 (2)"]),
        (("DETR", "DETR"), (None, None), ["DETR (1)", "DETR (2)"]),
        (("DETR", "DETR"), ("my-detr-1.5", "my-detr-1.6"), ["my-detr-1.5", "my-detr-1.6"]),
        (("DETR", "DETR", "DAB"), ("one.pth", "two.pt", "three"), ["one", "two", "three"]),
    ],
)
def test_models_of_one_title_go_by_their_checkpoints(titles, weights, names):
    models = [replace(A, model_title=t, meta={"weights": w})
              for t, w in zip(titles, weights, strict=True)]  # fmt: skip
    fig = figures.compare_models(models, shared(*models)[:1])
    assert [s.name for s in fig.shown.subjects] == names
    assert all(texts(fig).count(name) == 1 for name in names)


def test_names_of_ones_own():
    fig = figures.compare_models([A, A], shared(A, A)[:1], names=["mine\n", "theirs"])
    assert {"mine", "theirs"} <= set(texts(fig)) and "DETR" not in texts(fig)
    with pytest.raises(ValueError):
        figures.compare_models([A, A], shared(A, A), names=["mine"])


def test_nothing_to_compare():
    with pytest.raises(FigureError, match="at least one query"):
        figures.compare_models([A, B], [])


# --- what does not go together ----------------------------------------------------------------


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    import torch
    from torchvision.ops import box_iou

    return float(box_iou(torch.tensor(a)[None], torch.tensor(b)[None])[0, 0])


def test_the_iou_is_that_of_the_boxes_that_are_drawn():
    a, b = fake(layers=(2, 5)), fake(layers=(2, 5), model_title="Cond-DETR")
    b.boxes_xyxy_px[0, 2] += 12
    fig = figures.compare_models([a, b], shared(a, b)[:1], layer=2)
    drawn = box_iou(a.output(2).boxes_xyxy_px[0], b.output(2).boxes_xyxy_px[0])
    assert abs(drawn - box_iou(a.boxes_xyxy_px[0], b.boxes_xyxy_px[0])) > 0.01
    assert f"boxes: IoU {two(drawn)}" in texts(fig)
    assert "matched by box IoU at the last layer" in fig.facts["Description"]


def test_different_images_are_not_compared():
    a, b = fake(), fake(image_hw=(96, 130))
    with pytest.raises(FigureError, match="of different images"):
        figures.compare_models([a, b], shared(a, b))


@pytest.mark.parametrize(("models", "matches"), [(1, 2), (2, 1), (0, 0)])
def test_as_many_matches_as_models(models, matches):
    objects = [SharedObject(0, (Match(0, 1.0),) * matches)]
    with pytest.raises(FigureError, match="must be equally many"):
        figures.compare_models([fake() for _ in range(models)], objects)


def test_a_box_that_is_not_a_number_is_not_drawn():
    example = fake()
    example.boxes_xyxy_px[0] = np.nan
    fig = figures.head_grid(example, [0, 1])
    assert len(segments(fig, BOX)) == 1 and len(segments(fig, TICK)) == 4 * 8
    assert [text for text in captions_of(fig)[:8] if text] == []  # of no box


def test_a_taken_nearest_query_is_said_to_be_taken():
    a, b = fake(scores=(0.9, 0.8, 0.7)), fake(model_title="Cond-DETR")
    a.boxes_xyxy_px[1] = a.boxes_xyxy_px[0]
    fig = figures.compare_models(
        [a, b], shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], [[0, 1], []])
    )
    assert "no matching box left: query 0, IoU 1.00, is another object's" in texts(fig)


def test_long_names_that_begin_alike_are_told_apart():
    a, b = (fake(meta={"weights": f"detr_r50_long_epoch_{n}.pth"}) for n in (50, 60))
    fig = figures.compare_models([a, b], shared(a, b)[:1])
    assert {"…epoch_50", "…epoch_60"} <= set(texts(fig))
    assert fig.facts["Title"].startswith("detr_r50_long_epoch_50 and detr_r50_long_epoch_60:")


def test_one_panel_a_model_keeps_class_score_and_remarks():
    """Side by side where all have a match; else each has a line, under the class."""
    a, b = fake(), fake(model_title="DETR")
    b.image = a.image
    boxes = [e.boxes_xyxy_px for e in (a, b)]
    mean = Style(heads="mean")
    both = shared_objects(boxes, [[0], [0]])
    said = texts(figures.compare_models([a, b], both, style=mean))
    assert {"cat", "Conditional DETR .98", "DETR .98 query 0"} <= set(said)
    b.boxes_xyxy_px = b.boxes_xyxy_px + 500  # nowhere near
    alone = shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], [[0], [0]])
    said = texts(figures.compare_models([a, b], alone[:1], style=mean))
    assert {"cat", "Conditional DETR", ".98", "DETR"} <= set(said)
    assert any(text.startswith("no matching box") for text in said)
    page = replace(PageFormat.of(), letters=True)
    said = texts(figures.compare_models([a, b], alone[:1], style=mean, page_format=page))
    assert [text for text in said if text.startswith("(") and len(text) < 9] == ["(a) cat"]
