"""How the benchmarks measure, print and keep a ratio.

A script names its ratios and their targets in RATIOS; a target is "<= 0.45", ">= 0.93" or "".
all.py runs the scripts with the variable KEPT set to a file, which gets a line of JSON a ratio.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT = "DETR_VIZ_RATIOS"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Pairs:
    """Seconds of two things that ran in turn, pair by pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def median(self) -> float:
        """Of the ratios of the pairs."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        low, high = min(self.ratios), max(self.ratios)
        return f"min {low:.3f}, max {high:.3f}; medians {ours:.3f} s / {theirs:.3f} s"


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def clean_seconds(run: Callable[[], object]) -> float:
    """The same, after what the other one left was collected."""
    gc.collect()
    return seconds(run)


def in_pairs(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    pairs: int,
    clock: Callable[[Callable[[], object]], float] = seconds,
) -> Pairs:
    """Both once unmeasured, then pairs one after the other, the order swapped each time."""
    ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(pairs):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            times[which].append(clock((ours, theirs)[which]))
    return Pairs(tuple(times[0]), tuple(times[1]))


def keep(ratios: Mapping[str, str], name: str, value: float, detail: object = "") -> None:
    """Print a ratio with its target, and append it to the file that KEPT names."""
    target = ratios[name]
    words = f"  target {target}" if target else ""
    print(f"{name}: {value:.3f}{words}  ({detail})" if detail else f"{name}: {value:.3f}{words}")
    sys.stdout.flush()
    if path := os.environ.get(KEPT):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([name, round(value, 4), target]) + "\n")


def is_met(value: float, target: str) -> bool:
    """Whether a value keeps its target; one without a target is met."""
    if not target:
        return True
    sign, number = target.split()
    return value <= float(number) if sign == "<=" else value >= float(number)


# ---- memory (Linux) -----------------------------------------------------------------------------


def print_peak(run: Callable[[], object]) -> None:
    """Print the kB of this process' peak while something runs, what is loaded included."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    run()
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak(script: str, *side: str) -> float:
    """MB that one side of a script prints as its peak, in a process of its own."""
    command = [sys.executable, script, "--peak", *side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024
