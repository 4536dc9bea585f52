"""A thousand images, fifty of them broken in ten ways; killed twenty times on the way."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from batch_tools import QUICK, content, folder_of_scenes, paths, run, start_fresh, table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them"),
]
COUNT, BROKEN, KILLS = 1000, 50, 20
ARGV = [*QUICK, "--image", "in", "--format", "png,npz"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("thousand")
    bad = folder_of_scenes(home / "in", COUNT, BROKEN)
    done = run(*ARGV, "--out", "whole", cwd=home)
    return home, [os.path.relpath(path, home) for path in bad], done


def test_all_good_ones_are_drawn_and_fifty_failures_listed(whole):
    home, bad, done = whole
    assert done.returncode == 1
    assert f"wrote {2 * (COUNT - BROKEN)} files for {COUNT - BROKEN} images" in done.stdout
    failures = table(home / "whole/failures.csv")
    assert sorted(row["image"] for row in failures) == sorted(bad) and len(bad) == BROKEN
    assert all(row["image"] in row["reason"] for row in failures)
    ways = {row["reason"].replace(row["image"], "") for row in failures}
    assert len(ways) >= 8  # ten ways; some are told in the same words
    assert len(paths(table(home / "whole/index.csv"))) == COUNT - BROKEN


def test_killed_twenty_times_and_resumed_is_as_never_interrupted(whole, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    chance = random.Random(7)
    done_before = []
    for _ in range(KILLS):
        process = start_fresh(*ARGV, "--out", "killed", "--resume", "--quiet")
        time.sleep(chance.uniform(1.0, 9.0))
        assert process.poll() is None, "too few images for twenty kills"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done_before.append(sum(1 for _ in (home / "killed").rglob("*.npz")))
    assert len(set(done_before)) > KILLS // 2, "most kills came before anything was drawn"
    assert done_before[-1] < COUNT - BROKEN
    last = run(*ARGV, "--out", "killed", "--resume", cwd=home)
    assert last.returncode == 1
    assert content(home / "killed") == content(home / "whole")
    assert not list((home / "killed").rglob(".*"))
