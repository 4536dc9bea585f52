"""A reader's matplotlibrc, a baseline's own word, folders named as a run's own: nothing changes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import ROOT, demo_explanation

from detr_viz import cli, figures
from detr_viz.batch.index import read_index
from detr_viz.common.errors import UserError
from detr_viz.heatmaps import npz
from detr_viz.images.names import output_name

RC = {  # name -> settings of a reader's matplotlibrc
    "sketch": {"path.sketch": (3.0, 60.0, 2.0)},
    "path effects": {"path.effects": "withStroke"},
    "mathtext": {"text.parse_math": False, "mathtext.fontset": "cm"},
    "tex": {"text.usetex": True},
    "pdf": {"pdf.compression": 0, "pdf.fonttype": 3, "pdf.use14corefonts": True},
    "pdf colours": {"pdf.inheritcolor": True},
    "antialiasing": {"text.antialiased": False, "lines.antialiased": False},
    "patches": {"patch.antialiased": False, "patch.linewidth": 9, "hatch.linewidth": 5},
    "svg": {"svg.fonttype": "path", "svg.image_inline": False, "svg.hashsalt": "x", "svg.id": "y"},
    "lines": {"lines.linestyle": ":", "lines.marker": "o", "lines.dash_capstyle": "round"},
    "ends": {"lines.solid_capstyle": "round", "lines.solid_joinstyle": "bevel"},
    "simplify": {"path.simplify": True, "path.simplify_threshold": 1.0, "path.snap": False},
    "saving": {"savefig.bbox": "tight", "savefig.dpi": 30, "savefig.facecolor": "red"},
    "pages": {"figure.dpi": 30, "figure.autolayout": True, "figure.facecolor": "red"},
    "constrained": {"figure.constrained_layout.use": True, "figure.subplot.left": 0.4},
    "fonts": {"font.family": ["monospace"], "font.size": 30, "text.hinting": "none"},
    "axes": {"axes.facecolor": "red", "axes.grid": True, "axes.titlesize": 30},
    "images": {"image.interpolation": "bicubic", "image.resample": False, "image.cmap": "jet"},
    "postscript": {"ps.fonttype": 3, "ps.useafm": True, "ps.papersize": "a0"},
    "composite": {"image.composite_image": False, "agg.path.chunksize": 3},
}


def _drawn(folder: Path, suffixes: tuple[str, ...]) -> dict[str, bytes]:
    e = demo_explanation("detr")
    fig = figures.head_grid(e, [int(e.by_score()[0])], "position")
    for suffix in suffixes:
        figures.save(fig, folder / f"a{suffix}")
    return {suffix: (folder / f"a{suffix}").read_bytes() for suffix in suffixes}


def test_a_readers_settings_change_no_byte(tmp_path):
    suffixes = (".png", ".pdf", ".svg", ".eps")
    expected = _drawn(tmp_path, suffixes)
    before = dict(matplotlib.rcParams)
    changed = {}
    titles = [*RC]
    for start in range(0, len(titles), 5):  # several at once: drawing takes time
        name = ", ".join(titles[start : start + 5])
        settings = {k: v for title in titles[start : start + 5] for k, v in RC[title].items()}
        with matplotlib.rc_context():
            for key, value in settings.items():
                if key not in matplotlib.rcParams:
                    continue
                if value == "withStroke":
                    from matplotlib.patheffects import withStroke

                    value = [withStroke(linewidth=5, foreground="red")]
                matplotlib.rcParams[key] = value
            found = _drawn(tmp_path, suffixes)
        changed[name] = [s for s in suffixes if found[s] != expected[s]]
    assert not {name: files for name, files in changed.items() if files}
    assert dict(matplotlib.rcParams) == before


# image of a batch -> the name of its files
NAMES = {
    ".detr_viz/a.png": "_.detr_viz/a",
    ".DETR_VIZ/a.png": "_.DETR_VIZ/a",
    ".detr_viz-2-of-4/a.png": "_.detr_viz-2-of-4/a",
    "./.detr_viz/a.png": "_.detr_viz/a",
    "../.detr_viz/a.png": "_.detr_viz/a",
    "index.csv/a.png": "_index.csv/a",
    "index-1-of-3.csv/a.png": "_index-1-of-3.csv/a",
    "failures.csv/b/a.png": "_failures.csv/b/a",
    "contact-sheet.pdf/a.png": "_contact-sheet.pdf/a",
    "cats/index.csv/a.png": "cats/index.csv/a",
    "index.csv": "index",
    "index/a.png": "index/a",
}


@pytest.mark.parametrize("path", NAMES)
def test_files_are_not_named_as_the_runs_own(path):
    assert output_name(path) == NAMES[path]


def _picture(path: Path, seed: int = 0) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_every_file_an_index_names_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        ".detr_viz/a.png",
        "index.csv/a.png",
        "failures.csv/a.png",
        "contact-sheet.pdf/a.png",
        "back\\slash.png",
        "semi;colon.png",
        "co,mma.png",
        'quo"te.png',
        "new\nline.png",
        "both\\;x.png",
        "=cmd.png",
        "\u732b.png",
        "esc\x1b[31m.png",
        "a\u202egnp.png",
        "end\\.png",
    ]
    for i, name in enumerate(names):
        _picture(Path("in") / name, i)
    listed = [name for name in names if "\n" not in name]
    Path("list.txt").write_text("\n".join(listed), encoding="utf-8")
    argv = ["--image", "@list.txt", "--image-root", "in", "--out", "out", "--quiet"]
    argv += ["--type", "detr", "--queries", "0", "--format", "png,pdf", "--contact-sheet"]
    assert cli.main(argv) == 0
    out = Path("out")
    found = [file for done in read_index(out / "index.csv") for file in done.files]
    assert len(found) == 2 * len(listed)
    assert all((out / file).is_file() for file in found)
    with (out / "index.csv").open(encoding="utf-8", newline="") as table:  # as anyone would read it
        rows = [row["files"] for row in csv.DictReader(table)]
    plain = [file for files in rows if "\\" not in files for file in files.split(";")]
    assert set(plain) <= set(found)
    kept = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert kept == {*found, "index.csv", "contact-sheet.pdf"}


@pytest.mark.parametrize("word", [".detr_viz/a.png", "sub/../.detr_viz/a.png", "link/a.png"])
def test_an_image_in_the_hidden_folder_stays(tmp_path, monkeypatch, capsys, word):
    monkeypatch.chdir(tmp_path)
    _picture(Path(".detr_viz/a.png"))
    _picture(Path("sub/b.png"))
    Path("link").symlink_to(".detr_viz")
    assert cli.main(["--image", word, "sub/b.png", "--out", ".", "--type", "detr"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "hidden folder" in err
    assert Path(".detr_viz/a.png").is_file()


def test_a_folder_of_ones_own_called_as_the_hidden_one_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _picture(Path("in/a.png"))
    Path("out/.detr_viz").mkdir(parents=True)
    Path("out/.detr_viz/diary.txt").write_text("dear")
    assert cli.main(["--image", "in", "--out", "out", "--type", "detr"]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
    assert Path("out/.detr_viz/diary.txt").read_text() == "dear"


@pytest.mark.parametrize("precision", ["bfloat16", "tf32", "float64", "\x1b[31m", 7, None])
def test_a_baselines_word_of_itself_does_not_loosen_its_test(tmp_path, capsys, precision):
    path = tmp_path / "a.npz"
    image = str(ROOT / "image/scene_1.jpg")
    argv = ["record", "--image", image, "--type", "detr", "--queries", "top:1", "--out"]
    assert cli.main([*argv, f"{tmp_path}/", "--quiet"]) == 0
    (path,) = tmp_path.glob("*.npz")
    saved = npz.load(path)
    moved = {mode: maps.copy() for mode, maps in saved.maps.items()}
    for maps in moved.values():  # far more than float32 allows, less than bfloat16 does
        maps[:] = 0.95 * maps + 0.05 / maps[0, 0].size
    meta = {**saved.meta, "precision": precision}
    from dataclasses import replace

    npz.write(path, replace(saved, maps=moved, meta=meta))
    assert cli.main(["check", str(path), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--other-precision" in err and "\x1b" not in err
    code = cli.main(["check", str(path), "--other-precision", "--quiet"])
    assert code == (0 if precision in ("bfloat16", "tf32") else 1)


LOCALES = {
    "C": {"LC_ALL": "C"},
    "C without Python's help": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "POSIX": {"LANG": "POSIX", "LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    "unknown": {"LC_ALL": "xx_XX.ISO-8859-1", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("name", LOCALES)
def test_names_survive_any_locale(tmp_path, name):
    _picture(tmp_path / "in/\u732b.png")
    argv = [sys.executable, "-m", "detr_viz", "--image", "in", "--type", "detr", "--out", "out"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    done = subprocess.run(
        [*argv, "--queries", "0"],
        cwd=tmp_path,
        env={**clean, **LOCALES[name], "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    written = [p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".png"]
    assert len(written) == 1 and written[0].startswith("\u732b")
    assert "\u732b" in (tmp_path / "out/index.csv").read_text(encoding="utf-8")


def test_other_limits_need_a_known_field():
    from detr_viz.heatmaps.limits import COARSE, EXACT, of_run

    assert of_run("float32") == of_run("float64") == EXACT and of_run("bfloat16") == COARSE
    with pytest.raises(TypeError):
        of_run("float32", nonsense=1.0)
    assert issubclass(UserError, ValueError)
