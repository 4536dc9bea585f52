"""From the name of a test to the file of its maps: one file a test on every file system.

A name keeps its plain form <name>.npz, as long as a file can have it and no other test's name is
the same file somewhere (test[Cat] and test[cat]). Otherwise its start and a digest of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from detr_viz.common.file_names import LONGEST, alike, is_reserved, with_digest

_SUFFIX = ".npz"


def plain_stem(name: str) -> str:
    """The name with the characters that all file systems take."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "maps"


def baseline_path(folder: Path, name: str, others: Iterable[str]) -> Path:
    """The file of a test's maps.

    others: the names of the tests whose maps lie in this folder too; `name` may be one of them.
    A plain file that exists is kept, so that baselines which are in use stay in use.
    """
    stem = plain_stem(name)
    most = LONGEST - len(_SUFFIX)
    digested = folder / f"{with_digest(stem, most, name)}{_SUFFIX}"
    if len(os.fsencode(stem)) > most:
        return digested
    plain = folder / f"{stem}{_SUFFIX}"
    # listed, since a file system that ignores case would find the file of the other test
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    if plain.name in present:
        return plain
    key = alike(plain.name)
    stems = {*map(plain_stem, others)} - {stem}  # of the same stem: the fixture asks for names
    taken = any(alike(file) == key for file in (*present, *(f"{s}{_SUFFIX}" for s in stems)))
    if taken or is_reserved(plain.name) or digested.name in present:
        return digested
    return plain
