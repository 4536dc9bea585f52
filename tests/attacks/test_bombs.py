"""Small files that would take a machine end in one line, within bounds of memory and time."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import BOMBS
from bombs_images import IMAGES, PIXELS
from bombs_json import JSONS
from bombs_pickles import PICKLES
from conftest import ROOT

from detr_viz.common.bounds import BOUNDS, bound, parse, raised_by
from detr_viz.common.errors import UserError

ALL = {**BOMBS, **PICKLES, **JSONS, **IMAGES}
_MOST_BYTES = 1_500_000_000  # of resident memory, beyond what the result needs
_MOST_SECONDS = 60  # of CPU
_SPACE = 12_000_000_000  # of addresses: a bomb must not take this machine
_MEASURED = """
import json, resource, sys
from detr_viz.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([code, use.ru_maxrss * 1024, use.ru_utime + use.ru_stime]))
"""


def run(words: list[str], cwd: Path) -> tuple[int, int, float, str]:
    """(exit code, most bytes of memory, seconds of CPU, standard error) of the command."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *words, "--quiet"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE)),
    )
    assert done.stdout, done.stderr
    code, memory, seconds = json.loads(done.stdout.splitlines()[-1])
    return code, memory, seconds, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_bomb(tmp_path, name, record_property):
    build, says = ALL[name]
    words = build(tmp_path)
    size = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert size < 10_000_000
    code, memory, seconds, err = run(
        words if words[0] in ("check", "compare") else [*words, "--out", "out/"], tmp_path
    )
    print(
        f"BOMB {name}: {size} bytes, exit {code}, {memory >> 20} MiB, {seconds:.1f} s: {err[:200]}"
    )
    assert memory < _MOST_BYTES + 3 * PIXELS.get(name, 0) and seconds < _MOST_SECONDS
    assert "this is a bug" not in err and "Traceback" not in err
    if says:
        assert code == 2 and says in err and err.count("\n") == 1
        assert len(err) <= 501
    else:
        assert code in (0, 1, 2)


def test_every_limit_is_documented():
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) ", text, re.MULTILINE))
    assert rows == {name: f"{one.most:,}" for name, one in BOUNDS.items()}


@pytest.mark.parametrize("word", ["layers", "layers=", "layers=-1", "layers=1e3", "nope=3", "=3"])
def test_a_limit_in_another_form(word):
    with pytest.raises(UserError, match="--limit"):
        parse([word])


def test_a_limit_is_raised_for_the_run_and_its_workers_alone():
    before = bound("layers")
    with raised_by(["layers=7", "name=5"]):
        assert (bound("layers"), bound("name")) == (7, 5)
        seen = subprocess.run(
            [
                sys.executable,
                "-c",
                "from detr_viz.common.bounds import bound;print(bound('layers'))",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert seen.stdout.strip() == "7"
        with raised_by(["layers=9"]):
            assert (bound("layers"), bound("name")) == (9, 5)
        assert bound("layers") == 7
    assert bound("layers") == before
