"""From a picture to the network's input: all that can be wrong with a picture is dealt with here.

image = load_image("cat.jpg")         # LoadedImage: upright RGB, 8 bits, opaque
x = to_tensor(image)            # float32 (1, 3, h, w), as the official evaluation transform
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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 178_956_970  # where Pillow's default warning about a bomb turns into an error
MEAN_RGB = (0.485, 0.456, 0.406)  # ImageNet, as in the official transform
STD_RGB = (0.229, 0.224, 0.225)

_ORIENTATION = 0x0112  # EXIF tag; how the stored pixels must be turned to stand upright
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ONE_AT_A_TIME = threading.Lock()  # Pillow's settings and the warning filters belong to everybody


class ImageError(UserError):
    """A picture that cannot be used; one line says which and what to do."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One picture, upright (EXIF applied), opaque, in the pixels that boxes are measured in.

    rgb: uint8 (H0, W0, 3), read-only.  path: as given, None for arrays and PIL images.
    sha256: hex, of the file's bytes; of the RGB pixels where there is no file.
    notes: what had to be decided about it, one short line each.
    """

    rgb: np.ndarray = field(repr=False)
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def hw(self) -> tuple[int, int]:
        """(H0, W0) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def facts(self) -> ImageFacts:
        """All but the pixels."""
        return ImageFacts(self.hw, self.path, self.sha256, self.notes)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a picture without its pixels; fields as in LoadedImage."""

    hw: tuple[int, int]
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()


def load_image(
    source: str | os.PathLike[str] | np.ndarray | Image.Image | LoadedImage,
) -> LoadedImage:
    """Read a picture whatever its kind: a file, a numpy array or a PIL image.

    Arrays: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, or floats in [0, 1]; they are copied.
    Of files with several frames or pages the first is taken; a PIL image stays at its frame.
    EXIF orientation is applied, to PIL images too. Transparency is laid over white. Deeper
    samples are scaled to 8 bits, never clipped. Color profiles are ignored, as in the official
    evaluation. Raises ImageError for everything that cannot be read whole.
    """
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        name = "the PIL image"
        with _pillow_rules(), _pillow_errors(name):
            rgb, notes = _to_rgb(source, name)
        return LoadedImage(rgb, None, hashlib.sha256(rgb).hexdigest(), notes)
    if isinstance(source, str | os.PathLike):
        return _from_file(os.fsdecode(source))
    raise ImageError(
        f"cannot take an image from {type(source).__name__}: "
        "give a path, a numpy array (H, W, 3) or a PIL image"
    )


def target_size(h: int, w: int, short: int = 800, longest: int = 1333) -> tuple[int, int]:
    """(new_h, new_w) in pixels of the official evaluation transform, never below 1.

    The shorter side becomes `short`, or round(longest * shorter / longer) where the longer one
    would pass `longest`; the longer side is truncated, and so may pass it a little after all.
    Where that rounds the shorter side to 0 (longer than 2 * longest : 1), the result is
    `longest` by 1. Raises ImageError for sizes below 1.
    Source: facebookresearch/detr, datasets/transforms.py, `resize`.
    """
    if min(h, w) < 1:
        raise ImageError(f"cannot resize an image of {h} x {w} pixels: it has none")
    if min(short, longest) < 1:
        raise ImageError(
            f"cannot resize to a short side of {short} and a long side of {longest}: "
            "both must be at least 1"
        )
    size = short
    if max(h, w) / min(h, w) * size > longest:
        size = round(longest * min(h, w) / max(h, w))
        if size == 0:
            return (longest, 1) if h > w else (1, longest)
    if size == min(h, w):
        return h, w
    return (int(size * h / w), size) if w < h else (size, int(size * w / h))


def resized(image: LoadedImage, short: int = 800, longest: int = 1333) -> np.ndarray:
    """The picture at the network's size, uint8 (h, w, 3); (h, w) is `target_size` of it.

    Pillow's bilinear filter on uint8, as the official evaluation transform. short, longest in
    pixels.
    """
    h, w = target_size(*image.hw, short, longest)
    if h * w > MAX_PIXELS:
        raise ImageError(f"{h} x {w} pixels are too many for the network: ask for a smaller size")
    if (h, w) == image.hw:
        return image.rgb
    return np.asarray(Image.fromarray(image.rgb).resize((w, h), Image.Resampling.BILINEAR))


def normalised(pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """(rgb / 255 - mean) / std of uint8 (B, h, w, 3): float32 (B, 3, h, w) on the device.

    float32 arithmetic in this order: the same bits as the official evaluation transform.
    """
    import torch

    # divisors as tensors: a plain number would be made a factor on some devices
    mean, std, white = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
        for values in (MEAN_RGB, STD_RGB, [255])
    )
    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(device)
    x = x.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return x.div_(white).sub_(mean).div_(std)


def to_tensor(image: LoadedImage, short: int = 800, longest: int = 1333) -> torch.Tensor:
    """The network's input, float32 (1, 3, h, w): `resized`, then `normalised`."""
    return normalised(resized(image, short, longest)[None])


# ---- sources ----------------------------------------------------------------------------------


def _from_file(path: str) -> LoadedImage:
    name = path if path and path.isprintable() else repr(path)  # keeps the message on one line
    with _open_regular(path, name) as file, _pillow_errors(name):
        with _pillow_rules(), Image.open(file) as im:
            # EPS would run a program, Ghostscript, on the file; of stubs Pillow knows the name only
            if im.format == "EPS" or isinstance(im, ImageFile.StubImageFile):
                raise ImageError(f"{name} is {im.format}, which is not read: convert it to PNG")
            rgb, notes = _to_rgb(im, name)
            notes = _frame_note(im) + notes
        return LoadedImage(rgb, path, sha256(file), notes)


