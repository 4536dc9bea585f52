"""Many images: what is written, what fails, in which precision, and what a user may get wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from batch_tools import QUICK, batch, content, folder_of_scenes, paths, picture, run_here, table
from PIL import Image

from detr_viz import cli, heatmaps
from detr_viz.batch.engine import Result
from detr_viz.batch.index import Done
from detr_viz.batch.journal import Journal
from detr_viz.batch.run import run_batch
from detr_viz.common.errors import UserError
from detr_viz.images.collect import Input
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import ModelFacts, Recipe

pytestmark = pytest.mark.usefixtures("here")


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
    assert "wrote 30 files for 15 images" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last == "error: 5 of 20 images failed: out/failures.csv says why"


def test_outputs_mirror_the_folders_and_the_index_lists_them(whole):
    home, _, _ = whole
    index = table(home / "out/index.csv")
    files = {name for row in index for name in row["files"].split(";")}
    there = {str(p.relative_to(home / "out")) for p in (home / "out").rglob("*_detr_*")}
    assert files == there and len(files) == 30
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
    run_here(*QUICK, *argv, cwd=home)
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
    assert "1 image without a query that --queries chooses" in out and "error" not in err
    assert not (here / "outputs/failures.csv").exists()
    argv = ["--image", "b.png", "--queries", "score:0.9", "--out", "none", "--contact-sheet"]
    out, _ = batch(*argv, capsys=capsys)
    assert "no contact-sheet.pdf: there is no figure" in out.splitlines()


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


def test_the_index_pairs_objects_and_tells_models_apart(here, capsys):
    from detr_viz.common import assets

    picture(1).save("1.png")
    for folder, name in (("a", "detr"), ("b", "cd_detr")):
        Path(folder).mkdir()
        shutil.copy(assets.find(f"weights/{name}_demo.pth"), f"{folder}/best.pth")
    weights = ["--weights", "a/best.pth", "b/best.pth", "--type", "detr", "cd_detr"]
    batch("--image", "1.png", "1.png", *weights, "--format", "npz", "--jobs", "1", capsys=capsys)
    rows = table(here / "outputs/index.csv")
    assert list(rows[0])[:3] == ["image", "object", "model"]
    boxes: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
        boxes.setdefault(row["object"], {})[row["model"]] = sides
    assert list(boxes)[:2] == ["1", "2"]
    assert {name for pair in boxes.values() for name in pair} == {"best.pth (1)", "best.pth (2)"}
    pairs = [list(pair.values()) for pair in boxes.values() if len(pair) == 2]
    assert pairs  # the same object: where both models found it, their boxes meet
    for (left, top, right, bottom), b in pairs:
        assert min(right, b[2]) > max(left, b[0]) and min(bottom, b[3]) > max(top, b[1])


def test_a_caption_includes_the_figure_of_vectors(here, capsys):
    for i in range(2):
        picture(i).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "--caption", "--resume", "--format"]
    batch(*argv, "png,svg", capsys=capsys)
    made = here / "outputs/0_detr_combine.tex"
    assert "0_detr_combine.png" in made.read_text()
    assert "for 2 images" in batch(*argv, "png,pdf", capsys=capsys)[0]  # of another figure
    assert "0_detr_combine.pdf" in made.read_text()
    assert "for 0 images" in batch(*argv, "pdf", capsys=capsys)[0]


def test_what_had_to_be_decided_about_an_image_is_said(here, capsys):
    levels = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    for name in ("a.png", "b.png"):
        Image.fromarray(levels).save(name)
    out, _ = batch("--image", "a.png", "--out", "one", capsys=capsys)
    said = [line for line in out.splitlines() if line.startswith("note: a.png: ")]
    _, err = batch("--image", "a.png", "b.png", "--format", "npz", "--jobs", "1", capsys=capsys)
    assert said and f"{said[0]} (noted once)" in err.splitlines()


def test_names_that_are_too_long_are_cut(here, capsys):
    for end in "xy":
        picture(1).save(f"{'n' * 230}{end}.png")
    picture(2).save(f"{'é' * 120}.png")
    batch("--image", "*.png", "--format", "png,npz", "--caption", capsys=capsys)
    files = sorted(path.name for path in (here / "outputs").iterdir())
    stems = ["n" * 230 + "x", "n" * 230 + "y", "é" * 120]
    digests = [hashlib.sha256(stem.encode()).hexdigest()[:12] for stem in stems]
    assert f"{'n' * 137}-{digests[0]}_detr_combine.png" in files
    assert f"{'n' * 137}-{digests[1]}_detr_combine.npz" in files
    assert f"{'é' * 68}-{digests[2]}_detr_combine.tex" in files


def test_outputs_on_another_file_system(here, capsys):
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == here.stat().st_dev:
        pytest.skip("needs a second file system")
    Path("in/n").mkdir(parents=True)
    for name in ("in/1.png", "in/n/2.png"):
        picture(1).save(name)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        Path("out").mkdir()
        Path("out/n").symlink_to(other)
        batch("--image", "in", "--out", "out", capsys=capsys)
        assert [path.name for path in Path(other).iterdir()] == ["2_detr_combine.png"]


def test_an_engine_that_loses_an_image_is_no_success(here):
    class Loses:
        def run(self, items, temporary, say):
            for item in items:
                if item.i != 1:
                    yield Result(item.i, None, Done(item.path, (), ()))

        def stop(self): ...
        def kill(self): ...

    model = ModelFacts("detr", "w.pth", "00", 8, False, ("cat",), 800, 1333)
    inputs = [Input(f"{i}.png", str(i)) for i in range(3)]
    outputs = OutputPaths(here / "out")
    with pytest.raises(UserError, match=r"^1 image has no result: go on with --resume$"):
        run_batch(Loses(), Recipe((model,)), inputs, outputs)
    with Journal(outputs.folder, ["0.png", "1.png", "2.png"], resume=True) as journal:
        known = [journal.earlier(f"{i}.png") for i in range(3)]
    assert known[0] and not known[1] and known[2]


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
        done = run_here(*QUICK, *argv, "--shard", f"{i}/4", cwd=home)
        found = table(here / f"out/index-{i}-of-4.csv")
        failed = here / f"out/failures-{i}-of-4.csv"
        counts.append(len(paths(found)) + (len(table(failed)) if failed.exists() else 0))
        assert done.returncode == (1 if failed.exists() else 0)
    assert counts == [5, 5, 5, 5]
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
    out, _ = batch("--image", "in", "--format", "npz", "--resume", capsys=capsys)
    assert "for 0 images" in out and "5 images done by an earlier run" in out  # of the parts
    assert len(paths(table(here / "outputs/index.csv"))) == 5
    batch("--image", "in", "--format", "npz", "--shard", "6/9", capsys=capsys)
    assert table(here / "outputs/index-6-of-9.csv") == []  # more shards than images


def test_two_runs_do_not_write_to_one_place(here, capsys):
    from detr_viz.batch.journal import Journal

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
    assert note.startswith("note: bfloat16 moves the attention weights of in/a/0001.png by up to ")
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
        (["--image", "a.png", "--shard", "4/4"], "not a part of a batch"),
        (["--image", "a.png", "b.png", "--format", "bmp"], "'bmp' is none of png, pdf, svg, jpg"),
        (["--image", "a.png", "b.png", "--out", "x.png"], "there are several images"),
        (["--image", "a.png", "--format", "pdf", "--out", "x.png"], "has its format in its name"),
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
        (["--image", "a.png", "--ray-address", ""], "--ray-address is for --engine ray"),
        (["--image", "a.png", "b.png", "--layer", "9"], "no decoder layer 9"),
        (["--image", "in", "--layer", "0,3"], "no decoder layer 3"),
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
