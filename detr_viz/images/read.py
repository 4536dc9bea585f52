"""From a file, an array or a PIL image to a LoadedImage, or to one line that says what is wrong.

image = load_image("cat.jpg")                   # upright RGB, 8 bits, opaque
x = to_tensor(image)                            # float32 (1, 3, h, w); see resize.py
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.files import path_text
from detr_viz.common.regular import check_regular, open_regular
from detr_viz.images.deep_tiff import by_tifffile, by_two_passes, refuse_raw_photo
from detr_viz.images.loaded_image import MAX_PIXELS, ImageError, LoadedImage
from detr_viz.images.not_images import kind_in, refuse
from detr_viz.images.tiff_tags import TIFFFILE, TWO_PASSES, TiffTags, read_tags, reader
from detr_viz.images.to_rgb import ORIENTATION, frame_note, to_rgb

_NOT_OPENED = {"FITS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "PDF"}
_USUAL = ("BMP", "GIF", "JPEG", "PPM", "PNG")  # which Pillow knows from the start
_ONE_AT_A_TIME = threading.Lock()  # Pillow's settings and warning filters are shared by all threads


def load_image(
    source: str | os.PathLike[str] | np.ndarray | Image.Image | LoadedImage,
) -> LoadedImage:
    """Read a picture: a file, a numpy array or a PIL image.

    Arrays: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, or floats in [0, 1]; they are copied.
    Of a file with several frames or pages the first is read; of a PIL image its current frame.
    EXIF orientation is applied, to PIL images too. Transparent pixels are shown on white. Samples
    of more bits are scaled to 8 bits, never clipped. Color profiles are ignored, as in the official
    evaluation. Raises ImageError for everything that cannot be read completely.
    """
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        name = "the PIL image"
        _check_tiff(source, name)
        with _pillow_rules(), _pillow_errors(name):
            rgb, notes = to_rgb(source, name)
        return LoadedImage(rgb, None, hashlib.sha256(rgb).hexdigest(), notes)
    if isinstance(source, str | os.PathLike):
        return _from_file(os.fsdecode(source))
    raise ImageError(
        f"cannot take an image from {type(source).__name__}: "
        "give a path, a numpy array (H, W, 3) or a PIL image"
    )


# ---- sources ----------------------------------------------------------------------------------


def _from_file(path: str) -> LoadedImage:
    name = path_text(path)
    with _open_regular(path, name) as file, _pillow_errors(name):
        tags = read_tags(file, path)
        if tags is not None:
            refuse_raw_photo(tags, name)
        if tags is not None and reader(tags) == TIFFFILE:
            rgb, notes = by_tifffile(file, tags, name)
        else:
            try:
                rgb, notes = _by_pillow(file, tags, name)
            except UnidentifiedImageError:
                rgb, notes = _unknown_to_pillow(file, tags, name)
        return LoadedImage(rgb, path, sha256(file), notes)


def _unknown_to_pillow(
    file: BinaryIO, tags: TiffTags | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """By another reader, else an error that names what the file is."""
    if tags is not None:
        return by_tifffile(file, tags, name)
    kind = kind_in(file)
    if kind is not None and kind.group == "heic":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            refuse(kind, name)
        with _pillow_rules(), HeifImageFile(file) as im:
            if im.width * im.height > MAX_PIXELS:
                raise ImageError(
                    f"{name} is too large ({im.width * im.height} pixels exceeds limit of "
                    f"{MAX_PIXELS} pixels): scale it down first"
                )
            rgb, notes = to_rgb(im, name)  # the decoder has turned it, and says so in its EXIF
            return rgb, frame_note(im) + notes
    refuse(kind, name)
    raise UnidentifiedImageError(name)


def _check_tiff(im: Image.Image, name: str) -> None:
    """ImageError for an opened TIFF that Pillow reads as another picture."""
    path = getattr(im, "filename", None) if im.format == "TIFF" else None
    if path and os.path.isfile(path):
        with open_regular(path) as file:
            tags = read_tags(file)
        if tags is not None and reader(tags) == TIFFFILE:
            raise ImageError(
                f"{name} is of a TIFF with {tags.words}, which Pillow does not read right: "
                "give the path instead"
            )


def _by_pillow(
    file: BinaryIO, tags: TiffTags | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    file.seek(0)
    with _pillow_rules(), _opened(file) as im:
        # for EPS Pillow would run Ghostscript on the file; of a stub it knows only the name
        if im.format in ("EPS", "MPEG") or isinstance(im, ImageFile.StubImageFile):
            if im.format == "MPEG":
                refuse(kind_in(file), name)
            raise ImageError(f"{name} is {im.format}, which is not read: convert it to PNG")
        if im.format in ("JPEG", "MPO"):
            _check_scans(file, name)
        if tags is not None and reader(tags) == TWO_PASSES:
            rgb, notes = by_two_passes(file, tags, name)
        else:
            rgb, notes = to_rgb(im, name)
        return rgb, frame_note(im) + notes


def _check_scans(file: BinaryIO, name: str) -> None:
    """ImageError for a JPEG of very many scans: each goes over the whole picture."""
    at = file.tell()
    file.seek(0)
    count, end = 0, b""
    while block := file.read(1 << 20):  # no such bytes are part of a scan's own data
        count += (end + block).count(b"\xff\xda")
        end = block[-1:]
    file.seek(at)
    if count > bound("scans"):
        raise ImageError(f"{name} has {beyond('scans', count)}")


def _opened(file: BinaryIO) -> Image.Image:
    """The image as Pillow takes it by its content; UnidentifiedImageError where none fits.

    Not with the formats that unpack a file or run a program before its size is known.
    """
    try:  # the readers of all other formats take longer to import than a photo to read
        return Image.open(file, formats=_USUAL)
    except UnidentifiedImageError:
        Image.init()
        file.seek(0)
        return Image.open(file, formats=[name for name in Image.OPEN if name not in _NOT_OPENED])


def _open_regular(path: str, name: str) -> BinaryIO:
    """Open for reading; only regular files, since a pipe or a device might never end."""
    if path.startswith(("http://", "https://")):
        raise ImageError(f"{name} is a web address: download it and give the file")
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{name} is a folder: name the images in it")
        if not stat.S_ISREG(info.st_mode):
            raise ImageError(f"{name} is not a regular file: save the image to disk first")
        check_regular(path)
        if info.st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes): fetch it again")
        return open_regular(path)
    except FileNotFoundError:
        raise ImageError(f"no image at {name}: check the path") from None
    except PermissionError:
        raise ImageError(f"no permission to read {name}: change its mode or copy it") from None
    except OSError as error:
        raise ImageError(f"cannot read {name}: {error.strerror or error}") from error
    except ImageError:
        raise
    except ValueError as error:  # a null character in the path
        raise ImageError(f"{name} is not a path: {error}") from error


def orientation_of(path: str) -> int:
    """The EXIF orientation of a file that was read, 1 to 8; 1 where it has none."""
    with open_regular(path) as file:
        if (tags := read_tags(file, path)) is not None:
            return tags.orientation
        file.seek(0)
        try:
            with _pillow_rules(), _opened(file) as im:
                return im.getexif().get(ORIENTATION, 1)
        except Exception:  # of another reader, or its EXIF block is damaged
            return 1


def sha256(file: BinaryIO) -> str:
    """sha256 (hex) of a file's bytes, from its start."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _from_array(array: np.ndarray) -> LoadedImage:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(
            f"image array has shape {array.shape}: give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.size == 0:
        raise ImageError(f"image array has shape {array.shape}: it has no pixels")
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also false for nan
            raise ImageError(
                f"image array of {array.dtype} goes from {low:.6g} to {high:.6g}: "
                "floats must lie in [0, 1]"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"image array is {array.dtype}: give uint8, or floats in [0, 1]")
    notes: tuple[str, ...] = ()
    if array.ndim == 3 and array.shape[2] == 3:
        rgb = np.array(array, order="C")
        rgb.flags.writeable = False
    else:
        rgb, notes = to_rgb(Image.fromarray(np.ascontiguousarray(array)), "image array")
    return LoadedImage(rgb, None, hashlib.sha256(rgb).hexdigest(), notes)


# ---- Pillow -----------------------------------------------------------------------------------


@contextmanager
def _pillow_rules() -> Iterator[None]:
    """This package's settings of Pillow inside the block, the caller's settings afterwards.

    A truncated file is an error even if the caller allowed it; the limit on pixels is MAX_PIXELS,
    or the caller's own if that is lower; nothing is printed.
    """
    log, silent = logging.getLogger("PIL"), logging.NullHandler()
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, partial = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        half = MAX_PIXELS // 2  # Pillow raises above twice its limit
        Image.MAX_IMAGE_PIXELS = half if pixels is None else min(pixels, half)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        log.addHandler(silent)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = pixels, partial
            log.removeHandler(silent)


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn any error of a decoder into an ImageError of one line."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not an image that Pillow knows, or is cut short: convert it to PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        reason = str(error).split(",")[0]
        raise ImageError(f"{name} is too large ({reason}): scale it down first") from error
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory: scale it down first") from error
    except Exception as error:  # broken files make decoders raise nearly anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({reason}): fetch it again") from error
