"""The language of --queries, on made-up detections whose answers can be read off."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from detr_viz.detections.labels import COCO_NAMES
from detr_viz.detections.queries import QueryError, check_syntax, select
from detr_viz.render.tables import table

NAMES = ("cat", "remote", "sports ball")
SCORES = [0.20, 0.90, 0.50, 0.90, 0.05, 0.60]
LABELS = [0, 1, 0, 0, 2, 1]
BOXES = [
    [0, 0, 10, 10],
    [5, 5, 20, 20],
    [0, 0, 100, 50],
    [60, 10, 70, 20],
    [0, 0, 1, 1],
    [5, 5, 6, 6],
]


def made_up():
    scores = np.array(SCORES, np.float32)
    return SimpleNamespace(
        scores=scores,
        labels=np.array(LABELS),
        class_names=NAMES,
        boxes_xyxy_px=np.array(BOXES, np.float32),
        num_queries=6,
        image=SimpleNamespace(hw=(50, 100)),
        label_name=lambda q: NAMES[LABELS[q]],
        by_score=lambda: [1, 3, 5, 2, 0, 4],
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("top:1", [1]),  # equal scores: the smaller id first
        ("top:3", [1, 3, 5]),
        ("top:99", [1, 3, 5, 2, 0, 4]),
        ("score:0.5", [1, 3, 5, 2]),
        ("score:0.9", [1, 3]),
        ("class:cat", [3, 2, 0]),
        ("class:CAT, remote", [1, 3, 5, 2, 0]),
        ("class:sports ball", [4]),
        ("point:7,7", [1, 2, 0]),
        ("point:100,50", [2]),
        ("3,1", [3, 1]),
        ("4", [4]),
        ("all", [0, 1, 2, 3, 4, 5]),
        ("class:cat+top:2", [1, 3, 2, 0]),
        ("score:0.9+top:1", [1, 3]),
        ("4,3+top:2", [4, 3, 1]),
        ("class:cat+4", [3, 2, 0, 4]),
        ("0 , 5 + 5", [0, 5]),
    ],
)
def test_choices(choice, expected):
    check_syntax(choice)
    assert select(made_up(), choice) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("score:0.95", "no query answers.*the best 1 .remote 0.90.*--list-queries"),
        ("point:90,1+class:dog", "no class is named 'dog'"),
        ("class:remot", "remote"),
        ("point:200,1", "100 x 50"),
        ("point:1", "two numbers"),
        ("point:a,b", "not a number"),
        ("score:nan", "not a number"),
        ("score:high", "not a number"),
        ("top:0", "whole number"),
        ("top:-1", "whole number"),
        ("top:1.5", "whole number"),
        ("6", "no query 6.*0..5"),
        ("best", "cannot read 'best'"),
        ("-1", "cannot read"),
        ("1;2", "cannot read"),
        ("", "cannot read"),
        ("top:2+", "cannot read"),
        ("size:3", "cannot read"),
    ],
)
def test_refusals_are_one_line_that_says_the_way_out(choice, message):
    with pytest.raises(QueryError, match=message) as caught:
        select(made_up(), choice)
    assert "\n" not in str(caught.value)


def test_a_misspelt_class_is_told_the_nearest():
    many = made_up()
    many.class_names = COCO_NAMES
    with pytest.raises(QueryError, match=r"no class is named 'zebr': did you mean zebra\?"):
        select(many, "class:zebr")


def test_a_score_is_compared_as_it_is_stored():
    """0.9 in float32 is not 0.9: a query of score 0.9 must still answer to score:0.9."""
    assert select(made_up(), "score:0.9+4") == [1, 3, 4]


@pytest.mark.parametrize(
    "choice", ["best", "9" * 5000, "top:" + "9" * 5000, "", "top:2+", "1;2", "size:3", "top:"]
)
def test_syntax_is_refused_before_anything_is_loaded(choice):
    with pytest.raises(QueryError) as caught:
        check_syntax(choice)
        select(made_up(), choice)
    assert len(str(caught.value)) < 200


def test_table_has_a_line_a_query():
    lines = table(made_up(), [3, 4]).splitlines()
    assert lines[0].split()[:3] == ["query", "class", "score"]
    assert lines[1].split() == ["3", "cat", "0.900", "60.0", "10.0", "70.0", "20.0"]
    assert lines[2].split()[:4] == ["4", "sports", "ball", "0.050"]
