"""--queries missed and its like in the commands that draw and list."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from detr_viz import cli
from detr_viz.demo import scenes

MISSED = "suppressed by score: query 0 has the box (IoU .78) and the class, score .17 below .50"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scene 15, of which the demo of DETR misses two objects, and scene 0, where it misses none."""
    made, all_scenes = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("scenes")
    scenes.write(all_scenes, 16)
    coco = json.loads((all_scenes / "instances.json").read_text())
    coco["images"] = [coco["images"][15], coco["images"][0]]
    ids = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in ids]
    for image in coco["images"]:
        shutil.copy(all_scenes / image["file_name"], made)
    (made / "instances.json").write_text(json.dumps(coco))
    return made


def test_a_missed_object_says_why_in_its_row(folder, tmp_path):
    out = tmp_path / "a.svg"
    one = ("--image", folder / "scene_0015.png", "--annotations", folder / "instances.json")
    argv = [*map(str, one), "--out", str(out), "--quiet", "--dpi", "60"]
    assert cli.main([*argv, "--queries", "missed", "and", "class:triangle"]) == 0
    text = out.read_text()
    assert f"missed triangle, {MISSED}" in text and "missed ring" not in text
    assert "query 0" in text and "query 1 " in text and "query 19" not in text
    assert "dashed green: ground truth" in text
    assert cli.main([*argv, "--queries", "wrong-class"]) == 0
    text = out.read_text()
    assert "wrong-class (ring, IoU .72)" in text and "missed" not in text


def test_a_batch_draws_where_something_is_missed_and_knows_what_is_annotated(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "in")
    instances, out = tmp_path / "in" / "instances.json", tmp_path / "out"
    argv = ["--image", str(instances), "--queries", "missed", "--out", str(out), "--quiet"]
    argv += ["--dpi", "60", "--resume"]

    def rows() -> list[dict[str, str]]:
        with (out / "index.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    assert cli.main(argv) == 0
    first = rows()
    (figure,) = out.glob("*.png")
    assert {row["query"] for row in first if "0015" in row["image"]} >= {"0", "1", "19"}
    assert [row["query"] for row in first if "0000" in row["image"]] == [""]
    before = figure.read_bytes()
    assert cli.main(argv) == 0 and rows() == first
    coco = json.loads(instances.read_text())
    coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] != 3]  # triangles
    instances.write_text(json.dumps(coco))
    assert cli.main(argv) == 0
    assert {row["query"] for row in rows() if "0015" in row["image"]} == {"10", "19"}
    assert figure.read_bytes() != before


def test_the_list_has_the_verdicts(folder, capsys):
    one = ["--image", str(folder / "scene_0015.png")]
    annotated = ["--annotations", str(folder / "instances.json")]
    assert cli.main([*one, *annotated, "--list-queries", "--queries", "top:7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 of 6 annotated objects found at score 0.5, 2 wrong-class" in lines
    (header,) = (line for line in lines if line.startswith("query"))
    assert header.endswith("verdict")
    assert any(line.endswith("wrong-class (ring, IoU .84)") for line in lines)
    assert sum("found (" in line for line in lines) == 4
    assert cli.main([*one, "--list-queries"]) == 0
    assert "verdict" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--queries", "missed"], "--queries missed needs annotated boxes, and no image has any"),
        (["--queries", "class:star,score:0.5"], "did you mean class:star&score:0.5?"),
        (["--queries", "mised"], "did you mean missed?"),
        (["--queries", "found", "--score", "2"], "'2' is not a number from 0 to 1"),
        (["atlas", "--queries", "found"], "--queries found needs annotated boxes"),
    ],
)
def test_what_is_refused(folder, tmp_path, argv, words, capsys):
    command, argv = (argv[:1], argv[1:]) if argv[0] == "atlas" else ([], argv)
    image = ["--image", str(folder / "scene_0000.png"), "--out", str(tmp_path / "o")]
    try:
        code = cli.main([*command, *argv, *image])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and words in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
