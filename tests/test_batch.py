"""Many images: what is written, what fails, what stops a run, and what a resumed one does."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from batch_tools import QUICK, content, folder_of_scenes, paths, picture, run, start, table
from PIL import Image

from detr_viz import cli, heatmaps

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits as POSIX has them")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def batch(*argv: str, code: int = 0, capsys=None) -> tuple[str, str]:
    assert cli.main([*QUICK, *argv]) == code
    return capsys.readouterr() if capsys else ("", "")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of 24 images, 5 of them broken, and what an uninterrupted run makes of it."""
    home = tmp_path_factory.mktemp("whole")
    bad = folder_of_scenes(home / "in", 24, broken=5)
    done = run(*QUICK, "--image", "in", "--out", "out", "--format", "png,npz", cwd=home)
    assert done.returncode == 1, done.stderr
    return home, [str(Path(path).relative_to(home)) for path in bad], done


# --- what is written ----------------------------------------------------------------------------


def test_good_images_are_drawn_and_bad_ones_listed(whole):
    home, bad, done = whole
    index, failures = table(home / "out/index.csv"), table(home / "out/failures.csv")
    every = sorted(str(p.relative_to(home)) for p in (home / "in").rglob("*.png"))
    assert sorted(row["image"] for row in failures) == sorted(bad) and len(bad) == 5
    assert sorted([*paths(index), *bad]) == every
    assert all(row["image"] in row["reason"] for row in failures)
    assert len({row["reason"].replace(row["image"], "") for row in failures}) == 5
    assert done.stderr.count("error: ") == 6
    assert "wrote 38 files for 19 images" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last == "error: 5 of 24 images failed: out/failures.csv says why"


def test_outputs_mirror_the_folders_and_the_index_lists_them(whole):
    home, _, _ = whole
    index = table(home / "out/index.csv")
    files = {name for row in index for name in row["files"].split(";")}
    there = {str(p.relative_to(home / "out")) for p in (home / "out").rglob("*_detr_*")}
    assert files == there and len(files) == 38
    assert "a/0001_detr_combine.png" in files and "b/deep/0000_detr_combine.npz" in files
    extra = {p.name for p in (home / "out").iterdir()} - {"a", "b"}
    assert extra == {"index.csv", "failures.csv"}


def test_the_index_says_what_the_saved_maps_say(whole):
    home, _, _ = whole
    rows = [row for row in table(home / "out/index.csv") if row["image"] == "in/a/0003.png"]
    saved = heatmaps.load(home / "out/a/0003_detr_combine.npz")
    assert [int(row["query"]) for row in rows] == saved.query_ids.tolist()
    assert [row["class"] for row in rows] == saved.label_names.tolist()
    assert {row["layer"] for row in rows} == {"2"} and {row["model"] for row in rows} == {
        "detr_demo.pth"
    }
    for row, score, box in zip(rows, saved.scores, saved.boxes_xyxy_px, strict=True):
        assert float(row["score"]) == pytest.approx(score, abs=6e-5)
        sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
        assert sides == pytest.approx(box.tolist(), abs=0.06)


def test_a_batch_makes_what_a_single_run_makes(whole, here):
    home, _, _ = whole
    argv = ["--image", "in/a/0003.png", "--out", str(here / "one"), "--format", "png,npz"]
    run(*QUICK, *argv, cwd=home)
    for end in (".png", ".npz"):
        one = (here / f"one/0003_detr_combine{end}").read_bytes()
        assert one == (home / f"out/a/0003_detr_combine{end}").read_bytes()


def test_all_kinds_of_words_at_once(here, capsys):
    folder_of_scenes(here / "in", 4)
    for name in ("x.png", "y.png", "z.png"):
        picture(7).save(name)
    Path("list.txt").write_text("# mine\ny.png\nin/a/0001.png\n")
    Path("coco.json").write_text('{"images": [{"file_name": "z.png", "id": 1}]}')
    words = ["in", "x*.png", "@list.txt", "coco.json"]
    batch("--image", *words, "--out", "out", "--format", "npz", capsys=capsys)
    assert paths(table(here / "out/index.csv")) == [
        *("in/a/0001.png", "in/a/0003.png", "in/b/deep/0000.png", "in/b/deep/0002.png"),
        *("x.png", "y.png", "z.png"),
    ]
    assert not list((here / "out").rglob("*.png"))


