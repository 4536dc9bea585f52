"""What a file is that no decoder takes for an image: one line with the way out."""

from __future__ import annotations

from typing import BinaryIO

from detr_viz.common.file_kinds import HEAD_BYTES, FileKind, kind_of
from detr_viz.images.loaded_image import ImageError

HEIC_EXTRA = 'pip install "detr_viz[heic]" (or: pip install pillow-heif)'
_WAYS_OUT = {  # group of the kind -> what to do
    "lfs": "not the image: run git lfs pull",
    "annex": "not the image: run git annex get",
    "web": "not an image, saved under this name: download the image itself",
    "text": "not an image (a server's answer, or an error?): read it, and fetch the image again",
    "page": "not an image of pixels that is read here: export it as PNG",
    "picture": "not an image that this Pillow knows: convert it to PNG",
    "avif": "which this Pillow has no codec for: update Pillow to 11.3, or convert it to PNG",
    "heic": f"which needs a codec: {HEIC_EXTRA}, or convert it to JPEG",
    "raw": "not an image yet: develop it to TIFF, PNG or JPEG",
    "video": "not an image: save its frames as PNG or JPEG first",
    "scan": "not an image that is read here: export it as PNG",
    "archive": "not an image: unpack it first",
    "array": "not an image file: load it with numpy, and save it as PNG",
    "data": "not an image: give an image file",
    "broken": "not an image (a download that did not end?): fetch it again",
}

_CODECS = {"an AVIF picture": "avif", "a JPEG 2000 picture": "jpg_2000"}


def kind_in(file: BinaryIO) -> FileKind | None:
    """The kind of an open file by its first bytes."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return kind_of(head)


def refuse(kind: FileKind | None, name: str) -> None:
    """ImageError with the way out, if the kind is known and no codec for it is here."""
    from PIL import features

    codec = None if kind is None else _CODECS.get(kind.title)
    has_codec = codec is not None and features.check(codec)  # the file is damaged, then
    if kind is not None and not has_codec:
        way_out = _WAYS_OUT[kind.group]
        if kind.group == "text" and name.endswith((".txt", ".lst")):
            way_out = f"not an image: if it lists images, write @{name}"
        raise ImageError(f"{name} is {kind.title}, {way_out}")
