"""Verdicts on detections: COCO's matching, held against pycocotools, and TIDE's kinds by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from detr_viz.detections.mistakes import FOUND, SAME_OBJECT, Truth, judge
from detr_viz.images.annotated import Annotated


def truth_of(*objects: tuple[list[float], int], crowd: tuple[int, ...] = ()) -> Truth:
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    labels = np.array([label for _, label in objects], np.int64)
    names = tuple(f"class {label}" for label in labels)
    return Truth(boxes, labels, names, np.isin(np.arange(len(labels)), crowd))


def verdict(truth: Truth, *detections: tuple[list[float], int, float], least: float = 0.5):
    boxes, labels, scores = (np.array(column) for column in zip(*detections, strict=True))
    return judge(truth, boxes, labels, scores.astype(np.float32), least)


SQUARE = [10.0, 10, 50, 50]


@pytest.mark.parametrize(
    ("kind", "box", "label"),
    [
        ("found", [10, 10, 50, 50], 1),
        ("found", [10, 10, 50, 30], 1),  # IoU 1/2 is enough
        ("bad-box", [10, 10, 50, 29.9], 1),
        ("bad-box", [10, 10, 20, 26], 1),  # IoU 1/10
        ("background", [10, 10, 20, 25.9], 1),
        ("background", [60, 60, 90, 90], 1),
        ("wrong-class", [10, 10, 50, 30], 2),
        ("both", [10, 10, 50, 29.9], 2),
        ("background", [60, 60, 90, 90], 2),
    ],
)
def test_one_detection_of_one_object(kind, box, label):
    found = verdict(truth_of((SQUARE, 1)), (box, label, 0.9))
    assert found.kinds == (kind,)
    assert found.missed == (() if kind == "found" else (0,))
    assert found.objects.tolist() == [-1 if kind == "background" else 0]


def test_the_weaker_of_two_is_a_duplicate():
    found = verdict(truth_of((SQUARE, 1)), ([10, 10, 50, 48], 1, 0.6), (SQUARE, 1, 0.7))
    assert found.kinds == ("duplicate", "found") and found.finder(0) == 1


def test_a_score_below_the_threshold_is_no_detection():
    truth = truth_of((SQUARE, 1))
    assert verdict(truth, (SQUARE, 1, 0.49)).kinds == (None,)
    assert verdict(truth, (SQUARE, 1, 0.5)).kinds == ("found",)
    assert verdict(truth, (SQUARE, 1, 0.49), least=0.3).kinds == ("found",)


def test_the_better_score_chooses_first():
    """Even where another pairing would find both, as in COCO's evaluation."""
    truth = truth_of(([0, 0, 40, 40], 1), ([0, 12, 40, 52], 1))
    middle, upper = [0, 7, 40, 47], [0, 0, 40, 34]
    found = verdict(truth, (upper, 1, 0.6), (middle, 1, 0.9))
    assert found.kinds == ("found", "found") and found.objects.tolist() == [0, 1]
    lower = [0, 18, 40, 52]
    found = verdict(truth, (lower, 1, 0.6), (middle, 1, 0.9))
    assert found.kinds == ("duplicate", "found") and found.missed == (0,)


def test_a_crowd_is_neither_missed_nor_wrong():
    truth = truth_of(([0, 0, 100, 100], 1), crowd=(0,))
    inside, outside, other = [10, 10, 20, 20], [95, 0, 115, 20], [10, 10, 20, 20]
    found = verdict(truth, (inside, 1, 0.9), (outside, 1, 0.8), (other, 2, 0.7))
    assert found.kinds == (None, "background", "background") and found.missed == ()


def test_nothing_annotated_and_nothing_detected():
    nothing = judge(truth_of(), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, np.float32))
    assert nothing.kinds == () and nothing.missed == ()
    assert verdict(truth_of(), (SQUARE, 0, 0.9)).kinds == ("background",)


def crowded_image(rng: np.random.Generator) -> tuple[Truth, np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping objects of three classes, some crowds, and detections near them and elsewhere."""
    corner = rng.uniform(0, 80, (8, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 50, (8, 2))], 1).round(2)
    labels, crowd = rng.integers(0, 3, 8), rng.random(8) < 0.15
    truth = Truth(boxes, labels, tuple(map(str, labels)), crowd)
    near = boxes[rng.integers(0, 8, 20)] + rng.normal(0, 2, (20, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    return truth, near, rng.integers(0, 3, 20), rng.random(20).astype(np.float32)


def test_recall_is_that_of_pycocotools():
    """Objects found at IoU .5 and a score of .4, over 40 images with crowds and overlaps."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    images = [crowded_image(rng) for _ in range(40)]
    annotations, results, ours = [], [], {}
    for i, (truth, boxes, labels, scores) in enumerate(images):
        for box, label, crowd in zip(truth.boxes_xyxy_px, truth.labels, truth.crowd, strict=True):
            x0, y0, x1, y1 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float((x1 - x0) * (y1 - y0)),
                    "iscrowd": int(crowd),
                }
            )
        for (x0, y0, x1, y1), label, score in zip(boxes, labels, scores, strict=True):
            if score >= np.float32(0.4):
                box = [x0, y0, x1 - x0, y1 - y0]
                one = {"image_id": i + 1, "category_id": int(label) + 1, "bbox": box}
                results.append({**one, "score": float(score)})
        found = judge(truth, boxes, labels, scores, 0.4)
        for label in range(3):
            objects = [g for g in range(len(truth)) if truth.labels[g] == label]
            here = {found.objects[q] for q in found.queries(FOUND)}
            count, total = ours.get(label, (0, 0))
            real = [g for g in objects if not truth.crowd[g]]
            ours[label] = count + sum(g in here for g in real), total + len(real)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1} for i in range(40)],
            "categories": [{"id": i + 1} for i in range(3)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([SAME_OBJECT])
        evaluation.evaluate()
        evaluation.accumulate()
    theirs = evaluation.eval["recall"][0, :, 0, -1]  # classes, all areas, 100 detections
    expected = [found / total for found, total in (ours[label] for label in range(3))]
    np.testing.assert_allclose(expected, theirs, atol=1e-12)
    assert all(0.1 < share < 0.95 for share in expected)  # neither all nor nothing


def test_annotated_names_become_classes_of_the_detector():
    annotated = Annotated(
        np.array([[0, 0, 2, 2], [1, 1, 3, 3]], float),
        ("Cat", "unicorn"),
        np.array([False, True]),
        (7, 9),
        "a.json",
    )
    truth = Truth.of(annotated, ["dog", "cat"])
    assert truth.labels.tolist() == [1, -1]
    assert truth.names == ("Cat", "unicorn")
    assert truth.crowd.tolist() == [False, True]
