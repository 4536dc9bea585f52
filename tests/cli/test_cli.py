"""The command as a user types it: what it writes, what it prints, how it starts and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch
from batch_tools import sign, wait_for
from conftest import ROOT
from PIL import Image
from warm_commands import WarmCommand

from detr_viz import cli, heatmaps, models
from detr_viz.attention.terms import MODES
from detr_viz.common.errors import UserError
from detr_viz.demo.shapes import scene

COMMAND = [sys.executable, str(ROOT / "attention_scripts.py")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder as the working directory, with one image in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(2_000_000_100, 160).rgb).save("shapes.png")
    return tmp_path


def lines(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


@pytest.mark.parametrize(
    ("name", "plot"), [(name, mode) for name in models.demos() for mode in models.get(name).modes]
)
def test_the_six_commands(here, capsys, name, plot):
    assert cli.main(["--type", name, "--plot", plot]) == 0
    printed = lines(capsys)
    assert "demo checkpoint" in printed[0] and "--weights" in printed[0]
    (head,) = (i for i, line in enumerate(printed) if line.split()[:2] == ["query", "class"])
    assert all(line.startswith("note: ") for line in printed[1:head])
    rows = printed[head + 1 : -1]  # the scene has four objects; a duplicate of .32 is none
    # one triangle has a score below .5, one square is found twice
    sure = {"anchor_detr": 3, "dynamic_detr": 5}.get(name, 4)
    assert len(rows) == sure and all(float(row.split()[2]) >= 0.5 for row in rows)
    figure = f"outputs/scene_1_{name}_{plot}.png"
    assert printed[-1] == f"wrote {figure}"
    with Image.open(figure) as picture:
        assert picture.width > 1200
        assert picture.text["Title"]
    assert sorted(p.name for p in here.rglob("*") if p.is_file()) == [
        f"scene_1_{name}_{plot}.png",
        "shapes.png",
    ]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_out_and_saved_maps(here, capsys, suffix):
    out = f"new/folder/fig.{suffix}"
    argv = ["--type", "cd_detr", "--plot", "all", "--image", "shapes.png", "--queries", "3,1"]
    assert cli.main([*argv, "--out", out, "--save-maps", "--layer", "1", "--scale", "layer"]) == 0
    assert lines(capsys)[-2:] == [f"wrote {out}", "wrote new/folder/fig.npz"]
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert (here / out).read_bytes().startswith(magic)
    saved = heatmaps.load("new/folder/fig.npz")
    assert set(saved.maps) == set(MODES)
    assert saved.query_ids.tolist() == [3, 1]
    assert saved.layers.tolist() == [1] and saved.meta["scale"] == "layer"
    assert saved.meta["image"] == "shapes.png"


def test_outputs_are_replaced_without_asking(here, capsys):
    argv = ["--image", "shapes.png", "--out", "a.png", "--queries", "top:1"]
    (here / "a.png").write_text("something else")
    assert cli.main(argv) == 0
    first = (here / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert cli.main(argv) == 0
    assert (here / "a.png").read_bytes() == first  # and the same input gives the same bytes


def test_list_queries_draws_nothing(here, capsys):
    assert cli.main(["--image", "shapes.png", "--list-queries"]) == 0
    assert len(lines(capsys)) == 1 + 1 + 20
    assert cli.main(["--image", "shapes.png", "--list-queries", "--queries", "top:2"]) == 0
    assert len(lines(capsys)) == 1 + 1 + 2
    assert not (here / "outputs").exists()


def test_size_and_scale_reach_the_maps_and_the_figure(here, capsys):
    argv = ["--type", "cd_detr", "--plot", "position", "--image", "shapes.png", "--queries", "1"]
    flags = {"a": [], "b": ["--size", "96", "--max-size", "100"], "c": ["--scale", "layer"]}
    saved, sizes = {}, {}
    for name, more in flags.items():
        assert cli.main([*argv, *more, "--out", f"{name}.png", "--save-maps"]) == 0
        saved[name] = heatmaps.load(f"{name}.npz")
        made = saved[name].meta["preprocessing"]
        sizes[name] = made["size_px"], made["max_size_px"]
    assert sizes == {"a": (128, 213), "b": (96, 100), "c": (128, 213)}
    assert saved["b"].hw == (12, 12)
    assert saved["c"].maps["position"].max() < saved["a"].maps["position"].max()  # flatter
    with Image.open("a.png") as a, Image.open("c.png") as c:
        assert "layer's own scale" in c.text["Description"]
        assert "layer's own scale" not in a.text["Description"]
        rows = slice(0, min(a.height, c.height) // 2)
        assert np.abs(np.asarray(a, int)[rows] - np.asarray(c, int)[rows]).max() > 20


def test_what_had_to_be_assumed_is_said(here, capsys):
    state_dict = torch.load(ROOT / "weights/detr_demo.pth", weights_only=True)["model"]
    torch.save(state_dict, "bare.pth")
    argv = ["--weights", "bare.pth", "--size", "128", "--max-size", "213"]
    assert cli.main([*argv, "--image", "shapes.png", "--queries", "1"]) == 0
    notes = [line for line in lines(capsys) if line.startswith("note:")]
    assert len(notes) == 1 and "8 heads" in notes[0] and "--dilation" in notes[0]
    assert cli.main([*argv[:2], "--image", "shapes.png", "--queries", "1"]) == 0
    notes = [line for line in lines(capsys) if line.startswith("note:")]
    assert len(notes) == 2 and "800" in notes[1] and "--size" in notes[1]


def test_render_is_the_word_for_it(here, capsys):
    assert cli.main(["render", "--image", "shapes.png", "--queries", "1", "--out", "a.png"]) == 0
    assert lines(capsys)[-1] == "wrote a.png"


def test_the_cache_is_where_downloads_go(here, capsys, monkeypatch):
    asked = []

    def fetch(name, cache, progress):
        asked.append((name, str(cache), progress))
        raise UserError("no network in tests")

    monkeypatch.setattr("detr_viz.checkpoints.locate.fetch_checked", fetch)
    argv = ["--weights", "detr_resnet50", "--cache", "kept", "--image", "shapes.png", "--quiet"]
    assert cli.main(argv) == 2
    assert asked == [("detr_resnet50", "kept", False)]


def test_quiet_prints_nothing(here, capsys):
    assert cli.main(["--image", "shapes.png", "--quiet", "--queries", "top:1"]) == 0
    assert lines(capsys) == []
    assert (here / "outputs/shapes_detr_combine.png").exists()


def test_list_models(capsys):
    assert cli.main(["--list-models"]) == 0
    text = "\n".join(lines(capsys))
    for word in (*models.names(), "detr_resnet50", "conditional_detr_resnet50", "hf:owner/name"):
        assert word in text


def test_class_names_of_a_file(here, capsys):
    (here / "names.txt").write_text("Kreis\nQuadrat\nDreieck\nStern\nRing\nKreuz\n")
    argv = ["--image", "shapes.png", "--list-queries", "--queries", "class:stern+top:20"]
    assert cli.main([*argv, "--classes", "names.txt"]) == 0
    assert " Stern " in "\n".join(lines(capsys))


def test_the_kind_of_a_class_file_is_a_note(here, capsys):
    (here / "data.yaml").write_text("nc: 6\nnames: [Kreis, Quadrat, Dreieck, Stern, Ring, Kreuz]\n")
    argv = ["--image", "shapes.png", "--list-queries", "--queries", "class:stern+top:20"]
    assert cli.main([*argv, "--classes", "data.yaml"]) == 0
    printed = lines(capsys)
    assert "note: 6 class names from names of a data.yaml" in printed
    assert " Stern " in "\n".join(printed)
    (here / "data.yaml").write_text("names: [Kreis, Quadrat\n")
    assert cli.main([*argv, "--classes", "data.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: class file data.yaml has a line 1")


def test_a_folder_says_what_it_leaves_out(here, capsys):
    (here / "f").mkdir()
    (here / "shapes.png").rename(here / "f/shapes.png")
    (here / "f/notes.txt").touch()
    assert cli.main(["--image", "f", "--list-queries", "--queries", "top:1"]) == 0
    assert lines(capsys)[0] == "note: f: left out 1 file: 1 is not an image (.txt)"


def test_a_name_that_no_font_can_write_is_a_note(here, capsys):
    names = ["\U0001f9ff\u07d0"] * 6  # an emoji and a letter of N'Ko
    (here / "names.txt").write_text("\n".join(names), encoding="utf-8")
    argv = ["--image", "shapes.png", "--queries", "top:2", "--classes", "names.txt"]
    assert cli.main(argv) == 0
    notes = [line for line in lines(capsys) if line.startswith("note: no installed font")]
    assert 1 <= len(notes) <= 2


def test_the_type_is_told_by_the_file(here, capsys):
    weights = str(ROOT / "weights/cd_detr_demo.pth")
    assert cli.main(["--weights", weights, "--image", "shapes.png", "--queries", "top:1"]) == 0
    printed = lines(capsys)
    assert "demo checkpoint" not in printed[0]
    assert printed[-1] == "wrote outputs/shapes_cd_detr_combine.png"


def test_show_without_a_display_is_one_line(here, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code = cli.main(["--image", "shapes.png", "--queries", "top:1", "--show"])
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and "display" in err


def test_a_bug_is_reported_as_one(here, capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("no such thing")

    monkeypatch.setattr("detr_viz.detections.objects.select", broken)
    assert cli.main(["--image", "shapes.png"]) == 1
    err = capsys.readouterr().err
    assert "this is a bug" in err and "--traceback" in err and err.count("\n") == 1
    assert cli.main(["--image", "shapes.png", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_answers_without_torch_or_matplotlib():
    code = (
        "import sys\nfrom detr_viz.cli.main import main\n"
        "for argv in ['--help'], ['render', '--help'], ['--version']:\n"
        "    try: main(argv)\n"
        "    except SystemExit as e: assert not e.code\n"
        "    heavy = {'torch', 'matplotlib', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, (argv, heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n  --queries ") == 2 and "\ndetr_viz 0." in done.stdout


def test_help_names_every_choice(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for word in (*models.names(), *MODES, "all", "--save-maps", "--help-all", "hf:owner/name"):
        assert word in text


@pytest.mark.parametrize("after_s", [0.15, 0.6, 1.5])
def test_ctrl_c_is_quiet(after_s, here):
    """Wherever it strikes: exit code 130, not a word, nothing half-written."""
    process = subprocess.Popen(
        [*COMMAND, "--image", "shapes.png", "--queries", "all", "--plot", "all", "--out", "figs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **sign(here / "begun")},
        # a shell starts background jobs with Ctrl-C ignored, and tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(here / "begun", process)
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    written = list((here / "figs").glob("*")) if (here / "figs").exists() else []
    assert all(p.suffix == ".png" and not p.name.startswith(".") for p in written)


def closed_output() -> None:
    """As Python begins where a shell has closed its standard output (>&-)."""
    os.close(1)
    sys.stdout = None


def test_a_closed_output_is_one_line(here):
    """Lines that are lost are no success; with --quiet there are none."""
    argv = ["--image", "shapes.png", "--queries", "top:1", "--out", "a.png"]
    command = WarmCommand(argv, os.environ, prepare=closed_output)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 2
    assert err.startswith("error: cannot write to standard output: it is closed")
    assert err.count("\n") == 1
    command = WarmCommand([*argv, "--quiet"], os.environ, prepare=closed_output)
    _, err = command.communicate(timeout=60)
    assert (command.returncode, err) == (0, "")
    assert (here / "a.png").exists()


def written_to(stdout: int, *argv: str) -> tuple[WarmCommand, str]:
    """The command, once it has ended, and its standard error; its standard output is this file."""
    with Connection(stdout, readable=False) as theirs:
        command = WarmCommand(["--image", "shapes.png", *argv], os.environ, stdout=theirs)
    return command, command.communicate(timeout=60)[1]


def test_nobody_need_listen(here):
    reader, writer = os.pipe()
    os.close(reader)
    command, err = written_to(writer, "--queries", "top:1", "--out", "a.png")
    assert (command.returncode, err) == (0, "")
    assert (here / "a.png").exists()


def test_a_full_standard_output_is_one_line(here):
    full = os.open("/dev/full", os.O_WRONLY)
    command, err = written_to(full, "--queries", "top:1", "--out", "a.png")
    assert command.returncode == 2
    assert err.startswith("error: cannot write to standard output: No space left")
    assert err.count("\n") == 1


def test_the_module_is_the_command_too(here):
    """On a terminal that cannot show a name, with a window system that is not here."""
    env = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://not_installed.backend"}
    argv = ["--image", "shapes.png", "--queries", "top:1", "--out", "\u732b.png"]
    done = subprocess.run(
        [sys.executable, "-m", "detr_viz", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "wrote \\u732b.png"
    assert (here / "\u732b.png").exists()


def test_a_misspelt_flag_is_told_the_right_one(here, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--tpye", "detr"])
    assert "did you mean --type?" in capsys.readouterr().err


def test_a_size_that_the_bound_cut_is_said(here, capsys):
    argv = ["--image", "shapes.png", "--queries", "1", "--size", "512"]
    assert cli.main(argv) == 0
    assert "note: --size 512 came down to 213, for --max-size is 213" in lines(capsys)


def test_a_closed_pipe_is_quiet(here):
    """It is closed by who has read a line, as by head -n 1."""
    reader, writer = os.pipe()

    def read() -> None:
        with open(reader) as lines:
            first.append(lines.readline())

    first: list[str] = []
    head = threading.Thread(target=read)
    head.start()
    command, err = written_to(writer, "--list-queries")
    head.join()
    assert (command.returncode, err) == (0, "")
    assert first[0].startswith("demo checkpoint")


def test_maps_in_the_file_are_the_librarys(here, capsys):
    from detr_viz import explain, load_model

    assert cli.main(["--image", "shapes.png", "--save-maps", "--queries", "2"]) == 0
    saved = heatmaps.load("outputs/shapes_detr_combine.npz")
    e = explain(load_model(device="cpu"), "shapes.png")
    np.testing.assert_array_equal(saved.maps["combine"], e.maps("combine", [2]))