def test_images_without_an_answer_are_not_failures(here, capsys):
    picture(1).save("a.png")
    Image.new("RGB", (64, 64), "white").save("b.png")
    out, err = batch("--image", "a.png", "b.png", "--queries", "score:0.9", capsys=capsys)
    rows = table(here / "outputs/index.csv")
    assert [row["image"] for row in rows if not row["query"]] == ["b.png"]
    assert "1 images have no query that was asked for" in out and "error" not in err
    assert not (here / "outputs/failures.csv").exists()


def test_comparisons_captions_and_layers_in_a_batch(here, capsys):
    for i in range(2):
        picture(i).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "--type", "detr", "cd_detr", "--layer", "0,2", "--caption"]
    batch(*argv, "--format", "pdf,npz", capsys=capsys)
    rows = [row for row in table(here / "outputs/index.csv") if row["image"] == "1.png"]
    assert {(row["model"], row["layer"]) for row in rows} >= {
        ("detr_demo.pth", "0"),
        ("cd_detr_demo.pth", "2"),
    }
    stem = "1_detr_vs_cd_detr_combine_layers"
    assert rows[0]["files"].split(";") == [
        *(f"{stem}.pdf", f"{stem}.tex"),
        *(f"{stem}_detr_layer0.npz", f"{stem}_detr_layer2.npz"),
        *(f"{stem}_conditional_detr_layer0.npz", f"{stem}_conditional_detr_layer2.npz"),
    ]


def test_a_contact_sheet_of_the_figures(here, capsys):
    from pypdf import PdfReader

    folder_of_scenes(here / "in", 5)
    batch("--image", "in", "--out", "out", "--contact-sheet", "2", capsys=capsys)
    pages = PdfReader("out/contact-sheet.pdf").pages
    assert len(pages) == 3
    text = " ".join(page.extract_text() for page in pages)
    assert all(f"in/{name}.png" in text for name in ("a/0001", "a/0003", "b/deep/0004"))


# --- shards -------------------------------------------------------------------------------------


def test_shards_together_are_the_whole(whole, here):
    home, _, _ = whole
    order = [2, 0, 3, 1]
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz"]
    counts = []
    for i in order:
        done = run(*QUICK, *argv, "--shard", f"{i}/4", cwd=home)
        found = table(here / f"out/index-{i}-of-4.csv")
        failed = here / f"out/failures-{i}-of-4.csv"
        counts.append(len(paths(found)) + (len(table(failed)) if failed.exists() else 0))
        assert done.returncode == (1 if failed.exists() else 0)
    assert counts == [6, 6, 6, 6]
    shards, one = content(here / "out"), content(home / "out")
    figures = {name for name in one if not name.endswith(".csv")}
    assert {name for name in shards if not name.endswith(".csv")} == figures
    assert all(shards[name] == one[name] for name in figures)
    parts = [table(here / f"out/index-{i}-of-4.csv") for i in range(4)]
    assert sorted(str(row) for part in parts for row in part) == sorted(
        map(str, table(home / "out/index.csv"))
    )


def test_uneven_shards(here, capsys):
    folder_of_scenes(here / "in", 5)
    sizes = []
    for i in range(3):
        batch("--image", "in", "--format", "npz", "--shard", f"{i}/3", capsys=capsys)
        sizes.append(len(paths(table(here / f"outputs/index-{i}-of-3.csv"))))
    assert sizes == [2, 2, 1]
    batch("--image", "in", "--format", "npz", "--shard", "6/9", capsys=capsys)
    assert table(here / "outputs/index-6-of-9.csv") == []  # more shards than images


# --- resumed ------------------------------------------------------------------------------------


def test_resume_does_nothing_where_all_is_there(whole, here):
    home, _, _ = whole
    shutil.copytree(home / "out", here / "out")
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*_detr_*")}
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz", "--resume"]
    done = run(*QUICK, *argv, cwd=home)
    assert done.returncode == 1  # the broken ones are tried again
    assert "wrote 0 files for 0 images" in done.stdout and "19 images were done" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*_detr_*")}
    assert content(here / "out") == content(home / "out")


