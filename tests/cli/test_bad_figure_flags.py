"""Flags of figures given wrongly: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_factory import small_config, small_state_dict, training
from conftest import ROOT
from PIL import Image
from test_bad_inputs import fails

from detr_viz import cli

DETR, CD_DETR = (str(ROOT / f"weights/{name}_demo.pth") for name in ("detr", "cd_detr"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (200, 120, 40)).save("good.png")
    return tmp_path


# Refused before any checkpoint is opened: the weights named beside these are not there.
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--style", "sketch"], "'sketch' (choose from"),
        (["--style", ""], "invalid choice: ''"),
        (["--style"], "--style: expected one argument"),
        (["--style", "over\nlay"], "'over\\nlay'"),
        (["--style", "s" * 9999], "--style"),
        (["--norm", "row"], "'row'"),
        (["--norm", ""], "--norm"),
        (["--norm", "head", "--style", "contour"], "take style overlay or heat"),
        (["--norm", "figure", "--style", "contour", "--list-queries"], "says nothing about"),
        (["--cmap", "infernal"], "no colour map 'infernal': try inferno"),
        (["--cmap", ""], "--cmap: '' is not the name"),
        (["--cmap", "in\nferno"], "'in\\nferno'"),
        (["--cmap", "c" * 9999], "--cmap"),
        (["--cmap", "embers"], "no colour map 'embers': try ember"),
        (["--interpolation", "lanczos"], "cubic"),
        (["--zoom", "0.5"], "argument --zoom: '0.5' is no zoom: write auto, none, or a factor"),
        (["--zoom", "big"], "'big' is no zoom"),
        (["--zoom", "nan"], "'nan' is no zoom"),
        (["--zoom", ""], "'' is no zoom"),
        (["--zoom"], "--zoom: expected one argument"),
        (["--zoom", "2\n3"], "'2\\n3' is no zoom"),
        (["--style", "contour", "--contours", "0"], "'0' are no contours: write per cent from 1"),
        (["--style", "contour", "--contours", "50,101"], "'50,101' are no contours"),
        (["--style", "contour", "--contours", "50,50"], "'50,50' are no contours"),
        (["--style", "contour", "--contours", "half"], "'half' are no contours"),
        (["--style", "contour", "--contours"], "--contours: expected at least one argument"),
        (["--contours", "50"], "are the lines of --style contour: give both"),
        (["--contours", "50", "--style", "heat"], "are the lines of --style contour: give both"),
        (["--font", "DejaVu Snas"], "no font 'DejaVu Snas' is installed: try DejaVu Sans"),
        (["--font", "zzzzzz"], "no font 'zzzzzz' is installed: try sans or serif"),
        (["--font", ""], "no font '' is installed"),
        (["--font", "se\nrif"], "is installed"),
        (["--font", "Last Resort High-Efficiency"], "is installed"),
        (["--font"], "--font: expected one argument"),
        (["--font", "f" * 9999], "is installed"),
        (["--letters", "yes"], "unrecognized arguments: yes"),
        (["--letters=a"], "--letters: ignored explicit argument"),
        (["--notes=1"], "--notes: ignored explicit argument"),
        (["--preset", "banner"], "banner"),
        (["--preset"], "--preset: expected one argument"),
        (["--width", "0"], "0.5 to 200 inches"),
        (["--width", "-1"], "'-1' is not a width"),
        (["--width", "nan"], "nan"),
        (["--width", "inf"], "inf"),
        (["--width", "1e9"], "1e9"),
        (["--width", "wide"], "write 3.25 or 85mm"),
        (["--width", "3.25ft"], "3.25ft"),
        (["--width", ""], "''"),
        (["--width", "8\n5mm"], "'8\\n5mm'"),
        (["--dpi", "0"], "20 to 2400 dpi"),
        (["--dpi", "-5"], "'-5' is not a resolution"),
        (["--dpi", "1e6"], "1e6"),
        (["--dpi", "nan"], "nan"),
        (["--layer", "0,,2"], "0,,2"),
        (["--layer", "-1"], "'-1' is not last"),
        (["--layer", "all,0"], "all,0"),
        (["--layer", "last,0"], "last,0"),
        (["--layer", ""], "''"),
        (["--width", "200", "--dpi", "120"], "200 in at 120 dpi are more than 20000 pixels"),
        (["--width", "200", "--dpi", "2400"], "more than 20000 pixels: lower the width"),
        (["--preset", "poster", "--dpi", "855", "--caption"], "more than 20000 pixels"),
        (["--queries", ""], "cannot read '' in --queries: write objects, top:5"),
        (["--queries", "", "--list-queries"], "cannot read '' in --queries"),
        (["--queries", " "], "cannot read '' in --queries"),
        (["--queries", "top:1+"], "cannot read '' in --queries"),
        (["--type"], "--type: expected at least one argument"),
        (["--type", "detr", "yolo"], "yolo"),
        (["--type", "detr", "cd_detr"], "--type has 2 and --weights 1"),
        (["--type", "detr", "--type", "cd_detr"], "--type has 2 and --weights 1"),
        (["--type", "detr", "--type", "yolo"], "'yolo'"),
        (["--type", "detr", "--type"], "--type: expected at least one argument"),
        (["--weights"], "--weights: expected at least one argument"),
        (["--image"], "--image: expected at least one argument"),
        (["--image", "good.png", "--out", "fig.png"], "several images: give a folder"),
        (["--caption=fig.tex"], "--caption: ignored explicit argument"),
        (["--classes", "none.txt"], "no class file at none.txt"),
        (["--classes", "good.png"], "good.png"),
        (["--caption", "--out", "good.tex/fig.png"], "cannot write"),
        (["--caption", "--out", "fig.tiff"], "--caption is for LaTeX, which reads no TIFF"),
    ],
)
def test_flags(here, capsys, argv, says):
    (here / "good.tex").write_text("a manuscript")
    err = fails(capsys, ["--image", "good.png", "--weights", "none.pth", *argv])
    assert says in err and "none.pth" not in err
    assert sorted(os.listdir()) == ["good.png", "good.tex"]


# Only the model tells.
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--layer", "7"], "no decoder layer 7: this model has 0..2"),
        (["--layer", "0,7"], "no decoder layer 7"),
        (["--width", "0.5"], "0.5 in wide is too narrow for its panels"),
        (["--type", "detr", "cd_detr", "--queries", "20"], "has 20, 0..19"),
        (["--type", "detr", "cd_detr", "--queries", "class:nope"], "no class is named 'nope'"),
        (["--type", "detr", "cd_detr", "--queries", "score:1.01"], "no query answers"),
        (["--type", "detr", "cd_detr", "--list-queries", "--queries", "99"], "no query 99"),
    ],
)
def test_what_the_model_refuses(capsys, argv, says):
    assert says in fails(capsys, ["--image", "good.png", *argv])
    assert os.listdir() == ["good.png"]


def four_classes(path: str = "four.pth") -> str:
    torch.save(training(small_state_dict("detr", small_config(dec_layers=1))), path)
    return path


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--weights", DETR, "none.pth"], "no checkpoint at none.pth"),
        (["--weights", "none.pth", DETR], "no checkpoint at none.pth"),
        (["--weights", DETR, "broken.pth"], "broken.pth"),
        (["--weights", "broken.pth", DETR], "broken.pth"),
        (["--weights", DETR, ""], "error: no checkpoint at '': give a file"),
        (["--weights", "", DETR], "error: no checkpoint at '': give a file"),
        (["--weights", ""], "error: no checkpoint at '': give a file"),
        (["--weights", DETR, "--weights", "none.pth"], "no checkpoint at none.pth"),
        (["--type", "detr", "cd_detr", "--weights", DETR, "--weights", "four.pth"], "four.pth is"),
        (["--type", "detr", "cd_detr", "--weights", DETR, "four.pth"], "four.pth is DETR"),
        (["--type", "cd_detr", "--weights", CD_DETR, "four.pth"], "four.pth is DETR"),
        (["--type", "detr", "detr", "--weights", CD_DETR, "four.pth"], "cd_detr_demo.pth is Cond"),
        (["--type", "detr", "cd_detr", "--weights", *"abc"], "--type has 2 and --weights 3"),
        (["--weights", DETR, "four.pth", "--layer", "2"], "four.pth: no decoder layer 2"),
        (["--weights", DETR, "four.pth", "--layer", "0,2"], "four.pth: no decoder layer 2"),
        (["--weights", DETR, "four.pth", "--classes", "six.txt"], "four.pth: six.txt: 6 class"),
        (["--weights", "four.pth", DETR, "--classes", "four.txt"], "detr_demo.pth: four.txt: 4"),
        (["--weights", "four.pth", CD_DETR, "--nheads", "64"], "four.pth: 64 heads"),
        (["--model", "own.py:build", "--classes", "six.txt"], "--classes is for --weights"),
    ],
)
def test_one_of_several_models(capsys, argv, says):
    """The line says which of the models it is about."""
    four_classes()
    Path("broken.pth").write_bytes(Path(DETR).read_bytes()[:100_000])
    for name, count in (("six.txt", 6), ("four.txt", 4)):
        Path(name).write_text("".join(f"class {i}\n" for i in range(count)))
    before = sorted(os.listdir())
    err = fails(capsys, ["--image", "good.png", *argv])
    assert says in err and "the demo" not in err
    assert sorted(os.listdir()) == before


def test_bad_flags_do_not_wait_for_torch():
    """Nothing heavy is imported to refuse them."""
    commands = (
        ["--norm", "head", "--style", "contour"],
        ["--type", "detr", "cd_detr", "--weights", "a", "b", "c"],
        ["--cmap", "infernal"],
        ["--font", "DejaVu Snas"],
        ["--contours", "50"],
        ["--caption", "--out", "paper.png"],
    )
    Path("paper.tex").write_text("\\documentclass{article}")
    code = (
        f"import sys\nfrom detr_viz.cli.main import main\nfor argv in {commands!r}:\n"
        "    assert main(argv) == 2, argv\n"
        "    assert 'torch' not in sys.modules, argv"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stderr.splitlines()
    assert len(answers) == len(commands) and all(line.startswith("error: ") for line in answers)


# --- what stands in the way -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "argv"),
    [
        ("fig.tex", ["--out", "fig.png", "--caption"]),
        ("fig.npz", ["--out", "fig.pdf", "--save-maps"]),
        ("outputs/good_detr_combine.tex", ["--caption"]),
        ("outputs/good_detr_combine_heat.png", ["--style", "heat"]),
        ("outputs/good_detr_combine.npz", ["--caption", "--save-maps"]),
    ],
)
def test_a_folder_where_a_file_should_go(here, capsys, folder, argv):
    (here / folder).mkdir(parents=True)
    before = sorted(here.rglob("*"))
    err = fails(capsys, ["--image", "good.png", "--queries", "top:1", *argv])
    assert folder in err and "--out" in err
    assert sorted(here.rglob("*")) == before  # not the figure alone either


def test_a_manuscript_is_not_replaced_by_a_caption(here, capsys):
    (here / "paper.tex").write_text("\\documentclass{article}")
    argv = ["--image", "good.png", "--queries", "top:1", "--out", "paper.pdf"]
    assert "paper.tex was not written by --caption" in fails(capsys, [*argv, "--caption"])
    assert sorted(os.listdir()) == ["good.png", "paper.tex"]
    assert cli.main(argv) == 0  # without one there is nothing to fear
    assert (here / "paper.tex").read_text() == "\\documentclass{article}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("out", ["locked", "locked/fig.png"])
def test_an_unwritable_folder(here, capsys, out):
    (here / "locked").mkdir(mode=0o500)
    argv = ["--image", "good.png", "--weights", "none.pth", "--out", out, "--caption"]
    err = fails(capsys, [*argv, "--save-maps"])
    assert "locked" in err and "permission" in err.lower() and "none.pth" not in err


def test_the_images_before_a_broken_one_keep_all_that_is_theirs(here, capsys):
    Image.new("RGB", (64, 48), "navy").save("last.png")
    (here / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    argv = ["--image", "good.png", "bad.png", "last.png", "--type", "detr", "cd_detr"]
    flags = ["--queries", "top:1", "--caption", "--save-maps", "--out", "figs"]
    assert cli.main([*argv, *flags]) == 1
    out, err = capsys.readouterr()
    said, summed = (line for line in err.splitlines() if line.startswith("error: "))
    assert "bad.png" in said and "wrote 8 files for 2 images" in out
    assert summed == "error: 1 of 3 images failed: figs/failures.csv says why"
    ends = (".png", ".tex", "_detr.npz", "_conditional_detr.npz")
    expected = [f"figs/{n}_detr_vs_cd_detr_combine{e}" for n in ("good", "last") for e in ends]
    tables = ["figs/index.csv", "figs/failures.csv"]
    there = sorted(str(p.relative_to(here)) for p in (here / "figs").iterdir())
    assert there == sorted([*expected, *tables])
    for path in expected:
        assert (here / path).stat().st_size > 500


def test_a_place_taken_for_one_image_leaves_the_others(here, capsys):
    Image.new("RGB", (64, 48), "navy").save("last.png")
    (here / "figs/good_detr_combine.tex").mkdir(parents=True)
    argv = ["--image", "good.png", "last.png", "--queries", "top:1", "--caption", "--out", "figs"]
    assert cli.main(argv) == 1
    said, summed = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert "figs/good_detr_combine.tex" in said
    assert summed == "error: 1 of 2 images failed: figs/failures.csv says why"
    assert (here / "figs/last_detr_combine.tex").exists()
    assert not (here / "figs/good_detr_combine.png").exists()
