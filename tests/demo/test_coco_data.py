"""Training on photos of one's own: what is read, what comes in a batch, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detr_viz import load_model
from detr_viz.common.errors import UserError
from detr_viz.demo import train
from detr_viz.demo.augment import cropped
from detr_viz.demo.coco_data import read_coco
from detr_viz.demo.recipe import TrainingConfig
from detr_viz.images.resize import MEAN_RGB, STD_RGB

SMALL = TrainingConfig(
    enc_layers=1,
    dec_layers=2,
    blocks=(1, 1),
    widths=(16, 16),
    d_model=32,
    dim_feedforward=32,
    queries=4,
    batch=2,
)


def annotated(folder, count: int = 12, **changes: object) -> str:
    """Photos of a red square (id 7) and a green one (id 3) on grey, and their COCO file."""
    images, boxes = [], []
    rng = np.random.default_rng(0)
    for i in range(count):
        w, h = ((64, 48), (48, 64), (60, 60))[i % 3]
        rgb = np.full((h, w, 3), 90, np.uint8)
        for ink, category in ((0, 7), (1, 3)):
            x, y = int(rng.integers(2, w - 22)), int(rng.integers(2, h - 22))
            rgb[y : y + 16, x : x + 20] = 0
            rgb[y : y + 16, x : x + 20, ink] = 255
            boxes.append(
                {"id": len(boxes), "image_id": i, "category_id": category, "bbox": [x, y, 20, 16]}
            )
        Image.fromarray(rgb).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": w, "height": h})
    categories = [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]
    content = {"images": images, "annotations": boxes, "categories": categories, **changes}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_classes_are_in_the_order_of_their_ids_and_one_image_in_ten_is_held_out(tmp_path):
    data = read_coco(annotated(tmp_path, 60), str(tmp_path))
    assert data.classes == ("green", "red") and data.most_objects == 2
    names = [{one.path for one in part} for part in (data.learned, data.held_out)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 60
    assert 2 <= len(data.held_out) <= 14
    again = read_coco(annotated(tmp_path, 60), str(tmp_path))
    assert [a.path for a in again.held_out] == [a.path for a in data.held_out]


def test_boxes_lie_on_their_squares_after_mirrors_and_crops(tmp_path):
    """The colour under each box's centre is that of its class, in every batch."""
    data = read_coco(annotated(tmp_path), str(tmp_path))
    rng = np.random.default_rng(1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    proportions, seen = set(), 0
    for _ in range(30):
        images, labels, boxes = data.batch(rng, 3, 96)
        proportions.add(tuple(images.shape[-2:]))
        for image, classes, box in zip(images, labels, boxes, strict=True):
            rgb = image * std + mean
            for label, (x, y, w, h) in zip(classes.tolist(), box.tolist(), strict=True):
                if label < 0:
                    continue
                column, row = int(x * rgb.shape[2]), int(y * rgb.shape[1])
                r, g, _ = rgb[:, row, column].tolist()
                covered = min(r, g) > 0.3  # where the other square lies over the centre
                if abs(r - g) > 0.3 and not covered:
                    seen += (r > g) == (label == 1)
                    assert w * h > 0
    assert proportions == {(96, 128), (128, 96), (96, 96)}
    assert seen > 100


def test_a_crop_keeps_what_shows_at_least_three_tenths():
    picture = np.arange(100 * 100 * 3, dtype=np.uint32).reshape(100, 100, 3)
    boxes = np.array([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.05, 0.05]], np.float32)
    for seed in range(20):
        part, left, which = cropped(picture, boxes, np.random.default_rng(seed))
        h, w = part.shape[:2]
        y, x = np.argwhere((picture == part[0, 0]).all(-1))[0]
        for box, i in zip(left, which.tolist(), strict=True):
            whole = boxes[i] * 100 - np.array([x, y, x, y])
            by_hand = whole.clip(0, [w, h, w, h]) / [w, h, w, h]
            np.testing.assert_allclose(box, by_hand, atol=1e-6)
        assert 0 in which
        shown = (np.array([5, 5]) - [x, y]).clip(0).prod() / 25
        assert (1 in which) == (shown >= 0.3)


def test_a_detector_of_ones_own_is_trained_and_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.CONFIGS, "cd_detr", SMALL)
    monkeypatch.chdir(tmp_path)
    path = annotated(tmp_path)
    common = ["--type", "cd_detr", "--coco", path, "--steps", "3", "--size", "64"]
    train.main([*common, "--out", "own.pth", "--cache", "cache"])
    out = capsys.readouterr().out
    assert "2 classes, 4 queries, 64 px" in out and "held-out images at 64 px" in out
    model = load_model("own.pth", device="cpu")
    assert model.class_names == ("green", "red") and model.info.num_queries == 4
    assert (model.size, model.max_size) == (64, 106)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": []}, "has no boxes to learn from"),
        ({"categories": []}, "categories are missing"),
        ({"categories": [{"id": 3}]}, "a category has no id and name"),
        ({"annotations": 4}, "lacks one of the lists"),
        ({"annotations": []}, "has no boxes to learn from"),
        ({"annotations": [{"image_id": 99, "category_id": 3, "bbox": [0, 0, 5, 5]}]}, r"\[0\]"),
        ({"annotations": [{"image_id": 0, "category_id": 3, "bbox": [0, 5]}]}, r"\[0\]"),
        ({"images": [{"id": 0, "file_name": "gone.png", "width": 9, "height": 9}]}, "not there"),
        ({"images": [{"id": 0, "file_name": "0.png"}]}, "no id, file_name, width or height"),
    ],
)
def test_what_is_no_training_data_is_one_line(tmp_path, changes, says):
    if "images" in changes and not changes["images"]:
        changes = {**changes, "annotations": []}
    path = annotated(tmp_path, **changes)
    with pytest.raises(UserError, match=says) as error:
        read_coco(path, str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_json_and_a_folder_that_is_none(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*a\.json as COCO annotations"):
        read_coco(str(tmp_path / "a.json"), str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        read_coco(annotated(tmp_path), str(tmp_path / "0.png"))


def test_crowds_and_boxes_below_a_pixel_are_left_out_and_counted(tmp_path):
    many = [
        {"image_id": 1, "category_id": 3, "bbox": [4, 4, 20, 20]},
        {"image_id": 1, "category_id": 3, "bbox": [4, 4, 0.5, 20]},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 30, 30], "iscrowd": 1},
    ]
    data = read_coco(annotated(tmp_path, annotations=many), str(tmp_path))
    assert sum(len(one.labels) for one in (*data.learned, *data.held_out)) == 1
    assert "2 crowds or boxes below a pixel are left out" in data.notes[0]


def test_a_photo_that_exif_turns_against_its_annotations_is_refused(tmp_path):
    path = annotated(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(3):
        with Image.open(tmp_path / f"{i}.png") as picture:
            picture.copy().save(tmp_path / f"{i}.png", exif=exif)
    data = read_coco(path, str(tmp_path))
    with pytest.raises(UserError, match="EXIF turns it"):
        for seed in range(20):
            data.batch(np.random.default_rng(seed), 2, 64)


@pytest.mark.parametrize("more", [["--images", "."], ["--queries", "5"], ["--size", "96"]])
def test_flags_of_photos_go_with_coco(more, capsys):
    with pytest.raises(SystemExit) as end:
        train.parse(["--type", "detr", "--out", "a.pth", *more])
    assert end.value.code == 2 and "go with --coco" in capsys.readouterr().err
