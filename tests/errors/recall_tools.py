"""Recall by pycocotools and by a matching written by hand, from a COCO file and detections."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np

SCORE, IOU = 0.5, 0.5
# image id -> (score, name of the class, box xyxy), in the order of the network's own evaluation
Detections = dict[int, list[tuple[float, str, list[float]]]]


def detections_of(model, folder: Path) -> Detections:
    """What a model detects in the images of a folder's instances.json."""
    from detr_viz import explain

    found = {}
    for image in json.loads((folder / "instances.json").read_text())["images"]:
        e = explain(model, folder / image["file_name"])
        found[image["id"]] = [
            (score, e.class_names[label], e.boxes_xyxy_px[query].tolist())
            for query, label, score in e.detections(100)
            if score >= np.float32(SCORE)
        ]
    return found


def by_pycocotools(path: Path, found: Detections) -> dict[str, float]:
    """Recall of each class, at most 100 detections of an image."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        ids = {category["name"]: category["id"] for category in coco.dataset["categories"]}
        results = [
            {
                "image_id": image,
                "category_id": ids[name],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            for image, rows in found.items()
            for score, name, (x0, y0, x1, y1) in rows
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([IOU])
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][0, :, 0, -1]  # all areas, 100 detections
    names = {number: name for name, number in ids.items()}
    return {names[k]: float(r) for k, r in zip(evaluation.params.catIds, recall, strict=True)}


def by_hand(path: Path, found: Detections) -> tuple[Counter, Counter]:
    """(objects, found objects) counted by class and by size: the surest detection chooses first."""
    coco = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects, hits = Counter(), Counter()
    for image in coco["images"]:
        free = []
        for one in coco["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, w, h = one["bbox"]
                size = "small" if w * h < 1024 else "medium" if w * h < 9216 else "large"
                free.append((names[one["category_id"]], size, (x, y, x + w, y + h)))
                objects.update([names[one["category_id"]], size, "all"])
        for _, name, box in sorted(found[image["id"]], key=lambda row: -row[0]):
            mine = [one for one in free if one[0] == name and _overlap(one[2], box) >= IOU]
            if mine:
                best = max(mine, key=lambda one: _overlap(one[2], box))
                free.remove(best)
                hits.update([*best[:2], "all"])
    return objects, hits


def _overlap(a, b) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (sum(areas) - both)
