"""What is printed: nothing controls a terminal, lines end, and lines that are lost are an error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
from network_tools import tiny

from detr_viz import explain
from detr_viz.cli.main import main
from detr_viz.common import console
from detr_viz.common.console import SafeStream, safe, safe_streams, say, short_name
from detr_viz.common.errors import UserError, report
from detr_viz.common.progress import Progress
from detr_viz.render import tables

HOSTILE = {  # name -> text that a terminal, or a reader of lines, would act on
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "8-bit escape": "\x9b31m",
    "back": "abc\b\b\bxyz",
    "return": "error\rok   ",
    "turned": "a\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "arabic mark": "\u061cx",
    "zero width": "a\u200bb\u200d\ufeff",
    "soft hyphen": "a\u00adb",
    "line separator": "a\u2028::error::b",
    "next line": "a\x85::error::b",
    "vertical tab": "a\x0b\x0cb",
    "null": "a\0b",
    "delete": "a\x7fb",
    "surrogate": "a\udc9bb",
    "tag": "a\U000e0041b",
    "private": "a\ue000b",
    "noncharacter": "a\uffff",
    "line": "a\n::error::b",
    "long": "x" * 1_000_000,
}


def assert_clean(text: str, lines: int | None = None) -> None:
    body = text.removesuffix("\n")
    assert body.replace("\n", "").isprintable(), ascii(body[:300])
    assert max(map(len, body.split("\n"))) <= console.LONGEST_LINE
    if lines is not None:
        assert body.count("\n") == lines - 1


@pytest.mark.parametrize("name", HOSTILE)
def test_each_way_to_a_terminal(name, capsys):
    """Lines of results, notes, errors, warnings, plain prints and tables of names."""
    text = HOSTILE[name]
    say(f"wrote {text}")
    assert_clean(capsys.readouterr().out)
    report(UserError(f"no file {text}: check the path"))
    assert_clean(capsys.readouterr().err, lines=1)
    stream = io.StringIO()
    with Progress(2, stream=stream) as progress:
        progress.note(f"note: {text}")
        progress.advance()
    assert_clean(stream.getvalue())
    with safe_streams():
        print("a", text, "b", file=sys.stderr)
        print(text, end="")
        print(text)
        # as Python itself writes a warning; showwarning() is pytest's own here
        sys.stderr.write(warnings.formatwarning(text, UserWarning, "a.py", 1))
    out, err = capsys.readouterr()
    assert_clean(out)
    assert_clean(err)
    assert_clean(short_name(text), lines=1)
    assert len(short_name(text)) <= console.LONGEST_NAME


@pytest.mark.parametrize("name", HOSTILE)
def test_tables_of_classes(name):
    from dataclasses import replace

    model = replace(tiny("detr"), class_names=(HOSTILE[name],) * 6)
    e = explain(model, np.zeros((48, 64, 3), np.uint8), layers="all")
    ablated = [e.ablate("head:1")]
    for text, lines in (
        (tables.table(e, [0, 1]), 3),
        (tables.ablation_table(e, [0], ablated), 2),
        (tables.shares_table(e, [0], 1), 1 + len(e.logit_terms([0], 1).shares)),
    ):
        assert_clean(text, lines)


@pytest.mark.parametrize("flag", ["--image", "--weights", "--queries", "--out", "--size", "--nope"])
@pytest.mark.parametrize("name", ["colour", "return", "turned", "line", "surrogate", "long"])
def test_words_of_the_command_line(tmp_path, monkeypatch, capsys, flag, name):
    monkeypatch.chdir(tmp_path)
    words = ["--image", str(ROOT / "image/scene_1.jpg")] if flag != "--image" else []
    value = HOSTILE[name] if flag != "--out" else f"/proc/none/{HOSTILE[name]}"
    if flag == "--image":
        value += ".png"
    try:
        code = main([*words, flag, value])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert_clean(out + err)
    assert err.count("\n") == 1


def test_a_line_written_in_pieces_is_cut_once():
    raw = io.StringIO()
    stream = SafeStream(raw)
    for _ in range(100):
        stream.write("0123456789")
    stream.write("\nshort\n")
    first, second, end = raw.getvalue().split("\n")
    assert len(first) <= console.LONGEST_LINE + 1 and (second, end) == ("short", "")
    assert safe("ordinary text, \u732b and \u00e9") == "ordinary text, \u732b and \u00e9"


MAPS = next(iter(sorted((ROOT / "tests/heatmaps").rglob("*.npz"))))
DRAWN = f"--size 64 --queries 0 --out out/ --image {ROOT / 'image/scene_1.jpg'}"
SECOND = ROOT / "image/scene_2.jpg"
# how the command is called -> (what follows it in the shell, the exit codes that are right)
LOST = {
    "help, full": ("--help > /dev/full", {2}),
    "help, closed": ("--help >&-", {2}),
    "version, full": ("--version > /dev/full", {2}),
    "models, full": ("--list-models > /dev/full", {2}),
    "models, closed": ("--list-models >&-", {2}),
    "error, full": ("--image none.png 2> /dev/full", {2}),
    "error, closed": ("--image none.png 2>&-", {2}),
    "both closed": ("--list-models >&- 2>&-", {2}),
    "all closed": ("--list-models <&- >&- 2>&-", {2}),
    "models, heard": ("--list-models > models.txt", {0}),
    "shard": ("--image . --shard 1of4", {2}),
    "shard of none": ("--image . --shard 5/4", {2}),
    "shards": ("--image . --shards 1/4", {2}),
    "check, full": ("check none 2> /dev/full", {2}),
    "drawn, full": (f"{DRAWN} > /dev/full", {1, 2}),
    "drawn, closed": (f"{DRAWN} >&-", {1, 2}),
    "drawn, both full": (f"{DRAWN} > /dev/full 2> /dev/full", {1, 2}),
    "drawn, quiet": (f"{DRAWN} --quiet > /dev/full", {0}),
    "drawn, no reader": (f"{DRAWN} | true; exit ${{PIPESTATUS[0]}}", {0}),
    "several, full": (f"{DRAWN} {SECOND} > /dev/full", {1, 2}),
    "several, errors full": (f"{DRAWN} {SECOND} none.png 2> /dev/full", {1, 2}),
    "queries, full": (f"{DRAWN} --list-queries > /dev/full", {2}),
    "compared, full": (f"compare {MAPS} {MAPS} > /dev/full", {1, 2}),
    "compared, closed": (f"compare {MAPS} {MAPS} >&-", {1, 2}),
    "checked, full": (f"check {MAPS} > /dev/full", {2}),
    "shard as words": ("--image . --shard 1 4", {2}),
    "shard, with a prefix": ("--image . --shar 1/4", {2}),
    "shard from nought": ("--image . --shard 0/4", {2}),
}


@pytest.mark.parametrize("name", LOST)
def test_lines_that_are_lost_are_no_success(tmp_path, name):
    words, codes = LOST[name]
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m detr_viz {words}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_no_memory_is_no_bug(error, capsys):
    assert report(error) == 2
    assert (
        capsys.readouterr().err == "error: out of memory: use a smaller --size or fewer --queries\n"
    )


@pytest.mark.parametrize("value", [10**4000, -(10**400), 1e308, float("inf"), float("nan"), True])
def test_numbers_of_a_processor_beyond_floats(tmp_path, value):
    import json

    from detr_viz.checkpoints.preprocessing import parsed

    for key in ("size", "max_size", "rescale_factor", "image_mean", "image_std", "pad_size"):
        values = {key: {"height": value, "width": 5} if key == "pad_size" else value}
        again = json.loads(json.dumps(values))
        with pytest.raises(UserError, match=key):
            parsed({"size": 5, **again}, tmp_path / "preprocessor_config.json")
