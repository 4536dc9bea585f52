"""What tests of batch runs share: small scenes, ten ways to break an image, what a run left."""

from __future__ import annotations

import csv
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT
from PIL import Image
from warm_commands import WarmCommand

from detr_viz.demo.shapes import scene

COMMAND = [sys.executable, str(ROOT / "attention_scripts.py")]
ALONE = {"OMP_NUM_THREADS": "1"}  # numbers that no other count of threads rounds another way
QUICK = ["--size", "64", "--queries", "top:2", "--dpi", "60"]


def picture(seed: int, hw: tuple[int, int] = (64, 64)) -> Image.Image:
    rgb = Image.fromarray(scene(2_000_000_100 + seed, 64).rgb)
    return rgb.resize((hw[1], hw[0]))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""
    data = png(Image.new("RGB", (8, 8)))
    header = struct.pack(">II", 60_000, 60_000) + data[24:29]
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return data[:16] + header + crc + data[33:]


def _broken(folder: Path, name: str, kind: int) -> Path:
    """An image that cannot be drawn, broken in one of ten ways."""
    path = folder / f"{name}.png"
    whole = png(picture(kind))
    if kind == 0:
        path.write_bytes(b"")
    elif kind == 1:
        path.write_bytes(b"not a picture\n" * 9)
    elif kind == 2:
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == 3:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes(flipped)
    elif kind == 4:
        path.write_bytes(_bomb())
    elif kind == 5:
        path.write_bytes(np.random.default_rng(1).bytes(900))
    elif kind == 6:
        path.symlink_to(folder / "nowhere.png")
    elif kind == 7:
        os.mkfifo(path)
    elif kind == 8:
        path.write_bytes(whole[:33] + whole[-12:])  # a header, no pixels
    else:
        buffer = io.BytesIO()
        picture(1).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue()[:200])
    return path


def folder_of_scenes(folder: Path, count: int, broken: int = 0) -> list[str]:
    """`count` images, `broken` of them spread among them, in two folders; the broken ones' paths,
    in order of name.
    """
    step = count // broken if broken else count + 1
    bad = []
    for i in range(count):
        into = folder / ("a" if i % 2 else "b/deep")
        into.mkdir(parents=True, exist_ok=True)
        if broken and i % step == step // 2 and len(bad) < broken:
            bad.append(str(_broken(into, f"{i:04}", len(bad) % 10)))
        else:
            hw = (64, 64) if i % 3 else (48, 64)
            picture(i % 50, hw).save(into / f"{i:04}.png")
    return bad


def run(
    *argv: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    prepare: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The whole command, in a process of its own; prepare: what that process does first."""
    process = start(*argv, env=env, cwd=cwd, prepare=prepare)
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert "Traceback" not in err
    return subprocess.CompletedProcess([*argv], process.returncode, out, err)


def run_fresh(
    *argv: str, env: dict[str, str] | None = None, **more
) -> subprocess.CompletedProcess[str]:
    """The same, by a new Python."""
    done = subprocess.run(
        [*COMMAND, *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=600,
        check=False,
        **more,
    )
    assert "Traceback" not in done.stderr
    return done


def batch(*argv: str, code: int = 0, capsys=None) -> tuple[str, str]:
    """A quick run in this process: what it said, where capsys is given."""
    from detr_viz import cli

    assert cli.main([*QUICK, *argv]) == code
    return capsys.readouterr() if capsys else ("", "")


def run_here(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `run` does, in this process; torch has one thread, as with ALONE: the same bytes."""
    from detr_viz import cli

    before, threads = os.getcwd(), torch.get_num_threads()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(cwd)
    torch.set_num_threads(1)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main([*argv])
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    assert "Traceback" not in err.getvalue()
    return subprocess.CompletedProcess([*argv], code, out.getvalue(), err.getvalue())


def start(
    *argv: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    prepare: Callable[[], object] | None = None,
) -> WarmCommand | subprocess.Popen:
    """A run in a process group of its own, with Ctrl-C as in a terminal.

    Its modules are imported already, where the system has a fork server.
    """
    if os.name == "posix":
        return WarmCommand(argv, {**os.environ, **(env or {})}, cwd, prepare)
    return start_fresh(*argv, env=env, cwd=cwd)


def start_fresh(*argv: str, env: dict[str, str] | None = None, **more) -> subprocess.Popen:
    """The same, by a new Python, in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ALONE, **(env or {})},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **more,
    )


def sign(path: Path) -> dict[str, str]:
    """The environment of a Python process that writes `path` as soon as it answers to Ctrl-C.

    On a busy machine its modules take longer to import than a test would wait.
    """
    folders = [str(ROOT / "tests/sign"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"TEST_SIGN": str(path), "PYTHONPATH": os.pathsep.join(folders)}


def wait_for(path: Path, process: WarmCommand | subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.001)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, object]:
    """Every file of an output folder: bytes, and of a PNG its pixels."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = Image.open(path).tobytes() if path.suffix == ".png" else path.read_bytes()
    return found


def paths(rows: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["image"] for row in rows))
