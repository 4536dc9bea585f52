"""TIFF pages with more than Pillow reads: by tifffile, or by Pillow one byte of a sample at a time.

rgb, notes = by_tifffile(file, tags, "a.tif")    # uint8 (H, W, 3) upright, what was decided
"""

from __future__ import annotations

import logging
import os
import sys
from typing import BinaryIO

import numpy as np
from PIL import Image

from detr_viz.images import to_rgb
from detr_viz.images.loaded_image import MAX_PIXELS, ImageError, ask_for
from detr_viz.images.tiff_tags import (
    ALPHA,
    BLACK_IS_ZERO,
    CMYK,
    FLOAT,
    PALETTE,
    PREMULTIPLIED,
    RGB,
    UNSIGNED,
    UNSPECIFIED,
    WHITE_IS_ZERO,
    TiffTags,
)

_EXTRA = 'pip install "detr_viz[tiff]" (or: pip install tifffile)'
_PNG = "save it as 8-bit RGB"


def refuse_raw_photo(tags: TiffTags, name: str) -> None:
    """ImageError for what a camera stores in a TIFF: Pillow would show its small preview."""
    if tags.is_raw_photo:
        raise ImageError(
            f"{name} is a raw photo of a camera (DNG, NEF, CR2, ARW and others are TIFF inside, "
            "with a preview first): develop it to TIFF, PNG or JPEG"
        )


