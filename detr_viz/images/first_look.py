"""A look at an image's path and first bytes, before anything slow is imported.

check_image("cat.jpg")          # UserError for what is no image; nothing is decoded
"""

from __future__ import annotations

import os

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.common.regular import open_regular

# first bytes of the formats that most images have; a file of another one is read at once
_USUAL = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_LINKS = ("http://", "https://")


def check_image(path: str) -> None:
    """UserError for a path without an image. What is rare, `load_image` reads, or says why not."""
    if not _has_usual_start(path):
        from detr_viz.images.read import load_image

        load_image(path)


def _has_usual_start(path: str) -> bool:
    if not os.path.isfile(path):  # a pipe may never end
        if "\0" not in path and not os.path.lexists(path) and not path.startswith(_LINKS):
            raise UserError(f"no image at {path_text(path)}: check the path")
        return False
    try:
        with open_regular(path) as file:
            return file.read(16).startswith(_USUAL)
    except OSError:
        return False
