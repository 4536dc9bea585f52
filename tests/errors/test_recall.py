"""Recall of the errors command: that of pycocotools, and of a matching written by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import demo_model
from recall_tools import by_hand, by_pycocotools, detections_of

from detr_viz import cli, models
from detr_viz.demo import scenes


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """20 held-out scenes, and what `errors` writes of them for all demo checkpoints."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, 20)
    argv = ["errors", "--type", *models.demos(), "--image", str(folder / "instances.json")]
    assert cli.main([*argv, "--out", str(folder / "errors"), "--quiet", "--worst", "0"]) == 0
    return folder


def compare(folder: Path, name: str, least_objects: int) -> None:
    """summary.csv against both."""
    found = detections_of(demo_model(name), folder)
    theirs = by_pycocotools(folder / "instances.json", found)
    objects, hits = by_hand(folder / "instances.json", found)
    rows = rows_of(folder / "errors" / "summary.csv")
    mine = {row["name"] or "all": row for row in rows if row["model"] == f"{name}_demo.pth"}
    for group in ("all", "small", "medium", "large", *theirs):
        row = mine[group]
        assert (int(row["objects"]), int(row["found"])) == (objects[group], hits[group])
        if group in theirs:
            assert float(row["recall"]) == pytest.approx(theirs[group], abs=1e-6)
    assert objects["all"] >= least_objects


@pytest.mark.parametrize("name", models.demos())
def test_recall_of_few_scenes(few, name):
    compare(few, name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_recall_of_500_scenes(tmp_path, name):
    scenes.write(tmp_path, 500)
    argv = ["errors", "--type", name, "--image", str(tmp_path / "instances.json"), "--quiet"]
    assert cli.main([*argv, "--out", str(tmp_path / "errors"), "--worst", "0"]) == 0
    compare(tmp_path, name, 1000)


@pytest.mark.parametrize("name", models.demos())
def test_every_error_is_there_once_and_every_missed_object_has_its_reason(few, name):
    folder = few / "errors"
    errors = [row for row in rows_of(folder / "errors.csv") if row["model"] == f"{name}_demo.pth"]
    missed = [row for row in errors if row["kind"] == "missed"]
    total = next(
        row
        for row in rows_of(folder / "summary.csv")
        if row["by"] == "all" and row["model"] == f"{name}_demo.pth"
    )
    assert len(missed) == int(total["objects"]) - int(total["found"])
    assert all(row["reason"] and row["words"] for row in missed)
    assert not any(row["reason"] for row in errors if row["kind"] != "missed")
    assert len({(row["image"], row["object"]) for row in missed}) == len(missed)
