"""Average precision of a demo model on held-out scenes, by pycocotools.

python -m detr_viz.demo.evaluate --weights weights/cd_detr_demo.pth --scenes 500
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from detr_viz.demo.losses import corners
from detr_viz.demo.shapes import CLASSES, Scene, held_out_seeds, scene
from detr_viz.images.resize import MEAN_RGB, STD_RGB

_TOP_PAIRS = 100


@dataclass(frozen=True)
class Accuracy:
    """COCO averages over classes: at IoU 0.5, at 0.75, and over 0.5 to 0.95."""

    ap50: float
    ap75: float
    ap: float

    def __str__(self) -> str:
        return f"AP50 {self.ap50:.4f}  AP75 {self.ap75:.4f}  AP {self.ap:.4f}"


def held_out_scenes(count: int, size_px: int) -> list[Scene]:
    """The first `count` held-out scenes of the default distribution, as the models take them in."""
    return [scene(seed, size_px) for seed in held_out_seeds(count)]


def normalize(rgb: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in [0, 1] -> ImageNet mean 0, deviation 1, as `images.to_tensor` does."""
    mean, std = (rgb.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    return (rgb - mean) / std


def detections(logits: Tensor, boxes: Tensor, focal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (n,), labels (n,) and xyxy boxes (n, 4) of one image's logits (Q, K) and boxes (Q, 4).

    Sigmoid: the best 100 pairs of query and class. Softmax: each query's best real class.
    """
    if focal:
        scores, pair = logits.sigmoid().flatten().sort(descending=True)
        scores, pair = scores[:_TOP_PAIRS], pair[:_TOP_PAIRS]
        query, labels = pair // logits.shape[1], pair % logits.shape[1]
        return scores, labels, corners(boxes[query])
    scores, labels = logits.softmax(-1)[:, :-1].max(-1)
    return scores, labels, corners(boxes)


@torch.no_grad()
def evaluate(model: nn.Module, scenes: Sequence[Scene], focal: bool, batch: int = 20) -> Accuracy:
    """Accuracy of a model in eval mode on scenes of one size; focal as in `detections`."""
    device = next(model.parameters()).device
    predicted = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        rgb = torch.stack([torch.from_numpy(s.rgb) for s in part]).permute(0, 3, 1, 2)
        out = model(normalize(rgb.float().div(255)).to(device), None)
        for i in range(len(part)):
            scores, labels, boxes = detections(
                out["pred_logits"][i].float().cpu(), out["pred_boxes"][i].float().cpu(), focal
            )
            predicted.append((scores, labels, boxes * part[i].rgb.shape[0]))
    return average_precision(scenes, predicted)


def average_precision(
    scenes: Sequence[Scene],
    predicted: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]],
    classes: Sequence[str] = CLASSES,
) -> Accuracy:
    """COCO's own evaluation of (scores, labels, boxes xyxy in pixels) per scene."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = [], []
    for i, (one, (scores, labels, boxes)) in enumerate(
        zip(scenes, predicted, strict=True), start=1
    ):
        for (x0, y0, x1, y1), label in zip(
            one.boxes_xyxy_px.tolist(), one.labels.tolist(), strict=True
        ):
            bbox = [x0, y0, x1 - x0, y1 - y0]
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": i,
                    "category_id": label,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": 0,
                }
            )
        columns = (np.asarray(column).tolist() for column in (scores, labels, boxes))
        for score, label, (x0, y0, x1, y1) in zip(*columns, strict=True):
            bbox = [x0, y0, x1 - x0, y1 - y0]
            results.append({"image_id": i, "category_id": label, "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes)],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (float(v) for v in evaluation.stats[:3])
    return Accuracy(ap50, ap75, ap)


def evaluate_checkpoint(weights: str, scenes: Sequence[Scene]) -> Accuracy:
    """Accuracy of a checkpoint through the public functions: load_model, explain, detections."""
    from detr_viz import explain, load_model

    model = load_model(weights, device="cpu")
    predicted = []
    for one in scenes:
        e = explain(model, one.rgb)
        queries, labels, scores = map(np.array, zip(*e.detections(_TOP_PAIRS), strict=True))
        predicted.append((scores, labels, e.boxes_xyxy_px[queries]))
    return average_precision(scenes, predicted)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the accuracy of a checkpoint on held-out scenes."""
    parser = argparse.ArgumentParser(
        description="Average precision on held-out scenes.", allow_abbrev=False
    )
    parser.add_argument("--weights", required=True, help="a demo checkpoint")
    parser.add_argument("--scenes", type=int, default=500, help="how many (default %(default)s)")
    parser.add_argument(
        "--size", type=int, default=128, help="pixels they are drawn at (default %(default)s)"
    )
    args = parser.parse_args(argv)
    print(evaluate_checkpoint(args.weights, held_out_scenes(args.scenes, args.size)))


if __name__ == "__main__":
    main()
