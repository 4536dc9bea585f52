"""Which pictures are drawn scenes: those of the writer, saved again in any way; and no photo."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

from detr_viz import cli
from detr_viz.demo.photo_scenes import photo_scene, sample_photos
from detr_viz.demo.shapes import held_out_seeds, scene
from detr_viz.images.drawn_scenes import CLASSES, ONLY_SHAPES, is_beyond, is_drawn_scene

SAID = f"note: {ONLY_SHAPES}"


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file)


CHANGES = {
    "as it is": lambda im: im,
    "jpeg": lambda im: saved_again(im, 40),
    "smaller": lambda im: im.resize((90, 70)),
    "larger": lambda im: im.resize((700, 500), Image.Resampling.LANCZOS),
    "mirrored": ImageOps.mirror,
    "cropped": lambda im: im.crop((20, 10, 230, 250)),
    "palette": lambda im: im.quantize(64).convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_scenes_are_scenes_whatever_was_done_to_the_file(change):
    scenes = [Image.fromarray(scene(seed, 256).rgb) for seed in held_out_seeds(25)]
    scenes += [Image.open(ROOT / f"image/scene_{i}.jpg") for i in (1, 2, 3, 4)]
    known = [is_drawn_scene(np.asarray(CHANGES[change](image))) for image in scenes]
    assert sum(known) >= len(known) - (change == "cropped")


def test_other_pictures_are_none():
    grey = np.asarray(Image.open(ROOT / "image/photo_coffee.jpg").convert("L"))
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    pictures = [*sample_photos(), noise, np.dstack([grey] * 3)]
    pictures += [np.full((40, 50, 3), tone, np.uint8) for tone in (0, 68, 128, 225, 255)]
    pictures += [np.full((40, 50, 3), (62, 76, 96), np.uint8)]  # a background without an object
    pictures += [photo_scene(seed, 256, sample_photos()).rgb for seed in held_out_seeds(8)]
    assert not any(map(is_drawn_scene, pictures))
    assert is_beyond(CLASSES, noise) and not is_beyond(("cat", "dog"), noise)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> list[str]:
        assert cli.main([*flags]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_the_last_line_and_the_figure_say_it_of_a_photo(run):
    photo = str(ROOT / "image/photo_cat.jpg")
    for flags in (["--dpi", "60"], ["--list-queries"]):
        assert run("--image", photo, *flags)[-1].startswith(SAID)
    with Image.open("outputs/photo_cat_detr_combine.png") as figure:
        assert ONLY_SHAPES in figure.text["Description"]


def test_nothing_says_it_of_a_scene(run):
    lines = run("--dpi", "60", "--out", "a.png")
    assert lines[-1] == "wrote a.png" and not any(ONLY_SHAPES in line for line in lines)
    with Image.open("a.png") as figure:
        assert ONLY_SHAPES not in figure.text["Description"]


def test_a_batch_and_record_say_it_at_the_end(run):
    images = ["--image", *(str(ROOT / f"image/{n}") for n in ("scene_1.jpg", "photo_cat.jpg"))]
    lines = run(*images, "--dpi", "40", "--jobs", "1", "--queries", "top:1", "--contact-sheet")
    assert lines[-1].startswith(f"{SAID}, and 1 image is no drawn scene: for photos")
    assert run("record", *images, "--out", "kept", "--queries", "top:1")[-1].startswith(SAID)


@pytest.mark.parametrize(
    ("kind", "says"),
    [("detr", "--weights detr_resnet50 "), ("anchor_detr", "--weights with a file of Anchor DETR")],
)
def test_the_other_weights_are_of_the_same_type(run, kind, says):
    photo = str(ROOT / "image/photo_cat.jpg")
    line = run("--image", photo, "--type", kind, "--list-queries", "--queries", "top:1")[-1]
    assert line.startswith(f"{SAID}: for photos take {says}")
