"""Matching of queries between models: against brute force, and scenes made by hand."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import ROOT
from torchvision.ops import box_iou

from detr_viz.detections.matching import MIN_IOU, Match, assign, shared_objects

SIDE = 100.0


def strip(left: float, right: float, top: float = 0.0) -> list[float]:
    """A box as high as SIDE: the overlap of two of the same top is that of two intervals."""
    return [left, top, right, top + SIDE]


def place(number: int, shift: float = 0.0) -> list[float]:
    """A square well apart from those of other numbers, moved to the right by `shift` pixels."""
    return strip(1000.0 * number + shift, 1000.0 * number + SIDE + shift)


def moved(shift: float) -> float:
    """IoU of a square of SIDE with itself moved by shift."""
    return (SIDE - shift) / (SIDE + shift)


def array(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def queries(objects) -> list[tuple[int | None, ...]]:
    return [tuple(match.query for match in o.matches) for o in objects]


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) by torchvision."""
    return box_iou(torch.from_numpy(a).double(), torch.from_numpy(b).double()).numpy()


def crowd(rng: np.random.Generator, count: int, centres: int = 2) -> np.ndarray:
    """Boxes about few centres, so that many pairs overlap by more and by less than MIN_IOU."""
    centre = rng.integers(0, centres, (count, 1)) * 60.0 + rng.normal(0, 8, (count, 2))
    half = rng.uniform(20, 32, (count, 2))
    return np.concatenate((centre - half, centre + half), -1)


def best_by_brute_force(value: np.ndarray) -> set[tuple[int, int]]:
    """Pairs with the largest sum over all one-to-one pairings; those of value 0 left out."""
    rows, columns = value.shape
    if rows > columns:
        return {(i, j) for j, i in best_by_brute_force(value.T)}
    best = max(
        permutations(range(columns), rows),
        key=lambda js: sum(value[i, j] for i, j in enumerate(js)),
    )
    return {(i, j) for i, j in enumerate(best) if value[i, j]}


@pytest.mark.parametrize("seed", range(40))
def test_assign_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    a, b = (crowd(rng, count) for count in rng.integers(2, 7, 2))
    value = overlaps(a, b)
    allowed = np.where(value >= MIN_IOU, value, 0)
    pairs = assign(a, b)
    assert {(i, j) for i, j, _ in pairs} == best_by_brute_force(allowed)
    assert pairs == sorted(pairs)
    for i, j, iou in pairs:
        assert iou == pytest.approx(value[i, j])


def test_the_random_scenes_are_hard():
    """Brute force above decides something: greedy and unrestricted pairings differ from it."""
    greedy_differs = unrestricted_differs = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        value = overlaps(*(crowd(rng, count) for count in rng.integers(2, 7, 2)))
        allowed = np.where(value >= MIN_IOU, value, 0)
        best, left, greedy = best_by_brute_force(allowed), allowed.copy(), set()
        while left.any():
            i, j = np.unravel_index(left.argmax(), left.shape)
            greedy.add((int(i), int(j)))
            left[i], left[:, j] = 0, 0
        greedy_differs += greedy != best
        unrestricted = {p for p in best_by_brute_force(value) if value[p] >= MIN_IOU}
        unrestricted_differs += unrestricted != best
    assert min(greedy_differs, unrestricted_differs) >= 3


def test_two_overlapping_boxes_where_the_best_pair_first_would_fail():
    a = array(strip(0, 100), strip(10, 110))
    b = array(strip(2, 102), strip(-30, 70))  # b0 suits a0 best, but a1 has no other
    value = overlaps(a, b)
    assert value.argmax() == 0 and value[1, 1] < MIN_IOU
    assert [(i, j) for i, j, _ in assign(a, b)] == [(0, 1), (1, 0)]


def test_pairs_below_the_limit_do_not_displace_a_good_one():
    """0.49 + 0.49 is more than 0.905, but neither of the two counts."""
    a = array(strip(0, 100), strip(56, 105))
    b = array(strip(5, 105), strip(0, 49))
    assert assign(a, b) == [(0, 0, pytest.approx(95 / 105))]
    pairs = assign(a, b, min_iou=0.48)
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 0)]


def test_the_limit_itself_counts():
    half = array(strip(0, 50))
    assert assign(array(strip(0, 100)), half) == [(0, 0, 0.5)]
    assert assign(array(strip(0, 100)), half, min_iou=0.51) == []


def test_boxes_apart_are_no_pair_at_any_limit():
    assert assign(array(place(0)), array(place(1)), min_iou=0) == []


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(n, m):
    boxes = [place(0)] * 3
    assert assign(array(*boxes[:n]), array(*boxes[:m])) == []


