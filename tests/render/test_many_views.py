"""Many images with every view: files and index, failures, what is resumed, shards."""

from __future__ import annotations

import pytest
from batch_tools import QUICK, batch, content, folder_of_scenes, paths, table
from conftest import ROOT

from detr_viz import cli

SCENES = [str(ROOT / "image" / f"scene_{i}.jpg") for i in (1, 2)]
VIEWS = {  # argv -> how the files of an image end
    ("--ablate", "content"): ["_ablated_content.csv", "_ablated_content.png"],
    ("--attention", "encoder"): ["_encoder.npz", "_encoder.png"],
    ("--attention", "decoder"): ["_decoder.npz", "_decoder.png", "_decoder_matrix.png"],
    ("--rollout",): ["_rollout.npz", "_rollout.png"],
    ("--rollout", "--attention", "encoder"): ["_rollout_encoder.npz", "_rollout_encoder.png"],
    ("--faithfulness",): ["_faithfulness.csv", "_faithfulness.png"],
}


pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("argv", VIEWS, ids=" ".join)
def test_files_of_every_view_and_a_resumed_run_makes_them_no_second_time(here, capsys, argv):
    folder_of_scenes(here / "in", 2)
    argv = ["--type", "detr", *argv]
    rest = ["--image", "in", "--out", "out", "--jobs", "1", "--save-maps"]
    batch(*argv, *rest, "--quiet")
    ends = VIEWS[tuple(argv[2:])]
    rows = table(here / "out/index.csv")
    assert len(paths(rows)) == 2 and all(row["query"] for row in rows)
    for row in rows:
        names = sorted(row["files"].split(";"))
        assert [name[name.index("_combine") + 8 :] for name in names] == ends
        assert all((here / "out" / name).stat().st_size > 100 for name in names)
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*_combine*")}
    made = content(here / "out")
    (here / "out" / rows[-1]["files"].split(";")[-1]).unlink()
    out, _ = batch(*argv, *rest, "--resume", capsys=capsys)
    assert "1 image done by an earlier run" in out
    assert content(here / "out") == made
    assert sum(path.stat().st_mtime_ns == when for path, when in before.items()) == len(ends)


def test_another_format_is_made_by_a_resumed_run(here, capsys):
    """Of every figure of a view, also of the second."""
    folder_of_scenes(here / "in", 1)
    argv = ["--type", "detr", "--attention", "cross", "decoder", "--image", "in", "--out", "out"]
    batch(*argv, "--quiet")
    out, _ = batch(*argv, "--resume", capsys=capsys)
    assert "1 image done by an earlier run" in out
    out, _ = batch(*argv, "--resume", "--format", "png,svg", capsys=capsys)
    assert "wrote 6 files for 1 image" in out
    assert len(list((here / "out").rglob("*_decoder_matrix.svg"))) == 1
    out, _ = batch(*argv, "--resume", "--save-maps", capsys=capsys)
    assert "wrote 5 files for 1 image" in out  # the numbers of one view alone would not do
    out, _ = batch(*argv, "--resume", "--queries", "top:1", capsys=capsys)
    assert "wrote 2 files for 1 image" in out


def test_shards_with_a_view_are_the_whole(here):
    folder_of_scenes(here / "in", 4)
    argv = ["--type", "detr", "--attention", "encoder", "--image", "in", "--save-maps", "--quiet"]
    batch(*argv, "--out", "whole")
    for shard in ("0/2", "1/2"):
        batch(*argv, "--out", "parts", "--shard", shard)
    batch(*argv, "--out", "parts", "--resume")
    parts = content(here / "parts")
    known = content(here / "whole")
    assert {name: parts[name] for name in known} == known


def test_points_have_rows_of_their_own_in_the_index(here):
    folder_of_scenes(here / "in", 1)
    argv = ["--type", "detr", "--attention", "encoder", "--points", "10,20", "30,40"]
    rest = ["--image", "in", "--out", "out", "--size", "64", "--resume", "--quiet"]
    assert cli.main([*argv, *rest]) == 0
    rows = table(here / "out/index.csv")
    assert [(row["object"], row["left"], row["bottom"]) for row in rows] == [
        ("1", "10.0", "20.0"),
        ("2", "30.0", "40.0"),
    ]
    assert {row["query"] for row in rows} == {""}


def test_a_contact_sheet_of_a_view(here):
    from pypdf import PdfReader

    folder_of_scenes(here / "in", 2)
    argv = ["--type", "detr", "--attention", "decoder", "--image", "in", "--out", "out", "--quiet"]
    batch(*argv, "--contact-sheet", "1")
    assert len(PdfReader("out/contact-sheet.pdf").pages) == 2 * 2  # both figures of each image


def test_what_fails_is_in_the_list_and_the_rest_is_made(here, capsys):
    (bad,) = folder_of_scenes(here / "in", 3, broken=1)
    argv = ["--type", "detr", "--ablate", "content", "--queries", "top:1", "--quiet", *QUICK[:2]]
    assert cli.main([*argv, "--image", "in", "--out", "out"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err == ["error: 1 of 3 images failed: out/failures.csv says why"]
    (failed,) = table(here / "out/failures.csv")
    assert failed["image"] == str(bad).removeprefix(f"{here}/")
    assert len(list((here / "out").rglob("*.png"))) == 2


def test_an_image_without_such_a_query_is_no_failure(here, capsys):
    """circle is in scene 2 alone."""
    argv = ["--type", "detr", "--ablate", "content", "--queries", "class:circle"]
    assert cli.main([*argv, "--image", *SCENES, "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert "1 image without a query that --queries chooses" in out and "error" not in err
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "index.csv",
        "scene_2_detr_combine_ablated_content.png",
    ]


@pytest.mark.parametrize("view", [["--ablate", "content"], ["--rollout"]])
def test_show_is_for_one_image(refused, view):
    refused(["--type", "detr", *view, "--image", *SCENES, "--show"], "--show is for one image")


def test_one_file_for_several(here, capsys):
    argv = ["--type", "detr", "--ablate", "content", "--image", *SCENES, "--out", "a.png"]
    assert cli.main(argv) == 2
    assert "give a folder" in capsys.readouterr().err and not list(here.iterdir())
