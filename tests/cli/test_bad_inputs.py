"""What users get wrong: one line on stderr that names it, exit code 2, nothing written."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import resource
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_tools import run
from conftest import ROOT
from PIL import Image

from detr_viz import cli

DEMO = ROOT / "weights/detr_demo.pth"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (200, 120, 40)).save("good.png")
    return tmp_path


def fails(capsys, argv: list[str]) -> str:
    """Run; check the exit code and that stderr is one line; return it."""
    try:
        code = cli.main(argv)
    except SystemExit as stop:  # argparse
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 500, err
    assert "Traceback" not in err
    return err


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def write_image(name: str) -> None:
    good, buffer = Path("good.png").read_bytes(), io.BytesIO()
    Image.effect_noise((300, 200), 60).save(buffer, "jpeg")
    whole = buffer.getvalue()
    content = {
        "empty.png": b"",
        "cut.png": good[:60],
        "cut.jpg": whole[: len(whole) // 2],
        "text.jpg": b"hello, I am a text file\n" * 20,
        "bomb.png": png_header(60000, 60000),
        "page.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "movie.mp4": b"\0\0\0\x18ftypmp42" + b"\0" * 100,
    }
    if name == "folder.png":
        os.mkdir(name)
    elif name in content:
        Path(name).write_bytes(content[name])


@pytest.mark.parametrize(
    "name",
    [
        "missing.png",
        "empty.png",
        "cut.png",
        "cut.jpg",
        "text.jpg",
        "bomb.png",
        "page.png",
        "movie.mp4",
        "folder.png",
    ],
)
def test_images(here, capsys, name):
    write_image(name)
    before = sorted(os.listdir())
    assert name in fails(capsys, ["--image", name])
    assert sorted(os.listdir()) == before


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def demo_content() -> dict:
    return torch.load(DEMO, weights_only=True)


def write_weights(name: str) -> None:
    content = demo_content()
    model = content["model"]
    saves = {
        "nan.pth": lambda: model["class_embed.weight"].fill_(float("nan")),
        "lacks.pth": lambda: model.pop("bbox_embed.layers.1.weight"),
        "surplus.pth": lambda: model.update({"extra.weight": torch.zeros(2)}),
        "shape.pth": lambda: model.update({"bbox_embed.layers.2.bias": torch.zeros(5)}),
        "heads.pth": lambda: content["meta"].update(nheads=7),
        "size.pth": lambda: content["meta"].update(size="large"),
    }
    if name in saves:
        saves[name]()
        torch.save(content, name)
    elif name == "truncated.pth":
        Path(name).write_bytes(DEMO.read_bytes()[:100_000])
    elif name == "evil.pth":
        torch.save({"model": Evil()}, name)
    elif name == "evil.pkl":
        Path(name).write_bytes(pickle.dumps(Evil()))
    elif name == "yolo.pt":
        torch.save({"model": {"model.0.conv.weight": torch.zeros(8, 3, 3, 3)}}, name)
    elif name == "resnet.pth":
        keys = ("conv1.weight", "layer1.0.conv1.weight", "fc.weight")
        torch.save({key: torch.zeros(2, 2) for key in keys}, name)
    elif name == "list.pth":
        torch.save([1, 2, 3], name)
    elif name == "args.pth":
        torch.save({"args": argparse.Namespace(lr=1e-4), "epoch": 3}, name)
    elif name == "text.pth":
        Path(name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    elif name == "empty.pth":
        Path(name).touch()
    elif name == "folder":
        os.mkdir(name)
    elif name == "cut.safetensors":
        Path(name).write_bytes(struct.pack("<Q", 5000) + b'{"a": {"dtype": "F32"')


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.pth", "missing.pth"),
        ("empty.pth", "empty"),
        ("truncated.pth", "truncated"),
        ("evil.pth", "system"),
        ("evil.pkl", "evil.pkl"),
        ("yolo.pt", "YOLO"),
        ("resnet.pth", "ResNet"),
        ("list.pth", "list.pth"),
        ("args.pth", "args.pth"),
        ("text.pth", "git-lfs"),
        ("folder", "folder"),
        ("cut.safetensors", "safetensors"),
        ("nan.pth", "class_embed.weight"),
        ("lacks.pth", "bbox_embed.layers.1.weight"),
        ("surplus.pth", "extra.weight"),
        ("shape.pth", "bbox_embed.layers.2.bias"),
        ("heads.pth", "--nheads"),
        ("size.pth", "size"),
        ("detr_resnet5O", "detr_resnet50"),
        ("hf:nothing", "owner/name"),
    ],
)
def test_weights(here, capsys, name, says):
    write_weights(name)
    before = sorted(os.listdir())
    assert says in fails(capsys, ["--weights", name, "--image", "good.png"])
    assert sorted(os.listdir()) == before  # neither an output nor what a pickle wanted to do


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--type", "yolo"], "yolo"),
        (["--plot", "spatial"], "spatial"),
        (["--plo", "content"], "--plo"),  # no abbreviations
        (["--colour"], "--colour"),
        (["redner"], "redner"),
        (["--layer", "3"], "0..2"),
        (["--layer", "-1"], "--layer"),
        (["--layer", "first"], "first"),
        (["--scale", "256"], "256"),
        (["--size", "0"], "--size"),
        (["--size", "big"], "big"),
        (["--nheads", "7"], "--nheads"),
        (["--nheads", "zwei"], "zwei"),
        (["--dilation"], "dilation"),
        (["--device", "tpu"], "tpu"),
        (["--queries", "top:0"], "top:0"),
        (["--queries", "best"], "best"),
        (["--queries", ""], "cannot read '' in --queries"),
        (["--queries", "999"], "999"),
        (["--queries", "score:1.1"], "--list-queries"),
        (["--queries", "class:unicorn"], "unicorn"),
        (["--queries", "point:9999,0"], "64 x 48"),
        (["--type", "cd_detr", "--weights", str(DEMO)], "--type"),
        (["--classes", "missing.txt"], "missing.txt"),
        (["--classes", "good.png"], "good.png"),
        (["--out", "figure.bmp"], ".png, .pdf, .svg"),
        (["--out", "good.png/figure.png"], "good.png"),
        (["--out", "good.png/sub/"], "good.png"),
        (["--out", "one.png", "--image", "good.png", "good.png"], "folder"),
        (["--out", "/proc/nowhere/figure.png"], "/proc"),
        (["--image"], "--image"),
        (["--weights", ""], "checkpoint"),
        (["--image", ""], "image"),
    ],
)
def test_flags(here, capsys, argv, says):
    if "--image" not in argv:
        argv = [*argv, "--image", "good.png"]
    assert says in fails(capsys, argv)
    assert sorted(os.listdir()) == ["good.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_asked_for_and_absent(here, capsys):
    assert "--device cpu" in fails(capsys, ["--device", "cuda", "--image", "good.png"])


def only_small_files() -> None:
    sys.dont_write_bytecode = True  # Python itself would leave cut files
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(here):
    """A limit on file size stands for it: the write fails half-way."""
    (here / "fig.png").write_text("the older figure")
    argv = ["--image", "good.png", "--out", "fig.png", "--queries", "top:3"]
    done = run(*argv, prepare=only_small_files)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write fig.png") and done.stderr.count("\n") == 1
    assert sorted(os.listdir()) == ["fig.png", "good.png"]
    assert (here / "fig.png").read_text() == "the older figure"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(here, capsys):
    (here / "locked").mkdir(mode=0o500)
    err = fails(capsys, ["--image", "good.png", "--out", "locked/fig.png"])
    assert "locked" in err and "permission" in err.lower()


READABLE = {
    "one.png": lambda: Image.new("RGB", (1, 1), "red"),
    "thin.png": lambda: Image.new("RGB", (1, 10_000), "red"),
    "wide.png": lambda: Image.new("L", (10_000, 1), 90),
    "cmyk.jpg": lambda: Image.new("CMYK", (60, 40), (10, 200, 30, 0)),
    "palette.png": lambda: Image.effect_noise((60, 40), 50).convert("P"),
    "deep.png": lambda: Image.fromarray(np.full((40, 60), 40_000, np.uint16)),
    "alpha.png": lambda: Image.new("RGBA", (60, 40), (10, 200, 30, 100)),
    "gray.png": lambda: Image.new("L", (60, 40), 100),
    "bits.png": lambda: Image.new("1", (60, 40), 1),
}


@pytest.mark.parametrize("name", READABLE)
def test_odd_but_readable_images_are_drawn(here, capsys, name):
    READABLE[name]().save(name)
    argv = ["--image", name, "--queries", "top:1", "--out", "fig.png", "--save-maps"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().err == ""
    with np.load("fig.npz") as saved, Image.open(name) as picture:
        assert saved["image_hw_px"].tolist() == [picture.height, picture.width]
        assert np.isfinite(saved["maps_combine"]).all()


def test_an_animation_says_that_its_first_frame_is_used(here, capsys):
    frames = [Image.new("RGB", (60, 40), c) for c in ("red", "lime", "blue")]
    frames[0].save("move.gif", save_all=True, append_images=frames[1:])
    assert cli.main(["--image", "move.gif", "--queries", "top:1"]) == 0
    assert "first of 3 frames" in capsys.readouterr().out


def test_a_turned_photo_is_measured_upright(here, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "red").save("turned.jpg", exif=exif)
    argv = ["--image", "turned.jpg", "--queries", "top:1", "--out", "f.png", "--save-maps"]
    assert cli.main(argv) == 0
    with np.load("f.npz") as saved:
        assert saved["image_hw_px"].tolist() == [60, 40]
