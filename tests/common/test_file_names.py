"""Names of files: unchanged while every file system takes them, else short and with a digest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detr_viz.common.file_names import fitting, for_windows
from detr_viz.images.names import output_name
from detr_viz.regression.baseline_names import baseline_path, plain_stem
from detr_viz.render.paths import OutputPaths

LONG = ("a" * 300, "é" * 200, "日本" * 100, "x" * 252, "-" * 400)


@pytest.mark.parametrize("stem", LONG)
def test_long_names_fit_and_stay_apart(tmp_path, stem):
    short = fitting(stem, ".npz")
    assert len(os.fsencode(short)) <= 255 and short.endswith(".npz")
    (tmp_path / short).touch()  # a file system takes it
    assert fitting(stem, ".npz") == short != fitting(stem + "b", ".npz")
    assert fitting("x" * 251, ".npz") == "x" * 251 + ".npz"
    one, other = output_name(f"f/{stem}1.jpg"), output_name(f"f/{stem}2.jpg")
    assert one != other and max(len(os.fsencode(name)) for name in (one, other)) <= 152
    path = OutputPaths(tmp_path, stem).figures[0]
    assert len(os.fsencode(path.name)) <= 255 and path.parent == tmp_path and path.suffix == ".png"


def test_a_resumed_run_knows_a_shortened_file():
    stem = "a" * 150 + "_detr"
    paths = OutputPaths(Path("out"), "", (".png", ".pdf", ".npz"), caption=True)
    view, more = paths.at(stem), paths.at(stem).ending("_" + "weights" * 30)
    files = [*view.figures, view.numbers("_" + "w" * 200, ".npz"), Path("out", f"{stem}.tex")]
    files += [*more.figures, more.caption_figure.with_suffix(".tex")]
    assert all(len(path.name) <= 255 for path in files)
    assert len({path.stem for path in files if "weights" in path.name}) == 1
    assert paths.is_complete(files, [stem])
    assert not paths.is_complete(files[:-1], [stem])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *[(name, True) for name in ("con", "NUL", "aux.v2", "Com1", "lpt9", "a:b", "what?", "a.")],
        *[(name, False) for name in ("cat", "console", "com10", "com", "a.b", "größe 日本")],
    ],
)
def test_names_that_windows_does_not_take(name, changes):
    assert output_name(f"{name}.jpg", windows=False) == name
    taken = output_name(f"{name}.jpg", windows=True)
    assert (taken != name) is changes
    assert taken.split(".")[0].lower() not in ("con", "nul", "aux", "com1", "lpt9")
    assert not set(taken) & set('<>:"|?*') and for_windows(taken) == taken


# ---- baselines of tests -----------------------------------------------------------------------


def files_of(folder, names):
    return [baseline_path(folder, name, names).name for name in names]


def test_short_names_of_tests_stay(tmp_path):
    names = ["test_a", "TestB.test_c[1.5-x y]", "test_d[" + "x" * 243 + "]"]
    expected = ["test_a.npz", "TestB.test_c_1.5-x_y.npz", "test_d_" + "x" * 243 + ".npz"]
    assert files_of(tmp_path, names) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["test[Cat]", "test[cat]", "test[CAT]"],
        ["test[é]", "test[e\u0301]", "test[É]"],
        ["test[" + "x" * 300 + "1]", "test[" + "x" * 300 + "2]"],
        ["con", "CON"],
    ],
)
def test_names_of_tests_that_are_one_file_somewhere_get_files_of_their_own(tmp_path, names):
    found = files_of(tmp_path, names)
    assert len({name.casefold() for name in found}) == len(names)
    assert all(len(os.fsencode(name)) <= 255 for name in found)
    for order in (names[::-1], names[1:]):  # of the tests, or with one fewer: the files are there
        for name in found:
            (tmp_path / name).touch()
        assert files_of(tmp_path, order) == [found[names.index(name)] for name in order]


def test_baselines_in_use_stay_in_use(tmp_path):
    for name in ("test_Cat.npz", "test_cat.npz"):
        (tmp_path / name).touch()
    assert files_of(tmp_path, ["test[Cat]", "test[cat]"]) == ["test_Cat.npz", "test_cat.npz"]
    assert files_of(tmp_path, ["test[cAt]"])[0].startswith("test_cAt-")
    assert plain_stem("test[cAt]") == "test_cAt"
