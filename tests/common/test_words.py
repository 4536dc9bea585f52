"""Words that people type: names behind aliases, and suggestions that are never the word itself."""

from __future__ import annotations

import pytest

from detr_viz.common.words import did_you_mean, nearest, plain, resolve

NAMES = {"cd_detr": ("Conditional DETR", "cond"), "detr": ("DETR",), "2d": ()}


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("cd_detr", "cd_detr"),
        ("CD-DETR", "cd_detr"),
        ("conditional_detr", "cd_detr"),
        ("Conditional DETR", "cd_detr"),
        ("COND", "cd_detr"),
        ("DETR", "detr"),
        ("2-D", "2d"),
        ("conditional", None),
        ("", None),
        ("--", None),
    ],
)
def test_the_name_that_a_word_stands_for(word, name):
    assert resolve(word, NAMES) == name


@pytest.mark.parametrize(
    ("word", "most", "line"),
    [
        ("contuor", 1, "did you mean contour?"),
        ("Contour", 1, "did you mean contour?"),  # another case is another word
        ("contour", 1, ""),  # the word itself is no advice
        ("cat", 3, "did you mean cart, car or bat?"),
        ("zzz", 3, ""),
        ("", 3, ""),
    ],
)
def test_suggestions(word, most, line):
    assert did_you_mean(word, ["contour", "cart", "car", "bat", "cat"], most) == line


def test_a_name_without_letters_and_one_of_any_length():
    assert plain("猫-1") == "猫1" and nearest("++", ["+++", "a"]) == ["+++"]
    assert nearest("a" * 100_000, ["a" * 150]) == ["a" * 150]
