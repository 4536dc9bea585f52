"""The content of a list or an annotation file, within limits, or one line that says what is wrong.

data = read_bytes("instances.json", "instances.json", 2_000_000_000)
"""

from __future__ import annotations

import os

from detr_viz.common.bounds import bound
from detr_viz.common.errors import UserError
from detr_viz.common.file_kinds import HEAD_BYTES, kind_of
from detr_viz.common.files import reason
from detr_viz.common.regular import open_regular, own_descriptor, read_stream

LIST_BYTES, COCO_BYTES = 256_000_000, 2_000_000_000
LABEL_BYTES = 4_000_000  # of an .xml or .txt file of one image


def read_bytes(path: str, title: str, most: int) -> bytes:
    """The file's content; UserError if it cannot be read or has more than `most` bytes.

    Also of standard input ("-") and of a pipe that the shell opened: @<(find . -name "*.jpg").
    """
    data: bytes | None
    try:
        if (descriptor := own_descriptor(path)) is not None:
            data = read_stream(descriptor, most, bound("seconds"))
        else:
            with open_regular(path) as file:
                data = file.read() if os.fstat(file.fileno()).st_size <= most else None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(f"cannot read {title}: {reason(error)}; check the path") from None
    if data is None:
        raise UserError(f"{title} is larger than {most // 1_000_000} MB: split it")
    kind = kind_of(data[:HEAD_BYTES])
    if kind is not None and kind.group == "lfs":
        raise UserError(f"{title} is {kind.title}, not the file itself: run git lfs pull")
    return data
