"""Several images where a figure is made of one at a time: --ablate, --attention encoder."""

from __future__ import annotations

import pytest
from batch_tools import folder_of_scenes
from conftest import ROOT

from detr_viz import cli

SCENES = [str(ROOT / "image" / f"scene_{i}.jpg") for i in (1, 2)]


@pytest.mark.parametrize(
    ("argv", "end"),
    [(["--ablate", "content"], "_ablated_content"), (["--attention", "encoder"], "_encoder")],
)
def test_a_figure_an_image(tmp_path, argv, end):
    argv = ["--type", "detr", "--queries", "top:1", *argv, "--out", f"{tmp_path}/", "--quiet"]
    assert cli.main([*argv, "--image", *SCENES]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"scene_{i}_detr_combine{end}.png" for i in (1, 2)]


def test_what_fails_is_told_and_the_rest_is_made(tmp_path, capsys):
    folder = tmp_path / "in"
    (bad,) = folder_of_scenes(folder, 3, broken=1)
    argv = ["--type", "detr", "--ablate", "content", "--queries", "top:1", "--quiet"]
    assert cli.main([*argv, "--image", str(folder), "--out", f"{tmp_path}/out"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and err[-1] == "error: 1 of 3 images failed"
    assert str(bad).rsplit("/", 1)[-1] in err[0]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_an_image_without_such_a_query_is_no_failure(tmp_path, capsys):
    """circle is in scene 2 alone."""
    argv = ["--type", "detr", "--ablate", "content", "--queries", "class:circle"]
    assert cli.main([*argv, "--image", *SCENES, "--out", f"{tmp_path}/"]) == 0
    out, err = capsys.readouterr()
    assert f"note: {SCENES[0]}: no query answers to 'class:circle'" in out and not err
    assert [path.name for path in tmp_path.iterdir()] == [
        "scene_2_detr_combine_ablated_content.png"
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ablate", "content", "--resume"], "--resume is not for --ablate"),
        (["--ablate", "content", "--engine", "ray"], "--engine ray is not for --ablate"),
        (["--attention", "encoder", "--contact-sheet"], "--contact-sheet is not for --attention"),
        (["--ablate", "content", "--image", *SCENES, "--show"], "--show is for one image"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", *argv], says)


def test_one_file_for_several(tmp_path, capsys):
    path = tmp_path / "a.png"
    argv = ["--type", "detr", "--ablate", "content", "--image", *SCENES, "--out", str(path)]
    assert cli.main(argv) == 2
    assert "give a folder" in capsys.readouterr().err and not path.exists()
