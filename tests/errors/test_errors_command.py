"""The errors command: its files, what it says, what it refuses, how it goes on."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
from batch_tools import start
from handmade import annotated, cells_of, handmade
from PIL import Image

from detr_viz import cli
from detr_viz.demo import scenes
from detr_viz.detections.queries import select
from detr_viz.errors.rows import JudgedImage, Verdict, rows_of
from detr_viz.errors.run import ErrorRow
from detr_viz.errors.summary import Summary
from detr_viz.errors.worst import choice_of, worst_of
from detr_viz.images.names import STATE_FOLDER


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("scenes")
    scenes.write(made, 16)
    return made


@pytest.fixture(scope="module")
def whole(folder):
    """The tables of a run without a stop."""
    out = folder / "whole"
    assert run("--image", folder / "instances.json", "--out", out, "--quiet") == 0
    return out


TABLES = ("errors.csv", "summary.csv", "verdicts.csv")


def run(*argv) -> int:
    more = () if "--worst" in argv else ("--worst", "0")
    return cli.main(["errors", *map(str, argv), *more])


def table(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same_tables(one, other) -> None:
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_files_of_a_run(whole):
    assert sorted(path.name for path in whole.iterdir()) == sorted(TABLES)
    errors, verdicts = table(whole / "errors.csv"), table(whole / "verdicts.csv")
    assert [row for row in verdicts if row["kind"] not in ("found", "")] == [
        {**{k: v for k, v in row.items() if k != "figure"}, "files": ""} for row in errors
    ]
    assert {row["model"] for row in errors} == {"detr_demo.pth"}
    wrong = [row for row in errors if row["kind"] == "wrong-class"]
    assert wrong and all(float(row["iou"]) >= 0.5 and row["object"] for row in wrong)
    assert all(0 <= float(row["attention"]) <= 1 for row in wrong)


CAT, DOG = [10, 10, 40, 40], [50, 10, 80, 40]


def test_rows_by_hand():
    truth = annotated((CAT, "Cat"), (DOG, "dog"), ([0, 50, 10, 60], "unicorn"))
    e = handmade(
        truth,
        (CAT, "cat", 0.9, cells_of(CAT)),
        ([50, 10, 80, 34], "cat", 0.7, [*cells_of(DOG), (5, 0)]),
        ([10, 50, 20, 60], "dog", 0.6, cells_of(DOG)),
    )
    found, dog, unicorn, wrong, background = rows_of(e, "a.pth", 0.5)
    assert found == Verdict(
        *("a.pth", "found", "small", "1", "cat", "10.0", "10.0", "40.0", "40.0", "900.0", "0.1875"),
        *("0", "cat", "0.900000", "10.0", "10.0", "40.0", "40.0", "1.0000"),
    )
    assert dog[:9] == ("a.pth", "missed", "small", "2", "dog", "50.0", "10.0", "80.0", "40.0")
    assert (dog.query, dog.query_class, dog.iou, dog.attention) == ("1", "cat", "0.8000", "0.9000")
    assert (dog.looking, dog.looking_class, dog.looking_attention) == ("2", "dog", "1.0000")
    assert (dog.reason, dog.about) == ("misnamed", "1")
    assert (unicorn.kind, unicorn.object_class, unicorn.reason) == ("missed", "unicorn", "no-class")
    assert (wrong.kind, wrong.object, wrong.query, wrong.iou) == ("wrong-class", "2", "1", "0.8000")
    assert wrong.attention == "0.9000"
    assert (background.kind, background.object, background.query) == ("background", "", "2")

    summary = Summary("a.pth", [found, dog, unicorn, wrong, background])
    assert summary.recall() == pytest.approx(1 / 3)
    assert summary.recall(("class", "cat")) == 1 and summary.recall(("class", "dog")) == 0
    objects = {row[1:3]: row[3:5] for row in summary.table()}
    assert objects["size", "small"] == ("3", "1") and objects["class", "unicorn"] == ("1", "0")
    lines = summary.lines()
    assert lines[:2] == [
        "a.pth",
        "         objects  found  recall  misnamed  no class  wrong class  backgr.",
    ]
    assert lines[2].split() == ["all", "3", "1", "0.333", "1", "1", "1", "1"]

    errors = [ErrorRow("a.png", row, "") for row in (dog, unicorn, wrong, background)]
    assert [error.verdict.kind for error in worst_of(errors, 3)] == [
        "missed",
        "wrong-class",
        "missed",
    ]
    assert choice_of([errors[0], errors[2], errors[3]]) == ("1,2&missed+1&wrong-class+2&background")
    assert select(e, choice_of([errors[0], errors[3]])) == [1, 2]
    assert JudgedImage("a.png", (tuple(found),), ()).columns[1:-2] == Verdict._fields


def test_figures_of_the_worst(folder, tmp_path, capsys):
    out = tmp_path / "errors"
    argv = ("--image", folder / "instances.json", "--out", out, "--worst", "3", "--format", "svg")
    assert run(*argv, "--dpi", "60") == 0
    drawn = [row for row in table(out / "errors.csv") if row["figure"]]
    assert len(drawn) == 3
    figures = {row["figure"] for row in drawn}
    assert {p.relative_to(out).as_posix() for p in (out / "worst").rglob("*.svg")} == figures
    for row in drawn:
        text = (out / row["figure"]).read_text()
        assert f"query {row['query']}" in text and "ground truth" in text
        if row["kind"] == "missed":
            assert row["words"].split(":")[0] in text
    assert "recall" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_tables(folder, whole, tmp_path):
    out = tmp_path / "errors"
    argv = ["errors", "--image", str(folder / "instances.json"), "--out", str(out), "--jobs", "1"]
    argv += ["--worst", "0"]
    run_ = start(*argv)
    journal = out / STATE_FOLDER / "journal.jsonl"
    for _ in range(1200):
        if journal.exists() and journal.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.05)
    run_.send_signal(signal.SIGINT)
    run_.communicate(timeout=120)
    assert run_.returncode == 130
    assert not (out / "errors.csv").exists()
    assert run(*argv[1:], "--resume", "--quiet") == 0
    same_tables(out, whole)


def test_resuming_a_finished_run_judges_nothing_again(folder, whole, tmp_path, monkeypatch):
    out = tmp_path / "errors"
    shutil.copytree(whole, out)
    from detr_viz.errors import run as module

    judged = []
    monkeypatch.setattr(module, "rows_of", lambda *args: judged.append(args) or rows_of(*args))
    argv = ("--image", folder / "instances.json", "--out", out, "--quiet", "--resume")
    assert run(*argv) == 0 and not judged
    same_tables(out, whole)
    assert run(*argv, "--score", "0.3") == 0 and len(judged) == 16


def test_an_image_that_is_broken_is_listed(folder, tmp_path, capsys):
    for path in folder.glob("scene_000[0-3].png"):
        shutil.copy(path, tmp_path)
    (tmp_path / "scene_0001.png").write_bytes(b"no picture")
    coco = json.loads((folder / "instances.json").read_text())
    coco["images"] = coco["images"][:4]
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    out = tmp_path / "errors"
    assert run("--image", tmp_path / "instances.json", "--out", out) == 1
    err = capsys.readouterr().err
    assert "error: 1 of 4 images failed" in err and "failures.csv says why" in err
    (failure,) = table(out / "failures.csv")
    assert failure["image"].endswith("scene_0001.png")
    total = table(out / "summary.csv")[0]
    lost = {image["id"] for image in coco["images"] if "0001" not in image["file_name"]}
    assert int(total["objects"]) == sum(a["image_id"] in lost for a in coco["annotations"])


def coco_with(folder, tmp_path, **changes):
    coco = json.loads((folder / "instances.json").read_text()) | changes
    path = tmp_path / "other.json"
    path.write_text(json.dumps(coco))
    return path


def test_bad_inputs_end_in_one_line(folder, tmp_path, capsys):
    instances, out = folder / "instances.json", tmp_path / "out"
    names = [{"id": k, "name": f"thing {k}"} for k in range(1, 7)]
    nothing_known = coco_with(folder, tmp_path, categories=names)
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(json.loads(instances.read_text()) | {"annotations": []}))
    (tmp_path / "file").write_text("")
    root = ("--image-root", folder)
    cases = {
        (): "errors needs annotated images: give --image instances.json",
        ("--image", folder / "scene_0000.png"): "errors needs annotated boxes, and no image has",
        ("--image", empty, *root): "errors needs annotated boxes, and no image has any",
        ("--image", nothing_known, *root): "none of the 6 class names of",
        ("--image", instances, "--score", "2"): "'2' is not a number from 0 to 1",
        ("--image", instances, "--score", "high"): "'high' is not a number from 0 to 1",
        ("--image", instances, "--worst", "-1"): "is not a whole number from 0",
        ("--image", instances, "--out", tmp_path / "file"): "is a file: give a folder",
        ("--image", instances, "--out", tmp_path / "file" / "x"): "file",
        ("--image", tmp_path / "none.json"): "none.json",
    }
    for argv, words in cases.items():
        more = () if "--out" in argv else ("--out", out)
        try:
            code = run(*argv, *more, "--quiet")
        except SystemExit as stop:
            code = stop.code
        err = capsys.readouterr().err
        assert code == 2 and words in err and err.count("\n") == 1, (argv, err)
    assert not out.exists()


def test_classes_that_the_model_lacks_are_said_and_count_as_missed(folder, tmp_path, capsys):
    coco = json.loads((folder / "instances.json").read_text())
    names = coco["categories"]
    names[3]["name"] = "unicorn"  # the stars
    path = coco_with(folder, tmp_path, categories=names, images=coco["images"][:4])
    assert run("--image", path, "--image-root", folder, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert re.search(r"note: 1 of \d class names of .* none of detr_demo.pth: unicorn;", printed)
    rows = {row["name"]: row for row in table(tmp_path / "out" / "summary.csv")}
    lost = [a for a in coco["annotations"] if a["image_id"] <= 4 and a["category_id"] == 4]
    assert lost and rows["unicorn"]["no-class"] == rows["unicorn"]["objects"] == str(len(lost))


def test_names_that_could_harm_stay_inert(folder, tmp_path, capsys):
    coco = json.loads((folder / "instances.json").read_text())
    coco["categories"][4]["name"] = '=HYPERLINK("x")\x1b[31m,\n"'
    path = coco_with(folder, tmp_path, categories=coco["categories"], images=coco["images"][:3])
    assert run("--image", path, "--image-root", folder, "--out", tmp_path / "out") == 0
    assert "\x1b" not in capsys.readouterr().out
    rows = table(tmp_path / "out" / "verdicts.csv")
    assert {row["object_class"] for row in rows} & {'=HYPERLINK("x")\x1b[31m,\n"'}


def test_scenes_as_coco(folder):
    from detr_viz.demo.shapes import CLASSES, held_out_seeds, scene

    coco = json.loads((folder / "instances.json").read_text())
    assert [c["name"] for c in coco["categories"]] == list(CLASSES)
    first = scene(held_out_seeds(1)[0], 512)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "scene_0000.png")), first.rgb)
    mine = [a for a in coco["annotations"] if a["image_id"] == 1]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in mine)]
    np.testing.assert_allclose(boxes, first.boxes_xyxy_px, atol=1e-4)
    assert [a["category_id"] - 1 for a in mine] == first.labels.tolist()
