"""Why an object was missed: explanations made by hand, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import annotated, cells_of, handmade

from detr_viz.detections.attention_mass import attention_mass, beyond_chance, widened
from detr_viz.detections.judged import judged
from detr_viz.detections.query_grammar import QueryError
from detr_viz.detections.reasons import REASONS, misses

CAT = [10, 10, 40, 40]  # 9 of the 48 cells
ON_CAT = cells_of(CAT)
AWAY = [(5, 7)]
FAR = [60, 50, 70, 60]


def reason_of(*queries, truth=None, **more):
    """The reason of the last missed object."""
    e = handmade(truth or annotated((CAT, "cat")), *queries, **more)
    return misses(e)[-1]


LOWER = [10, 16, 40, 46]  # IoU 24 / 36 with CAT

CASES = {
    "no-class": (
        [(CAT, "cat", 0.9, ON_CAT)],
        "no class: the model has none of the name 'unicorn'",
        {"truth": annotated((CAT, "unicorn"))},
    ),
    "outside": (
        [(CAT, "cat", 0.9, ON_CAT)],
        "outside: the annotated box has no area in the image",
        {"truth": annotated(([90, 10, 99, 20], "cat"))},
    ),
    "given": (
        [(LOWER, "cat", 0.93, ON_CAT)],
        "given to another object: query 0 has the box (IoU .67) and the class, but is matched with "
        "another cat",
        {"truth": annotated((LOWER, "cat"), (CAT, "cat"))},
    ),
    "suppressed": (
        [(FAR, "dog", 0.9, AWAY), (LOWER, "cat", 0.31, ON_CAT)],
        "suppressed by score: query 1 has the box (IoU .67) and the class, score .31 below .50",
        {},
    ),
    "misnamed": (
        [(FAR, "cat", 0.2, AWAY), (LOWER, "traffic light", 0.72, AWAY)],
        "misnamed: query 1 has the box (IoU .67), but calls it traffic light .72",
        {},
    ),
    "box-off": (
        [(FAR, "cat", 0.2, ON_CAT), ([10, 25, 40, 55], "cat", 0.91, AWAY)],
        "box off: query 1 calls it cat .91, but its IoU is .33",
        {},
    ),
    "unsure": (
        [(LOWER, "dog", 0.22, AWAY)],
        "unsure: query 0 has the box (IoU .67), but calls it dog .22",
        {},
    ),
    "not-seen": (
        [(FAR, "dog", 0.01, [*AWAY, (1, 1), *cells_of([40, 0, 70, 30])]), (FAR, "dog", 0.02, AWAY)],
        "not seen: no query has more than .09 of its attention there",
        {},
    ),
}


@pytest.mark.parametrize("reason", CASES)
def test_each_reason(reason):
    queries, words, more = CASES[reason]
    miss = reason_of(*queries, **more)
    assert (miss.reason, miss.words) == (reason, words)
    assert set(CASES) == set(REASONS)


SEEN = {
    "its score is low": (
        [(FAR, "dog", 0.22, ON_CAT + AWAY)],
        ("unsure", "seen: query 0 has .90 of its attention there, but calls it dog .22"),
    ),
    "it is right, and its score is low": (
        [(FAR, "cat", 0.22, ON_CAT)],
        ("unsure", "seen: query 0 has 1.00 of its attention there, but calls it cat .22, IoU .00"),
    ),
    "it is sure of another class": (
        [(FAR, "dog", 0.8, ON_CAT)],
        ("misnamed", "seen: query 0 has 1.00 of its attention there, but calls it dog .80"),
    ),
    "it is sure, its box elsewhere": (
        [(FAR, "cat", 0.8, ON_CAT)],
        ("box-off", "seen: query 0 has 1.00 of its attention there, but calls it cat .80, IoU .00"),
    ),
    "it is right, with a box that counts for nothing at its score": (
        [(CAT, "cat", 0.03, ON_CAT)],
        ("unsure", "seen: query 0 has 1.00 of its attention there, but calls it cat .03, IoU 1.00"),
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_query_looks_there(case):
    queries, expected = SEEN[case]
    found = reason_of(*queries)
    assert (found.reason, found.words) == expected


def test_a_query_looks_there_and_found_another_object():
    dog = [50, 10, 80, 40]
    truth = annotated((dog, "dog"), (CAT, "cat"))
    miss = reason_of((dog, "dog", 0.8, ON_CAT), truth=truth)
    assert (miss.reason, miss.words) == (
        "given",
        "seen: query 0 has 1.00 of its attention there, but found another object, dog",
    )
    miss = reason_of((CAT, "dog", 0.8, AWAY), truth=annotated((LOWER, "dog"), (CAT, "cat")))
    assert (miss.reason, miss.words) == (
        "given",
        "given to another object: query 0 has the box (IoU 1.00), but found the dog there",
    )


def test_numbers_that_round_to_their_limit_have_more_decimals():
    assert reason_of((CAT, "cat", 0.4996, ON_CAT)).words.endswith("score .4996 below .5000")
    miss = reason_of(([10, 10, 40, 24.9], "cat", 0.9, ON_CAT))
    assert miss.words == "box off: query 0 calls it cat .90, but its IoU is .497"


def test_a_large_box_has_much_attention_by_chance():
    """Even attention puts .75 on a box of 3/4 of the image: that is not to look there."""
    most = [0, 0, 60, 60]
    truth = annotated((most, "cat"))
    miss = reason_of((FAR, "dog", 0.01, None), truth=truth)
    assert miss.attention.mass == pytest.approx(0.75) and abs(miss.attention.beyond) < 1e-6
    assert miss.reason == "not-seen"
    assert miss.words == (
        "not seen: no query has more than .75 of its attention there, .75 would be there by chance"
    )
    miss = reason_of((FAR, "dog", 0.01, cells_of(most)), truth=truth)
    assert miss.attention.beyond == pytest.approx(1) and miss.reason == "unsure"


def test_a_box_smaller_than_a_cell_is_taken_as_a_cell():
    """A query that looks at the cell of a point looks at the point: attention knows no better."""
    point = [23, 23, 27, 26]
    miss = reason_of((FAR, "dog", 0.3, [(2, 2)]), truth=annotated((point, "cat")))
    # 10 x 10 pixels around (25, 24.5): 95 % of the cell
    assert miss.attention.mass == pytest.approx(0.95) and miss.reason == "unsure"
    assert miss.share == pytest.approx(12 / 4800)
    miss = reason_of((FAR, "dog", 0.3, AWAY), truth=annotated((point, "cat")))
    assert miss.words == (
        "not seen: no query has more than .00 of its attention there, the box is smaller than a "
        "cell of the map"
    )


def test_the_two_nearest_queries():
    e = handmade(
        annotated((CAT, "cat"), (FAR, "dog")),
        (FAR, "dog", 0.9, AWAY),
        (LOWER, "dog", 0.2, AWAY),
        (FAR, "traffic light", 0.1, ON_CAT),
    )
    (miss,) = misses(e)
    assert miss.queries == [1, 2] and miss.thing == 0
    assert miss.overlap.iou == pytest.approx(24 / 36) and miss.overlap.name == "dog"
    assert miss.attention.mass == pytest.approx(1) and miss.attention.iou == 0
    e = handmade(
        annotated((CAT, "cat")),
        (LOWER, "cat", 0.2, AWAY),
        (CAT, "dog", 0.04, AWAY),
        (FAR, "dog", 0.1, ON_CAT),
    )
    (miss,) = misses(e)  # the reason is about the cat: its query comes too
    assert (miss.overlap.query, miss.attention.query, miss.about) == (1, 2, 0)
    assert miss.queries == [1, 2, 0] and miss.reason == "suppressed"
    far = reason_of((FAR, "dog", 0.3, ON_CAT))
    assert far.overlap is None and far.queries == [0]


def test_mass_of_a_part_of_a_cell_is_a_part_of_its_weight():
    e = handmade(annotated((CAT, "cat")), (CAT, "cat", 0.9, [(1, 1), (5, 7)]))
    boxes = np.array([[10, 10, 20, 20], [15, 10, 25, 20], [15, 15, 20, 20], [-50, -50, 900, 900]])
    np.testing.assert_allclose(attention_mass(e, boxes), [[0.5, 0.25, 0.125, 1]])
    assert beyond_chance(np.array([0.6]), np.array([0.6])) == 0
    wide = widened(e, np.array([[-20.0, 55, 4, 90]]))
    np.testing.assert_allclose(wide, [[0, 50, 10, 60]])


def test_pairs_of_a_query_and_a_class_are_detections():
    """Of models with focal losses: one query finds the dog and is wrong about the cat."""
    truth = annotated((CAT, "dog"), (FAR, "cat"))
    e = handmade(truth, (CAT, "dog", 0.9, ON_CAT), pairwise=True, more={0: {"cat": 0.6}})
    found = judged(e)
    assert found.queries("found") == [0] == found.queries("wrong-class")
    one = handmade(truth, (CAT, "dog", 0.9, ON_CAT), more={0: {"cat": 0.6}})
    assert judged(one).queries("wrong-class") == []
    assert found.words(0) == "found (dog, IoU 1.00), wrong-class (dog, IoU 1.00)"
    assert found.summary == "1 of 2 annotated objects found at score 0.5, 1 wrong-class"


def test_nothing_is_known_without_annotated_objects():
    with pytest.raises(QueryError, match=r"--image instances.json; of photo.png there are none"):
        misses(handmade(None, (CAT, "cat", 0.9, ON_CAT)))
    (miss,) = misses(handmade(annotated((CAT, "cat"))))
    assert (miss.reason, miss.queries) == ("not-seen", [])
    assert miss.words == "not seen: there is no query in this image"
    assert misses(handmade(annotated(), (CAT, "cat", 0.9, ON_CAT))) == []
