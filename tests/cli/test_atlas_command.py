"""The atlas command: its files, what it says, what it refuses, and its figure."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from batch_tools import folder_of_scenes, start
from conftest import ROOT
from figure_tools import extent, sheet_of, texts
from look_tools import ember_alone
from PIL import Image

from detr_viz import cli
from detr_viz.atlas.figure import atlas_figure
from detr_viz.atlas.table import COLUMNS, EVEN, IN_BOX, AtlasTable
from detr_viz.figures.page.scale import colors
from detr_viz.figures.styles import DEFAULT_PAGE_FORMAT, FigureError, PageFormat, Style


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    folder_of_scenes(folder, 6)
    return folder


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(*argv: str) -> int:
    return cli.main(["atlas", *map(str, argv)])


def test_a_table_and_a_figure_a_model(scenes, tmp_path, capsys):
    out = tmp_path / "atlas"
    code = run(
        *("--type", "detr", "cd_detr", "--image", scenes, "--out", out, "--queries", "top:2"),
        *("--format", "png,svg"),
    )
    assert code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"{n}_demo{s}" for n in ("cd_detr", "detr") for s in (".csv", ".png", ".svg")]
    printed = capsys.readouterr().out
    assert all(f"wrote {out / name}" in printed for name in names)
    rows = rows_of(out / "detr_demo.csv")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 3 * 9 + 2
    assert {row["objects"] for row in rows if row["mode"] != IN_BOX} == {"12"}
    assert [row["mode"] for row in rows[-2:]] == [EVEN, IN_BOX]
    svg = (out / "detr_demo.svg").read_text()
    assert "12 objects in 6 images" in svg and "position" in svg
    sha256 = hashlib.sha256((ROOT / "weights" / "detr_demo.pth").read_bytes()).hexdigest()
    assert f"queries top:2. weights detr_demo.pth sha256 {sha256}" in svg


def test_the_same_whatever_the_batches(scenes, tmp_path):
    """And in however many processes: to a few digits, medians to the 64th that they are told in."""
    for name, more in (("a", ()), ("b", ("--batch-size", "3", "--jobs", "2"))):
        out = tmp_path / name
        argv = ("--type", "cd_detr", "--image", scenes, "--out", out, "--queries", "top:3")
        assert run(*argv, *more, "--quiet") == 0
    one, other = (rows_of(tmp_path / name / "cd_detr_demo.csv") for name in "ab")
    for a, b in zip(one, other, strict=True):
        for column in COLUMNS:
            near = 1.01 / 64 if column in ("peak_x", "peak_y") else 2e-4
            try:
                assert float(a[column]) == pytest.approx(float(b[column]), rel=2e-3, abs=near)
            except ValueError:
                assert a[column] == b[column]


def test_layers_and_sums_of_terms(scenes, tmp_path):
    argv = ("--type", "detr", "--image", scenes, "--out", tmp_path, "--quiet")
    assert run(*argv, "--terms", "cq.pk+pq.pk", "--layer", "0,2", "--queries", "top:1") == 0
    rows = rows_of(tmp_path / "detr_demo.csv")
    assert [(row["layer"], row["mode"]) for row in rows[::9]] == [
        ("0", "cq.pk+pq.pk"),
        ("2", "cq.pk+pq.pk"),
        ("", EVEN),
    ]


def test_a_point_that_one_image_does_not_have(tmp_path, capsys):
    """Is one failure: the others are summed up."""
    folder = tmp_path / "in"
    folder_of_scenes(folder, 2)
    small = folder / "small.png"
    Image.new("RGB", (40, 40), (9, 99, 200)).save(small)
    argv = ("--type", "detr", "--image", folder, "--out", tmp_path / "out")
    assert run(*argv, "--queries", "point:45,45+top:1", "--quiet") == 1
    err = capsys.readouterr().err
    assert "error: 1 of 3 images failed" in err and f"{small}: point:45,45 lies outside" in err
    assert int(rows_of(tmp_path / "out" / "detr_demo.csv")[0]["objects"]) >= 2


def test_an_image_that_one_model_fails_on_counts_for_none(scenes, tmp_path, monkeypatch):
    from detr_viz.cli import atlas as command
    from detr_viz.explanation import explain_image

    true = explain_image.explain_batch

    def one_fails(model, facts, *more):
        found = true(model, facts, *more)
        return [
            explain_image.SelfCheckError("self-check failed")
            if model.info.type == "cd_detr" and fact.path.endswith("0.png")
            else e
            for fact, e in zip(facts, found, strict=True)
        ]

    monkeypatch.setattr(explain_image, "explain_batch", one_fails)
    names = sorted(path.name for path in scenes.rglob("*.png"))
    gone = [name for name in names if name.endswith("0.png")]
    assert gone
    argv = ("--type", "detr", "cd_detr", "--image", scenes, "--out", tmp_path, "--queries", "top:1")
    assert run(*argv, "--quiet") == command.EXIT_FAILURES
    for name in ("detr", "cd_detr"):
        rows = rows_of(tmp_path / f"{name}_demo.csv")
        assert rows[0]["objects"] == str(6 - len(gone))


def test_checkpoints_of_one_name_have_files_of_their_own(scenes, tmp_path):
    copies = []
    for folder in "ab":
        (tmp_path / folder).mkdir()
        copies.append(tmp_path / folder / "model.pth")
        shutil.copy(ROOT / "weights" / "detr_demo.pth", copies[-1])
    argv = (
        "--weights",
        *copies,
        "--image",
        scenes,
        "--out",
        tmp_path / "out",
        "--queries",
        "top:1",
    )
    assert run(*argv, "--quiet") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"model_{i}{s}" for i in (1, 2) for s in (".csv", ".png")]


def test_the_scale_is_the_layers_where_asked_for(explanation):
    """Position and content of Conditional DETR: at the layer's scale flatter, more even."""
    from scipy.stats import entropy as entropy_of

    books = {s: AtlasTable("x", ["position"], [2], 8, s) for s in ("mode", "layer")}
    for scale, book in books.items():
        book.add(explanation, [0, 1, 2])
        maps = explanation.maps("position", [0, 1, 2], 2, scale).reshape(3, 8, -1)
        entropy = entropy_of(maps, axis=-1).mean(0) / np.log(maps.shape[-1])
        found = book.statistics[2, "position"].means()["entropy"]
        np.testing.assert_allclose(found, entropy, rtol=1e-4)
    notes = [atlas_figure(book).facts["Description"] for book in books.values()]
    assert ["own scale" in said for said in notes] == [False, True]