def test_boxes_that_are_nan_or_empty_match_nothing():
    bad = array([np.nan] * 4, [5, 5, 5, 5], place(0))
    assert assign(bad, bad) == [(2, 2, 1.0)]


def test_the_same_boxes_in_another_order():
    rng = np.random.default_rng(0)
    first = array(*(place(i) for i in range(7)))
    order = rng.permutation(7)
    chosen = [4, 0, 6]
    where = np.argsort(order)
    objects = shared_objects([first, first[order]], [chosen, where[[6, 4, 0]].tolist()])
    assert queries(objects) == [(q, int(where[q])) for q in chosen]
    assert all(o.reference == 0 for o in objects)
    assert all(m.iou == 1 and m.nearest is None for o in objects for m in o.matches)


def test_an_object_that_either_model_misses():
    first = array(place(0), place(1), place(8))
    second = array(place(9), place(2), place(0, 5), place(1, 60))
    objects = shared_objects([first, second], [[0, 1], [1, 2]])
    assert queries(objects) == [(0, 2), (1, None), (None, 1)]
    assert [o.reference for o in objects] == [0, 0, 1]
    assert objects[0].matches == (Match(0, 1.0), Match(2, pytest.approx(moved(5))))
    assert objects[1].matches[1] == Match(None, pytest.approx(moved(60)), nearest=3)
    assert objects[2].matches == (Match(None, 0.0, nearest=None), Match(1, 1.0))


def test_the_nearest_may_be_a_query_that_another_object_has():
    first = array(strip(0, 100), strip(20, 120))
    second = array(strip(0, 100))
    objects = shared_objects([first, second], [[0, 1], [0]])
    assert objects[1].matches[1] == Match(None, pytest.approx(moved(20)), nearest=0)


def test_a_confident_query_goes_before_a_background_one_that_overlaps_better():
    first = array(place(0))
    second = array(place(0, 2), place(0, 20))
    confident = Match(1, pytest.approx(moved(20)))
    (found,) = shared_objects([first, second], [[0], [1]])
    assert found.matches[1] == confident
    objects = shared_objects([first, second], [[0], []], [[0], [1]])
    assert queries(objects) == [(0, 1)]
    objects = shared_objects([first, second], [[0], []], [[0], [0, 1]])
    assert queries(objects) == [(0, 0)]  # both confident: the better


def test_a_background_query_is_found_where_no_confident_one_is():
    first = array(place(0), place(1))
    second = array(place(1), place(2), place(0, 10))
    objects = shared_objects([first, second], [[0, 1], [0]])
    assert queries(objects) == [(0, 2), (1, 0)]
    assert objects[0].matches[1].iou == pytest.approx(moved(10))


def test_new_objects_are_looked_for_in_earlier_models_candidates_first():
    first = array(place(0), place(1, 3), place(1, 20), place(2, 9))
    second = array(place(1), place(2))
    objects = shared_objects([first, second], [[0], [1, 0]], [[0, 2], [0, 1]])
    assert queries(objects) == [(0, None), (3, 1), (2, 0)]  # new ones in the order chosen
    assert [o.reference for o in objects] == [0, 1, 1]
    assert objects[2].matches[0].iou == pytest.approx(moved(20))
    objects = shared_objects([first, second], [[0], [1, 0]])
    assert queries(objects) == [(0, None), (3, 1), (1, 0)]


def test_three_models():
    """Object A in all, B in 0 and 2, C in 1 and 2, D in 2 alone, E in 1 alone."""
    a, b, c, d, e = range(5)
    boxes = [
        array(place(b), place(a)),
        array(place(c), place(a, 4), place(e)),
        array(place(d), place(c, 6), place(a, 8), place(b, 10)),
    ]
    objects = shared_objects(boxes, [[1, 0], [0, 1, 2], [0, 1, 2, 3]])
    assert queries(objects) == [
        (1, 1, 2),
        (0, None, 3),
        (None, 0, 1),
        (None, 2, None),
        (None, None, 0),
    ]
    assert [o.reference for o in objects] == [0, 0, 1, 1, 2]
    # overlaps are with the reference box, not with the model before
    assert objects[0].matches[2].iou == pytest.approx(moved(8))
    assert objects[2].matches[2].iou == pytest.approx(moved(6))


def test_a_later_model_fills_in_for_all_earlier_ones():
    boxes = [array(place(0, 5)), array(place(0, 10)), array(place(0))]
    objects = shared_objects(boxes, [[], [], [0]])
    assert queries(objects) == [(0, 0, 0)]
    assert objects[0].reference == 2
    assert [m.iou for m in objects[0].matches] == [
        pytest.approx(moved(5)),
        pytest.approx(moved(10)),
        1.0,
    ]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_model_with_nothing_chosen_still_answers(empty):
    chosen = [[0, 1], [0, 1]]
    chosen[empty] = []
    boxes = [array(place(0), place(1)), array(place(1), place(0))]
    objects = shared_objects(boxes, chosen)
    assert queries(objects) == ([(0, 1), (1, 0)] if empty == 1 else [(1, 0), (0, 1)])
    assert {o.reference for o in objects} == {1 - empty}


