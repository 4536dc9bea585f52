"""The paths of demo checkpoints and sample scenes: beside the package, or in a wheel's data."""

from __future__ import annotations

import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_IMAGE = "image/scene_1.jpg"


def find(relative: str) -> Path:
    """Path of a shipped file such as weights/detr_demo.pth, even if it does not exist."""
    folders = [ROOT, Path(sysconfig.get_path("data")) / "share" / "detr_viz"]
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    return ROOT / relative