def _open_regular(path: str, name: str) -> BinaryIO:
    """Open for reading; a pipe or a device might never end, so only regular files will do."""
    if path.startswith(("http://", "https://")):
        raise ImageError(f"{name} is a web address: download it and give the file")
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{name} is a folder: name the images in it")
        if not stat.S_ISREG(info.st_mode):
            raise ImageError(f"{name} is not a regular file: save the image to disk first")
        if info.st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes): fetch it again")
        return open(path, "rb")
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


def sha256(file: BinaryIO) -> str:
    """Of a file's bytes, from its start, hex."""
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
        rgb, notes = _to_rgb(Image.fromarray(np.ascontiguousarray(array)), "image array")
    return LoadedImage(rgb, None, hashlib.sha256(rgb).hexdigest(), notes)


# ---- Pillow -----------------------------------------------------------------------------------


@contextmanager
def _pillow_rules() -> Iterator[None]:
    """Our rules while Pillow works, the caller's afterwards.

    A cut file is an error even where the program allowed it; the limit on pixels is MAX_PIXELS or
    the program's own if lower; nothing is printed.
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
    """Turn whatever a decoder raises into one line."""
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


def _to_rgb(im: Image.Image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read-only uint8 (H, W, 3) of the frame where `im` stands, and notes."""
    if 0 in im.size:
        raise ImageError(f"{name} has no pixels ({im.width} x {im.height})")
    im.load()  # before EXIF is asked: TIFF turns itself upright here
    turn = _turn(im)
    eight, notes = _eight_bits(im)
    rgb, transparent = _over_white(eight)
    if transparent:
        notes += ("transparent: laid over white",)
    if turn is not None:
        rgb = rgb.transpose(turn)
    pixels = np.asarray(rgb)
    pixels.flags.writeable = False
    return pixels, notes


def _turn(im: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(im.getexif().get(_ORIENTATION))
    except Exception:  # the picture is whole, its EXIF block is not
        return None


def _frame_note(im: Image.Image) -> tuple[str, ...]:
    if im.format == "PSD":  # its "frames" are layers; what was read is all of them together
        return ()
    kind = {"TIFF": "page", "DCX": "page", "MPO": "picture"}.get(im.format or "", "frame")
    start = "animated: first" if kind == "frame" else "first"
    try:
        count = getattr(im, "n_frames", 1)
    except Exception:  # a later frame is damaged; the first one is not
        return (f"{start} {kind}",)
    return (f"{start} of {count} {kind}s",) if count > 1 else ()


def _eight_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The same picture with 8 bits a sample. (Pillow itself clips I and F when it converts.)"""
    if im.mode.startswith("I;16"):
        out, notes = _from_16_bits(im)
    elif im.mode in ("I", "F"):
        out, notes = _from_32_bits(im)
    else:
        return im, ()
    if isinstance(key := im.info.get("transparency"), int):
        opaque = np.where(np.asarray(im) == key, 0, 255).astype(np.uint8)
        out = Image.merge("LA", (out, Image.fromarray(opaque)))
    return out, notes


def _from_16_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """White is 65535 (12-bit TIFF: 4095), as the formats say, however dark that leaves it."""
    tags = getattr(im, "tag_v2", {})
    samples = np.asarray(im)
    brightest = int(samples.max())
    white = 4095 if tags.get(_TIFF_BITS) == (12,) and brightest <= 4095 else 65535
    gray = ((np.arange(65536) * 255 + white // 2) // white).astype(np.uint8)[samples]
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # 0 is white: Pillow minds that at 8 bits only
        gray = 255 - gray
    return Image.fromarray(gray), (
        f"16-bit: {white} is full scale, the largest sample is {brightest}",
    )


def _from_32_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """White is the first of 1 (F), 255, 65535 (I) that no sample passes.

    Where all are passed, or samples are negative, the range of 0 and the samples is shown.
    """
    samples = np.asarray(im).astype(np.float64)
    notes: tuple[str, ...] = ()
    finite = np.isfinite(samples)
    if not finite.all():
        notes = (f"{int((~finite).sum())} samples are not finite: drawn as the lowest",)
        samples[~finite] = samples[finite].min() if finite.any() else 0
    low, high = float(samples.min()), float(samples.max())
    if im.mode == "F":
        known: tuple[int, ...] = (1, 255)
    else:  # older Pillows read 16-bit PNG as I
        known = (65535,) if im.format in ("PNG", "PPM") else (255, 65535)
    white = next((value for value in known if low >= 0 and high <= value), None)
    black, white = (0, white) if white else (min(low, 0), max(high, 0))
    samples -= black
    samples *= 255 / (white - black)
    notes += (f"32-bit: {black:.6g} is black, {white:.6g} is white",)
    return Image.fromarray(np.rint(samples).astype(np.uint8)), notes


def _over_white(im: Image.Image) -> tuple[Image.Image, bool]:
    """(RGB image, whether any of it was transparent)."""
    if not im.has_transparency_data:
        return (im if im.mode == "RGB" else im.convert("RGB")), False
    rgba = im.convert("LA").convert("RGBA") if im.mode == "La" else im.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return rgba.convert("RGB"), False
    page = Image.new("RGB", im.size, "white")
    page.paste(rgba, mask=alpha)
    return page, True