def test_a_model_without_queries():
    objects = shared_objects([array(place(0)), array()], [[0], []])
    assert objects[0].matches[1] == Match(None, 0.0, None)
    assert shared_objects([array(), array()], [[], []]) == []


def test_one_model_alone():
    objects = shared_objects([array(place(0), place(0), place(2))], [[2, 0]])
    assert queries(objects) == [(2,), (0,)]


def test_the_limit_is_the_callers():
    boxes = [array(place(0)), array(place(0, 20))]
    assert moved(20) < 0.7
    assert queries(shared_objects(boxes, [[0], [0]])) == [(0, 0)]
    assert queries(shared_objects(boxes, [[0], [0]], min_iou=0.7)) == [(0, None), (None, 0)]


@pytest.mark.parametrize("seed", range(30))
def test_invariants(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    boxes = [crowd(rng, int(rng.integers(4, 12)), centres=3) for _ in range(count)]
    shuffled = [rng.permutation(len(b)).tolist() for b in boxes]
    chosen = [ids[: int(rng.integers(0, 4))] for ids in shuffled]
    candidates = [ids[: len(some) + 2] for ids, some in zip(shuffled, chosen, strict=True)]
    objects = shared_objects(boxes, chosen, candidates)
    assert objects == shared_objects(boxes, chosen, candidates)
    assert [o.matches[0].query for o in objects][: len(chosen[0])] == chosen[0]
    assert [o.reference for o in objects] == sorted(o.reference for o in objects)
    for k in range(count):
        taken = [o.matches[k].query for o in objects if o.matches[k].query is not None]
        assert len(set(taken)) == len(taken)
        assert all(taken.count(q) == 1 for q in chosen[k])
        for o in objects:
            reference = boxes[o.reference][[o.matches[o.reference].query]]
            assert o.matches[o.reference].query in chosen[o.reference]
            overlap = overlaps(reference, boxes[k])[0]
            match = o.matches[k]
            # every query that could still be had is less than the limit away
            free = np.setdiff1d(np.arange(len(overlap)), taken)
            if match.query is None:
                assert match.iou == pytest.approx(overlap.max())
                assert match.nearest == (overlap.argmax() if overlap.any() else None)
                assert (overlap[free] < MIN_IOU).all()
            else:
                assert match.nearest is None
                assert match.iou == pytest.approx(overlap[match.query]) and match.iou >= MIN_IOU
                if k != o.reference and match.query not in candidates[k]:
                    assert (overlap[np.intersect1d(free, candidates[k])] < MIN_IOU).all()


@pytest.mark.parametrize(
    ("chosen", "candidates", "said"),
    [
        ([[0], [2]], None, r"chosen\[1\]: model 1 has no query 2"),
        ([[0], [-1]], None, r"model 1 has no query -1"),
        ([[0, 0], [1]], None, r"chosen\[0\] names a query twice"),
        ([[0], [1]], [[0], [5]], r"candidates\[1\]: model 1 has no query 5"),
        ([[0]], None, "of 2, 1 and 1 models"),
    ],
)
def test_ids_that_cannot_be(chosen, candidates, said):
    two = array(place(0), place(1))
    with pytest.raises(ValueError, match=said):
        shared_objects([two, two], chosen, candidates)


def test_boxes_that_cannot_be():
    with pytest.raises(ValueError, match=r"boxes of model 1 are \(4,\), expected \(Q, 4\)"):
        shared_objects([array(place(0)), np.zeros(4)], [[0], []])


def test_scipy_waits_until_it_is_needed():
    code = (
        "import sys, numpy as np, detr_viz.detections.matching as m\n"
        "assert not {'scipy', 'torch'} & set(sys.modules)\n"
        "assert m.assign(np.ones((0, 4)), np.ones((2, 4))) == []\n"
        "assert 'scipy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_weak_second_query_does_not_take_the_detection():
    """Model 0 has two queries on one object, the weak one with the better box."""
    sure, weak = [0, 0, 10, 10], [0, 0, 10, 9]
    theirs, background = [0, 0, 10, 9], [0, 0, 10, 11]
    boxes = [np.array([sure, weak], float), np.array([background, theirs], float)]
    found = shared_objects(boxes, [[0, 1], [1]], [[0], [1]])
    assert [tuple(m.query for m in shared.matches) for shared in found] == [(0, 1), (1, 0)]
