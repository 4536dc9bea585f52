"""Held-out scenes with their objects as a COCO file, for `errors`, for --gt, or for pycocotools.

python -m detr_viz.demo.scenes --out scenes/ --count 500
python attention_scripts.py errors --type cd_detr --image scenes/instances.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from detr_viz.cli.arguments import positive
from detr_viz.common.errors import UserError
from detr_viz.common.files import replacing
from detr_viz.demo import pictures
from detr_viz.demo.measure import SCENE_PX
from detr_viz.demo.shapes import CLASSES, held_out_seeds, scene

INSTANCES = "instances.json"


def write(folder: Path, count: int) -> None:
    """scene_0000.png and so on, as demo.pictures draws them, and instances.json."""
    pictures.write(folder, count)
    with replacing(folder / INSTANCES) as part:
        part.write_text(json.dumps(instances(count), indent=1) + "\n", encoding="utf-8")


def instances(count: int) -> dict[str, list[dict[str, object]]]:
    """The objects of the first scenes in the form of COCO; boxes in pixels, as left, top, w, h."""
    images, annotations = [], []
    for i, seed in enumerate(held_out_seeds(count)):
        drawn = scene(seed, SCENE_PX)
        size = {"width": SCENE_PX, "height": SCENE_PX}
        images.append({"id": i + 1, "file_name": f"scene_{i:04d}.png", **size})
        for box, label in zip(drawn.boxes_xyxy_px.tolist(), drawn.labels.tolist(), strict=True):
            left, top, right, bottom = box
            wide, high = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,
                    "bbox": [left, top, wide, high],
                    "area": wide * high,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main(argv: Sequence[str] | None = None) -> None:
    """Write them."""
    parser = argparse.ArgumentParser(
        description="Write held-out scenes with their objects.", allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument(
        "--count", type=positive, default=500, help="how many (default %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        write(args.out, args.count)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
