"""--gt in whole runs: which files are drawn again, what is refused, what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from batch_tools import batch, folder_of_scenes, picture

from detr_viz import cli, heatmaps
from detr_viz.common.errors import UserError

BOX = [10.0, 12.0, 20.0, 30.0]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_scenes(Path("in"), 4)
    return tmp_path


def annotations(box=BOX, name="star", images=4):
    paths = sorted(p.relative_to("in").as_posix() for p in Path("in").rglob("*.png"))[:images]
    Path("in/instances.json").write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": path} for i, path in enumerate(paths)],
                "annotations": [
                    {"id": i, "image_id": i, "category_id": 1, "bbox": box if i == 0 else BOX}
                    for i in range(len(paths))
                ],
                "categories": [{"id": 1, "name": name}],
            }
        )
    )
    return paths


def drawn(capsys, *more, flag="--gt"):
    argv = ["--image", "in/instances.json", "--out", "out", "--format", "png,npz", *more]
    return "".join(batch(*argv, *([flag] if flag else []), capsys=capsys))


def test_a_resumed_run_draws_what_is_annotated_another_way(capsys):
    annotations()
    assert "wrote 8 files for 4 images" in drawn(capsys)
    assert "wrote 0 files for 0 images" in drawn(capsys, "--resume")
    annotations(box=[10.0, 12.0, 20.0, 31.0])
    assert "wrote 2 files for 1 image;" in drawn(capsys, "--resume")
    annotations(box=[10.0, 12.0, 20.0, 31.0], name="ring")
    assert "wrote 8 files for 4 images" in drawn(capsys, "--resume")


def test_files_without_gt_do_not_depend_on_annotations(capsys):
    annotations()
    drawn(capsys, flag=None)
    before = {p: p.read_bytes() for p in Path("out").rglob("*.png")}
    annotations(box=[1.0, 2.0, 3.0, 4.0])
    assert "wrote 0 files for 0 images" in drawn(capsys, "--resume", flag=None)
    argv = ["--image", "in/a", "in/b", "--out", "plain", "--format", "png"]
    batch(*argv, capsys=capsys)  # no annotations at all
    plain = {p.name: p.read_bytes() for p in Path("plain").rglob("*.png")}
    assert plain == {p.name: content for p, content in before.items()}
    assert "wrote 8 files for 4 images" in drawn(capsys, "--resume")  # with --gt they differ


def test_boxes_of_another_shape_are_left_out_and_resume_knows_it(capsys):
    annotations()
    content = json.loads(Path("in/instances.json").read_text())
    content["images"][0] |= {"width": 10, "height": 1000}
    Path("in/instances.json").write_text(json.dumps(content))
    out = drawn(capsys)
    assert "its annotated boxes are left out" in out
    assert "wrote 0 files for 0 images" in drawn(capsys, "--resume")


def test_saved_numbers_have_the_truth(capsys):
    annotations()
    drawn(capsys)
    for path in Path("out").rglob("*.npz"):
        arrays = np.load(path)
        left, top, wide, high = BOX
        assert arrays["truth_boxes_xyxy_px"].tolist() == [[left, top, left + wide, top + high]]
        assert arrays["truth_names"].tolist() == ["star"]
        assert arrays["truth_crowd"].tolist() == [False]
        (label,) = arrays["truth_labels"]
        assert json.loads(str(arrays["meta"]))["schema_version"] == 3
        loaded = heatmaps.load(path)
        assert loaded.truth["truth_labels"].tolist() == [label]
    annotations(name="unicorn")
    drawn(capsys, "--plot", "terms")
    arrays = np.load(next(Path("out").rglob("*terms*.npz")))
    assert arrays["truth_labels"].tolist() == [-1] and arrays["truth_names"].tolist() == ["unicorn"]
    drawn(capsys, "--attention", "encoder", "--type", "cd_detr")
    arrays = np.load(next(Path("out").rglob("*encoder*.npz")))
    assert arrays["truth_names"].tolist() == ["unicorn"]


def test_labels_are_those_of_the_detector(capsys):
    annotations(name="STAR")
    drawn(capsys)
    arrays = np.load(next(Path("out").rglob("*.npz")))
    from detr_viz.images.drawn_scenes import CLASSES

    assert CLASSES[arrays["truth_labels"][0]] == "star"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("truth_labels", None, "lacks truth_labels"),
        ("truth_labels", np.zeros(2, np.int64), "is float64 (1, 4)"),
        ("truth_boxes_xyxy_px", np.full((1, 4), np.nan), "no numbers"),
        ("truth_crowd", np.zeros(1), "truth_crowd is float64"),
    ],
)
def test_truth_in_a_file_from_anywhere_is_checked(tmp_path, capsys, name, change, words):
    from detr_viz.heatmaps import safe_npz

    annotations(images=1)
    drawn(capsys)
    path = next(Path("out").rglob("*.npz"))
    arrays = dict(np.load(path))
    meta = json.loads(str(arrays.pop("meta")))
    arrays.pop(name)
    if change is not None:
        arrays[name] = change
    meta["crc32"] = safe_npz.checksums(arrays)
    np.savez_compressed("bad.npz", **arrays, meta=np.asarray(json.dumps(meta)))
    with pytest.raises(UserError, match=r"bad\.npz") as caught:
        heatmaps.load("bad.npz")
    assert words in str(caught.value)


def test_images_without_boxes(capsys):
    picture(1).save("one.png")
    assert cli.main(["--image", "one.png", "--gt", "--out", "a.png"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --gt needs annotated boxes, and no image has any: give")
    assert line.count("\n") == 1 and not Path("a.png").exists()
    annotations(images=1)
    out, _ = batch("--image", "in/instances.json", "one.png", "--gt", "--out", "o/", capsys=capsys)
    assert "note: 1 of 2 images has no annotated boxes (one.png): --gt shows none there" in out
    assert cli.main(["--image", "in/instances.json", "--gt", "--list-queries"]) == 2
    assert "--gt draws" in capsys.readouterr().err


def test_one_image_with_annotations_apart(capsys):
    (first, *_) = annotations()
    argv = ["--image", f"in/{first}", "--annotations", "in/instances.json", "--gt"]
    out, _ = batch(*argv, "--out", "a.png", "--caption", capsys=capsys)
    assert "boxes of 1 of 1 images from a COCO file" in out
    assert "annotated objects (ground truth)" in Path("a.tex").read_text()
    from PIL import Image

    assert "annotated objects" in Image.open("a.png").text["Description"]


def test_every_view_takes_the_flag(capsys):
    (first, *_) = annotations()
    argv = ["--image", f"in/{first}", "--annotations", "in/instances.json", "--gt"]
    for i, more in enumerate(
        (
            ["--attention", "decoder"],
            ["--attention", "encoder"],
            ["--rollout"],
            ["--faithfulness"],
            ["--ablate", "head:0"],
            ["--type", "efficient_detr", "--plot", "proposals"],
            ["--type", "salience_detr", "--plot", "salience"],
            ["--type", "dynamic_detr", "--plot", "scales"],
            ["--type", "sparse_rcnn"],
            ["--type", "deformable_detr"],
            ["--type", "detr", "cd_detr"],
        )
    ):
        batch(*argv, *more, "--out", f"{i}.png", capsys=capsys)
        from PIL import Image

        assert "annotated objects (ground truth)" in Image.open(f"{i}.png").text["Description"], (
            more
        )
