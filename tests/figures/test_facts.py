"""What a figure says of itself: formulas of its modes, and the metadata of its files."""

from __future__ import annotations

import pytest
from fake_explanation import FakeExplanation, fake

from detr_viz import figures
from detr_viz.attention.terms import MODES, SEPARATE_COMBINE, Mode
from detr_viz.figures import file_facts, reading_rule
from detr_viz.figures.reading_rule import FigureContents, ShownModel
from detr_viz.figures.styles import NORMS, Style

GENERAL = MODES["combine"].formula


def subject(
    name: str = "DETR", layers: tuple[int, ...] = (5,), example: FakeExplanation | None = None
) -> ShownModel:
    example = example or fake(layers=layers)
    example.residuals = dict.fromkeys(layers, 2.3e-7)
    return ShownModel(example, name, layers)


def shown(
    *subjects: ShownModel, queries: tuple[str, ...] | None = None, **changes: object
) -> FigureContents:
    models = subjects or (subject(),)
    words = queries or tuple(f"cat, 0.98, query {i}" for i in range(len(models)))
    facts_of = {"modes": ("combine",), "scale": "mode", "style": Style(), **changes}
    return FigureContents(models, queries=words, **facts_of)


# --- the line under a figure ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (((5,), (1,)), ["last decoder layer"]),  # both are the last
        (((1,), (1,)), ["decoder layer 1"]),  # of one model it is the last, of the other not
        (((2,), (1,)), []),
    ],
)
def test_the_foot_of_models_with_different_numbers_of_layers(layers, words):
    six, two = fake(layers=layers[0], num_layers=6), fake(layers=layers[1], num_layers=2)
    both = shown(subject("A", layers[0], six), subject("B", layers[1], two))
    assert reading_rule.foot_words(both)[:-1] == words


# --- formulas ---------------------------------------------------------------------------------


def apart(name: str = "B", layers: tuple[int, ...] = (5,)) -> ShownModel:
    """A model that lays content and position side by side, but in layer 0."""
    example = fake(layers=layers)

    def formula(mode: str | Mode, layer: int | None = None) -> str:
        if isinstance(mode, Mode):
            return mode.formula
        return SEPARATE_COMBINE if mode == "combine" and layer else MODES[mode].formula

    example.formula = formula
    return subject(name, layers, example)


@pytest.mark.parametrize(
    ("subjects", "expected"),
    [
        ([subject("A")], [GENERAL]),
        ([subject("A"), subject("B", (0, 5))], [GENERAL]),
        ([apart()], [SEPARATE_COMBINE]),
        ([apart(layers=(3, 5))], [SEPARATE_COMBINE]),
        ([apart(layers=(0,))], [GENERAL]),
        ([apart(layers=(0, 5))], [GENERAL, f"in layer 5 ${SEPARATE_COMBINE}"]),
        ([apart(layers=(0, 1, 5))], [SEPARATE_COMBINE, f"in layer 0 ${GENERAL}"]),
        ([apart("A", (0, 5)), apart("B", (0, 5))], [GENERAL]),  # true of all
        ([apart("A"), apart("B", (1,))], [SEPARATE_COMBINE]),
        ([subject("A"), apart("B", (0,))], [GENERAL]),
        ([subject("A"), apart("B")], [f"A ${GENERAL}", f"B ${SEPARATE_COMBINE}"]),
    ],
)
def test_formulas_hold_for_every_layer_and_model_shown(subjects, expected):
    found = reading_rule.formulas(shown(*subjects), "combine")
    assert found == [f"{words if '$' in words else '$' + words}$" for words in expected]
    rule, said = reading_rule.reading_rule(shown(*subjects)), [f"combine  {found[0]}", *found[1:]]
    first = rule.index(said[0])
    assert rule[first : first + len(said)] == said
    assert reading_rule.formulas(shown(*subjects), "position") == [f"${MODES['position'].formula}$"]
    own = Mode("cpb", "p", "(c_q + p_q) · p_k")
    assert reading_rule.formulas(shown(*subjects), own) == ["$(c_q + p_q) · p_k$"]


# --- metadata ---------------------------------------------------------------------------------


LOOKS = [("contour", None), *((s, n) for s in ("overlay", "heat") for n in (None, *NORMS))]


