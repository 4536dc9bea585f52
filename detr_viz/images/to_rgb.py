"""From a Pillow image of any mode to upright, opaque RGB of 8 bits a sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from detr_viz.common.bounds import beyond, bound
from detr_viz.images.loaded_image import ImageError, ask_for

ORIENTATION = 0x0112  # EXIF tag; how the stored pixels must be turned to stand upright
_BYTES = {"I": 4, "F": 4}  # of a sample; I;16 and its kin have two
_STRIP = 1 << 22  # samples that are worked on at a time
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_FORMAT = 258, 262, 339
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(im: Image.Image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(read-only uint8 (H, W, 3) of the current frame of `im`, notes).

    name: of the picture, for the ImageError of one without pixels.
    """
    if 0 in im.size:
        raise ImageError(f"{name} has no pixels ({im.width} x {im.height})")
    ask_for(im.width * im.height)
    if im.format in ("AVIF", "HEIF"):  # their decoders hold a picture two or three times
        check_deep(im.width * im.height * 4, name)
    if im.mode[0] in "IF":
        check_deep(im.width * im.height * _BYTES.get(im.mode, 2), name)
    white = _deep_white(im)  # known until the pixels are loaded
    im.load()  # before EXIF is read: for TIFF, Pillow turns the image upright here
    turn = _turn(im)
    eight, notes = _eight_bits(im)
    if white is not None and eight is im:
        notes += _narrowed_note(im, white)
    rgb, transparent = _over_white(eight)
    if transparent:
        notes += ("transparent: laid over white",)
    if turn is not None:
        rgb = rgb.transpose(turn)
    pixels = np.asarray(rgb)
    pixels.flags.writeable = False
    return pixels, notes


def check_deep(size: int, name: str) -> None:
    """ImageError for a picture that takes more than its RGB, and unpacks to very many bytes."""
    if size > bound("deep"):
        raise ImageError(f"{name} unpacks to {beyond('deep', size)}")


