"""Digests of recipe and image in the files that a run writes, by which a later run knows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from detr_viz.common.regular import open_regular

_ENDS = {
    ".png": b"IEND\xaeB`\x82",
    ".pdf": b"%%EOF",
    ".svg": b"</svg>",
    ".jpg": b"\xff\xd9",
    ".jpeg": b"\xff\xd9",
    ".eps": b"showpage",
    ".tex": b"\\end{figure",
    ".html": b"</html>",
}
_NEAR = 1 << 16  # bytes at either end of a file in which its digest stands
_MARK = re.compile(rb"recipe[^0-9a-f]{1,3}([0-9a-f]{64})", re.IGNORECASE)


def carries(path: Path, digest: str) -> bool:
    """Whether a file has this digest of recipe and image, and is complete."""
    try:
        return digest_in(path) == digest and _is_whole(path)
    except Exception:  # missing, cut or of another program: it is written again
        return False


def digest_in(path: Path) -> str | None:
    """The digest of recipe and image that a file has; None where it has none.

    OSError or ValueError for what cannot be read.
    """
    if path.suffix == ".npz":
        return _archive_digest(path)
    start, end = _ends_of(path)
    if path.suffix == ".csv":  # the digest ends every line
        last = re.search(rb",([0-9a-f]{64})\n\Z", end)
        return last[1].decode() if last else None
    marked = _MARK.search(start + end)
    return marked[1].decode() if marked else None


def _ends_of(path: Path) -> tuple[bytes, bytes]:
    with open_regular(path) as file:
        start = file.read(_NEAR)
        file.seek(max(path.stat().st_size - _NEAR, 0))
        return start, file.read()


def _is_whole(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (".npz", ".csv"):  # read to the end for its digest
        return True
    if suffix in (".tif", ".tiff"):  # no mark ends it
        from PIL import Image

        with open_regular(path) as file, Image.open(file) as image:
            image.load()
        return True
    return _ENDS[suffix] in _ends_of(path)[1][-64:]


def replaced_by(digest: str, files: Iterable[Path]) -> tuple[Path, ...]:
    """Of these files those that are there, and that another recipe or another program wrote."""
    replaced = []
    for path in files:
        try:
            if path.exists() and digest_in(path) != digest:
                replaced.append(path)
        except Exception:  # damaged, or of another program
            replaced.append(path)
    return tuple(replaced)


def _archive_digest(path: Path) -> str | None:
    import numpy as np

    with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
        return json.loads(str(archive["meta"])).get("recipe_sha256")