@pytest.mark.parametrize(("style", "norm"), LOOKS)
def test_metadata_says_how_it_is_drawn(style, norm):
    look = Style(style, norm, "cividis", "linear", contours=(0.5, 0.8, 0.95))
    said = file_facts.metadata(shown(style=look))["Description"]
    assert f"; style {style}, linear interpolation" in said
    assert "; scale mode; " in said
    if style == "contour":
        assert (
            "; inside the lines lie 50, 80 and 95 % of each map's mass (the cells of the largest "
            "weights); maps whose first line would hold more than a third of the image are "
            "coloured instead; style" in said
        )
        assert "normalisation" not in said and "cividis" not in said
    else:
        assert f"normalisation {norm or 'even'} ({NORMS[norm or 'even']})" in said
        assert ", colour map cividis" in said


def test_metadata_names_what_was_left_to_default():
    said = file_facts.metadata(shown(style=Style("heat")))["Description"]
    assert "style heat, nearest interpolation, colour map ember" in said
    assert f"normalisation even ({NORMS['even']})" in said
    said = file_facts.metadata(shown())["Description"]
    assert "style overlay, smooth interpolation (large cells and views: cell by cell), " in said
    assert "colour map ember" in said


NUMBERS = (
    "%: of a map's weight in the box",
    "%: of the image, in the first line",
    "flat: no cell has twice the weight of an even map",
    "after it each map's largest weight",
)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (Style(), (0, 2)),
        (Style("heat", "even"), (0, 2)),
        (Style(norm="head"), (0, 3)),
        (Style("heat", "figure"), (0, 3)),
        (Style("contour"), (1,)),
    ],
)
def test_the_reading_rule_says_what_the_numbers_are(style, expected):
    rule = reading_rule.reading_rule(shown(style=style))
    assert [note for note in rule if note in NUMBERS] == [NUMBERS[i] for i in expected]


def test_metadata_of_several_models_says_whose_is_what():
    early = subject("A", (0, 1), fake(layers=(0, 1), num_layers=3))
    late = subject("B", (5,), fake(input_hw=(48, 64), meta={"weights_sha256": "cd" * 32}))
    late.explanation.residuals = {5: float("nan")}
    found = file_facts.metadata(shown(early, late, modes=("content",)))
    assert found["Title"] == "A and B: content attention of each head"
    assert "image" not in found["Description"]
    for words in (
        "A: decoder layers 0 and 1 of 0\N{EN DASH}2; B: decoder layer 5 of 0\N{EN DASH}5",
        "box, class and score: that layer's own",
        "content c_q \N{MIDDLE DOT} c_k",
        "in layer 0 content is the same for every query",
        "queries matched by box IoU",
        "A: map of 16 \N{MULTIPLICATION SIGN} 12 cells, .005 each if even; "
        "B: map of 8 \N{MULTIPLICATION SIGN} 6 cells, .02 each if even;",
        "A: self-check residual 2.3e-07; B: self-check untestable",
        f"A: weights sha256 {'ab' * 32}",
        f"B: weights sha256 {'cd' * 32}",
    ):
        assert found["Description"].count(words) == 1, words


def test_metadata_names_the_image():
    """Once for all models, for they are shown the same; its file tells which of that name."""
    seen = {"image": "cat.png", "image_sha256": "ef" * 32}
    both = [subject(name, example=fake(meta=dict(seen))) for name in "AB"]
    said = file_facts.metadata(shown(*both))["Description"]
    assert said.endswith(f"query 1. image cat.png sha256 {'ef' * 32}")
    assert said.count("cat.png") == 1


def test_metadata_is_one_line_each_whatever_names_there_are():
    e = fake(names=("a\nb\x00c", "\u2028", "\t"), scores=(0.9, 0.8, 0.7))
    e.model_title, e.meta = "x\r\ny", {"weights": "w\n.pth", "weights_sha256": "ab" * 32}
    e.meta["image_sha256"] = "ef" * 32
    found = figures.head_grid(e, [0, 1, 2]).facts
    assert set(found) == {"Title", "Software", "Description"}
    for value in found.values():
        assert value.isprintable()
    assert "a bc, 0.90, query 0; class 1, 0.80" in found["Description"]
    assert found["Description"].endswith(f". image sha256 {'ef' * 32}")
    assert found["Title"].startswith("x y: ")
    e.meta["image"] = "my\n  cat.png"
    found = figures.head_grid(e, [0, 1, 2]).facts
    assert found["Description"].endswith(f". image my cat.png sha256 {'ef' * 32}")
    assert found["Description"].isprintable()