CHANGES = {
    "a figure is gone": lambda out: (out / "a/0003_detr_combine.png").unlink(),
    "a figure is cut": lambda out: os.truncate(out / "a/0003_detr_combine.png", 900),
    "maps are cut": lambda out: os.truncate(out / "a/0003_detr_combine.npz", 900),
    "a figure is another's": lambda out: shutil.copy(
        out / "a/0001_detr_combine.png", out / "a/0003_detr_combine.png"
    ),
    "the index is gone": lambda out: (out / "index.csv").unlink(),
    "a temporary file is left": lambda out: (
        (out / ".detr_viz").mkdir(),
        (out / ".detr_viz/.0003-abc.png").write_bytes(b"x"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_mends_what_was_changed(change, whole, here):
    home, _, _ = whole
    shutil.copytree(home / "out", here / "out")
    CHANGES[change](here / "out")
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz", "--resume"]
    done = run(*QUICK, *argv, cwd=home)
    redone = {"the index is gone": 19, "a temporary file is left": 0}.get(change, 1)
    assert f"wrote {2 * redone} files for {redone} images" in done.stdout
    assert content(here / "out") == content(home / "out")


def test_resume_redoes_what_another_recipe_or_image_made(here, capsys):
    for i in range(3):
        picture(i).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "2.png", "--format", "png,npz", "--resume"]
    assert "for 3 images" in batch(*argv, capsys=capsys)[0]
    assert "for 0 images" in batch(*argv, capsys=capsys)[0]
    assert "for 3 images" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    assert "for 0 images" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    picture(9).save("1.png")
    assert "for 1 images" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    more = ["--format", "png,pdf,npz", "--resume", "--style", "heat"]
    assert "for 3 images" in batch(*argv[:4], *more, capsys=capsys)[0]
    fewer = ["--format", "png", "--resume", "--style", "heat"]
    assert "for 0 images" in batch(*argv[:4], *fewer, capsys=capsys)[0]


def test_resume_knows_images_without_an_answer(here, capsys):
    for i, color in enumerate(("white", "gray")):
        Image.new("RGB", (64, 64), color).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "--resume", "--queries"]
    assert "2 images have no query" in batch(*argv, "score:0.9", capsys=capsys)[0]
    assert "2 images were done already" in batch(*argv, "score:0.9", capsys=capsys)[0]
    out, _ = batch(*argv, "score:0.91", capsys=capsys)  # another question
    assert "done already" not in out and "2 images have no query" in out


# --- stopped ------------------------------------------------------------------------------------


def resumed_to_the_end(home: Path, out: Path) -> None:
    argv = ["--image", "in", "--out", str(out), "--format", "png,npz", "--resume"]
    assert run(*QUICK, *argv, cwd=home).returncode == 1
    assert content(out) == content(home / "out")
    assert not list(out.rglob(".*"))


@posix
def test_ctrl_c_finishes_what_is_being_drawn(whole, here, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    out = here / "out"
    process = start(*QUICK, "--image", "in", "--out", str(out), "--format", "png,npz")
    while not list(out.rglob("*.npz")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command with --resume goes on" in stdout and "stopping" in stderr
    assert "Traceback" not in stderr
    assert 1 <= len(list(out.rglob("*.npz"))) < 19
    resumed_to_the_end(home, out)


@posix
@pytest.mark.parametrize("after_s", [2.5, 3.5])
def test_killed_and_resumed_is_as_never_interrupted(after_s, whole, here, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    process = start(*QUICK, "--image", "in", "--out", str(here / "out"), "--format", "png,npz")
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed_to_the_end(home, here / "out")


@posix
def test_helpers_go_with_a_main_process_that_is_killed(whole, here, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    process = start(*QUICK, "--image", "in", "--out", str(here / "out"))
    while not list(here.rglob("*.png")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)  # the group is there while a process of it is
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("helper processes outlived the run")


@posix
def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_is_done(whole, here):
    home, _, _ = whole
    out = here / "out"
    argv = ["--image", "in", "--out", str(out), "--format", "png,npz"]

    def limit():  # no file may be larger: what a disk says that is full of other things
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = run(*QUICK, *argv, "--dpi", "300", cwd=home, preexec_fn=limit)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "cannot write" in lines[-1] and "--resume" in lines[-1]
    assert sum("cannot write" in line for line in lines) == 1
    resumed_to_the_end(home, out)


def test_two_runs_do_not_write_to_one_place(here, capsys):
    from detr_viz.journal import Journal

    for i in range(2):
        picture(i).save(f"{i}.png")
    with Journal(here / "outputs", []):
        _, err = batch("--image", "0.png", "1.png", code=2, capsys=capsys)
    assert err.count("\n") == 1 and "another run" in err and "--out" in err


# --- precision, batch size ------------------------------------------------------------------------


def test_images_of_one_shape_share_a_forward_pass(here, capsys):
    folder_of_scenes(here / "in", 8)
    argv = ["--image", "in", "--format", "npz", "--type", "cd_detr"]
    batch(*argv, "--out", "one", capsys=capsys)
    batch(*argv, "--out", "four", "--batch-size", "4", capsys=capsys)
    files = sorted(p.relative_to(here / "one") for p in (here / "one").rglob("*.npz"))
    assert len(files) == 8
    for name in files:
        a, b = heatmaps.load(here / "one" / name), heatmaps.load(here / "four" / name)
        assert a.query_ids.tolist() == b.query_ids.tolist()
        np.testing.assert_allclose(a.maps["combine"], b.maps["combine"], atol=1e-5)
        np.testing.assert_allclose(a.boxes_xyxy_px, b.boxes_xyxy_px, atol=1e-2)


def test_another_precision_says_what_it_costs_once(here, capsys):
    folder_of_scenes(here / "in", 3)
    argv = ["--image", "in", "--format", "npz", "--precision", "bfloat16"]
    _, err = batch(*argv, capsys=capsys)
    (note,) = [line for line in err.splitlines() if "float32" in line]
    assert note.startswith("note: bfloat16 moves the weights of in/a/0001.png by up to ")
    said = float(note.split("up to ")[1].split()[0])
    saved = heatmaps.load(here / "outputs/a/0001_detr_combine.npz")
    assert saved.meta["precision"] == "bfloat16"
    batch("--image", "in", "--format", "npz", "--out", "exact", "--queries", "all", capsys=capsys)
    exact = heatmaps.load(here / "exact/a/0001_detr_combine.npz").maps["combine"]
    apart = np.abs(exact[saved.query_ids] - saved.maps["combine"]).max()
    assert said == pytest.approx(apart, rel=0.06) and 0 < said < 0.1


# --- as a user may get it wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--image", "empty/"], "no images in empty/"),
        (["--image", "a.png", "--shard", "4/4"], "no part of a batch"),
        (["--image", "a.png", "b.png", "--format", "jpg"], "'jpg' is none of png, pdf, svg, npz"),
        (["--image", "a.png", "b.png", "--out", "x.png"], "there are several images"),
        (["--image", "a.png", "--format", "pdf", "--out", "x.png"], "--out x.png says its format"),
        (["--image", "a.png", "b.png", "--show"], "--show is for one image"),
        (["--image", "a.png", "b.png", "--format", "npz", "--caption"], "--caption is for figures"),
        (["--image", "a.png", "--format", "pdf", "--contact-sheet"], "add png to --format"),
        (["--image", "a.png", "--contact-sheet", "0"], "not a whole number from 1"),
        (["--image", "a.png", "--contact-sheet", "201"], "at most 200"),
        (["--image", "a.png", "--jobs", "0"], "not a whole number from 1"),
        (["--image", "a.png", "--batch-size", "-1"], "not a whole number from 1"),
        (["--image", "a.png", "--precision", "half"], "invalid choice"),
        (["--image", "a.png", "--precision", "tf32"], "--precision tf32 is for NVIDIA GPUs"),
        (["--image", "a.png", "--image-root", "."], "--image-root is for an @list"),
        (["--image", "a.png", "--ray-address", "auto"], "--ray-address is for --engine ray"),
        (["--image", "a.png", "b.png", "--queries", "class:catt"], "no class is named 'catt'"),
        (["--image", "a.png", "b.png", "--queries", "99"], "no query 99"),
        (["--image", "a.png", "b.png", "--cmap", "nope"], "nope"),
        (["--image", "a.png", "b.png", "--weights", "none.pth"], "none.pth"),
        (["--image", "@none.txt"], "cannot read the list none.txt"),
        (["--image", "none.json"], "none.json"),
        (["--image", "*.webp"], "no images in *.webp"),
        (["--image", "in", "--out", "in"], "puts figures among the images"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(argv, says, here, capsys):
    (here / "empty").mkdir()
    (here / "in").mkdir()
    for name in ("a.png", "b.png", "in/c.png"):
        picture(1).save(name)
    before = sorted(here.rglob("*"))
    try:
        code = cli.main([*QUICK, *argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    _, err = capsys.readouterr()
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and says in err
    assert sorted(here.rglob("*")) == before
