"""Where demo checkpoints and sample scenes are: beside the package, or where a wheel put them."""

from __future__ import annotations

import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_IMAGE = "image/scene_1.jpg"


def find(relative: str) -> Path:
    """Path of a shipped file such as weights/detr_demo.pth, whether or not it is there."""
    places = [ROOT, Path(sysconfig.get_path("data")) / "share" / "detr_viz"]
    for place in places:
        if (place / relative).exists():
            return place / relative
    return ROOT / relative
