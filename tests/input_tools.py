"""Words of --image in tests: files, lists, and what comes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from detr_viz.common.errors import UserError
from detr_viz.images.collect import expand


def files(*names: str) -> None:
    """Empty files: to list images, none need be opened."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths(*words: str, **options) -> list[str]:
    return [os.path.normpath(made.path) for made in expand(words, **options)]


def names(*words: str, **options) -> list[str]:
    return [made.name for made in expand(words, **options)]


def listed(*lines: str) -> str:
    Path("list.txt").write_text("\n".join(lines), encoding="utf-8")
    return "@list.txt"


def coco(*file_names: object, path: str = "coco.json") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"images": [{"file_name": name} for name in file_names]}))
    return path


def refused(*words: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        expand(words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