def by_tifffile(file: BinaryIO, tags: TiffTags, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(read-only uint8 (H, W, 3), notes) of the first page; ImageError names what is in the way."""
    colours, alpha, notes = _roles(tags, name)
    if tags.hw[0] * tags.hw[1] > MAX_PIXELS:
        raise ImageError(
            f"{name} is too large ({tags.hw[0] * tags.hw[1]} pixels exceeds limit of {MAX_PIXELS} "
            "pixels): scale it down first"
        )
    if tags.ends_at > os.fstat(file.fileno()).st_size:  # tifffile would fill up with zeros
        raise ImageError(f"{name} is damaged or cut short (strips are missing): fetch it again")
    height, width = tags.hw
    to_rgb.check_deep(height * width * tags.samples * max(tags.bits) // 8, name)
    ask_for(height * width)
    samples, colormap, pages = _samples(file, tags, name)
    opaque = None if alpha is None else _opacity(samples[..., alpha], tags, name)
    values = samples[..., colours]
    if colormap is not None:
        values = np.moveaxis(np.asarray(colormap), 0, -1)[values[..., 0]]
        eight = to_rgb.table_of(65535)[values]
    elif tags.formats[0] == UNSIGNED and tags.bits[0] <= 16:
        white = (1 << tags.bits[0]) - 1
        eight = to_rgb.table_of(white)[np.minimum(values, white)]
        notes += to_rgb.depth_note(tags.bits[0], white, int(values.max()))
    else:
        known = (1, 255) if tags.formats[0] == FLOAT else (255, 65535)
        eight, more = to_rgb.from_any_range(values, known, tags.bits[0])
        notes += more
    if tags.photometric == WHITE_IS_ZERO:
        eight = 255 - eight
    if pages > 1:
        notes = (f"first of {pages} pages", *notes)
    return _finish(eight, opaque, tags, tags.orientation, notes)


def by_two_passes(file: BinaryIO, tags: TiffTags, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same for 16-bit RGB and CMYK, contiguous: Pillow's decoder gives one byte a sample."""
    to_rgb.check_deep(tags.hw[0] * tags.hw[1] * tags.samples * 2, name)
    ask_for(tags.hw[0] * tags.hw[1])
    eight, low = _bytes_of(file, 1), _bytes_of(file, 0)  # the high bytes become the result
    colours, table, brightest = tags.colours, to_rgb.table_of(65535), 0
    for rows in to_rgb.strips(len(eight), eight.size):
        samples = eight[rows].astype(np.uint16) << 8 | low[rows]
        brightest = max(brightest, int(samples[..., :colours].max()))
        eight[rows] = table[samples]
    has_alpha = tags.photometric == RGB and eight.shape[-1] == 4
    opaque = eight[..., 3] if has_alpha and tags.extra[:1] != (UNSPECIFIED,) else None
    notes = to_rgb.depth_note(16, 65535, brightest)
    notes += _left_out(tags, int(opaque is not None))
    # Pillow has turned the picture upright
    return _finish(eight[..., :colours], opaque, tags, 1, notes)


def _bytes_of(file: BinaryIO, which: int) -> np.ndarray:
    """uint8 (H, W, samples): the high (1) or the low (0) byte of each 16-bit sample."""
    file.seek(0)
    with Image.open(file) as im:
        tiles = []
        for tile in im.tile:
            raw, *rest = tile[3]
            mode, _, order = raw.partition(";16")
            if order not in ("L", "B", "N"):
                raise ValueError(f"samples are read as {raw}")
            # native order is the system's; the wrong order yields the low byte
            little = order == "L" or (order == "N" and sys.byteorder == "little")
            mode = {"RGBa": "RGBA", "RGBX": "RGBA"}.get(mode, mode)
            wanted = f"{mode};16{'L' if little == (which == 1) else 'B'}"
            fields = (*tile[:3], (wanted, *rest))
            tiles.append(fields if type(tile) is tuple else type(tile)(*fields))
        if mode == "RGBA":
            im._mode = "RGBA"
        im.tile = tiles
        im.load()
        return np.array(im)


def _roles(tags: TiffTags, name: str) -> tuple[list[int], int | None, tuple[str, ...]]:
    """(the samples that are colours, the one that is alpha, notes)."""
    refusal = f"{name} is a TIFF with {tags.words}, which is not read: {_PNG}"
    alpha = next((i for i, e in enumerate(tags.extra) if e in (PREMULTIPLIED, ALPHA)), None)
    notes: tuple[str, ...] = ()
    colours = tags.colours
    if not tags.is_even or tags.photometric not in (0, 1, RGB, PALETTE, CMYK):
        raise ImageError(refusal)
    if tags.formats[0] not in (UNSIGNED, 2, FLOAT) or tags.samples < colours:
        raise ImageError(refusal)
    if colours == 1:
        beyond = tags.samples - (alpha is not None)
        if tags.photometric == BLACK_IS_ZERO and beyond == 3:
            colours = 3  # gray with two samples of unknown meaning, by the letter
            notes = ("BlackIsZero with 3 samples a pixel: taken for red, green and blue",)
        elif tags.samples > 2 or (tags.photometric == PALETTE and tags.formats[0] != UNSIGNED):
            raise ImageError(refusal)
    if tags.photometric in (CMYK, PALETTE) and (tags.formats[0] != UNSIGNED or tags.bits[0] > 16):
        raise ImageError(refusal)
    where = None if alpha is None else tags.samples - len(tags.extra) + alpha
    if tags.photometric == RGB and tags.samples == 4 and not tags.extra:
        where = 3  # as Pillow takes it
    if where is not None and where < colours:
        raise ImageError(refusal)
    used = colours + (where is not None)
    if tags.samples > used:
        notes += _left_out(tags, used - colours, colours)
    return list(range(colours)), where, notes


def _left_out(tags: TiffTags, alphas: int, colours: int | None = None) -> tuple[str, ...]:
    count = tags.samples - alphas - (tags.colours if colours is None else colours)
    if count <= 0:
        return ()
    return (f"{count} more sample{'s' if count > 1 else ''} a pixel left out (ExtraSamples)",)


def _opacity(alpha: np.ndarray, tags: TiffTags, name: str) -> np.ndarray:
    if tags.formats[0] == FLOAT:
        return np.rint(np.clip(np.nan_to_num(alpha), 0, 1) * 255).astype(np.uint8)
    if tags.formats[0] == UNSIGNED and tags.bits[0] <= 16:
        return to_rgb.table_of((1 << tags.bits[0]) - 1)[alpha]
    raise ImageError(f"{name} is a TIFF with {tags.words}, which is not read: {_PNG}")


def _samples(
    file: BinaryIO, tags: TiffTags, name: str
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """((H, W, samples) as stored, the palette or None, the number of pages)."""
    try:
        from tifffile import TiffFile
    except ImportError:
        raise ImageError(
            f"{name} is a TIFF with {tags.words}, which Pillow does not read right: {_EXTRA}, "
            f"or {_PNG}"
        ) from None
    log = logging.getLogger("tifffile")
    disabled, log.disabled = log.disabled, True
    file.seek(0)
    try:
        with TiffFile(file, name=name) as tiff:  # the name that the file has may be a number
            page = tiff.pages[0]
            data, axes = page.asarray(), page.axes
            colormap = page.colormap if tags.photometric == PALETTE else None
            pages = len(tiff.pages)
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if "imagecodecs" in reason:
            raise ImageError(
                f"{name} is a TIFF with {tags.words}: pip install imagecodecs, or save it "
                "without compression"
            ) from error
        raise ImageError(
            f"{name} is a TIFF with {tags.words}, and is damaged or of a kind that tifffile does "
            f"not read ({reason}): fetch it again, or {_PNG}"
        ) from error
    finally:
        log.disabled = disabled
    if axes == "SYX":
        data = np.moveaxis(data, 0, -1)
    elif axes == "YX":
        data = data[..., None]
    shape = (*tags.hw, tags.samples)
    if data.shape != shape or data.dtype.kind not in "uif":
        raise ImageError(f"{name} is a TIFF with {tags.words}, which is not read: {_PNG}")
    return data, colormap, pages


def _finish(
    eight: np.ndarray,
    opaque: np.ndarray | None,
    tags: TiffTags,
    orientation: int,
    notes: tuple[str, ...],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Colours of 8 bits and their opacity as RGB over white, upright."""
    if tags.photometric == CMYK:
        inks = [Image.fromarray(np.ascontiguousarray(eight[..., i])) for i in range(4)]
        eight = np.asarray(Image.merge("CMYK", inks).convert("RGB"))
    rgb = np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3)))
    if opaque is not None and opaque.min() < 255:
        notes += ("transparent: laid over white",)
        if PREMULTIPLIED in tags.extra:
            whole = rgb.astype(np.int32) + 255 - opaque[..., None].astype(np.int32)
            rgb = np.minimum(whole, 255).astype(np.uint8)
        else:
            page = Image.new("RGB", rgb.shape[1::-1], "white")
            page.paste(Image.fromarray(rgb), mask=Image.fromarray(np.ascontiguousarray(opaque)))
            rgb = np.asarray(page)
    turn = to_rgb.TURNS.get(orientation)
    if turn is not None:
        rgb = np.asarray(Image.fromarray(rgb).transpose(turn))
    rgb.flags.writeable = False
    return rgb, notes
