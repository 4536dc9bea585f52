"""How a process that runs a network again and again uses cores and memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from detr_viz.common import many_passes

CODE = """
import resource
from detr_viz.common.many_passes import keep_memory
kept = keep_memory() if {keep} else False
piece = 48 << 20  # more than glibc keeps on its own
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    data = bytearray(piece)
    for i in range(0, piece, 4096):
        data[i] = 1
for _ in range(2):
    use()
before = faults()
for _ in range(4):
    use()
print(kept, faults() - before)
"""


def ran(keep: bool, **environment: str) -> tuple[bool, int]:
    """(whether glibc keeps memory, pages that four pieces of 48 MiB asked the system for)."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        env={**plain, **environment},
    )
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's malloc"
)


def test_memory_is_kept_for_the_next_pass():
    kept, pages = ran(True)
    assert kept and pages < 1_000
    kept, pages = ran(False)
    assert not kept and pages > 40_000  # 4 * 48 MiB in pages of 4 KiB


@pytest.mark.parametrize(
    "own", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_a_users_own_settings_stay(own):
    assert not ran(True, **own)[0]


def test_a_program_that_calls_the_command_is_left_as_it_is(monkeypatch):
    """Only a process that is the command's own may keep memory."""
    kept: list[str] = []
    monkeypatch.setattr(many_passes, "keep_memory", lambda: kept.append("kept"))
    monkeypatch.setattr(many_passes, "_own", False)
    many_passes.for_many_passes()
    assert not kept
    many_passes.own_process()
    many_passes.for_many_passes()
    assert kept == ["kept"]
