"""How a process that runs a network again and again uses cores and memory.

own_process()         # of a command that nobody called from Python
for_many_passes()     # of a command, before torch is imported
"""

from __future__ import annotations

import os
import sys

# Turns of libgomp's waiting loop, some tenths of a millisecond: longer than from one small
# operation to the next, shorter than the work of one thread alone.
_SPINS = "50000"
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
_KEPT = 1 << 30  # bytes: the maps of one pass, and what lies between them
_KEPT_BEFORE_2_33 = 32 << 20  # the most that an older glibc accepts
_own = False
_is_kept = False


def own_process() -> None:
    """Say that this process is a command of ours: its memory may be kept."""
    global _own
    _own = True


def for_many_passes() -> None:
    """Share cores with the processes that draw; in a process of our own, keep memory too."""
    share_cores()
    if _own:
        keep_memory()


def share_cores() -> None:
    """Let waiting threads leave their cores to the processes that draw, but not at once.

    A thread that sleeps between two small operations finds its core taken by a process that draws:
    with networks of many small operations that takes half as long again. A user's own settings of
    OpenMP stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_memory() -> bool:
    """Let the C library keep up to 1 GiB that was freed; whether it will.

    glibc gives large pieces back at once, and the next pass gets them anew, filled with zeros: a
    twentieth of a pass of ResNet-50. The peak stays as it is. A user's own settings stay; other C
    libraries have none.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ)
    if sys.platform != "linux" or own or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    import ctypes  # torch needs it anyway, --help does not

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no such function
        return False
    global _is_kept
    large = mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _KEPT_BEFORE_2_33)
    _is_kept = bool(large and mallopt(_TRIM_THRESHOLD, _KEPT))
    return _is_kept


def memory_is_kept() -> bool:
    """Whether this process has called `keep_memory`, and it could."""
    return _is_kept
