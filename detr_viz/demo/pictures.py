"""Held-out scenes as picture files, for any command: the demo checkpoints are measured on them.

python -m detr_viz.demo.pictures --out scenes/ --count 500
python -m detr_viz.demo.pictures --out scenes/ --count 20 --look photo
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from detr_viz.cli.arguments import positive
from detr_viz.common.errors import UserError
from detr_viz.common.files import replacing
from detr_viz.demo.measure import SCENE_PX
from detr_viz.demo.photo_scenes import photo_scene, sample_photos
from detr_viz.demo.shapes import held_out_seeds, scene


def write(folder: Path, count: int, look: str = "drawn") -> None:
    """scene_0000.png and so on, in order of their seeds; look: "drawn" or "photo"."""
    for i, seed in enumerate(held_out_seeds(count)):
        if look == "photo":
            made = photo_scene(seed, SCENE_PX, sample_photos())
        else:
            made = scene(seed, SCENE_PX)
        with replacing(folder / f"scene_{i:04d}.png") as part:
            Image.fromarray(made.rgb).save(part)


def main(argv: Sequence[str] | None = None) -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description="Write held-out scenes.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument(
        "--count", type=positive, default=500, help="how many (default %(default)s)"
    )
    parser.add_argument(
        "--look",
        choices=("drawn", "photo"),
        default="drawn",
        help="photo: the same objects on photos, with soft shadows; the shipped checkpoints were "
        "trained on drawn ones (default %(default)s)",
    )
    args = parser.parse_args(argv)
    try:
        write(args.out, args.count, args.look)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
