"""Bad files and flags: what a user gets for them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from detr_viz import cli


def refused(capsys, *argv: str) -> str:
    """The one line on stderr; nothing on stdout, nothing written."""
    before = {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")}
    common = ["--device", "cpu", "--quiet", "--out", "out/"]
    if "--image" not in argv:
        common += ["--image", "a.png"]
    try:
        code = cli.main([*argv, *common])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert out == "" and err.count("\n") == 1 and err.startswith("error: "), err
    assert {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")} == before
    return err


def weights(state_dict, name="bad.pth", **args) -> str:
    content = {"model": state_dict}
    torch.save(content | ({"args": argparse.Namespace(**args)} if args else {}), name)
    return name
