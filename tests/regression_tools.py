"""A project with baselines, and the commands that make and check them."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from detr_viz import cli
from detr_viz.common import assets
from detr_viz.demo.shapes import scene


def with_project(folder: Path) -> Path:
    """Two images and a checkpoint of its own in this folder."""
    for i, name in enumerate("ab"):
        Image.fromarray(scene(2_000_000_300 + i, 128).rgb).save(folder / f"{name}.png")
    shutil.copy(assets.find("weights/cd_detr_demo.pth"), folder / "mine.pth")
    return folder


def command(capsys, *argv: str, code: int = 0) -> tuple[list[str], str]:
    assert cli.main([*argv]) == code
    out, err = capsys.readouterr()
    return out.splitlines(), err


def recorded(capsys, *argv: str) -> list[str]:
    out, err = command(capsys, "record", "--out", "base", *argv)
    assert err == "" and all(line.startswith("wrote base/") for line in out)
    return [line.removeprefix("wrote ") for line in out]


def checked(capsys, *argv: str, code: int = 0) -> list[str]:
    out, err = command(capsys, "check", "base", *argv, code=code)
    assert err == ""
    return out