def test_another_precision_is_told_how_far_it_is_off(scenes, tmp_path, capsys):
    argv = ("--type", "cd_detr", "--image", scenes, "--out", tmp_path, "--queries", "top:1")
    assert run(*argv, "--precision", "bfloat16") == 0
    said = "".join(capsys.readouterr())
    assert said.count("note: bfloat16 moves the attention weights of ") == 1


@pytest.mark.parametrize("name", ["detr_demo.png", "detr_demo.csv"])
def test_a_place_that_is_taken_is_told_before_images_are_read(scenes, tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    argv = ("--type", "detr", "--image", scenes, "--out", tmp_path, "--queries", "top:1")
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{name}: it is a folder" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_out_that_looks_like_a_file(tmp_path, capsys):
    assert run("--out", tmp_path / "a.png") == 2
    assert "looks like a file: give a folder" in capsys.readouterr().err


def test_images_that_fail(tmp_path, capsys):
    folder = tmp_path / "in"
    bad = folder_of_scenes(folder, 6, broken=2)
    argv = ("--type", "detr", "--image", folder, "--out", tmp_path / "out", "--queries", "top:1")
    assert run(*argv) == 1
    err = capsys.readouterr().err
    assert "error: 2 of 6 images failed" in err
    assert all(os.path.basename(str(path)) in err for path in bad)
    rows = rows_of(tmp_path / "out" / "detr_demo.csv")
    assert rows[0]["objects"] == "4"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--queries", "score:2"], "no query answers to 'score:2' in any image"),
        (["--queries", "nonsense"], "cannot read 'nonsense'"),
        (["--queries", "class:cat"], "no class is named 'cat'"),
        (["--queries", "99"], "99"),
        (["--layer", "7"], "no decoder layer 7"),
        (["--plot", "terms"], "invalid choice: 'terms'"),
        (["--terms", "cq"], "terms are sums"),
        (["--format", "npz"], "leave npz out"),
        (["--format", "gif"], "gif"),
        (["--norm", "row"], "invalid choice"),
        (["--cmap", "infern"], "try inferno"),
        (["--norm", "even"], "invalid choice: 'even'"),
        (["--font", "DejaVu Snas"], "no font 'DejaVu Snas' is installed: try DejaVu Sans"),
        (["--notes=1"], "ignored explicit argument"),
        (["--zoom", "2"], "unrecognized arguments"),
        (["--width", "0.5", "--dpi", "72"], "too narrow"),
        (["--width", "50", "--dpi", "1000"], "pixels"),
        (["--image", "nowhere"], "no image"),
        (["--image", "@nowhere"], "nowhere"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--jobs", "0"], "--jobs"),
        (["--points", "3,4"], "unrecognized arguments"),
        (["--style", "heat"], "unrecognized arguments"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["atlas", "--type", "detr", *argv], says)


def test_out_is_a_file(tmp_path, capsys):
    path = tmp_path / "a"
    path.write_text("mine")
    assert run("--out", path) == 2
    assert "is a file: give a folder" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_ctrl_c_leaves_nothing(tmp_path):
    """Sent when the first image is through; helpers go with the process."""
    scenes = tmp_path / "in"
    folder_of_scenes(scenes, 60)
    argv = ["atlas", "--image", str(scenes), "--out", str(tmp_path / "out"), "--queries", "top:1"]
    program = start(*argv)
    while not (said := program.stderr_so_far()).endswith("\n"):
        assert program.poll() is None
        time.sleep(0.002)
    assert said.startswith("1 of 60 images")
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130 and "Traceback" not in err
    assert not (tmp_path / "out").exists()


# ---- the figure ---------------------------------------------------------------------------------


@pytest.fixture
def book(explanation):
    made = AtlasTable("Some DETR (a.pth)", ["combine", "position"], [2], 8, "mode")
    made.add(explanation, explanation.by_score()[:4])
    return made


@pytest.mark.parametrize("preset", [None, "column", "page", "slide", "poster"])
def test_nothing_is_cut_and_nothing_overlaps(book, preset):
    fig = atlas_figure(book, page_format=PageFormat.of(preset))
    height, width = sheet_of(fig).shape[:2]
    boxes = [extent(text) for text in fig.axes[0].texts]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(over) <= 2, (texts(fig)[i], over)


def test_notes_and_another_font(book):
    """The first note always, all of them where they are asked for; in the facts in any case."""
    plain = atlas_figure(book)
    full = atlas_figure(book, page_format=replace(DEFAULT_PAGE_FORMAT, notes=True, font="serif"))
    few, all_of_them = (" ".join(texts(fig)) for fig in (plain, full))
    first, others = "blue: the box; colour: mean attention", ("an edge: within", "1: all attention")
    assert first in few and first in all_of_them
    for words in others:
        assert words in all_of_them and words not in few
        assert words in plain.facts["Description"] and words in full.facts["Description"]
    fonts = [{t.get_fontproperties().get_file() for t in f.axes[0].texts} for f in (plain, full)]
    assert all("DejaVuSans" in file for file in fonts[0])
    assert all("DejaVuSerif" in file for file in fonts[1])
    assert sheet_of(full).shape[0] > sheet_of(plain).shape[0]


def test_panels_are_the_mean_maps(book):
    """Each on a scale of its own, unsmoothed: a bin's middle has the colour of its value."""
    fig = atlas_figure(book, style=Style(norm="head", interpolation="nearest", cmap="viridis"))
    sheet, lut = sheet_of(fig), colors(Style(name="heat", cmap="viridis"))
    squares = fig.axes[0].collections[0].get_paths()
    assert len(squares) == 16
    maps = [m for tally in book.statistics.values() for m in tally.mean_map()]
    for path, values in zip(squares, maps, strict=True):
        (x0, y0), (x1, y1) = path.vertices[0], path.vertices[2]
        for i, j in ((2, 5), (12, 20), (16, 16), (5, 28)):
            y = int(y0 + (y1 - y0) * ((i + 0.5) / 16 - 0.5))
            x = int(x0 + (x1 - x0) * ((j + 0.5) / 16 - 0.5))
            if np.isnan(values[i, j]):
                assert sheet[y, x].tolist() == [205] * 3
            else:
                level = values[i, j] / np.nanmax(values) * 255
                apart = np.abs(sheet[y, x].astype(int) - lut[round(level)].astype(int))
                assert apart.max() <= 6


def test_numbers_and_kinds_are_the_books(book):
    fig = atlas_figure(book)
    numbers = [t.split(" · ")[1] for t in texts(fig) if "% · " in t and len(t) < 14]
    assert len(numbers) == 16
    most = [np.nanmax(m) for tally in book.statistics.values() for m in tally.mean_map()]
    for said, value in zip(numbers, most, strict=True):
        assert float(said) == pytest.approx(value, abs=0.051 if value >= 1 else 0.006)
    said = texts(fig)
    for tally in book.statistics.values():
        for kind in tally.roles():
            assert kind.zone + "?" * (not kind.clear) in said
            assert any(t.startswith(f"{kind.share:.0%} · ") for t in said)
        assert f"entropy {tally.means()['entropy'].mean():.2f}".replace("0.", ".") in said
    assert fig.facts["Title"].startswith("Some DETR (a.pth): what each head does, 4 objects")


def test_scales_that_panels_share(book):
    """The largest value of what shares a scale has the last colour, all else less."""
    maps = np.nan_to_num(np.stack([t.mean_map() for t in book.statistics.values()]))
    most = maps.max((2, 3))
    for norm, last in (
        ("head", most),
        ("query", most.max(1, keepdims=True)),
        ("figure", most.max()),
    ):
        fig = atlas_figure(book, style=Style(norm=norm, interpolation="nearest"))
        sheet = sheet_of(fig).astype(int).sum(-1)
        squares = fig.axes[0].collections[0].get_paths()
        assert len(squares) == most.size
        for path, value, end in zip(
            squares, most.ravel(), np.broadcast_to(last, most.shape).ravel(), strict=True
        ):
            (x0, y0), (x1, y1) = path.vertices[0], path.vertices[2]
            wide, high = x1 - x0, y1 - y0
            panel = sheet[
                int(y0 - high / 2) : int(y1 + high / 2), int(x0 - wide / 2) : int(x1 + wide / 2)
            ]
            inner = panel[panel != 205 * 3]  # not where no image was
            tone = round(value / end * 255) / 255
            assert abs(inner.min() - ember_alone(tone, ground=244).sum()) <= 12


def test_one_object_that_is_too_small(explanation):
    boxes = explanation.boxes_xyxy_px.copy()
    boxes[0] = (100, 100, 104, 104)
    small = replace(explanation, boxes_xyxy_px=boxes)
    book = AtlasTable("x", ["combine"], [2], 8, "mode")
    book.add(small, [0])
    said = texts(atlas_figure(book))
    assert said.count("too small") == 8 and "1 object in 1 image" in said


def test_nothing_to_draw():
    with pytest.raises(FigureError, match="no object was found"):
        atlas_figure(AtlasTable("x", ["combine"], [2], 8, "mode"))


def test_a_long_name_is_cut_and_a_high_figure_is_said(explanation):
    book = AtlasTable("A" * 300, ["combine", "position", "content"], [0, 1, 2], 8, "mode")
    book.add(explanation, [0])
    with pytest.warns(UserWarning, match="in high, more than the 8.2"):
        fig = atlas_figure(book, page_format=PageFormat.of("page"))
    assert extent(fig.axes[0].texts[0]).x1 < extent(fig.axes[0].texts[1]).x0
