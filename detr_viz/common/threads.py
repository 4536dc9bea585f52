"""How the threads of torch wait for each other. To be called before torch is imported."""

from __future__ import annotations

import os

# Turns of libgomp's waiting loop, some tenths of a millisecond: longer than from one small
# operation to the next, shorter than the work of one thread alone.
_SPINS = "50000"


def share_cores() -> None:
    """Let waiting threads leave their cores to the processes that draw, but not at once.

    A thread that sleeps between two small operations finds its core taken by a process that draws:
    with networks of many small operations that takes half as long again. A user's own settings of
    OpenMP stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