def strips(rows: int, samples: int) -> Iterator[slice]:
    """Slices of the rows of a picture, of a few million samples each."""
    step = max(1, _STRIP * rows // max(samples, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def _turn(im: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(im.getexif().get(ORIENTATION))
    except Exception:  # the picture is whole, its EXIF block is not
        return None


def frame_note(im: Image.Image) -> tuple[str, ...]:
    """A note if only the first of several frames or pages is read."""
    if im.format == "PSD":  # its "frames" are layers; Pillow reads all of them together
        return ()
    kind = {"TIFF": "page", "DCX": "page", "MPO": "picture", "HEIF": "picture"}.get(
        im.format or "", "frame"
    )
    start = "animated: first" if kind == "frame" else "first"
    try:
        count = getattr(im, "n_frames", 1)
    except Exception:  # a later frame is damaged; the first one is not
        return (f"{start} {kind}",)
    return (f"{start} of {count} {kind}s",) if count > 1 else ()


def _eight_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The same picture with 8 bits a sample. (Pillow's own conversion clips modes I and F.)"""
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


def _deep_white(im: Image.Image) -> int | None:
    """Full scale of a colour file of 16 bits a sample, which Pillow reads as 8; else None."""
    tile = im.tile[0] if getattr(im, "tile", ()) else None
    if tile is None or im.mode not in ("RGB", "RGBA", "LA"):
        return None
    decoder, _, _, options = tile
    if decoder == "jpeg2k":
        return _jpeg_2000_white(im)
    fields = options if isinstance(options, tuple) else (options,)
    if decoder.startswith("ppm"):
        white = fields[-1]
        return white if isinstance(white, int) and white > 255 else None
    deep = decoder == "SGI16" or (isinstance(fields[0], str) and ";16" in fields[0])
    return 65535 if deep else None


def _jpeg_2000_white(im: Image.Image) -> int | None:
    file = getattr(im, "fp", None)
    if file is None:
        return None
    at = file.tell()
    file.seek(0)
    head = file.read(4096)
    file.seek(at)
    start = head.find(b"\xff\x4f\xff\x51")  # of the codestream; 42 on: depth - 1 of the samples
    bits = (head[start + 42] & 127) + 1 if 0 <= start < len(head) - 42 else 8
    return (1 << bits) - 1 if 8 < bits <= 16 else None


def _narrowed_note(im: Image.Image, white: int) -> tuple[str, ...]:
    """How a 16-bit colour image was scaled. Of the largest sample only the high byte is left."""
    colours = [im.getchannel(band).getextrema()[1] for band in im.getbands() if band != "A"]
    cut = (max(colours) * (white + 1) + white) // 256  # by the decoders that drop the low byte
    rounded = (2 * max(colours) + 1) * white // 510  # by the others
    at_most = min(max(cut, rounded), white)
    return (f"16-bit: {white} is full scale, the largest sample is at most {at_most}",)


def table_of(white: int) -> np.ndarray:
    """uint8 (65536,): the 8-bit value of each sample where `white` is full scale, rounded."""
    return ((np.arange(65536) * 255 + white // 2) // white).astype(np.uint8)


def depth_note(bits: int, white: int, brightest: int) -> tuple[str, ...]:
    """How samples of more than 8 bits were scaled."""
    if bits <= 8:
        return ()
    return (f"{bits}-bit: {white} is full scale, the largest sample is {brightest}",)


def _from_16_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """White is 65535 (12-bit TIFF: 4095), as the formats say, even if the picture is then dark."""
    tags = getattr(im, "tag_v2", {})
    samples = np.asarray(im)
    brightest = int(samples.max())
    white = 4095 if tags.get(_TIFF_BITS) == (12,) and brightest <= 4095 else 65535
    gray = table_of(white)[samples]
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # 0 is white: Pillow handles that only for 8 bits
        gray = 255 - gray
    return Image.fromarray(gray), depth_note(16, white, brightest)


def _from_32_bits(im: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """See from_any_range; white is 1 or 255 (F), 255 or 65535 (I)."""
    tags = getattr(im, "tag_v2", {})
    samples = np.asarray(im)
    if im.mode == "I" and tags.get(_TIFF_BITS) == (32,) and tags.get(_TIFF_FORMAT, (1,)) == (1,):
        samples = samples.view(np.uint32)  # Pillow has no unsigned mode of 32 bits
    if im.mode == "F":
        known: tuple[int, ...] = (1, 255)
    else:  # older Pillows read 16-bit PNG as I
        known = (65535,) if im.format in ("PNG", "PPM") else (255, 65535)
    gray, notes = from_any_range(samples, known)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:
        gray = 255 - gray
    return Image.fromarray(gray), notes


def from_any_range(
    samples: np.ndarray, known: tuple[int, ...], bits: int = 32
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(uint8 of the same shape, notes) of samples (H, W) or (H, W, n) of any kind of number.

    White is the first value in `known` that no sample exceeds. If samples exceed all of these or
    are negative, the range of the samples and 0 is shown. Strip by strip, in float64.
    """
    notes: tuple[str, ...] = ()
    low, high, wild = np.inf, -np.inf, 0
    for rows in strips(len(samples), samples.size):
        strip = samples[rows].astype(np.float64)
        finite = strip[np.isfinite(strip)]
        wild += strip.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        low = high = 0.0
    if wild:
        notes = (f"{wild} samples are not finite: drawn as the lowest",)
    white = next((value for value in known if low >= 0 and high <= value), None)
    black, white = (0, white) if white else (min(low, 0), max(high, 0))
    dark = f", the largest sample is {high:.6g}" if 0 < 2 * high < white else ""
    notes += (f"{bits}-bit: {black:.6g} is black, {white:.6g} is white{dark}",)
    part = 4 if high > 1e300 or low < -1e300 else 1  # a difference of float64 may be infinite
    black, white = black / part, white / part
    out = np.empty(samples.shape, np.uint8)
    for rows in strips(len(samples), samples.size):
        strip = samples[rows].astype(np.float64)
        strip[~np.isfinite(strip)] = low
        strip /= part
        strip -= black
        strip *= 255 / max(white - black, 1e-300)
        out[rows] = np.rint(strip)
    return out, notes


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
