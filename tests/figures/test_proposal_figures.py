"""The figure of proposals: its colours, dots, ranks, hatching and boxes against a hand-made map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_explanation import fake
from figure_tools import (
    BOX,
    OLD_BOX,
    check_page,
    layout_of,
    maps_of,
    photos_of,
    pixels,
    segments,
    texts,
    tiles_of,
)
from look_tools import HEAT_GRAY, ember_alone
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_hex

from detr_viz.attention.grids import Grid
from detr_viz.explanation.proposals import Proposals
from detr_viz.figures.page.tokens import HATCH
from detr_viz.figures.proposal_marks import CHOSEN, SHOWN
from detr_viz.figures.proposals import proposal_figure
from detr_viz.figures.styles import PRESETS, FigureError, PageFormat, Style

HW, PHOTO_HW = ((6, 8), (3, 4)), (96, 112)
INPUT_HW, VALID_HW = (48, 64), (48, 56)  # the last column of level 0 is padding
TOKENS = [9, 48 + 5, 18, 21, 36, 48 + 2]  # of queries 0 to 5
HEAT = Style("heat")


def grids(valid_hw=VALID_HW, hw=HW) -> tuple[Grid, ...]:
    return tuple(
        Grid(one, INPUT_HW, 8 * 2**i, "centered", valid_hw, f"level {i}, stride {8 * 2**i}")
        for i, one in enumerate(hw)
    )


def made(queries: int = 6, seed: int = 1, **more) -> Proposals:
    """Scores of .1 to .6; the chosen tokens have .7 and more, query 0 the most."""
    rng = np.random.default_rng(seed)
    flat = rng.uniform(0.1, 0.6, 60).astype(np.float32)
    tokens = np.array((TOKENS * 50)[:queries])
    flat[TOKENS] = np.linspace(0.95, 0.7, 6)
    scores = flat[:48].reshape(6, 8), flat[48:].reshape(3, 4)
    invalid = np.zeros((6, 8), bool), np.zeros((3, 4), bool)
    invalid[0][:, 7] = True  # padding
    invalid[0][0, :3] = invalid[0][5, 2] = True
    scores[0][0, 0] = 0.99  # of a token that is left out: not the end of the colours
    boxes = np.array([[10 + 9 * q, 20, 34 + 9 * q, 50] for q in range(6)] * 50, np.float32)
    values = {
        "rule": "sigmoid of a hand-made logit",
        "tokens": tokens,
        "scores": scores,
        "invalid": invalid,
        "boxes_xyxy_px": boxes[:queries],
        "grids": grids(),
    }
    return Proposals(**{**values, **more})


def example(queries: int = 6, image_hw=PHOTO_HW, **more):
    names = tuple(f"class {q}" for q in range(queries))
    scores = np.linspace(0.98, 0.3, queries)
    return fake(image_hw, names=names, scores=scores, **more)


def figure(queries=(3, 0), style=HEAT, proposals=None, **more):
    proposals = proposals or made()
    e = example(len(proposals.tokens), **more)
    return proposal_figure(e, proposals, queries, style=style), e, proposals


def at(tile, level: int, row: int, column: int) -> np.ndarray:
    """The middle of a cell in its panel: columns lie within the valid 7 / 8 of the input."""
    h, w = HW[level]
    share = np.array([(column + 0.5) / w * 64 / 56, (row + 0.5) / h])
    return share * tile.hw[::-1] + (tile.left, tile.top)


def dots(fig, order: float) -> list[tuple[np.ndarray, str]]:
    """(places, colour) of each kind of dot that is drawn at an order."""
    return [
        (np.asarray(c.get_offsets()), to_hex(c.get_facecolors()[0]))
        for c in fig.axes[0].collections
        if type(c) is EllipseCollection and abs(c.get_zorder() - order) < 1e-9
    ]


def ranks_of(fig) -> list[tuple[str, np.ndarray]]:
    found = [t for t in fig.axes[0].texts if t.get_gid() == "rank"]
    return [(t.get_text(), np.array(t.get_position())) for t in found]


@pytest.mark.parametrize("seed", [1, 2])
def test_colours_are_scores_from_the_lowest_to_the_highest_that_count(seed):
    proposals = made(seed=seed)
    fig, *_ = figure(proposals=proposals)
    check_page(fig)
    valid = [s[~i] for s, i in zip(proposals.scores, proposals.invalid, strict=True)]
    low, high = np.concatenate(valid).min(), np.concatenate(valid).max()
    assert high == np.float32(0.95)
    tones = set()
    for level, (tile, scores) in enumerate(zip(maps_of(fig), proposals.scores, strict=True)):
        for (row, column), score in np.ndenumerate(scores):
            x, y = at(tile, level, row, column)
            if x >= tile.right - 1:
                continue
            left_out = proposals.invalid[level][row, column]
            tone = 0 if left_out else (score - low) / (high - low)
            level_of = np.rint(255 * tone)
            near = [ember_alone(np.clip(level_of + n, 0, 255) / 255, HEAT_GRAY) for n in (-1, 0, 1)]
            shown = pixels(fig, tile)[int(y) - tile.top, int(x) - tile.left].astype(int)
            assert np.abs(shown - np.array(near)).max(-1).min() <= 1, (level, row, column)
            tones.add(int(level_of))
    assert len(tones) > 40


def test_over_the_photo_the_lowest_score_is_bare_and_the_highest_is_dark():
    fig, *_ = figure(style=Style())
    first = maps_of(fig)[0]
    picture = pixels(fig, first).astype(int)

    def shown(row, column):
        x, y = at(first, 0, row, column)
        return picture[int(y) - first.top, int(x) - first.left]

    assert np.ptp(shown(0, 0)) <= 1  # left out: the grey photo
    assert np.ptp(shown(1, 1)) > 30 and shown(1, 1).max() < 90  # token 9


def test_each_chosen_token_has_a_dot_and_those_shown_are_blue():
    fig, _, proposals = figure(queries=(3, 0))
    tiles = maps_of(fig)
    expected = {q: at(tiles[c[0]], *map(int, c)) for q, c in enumerate(proposals.cells)}
    blue = np.concatenate([places for places, _ in dots(fig, SHOWN)])
    assert {ink for _, ink in dots(fig, SHOWN)} == {"#0057b8"}
    np.testing.assert_allclose(blue, [expected[3], expected[0]], atol=0.02)
    others = np.concatenate([places for places, _ in dots(fig, CHOSEN)])
    assert len(others) == 4
    for q in (1, 2, 4, 5):
        assert np.abs(others - expected[q]).max(1).min() < 0.02
    # white on dark colours: all of these have more than .7 of .95
    assert {ink for _, ink in dots(fig, CHOSEN)} == {"#ffffff"}


def test_a_dot_on_a_pale_colour_is_dark():
    proposals = made()
    proposals.scores[0].flat[TOKENS[4]] = 0.2
    fig, *_ = figure(queries=(3,), proposals=proposals)
    inks = {ink: len(places) for places, ink in dots(fig, CHOSEN)}
    assert sum(inks.values()) == 4 or inks["#1a1a1a"] == 1
    assert inks["#1a1a1a"] == 1


def test_the_key_has_the_dots_that_are_there():
    def chosen(queries, proposals=None):
        fig, *_ = figure(queries=queries, proposals=proposals or made())
        return [s.color for s in layout_of(fig).signs if s.kind == "dot"], texts(fig)

    pale = made()
    pale.scores[0].flat[TOKENS[4]] = 0.2
    blue = "#0057b8"
    assert chosen((3,), pale)[0] == [blue, "#1a1a1a"]  # written from the right
    assert chosen((3,))[0] == [blue, "#ffffff"]  # all of the others lie on dark colours
    signs, words = chosen(range(6))
    assert signs == [blue] and "chosen" not in words


def test_numbers_are_ranks_of_the_queries_shown_and_of_the_first_three():
    fig, _, proposals = figure(queries=(3, 5))
    (photo,), (fine, coarse) = photos_of(fig), maps_of(fig)
    where = {tile: [] for tile in (photo, fine, coarse)}
    for text, place in ranks_of(fig):
        (tile,) = [tile for tile in where if tile.holds(place, beyond=1)]
        where[tile].append((text, place))
    assert sorted(t for t, _ in where[photo]) == ["4", "6"]  # ranks of queries 3 and 5
    assert sorted(t for t, _ in where[fine]) == ["1", "3", "4"]  # tokens 9, 18, 21
    assert sorted(t for t, _ in where[coarse]) == ["2", "6"]
    for tile, level in ((fine, 0), (coarse, 1)):
        for text, place in where[tile]:
            (query,) = np.flatnonzero(proposals.ranks == int(text))
            mine = at(tile, level, *proposals.cells[query][1:])
            others = [
                at(tile, level, *c[1:])
                for q, c in enumerate(proposals.cells)
                if q != query and c[0] == level
            ]
            apart = np.linalg.norm(np.array(others) - place, axis=1)
            assert np.linalg.norm(mine - place) < apart.min()


def test_many_numbers_in_one_place_keep_apart_on_lines():
    """Ten queries of neighbouring tokens in a corner."""
    tokens = np.array([9, 10, 11, 17, 18, 19, 25, 26, 27, 33])
    boxes = np.tile(np.array([[4, 4, 9, 9]], np.float32), (10, 1))
    proposals = made(10, tokens=tokens, boxes_xyxy_px=boxes)
    e = example(10)
    e.boxes_xyxy_px[:] = boxes
    page = PageFormat.of("column", dpi=200)
    fig = proposal_figure(e, proposals, range(10), page_format=page)
    check_page(fig)
    listed = [t for t in texts(fig) if t.startswith("query ")]
    assert sum(t in {*map(str, range(1, 11))} for t, _ in ranks_of(fig)) >= 2 * len(listed) - 2


def test_left_out_tokens_are_hatched_and_padding_is_cut_off():
    fig, *_ = figure()
    hatched = [
        c for c in fig.axes[0].collections if type(c) is LineCollection and c.get_zorder() == HATCH
    ]
    (lines,) = hatched  # nothing is left out of level 1
    tile = maps_of(fig)[0]
    shape, affine = lines.get_clip_path().get_transformed_path_and_affine()
    on_canvas = affine.transform(shape.vertices)
    corners = fig.axes[0].transData.inverted().transform(on_canvas).reshape(-1, 5, 2)
    first = tile.left, tile.top
    found = sorted((*np.round(ring.min(0) - first, 3), *np.ptp(ring, 0)) for ring in corners)
    high, wide = tile.hw
    cell = wide / 7, high / 6
    expected = sorted([(0, 0, 3 * cell[0], cell[1]), (2 * cell[0], 5 * cell[1], *cell)])
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert "left out" in texts(fig) and "hatched" in fig.facts["Description"]
    none = made(invalid=(made().invalid[0] & (np.arange(8) == 7), made().invalid[1]))
    other, *_ = figure(proposals=none)
    assert "left out" not in texts(other) and "hatched" not in other.facts["Description"]


def test_boxes_go_from_white_proposals_to_blue_boxes():
    fig, e, proposals = figure(queries=(3, 0))
    (photo,) = photos_of(fig)
    scale = np.divide(photo.hw[::-1], PHOTO_HW[::-1])
    for order, boxes in ((OLD_BOX, proposals.boxes_xyxy_px), (BOX, e.boxes_xyxy_px)):
        rings = segments(fig, order)
        assert len(rings) == 2
        for query, ring in zip((3, 0), rings, strict=True):
            low, high = boxes[query].reshape(2, 2) * scale + (photo.left, photo.top)
            np.testing.assert_allclose(ring.min(0), low, atol=1)
            np.testing.assert_allclose(ring.max(0), high, atol=1)


def test_a_box_that_is_no_box_is_left_out():
    proposals = made()
    proposals.boxes_xyxy_px[0] = np.nan
    fig, *_ = figure(queries=(3, 0), proposals=proposals)
    check_page(fig)
    assert len(segments(fig, OLD_BOX)) == 1 and len(segments(fig, BOX)) == 2


def test_words_say_what_is_shown_and_what_the_score_is_not():
    fig, *_ = figure(queries=(3, 0))
    said = texts(fig)
    assert {"from proposal to box", "level 0, stride 8", "level 1, stride 16"} <= {*said}
    assert "4 of 6, best .95" in said and "2 of 6, best .90" in said
    assert "query 3 · level 0, score .80" in said and "class 3" in said
    assert any("score: sigmoid of a hand-made logit" in text for text in said)
    assert any("6 of 50 tokens become queries" in text for text in said)  # 60 less 10
    facts = fig.facts["Description"]
    assert "sigmoid of a hand-made logit, whatever class a query finds in the end" in facts
    low = min(float(s[~i].min()) for s, i in zip(made().scores, made().invalid, strict=True))
    assert "Queries 3, 0" in facts and f"from {f'{low:.2f}'[1:]} to .95" in facts
    assert fig.facts["Title"] == "Conditional DETR: the tokens of the image that became queries"


def test_more_queries_than_the_list_has_room_for():
    proposals = made(60)
    fig, *_ = figure(queries=range(60), proposals=proposals)
    check_page(fig)
    listed = [t for t in texts(fig) if t.startswith("query ")]
    assert f"and {60 - len(listed)} more" in texts(fig) and 5 <= len(listed) < 20
    assert {t for t, _ in ranks_of(fig)} <= {str(n) for n in range(1, 61)}


SHAPES = {"portrait": (128, 90), "landscape": (96, 144), "panorama": (40, 200)}


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [1, 2, 4, 5])
@pytest.mark.filterwarnings("ignore:the figure is .* high")
def test_nothing_overlaps_in_any_format(preset, shape, levels):
    page = PageFormat.of(preset)
    page = replace(page, dpi=round(180 / page.type_size), letters=levels % 2 == 1, notes=levels > 1)
    hw = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)][:levels]
    rng = np.random.default_rng(levels)
    cells = sum(h * w for h, w in hw)
    scores = tuple(rng.random(one).astype(np.float32) ** 3 for one in hw)
    proposals = Proposals(
        rule="sigmoid of the encoder's class 0 logit",
        tokens=rng.permutation(cells)[:40],
        scores=scores,
        invalid=tuple(
            np.pad(np.zeros((h - 1, w), bool), ((1, 0), (0, 0)), constant_values=i < 1)
            for i, (h, w) in enumerate(hw)
        ),
        boxes_xyxy_px=example(40, SHAPES[shape]).boxes_xyxy_px + 3,
        grids=grids(None, hw),
    )
    count = (1, 5, 12, 40)[(levels + len(shape)) % 4]
    e = example(40, SHAPES[shape])
    fig = proposal_figure(e, proposals, range(count), page_format=page)
    check_page(fig)
    assert len(layout_of(fig).panels) == levels + 1
    sizes = {tile.hw for tile in tiles_of(fig)}
    assert len(sizes) == 1
    if page.height_in < 9:
        assert fig.get_figheight() <= page.height_in + 0.01


def test_letters_stand_before_the_names_of_panels():
    e, proposals = example(), made()
    fig = proposal_figure(e, proposals, [0], page_format=replace(PageFormat.of(), letters=True))
    assert {"(a) from proposal to box", "(b) level 0, stride 8", "(c) level 1, stride 16"} <= {
        *texts(fig)
    }


@pytest.mark.parametrize(
    ("queries", "style", "proposals", "says"),
    [
        ((), HEAT, made(), "at least one query"),
        ((0,), Style("contour"), made(), "scores of tokens have no contour"),
        ((0,), Style("points"), made(), "scores of tokens have no points"),
        ((0,), replace(HEAT, cmap="nosuch"), made(), "no colour map"),
        (
            (0,),
            HEAT,
            made(invalid=(np.ones((6, 8), bool), np.ones((3, 4), bool))),
            "leaves out every token",
        ),
    ],
)
def test_what_cannot_be_drawn(queries, style, proposals, says):
    with pytest.raises(FigureError, match=says):
        proposal_figure(example(), proposals, queries, style=style)
