"""What the tags of a TIFF's first page say of its samples, and who reads such a page right.

Pillow reads some deep pages as another picture without an error (16 bits in separate planes, 8-bit
signed gray), so its word is taken only for what `reader` names. Source: the TIFF 6.0 specification.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import BinaryIO

PILLOW, TWO_PASSES, TIFFFILE = "pillow", "two passes", "tifffile"  # readers
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
UNSPECIFIED, PREMULTIPLIED, ALPHA = 0, 1, 2  # ExtraSamples
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
_NAMES = {0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_NAMES |= {4: "mask", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "colour filter array"}
_NAMES |= {32844: "LogL", 32845: "LogLuv", 34892: "LinearRaw"}
_FORMATS = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "float", 5: "complex", 6: "complex"}
_TYPES = {1: "B", 2: "c", 3: "H", 4: "I", 6: "b", 7: "c", 8: "h", 9: "i", 13: "I", 16: "Q"}
_PILLOW_UNPACKS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000, 32771, 32809)
_PACKBITS = 32773
_NATIVE = "<" if sys.byteorder == "little" else ">"
_MOST_VALUES = 1 << 20
_RAW_SUFFIXES = (".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos")
_RAW_SUFFIXES += (".nef", ".nrw", ".pef", ".rwl", ".sr2", ".srf", ".srw")


@dataclass(frozen=True)
class TiffTags:
    """Tags of the first page, with the defaults of the specification; hw in pixels.

    order: of bytes, "<" or ">". bits, formats: one for each sample of a pixel.
    extra: of the samples beyond the colours.
    ends_at: where the last strip or tile ends in the file, bytes.
    """

    hw: tuple[int, int]
    order: str
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    photometric: int
    planar: int
    extra: tuple[int, ...]
    compression: int
    predictor: int
    orientation: int
    ends_at: int
    is_raw_photo: bool

    @property
    def samples(self) -> int:
        return len(self.bits)

    @property
    def colours(self) -> int:
        """Samples of a pixel that are colours; 0 where only the maker knows."""
        return _COLOURS.get(self.photometric, 0)

    @property
    def is_even(self) -> bool:
        """Whether all samples of a pixel are of one kind."""
        return len(set(self.bits)) == len(set(self.formats)) == 1

    @property
    def words(self) -> str:
        """What is unusual about the samples, by the names of the tags."""
        depth, form = self.bits[0], self.formats[0]
        unusual = []
        if not self.is_even:
            shown = ", ".join(map(str, self.bits[:8]))
            unusual.append(f"samples of different kinds (BitsPerSample {shown})")
        elif depth not in (1, 2, 4, 8) or form != UNSIGNED:
            kind = _FORMATS.get(form, "unknown")
            unusual.append(
                f"{depth}-bit {kind} samples (BitsPerSample {depth}, SampleFormat {form})"
            )
        if self.planar == 2:
            unusual.append("separate planes (PlanarConfiguration 2)")
        name = _NAMES.get(self.photometric, "unknown colours")
        unusual.append(
            f"{name} with {self.samples} sample{'s' if self.samples > 1 else ''} a pixel "
            f"(PhotometricInterpretation {self.photometric}, SamplesPerPixel {self.samples})"
        )
        if self.extra:
            unusual.append(f"ExtraSamples {', '.join(map(str, self.extra[:8]))}")
        if self.compression != 1:
            unusual.append(f"Compression {self.compression}")
        return ", ".join(unusual)


def reader(tags: TiffTags) -> str:
    """PILLOW, TWO_PASSES (Pillow reads one byte of each sample at a time) or TIFFFILE."""
    depth, form, photometric = tags.bits[0], tags.formats[0], tags.photometric
    if tags.compression not in _PILLOW_UNPACKS:  # WebP is no part of Pillow's own libtiff
        return TIFFFILE
    if tags.compression == _PACKBITS and tags.predictor != 1:
        return TIFFFILE  # which writes such files; libtiff does not look at the predictor
    if tags.compression in (6, 7) and depth == 8:
        return PILLOW  # JPEG says itself what its samples are
    if not tags.is_even or not tags.colours:
        return TIFFFILE
    if tags.samples == 1:
        if tags.planar == 2 and tags.compression == 1:
            # Pillow takes the first letter of its own code for the samples: right where it is one
            plain = depth == 8 and photometric in (BLACK_IS_ZERO, PALETTE) and form == UNSIGNED
            return PILLOW if plain else TIFFFILE
        if form == UNSIGNED and depth <= 8:
            return PILLOW
        known = {(UNSIGNED, 12), (UNSIGNED, 16), (SIGNED, 16)}
        known |= {(UNSIGNED, 32), (SIGNED, 32), (FLOAT, 32)}
        if photometric == WHITE_IS_ZERO:
            known = {(UNSIGNED, 16), (FLOAT, 32)}
        if tags.compression != 1 and tags.order != _NATIVE:
            known -= {(SIGNED, 16), (SIGNED, 32), (FLOAT, 32)}  # Pillow swaps their bytes twice
        is_gray = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        return PILLOW if is_gray and (form, depth) in known else TIFFFILE
    if form != UNSIGNED or tags.samples < tags.colours:
        return TIFFFILE
    beyond = tags.samples > tags.colours and tags.extra not in ((), (ALPHA,))
    if depth == 8 and tags.planar == 2 and beyond:
        return TIFFFILE
    if depth == 8 and (tags.colours >= 3 or tags.planar == 1):
        few = tags.colours == 1 and (tags.samples > 2 or photometric == WHITE_IS_ZERO)
        return TIFFFILE if few else PILLOW
    deep = depth == 16 and tags.planar == 1 and tags.samples <= 4 and photometric in (RGB, CMYK)
    return TWO_PASSES if deep else TIFFFILE


def read_tags(file: BinaryIO, path: str = "") -> TiffTags | None:
    """The tags of a file's first page; None if it is no TIFF, or is damaged."""
    try:
        file.seek(0)
        found = _first_page(file)
        return None if found is None else _tags(*found, path.lower().endswith(_RAW_SUFFIXES))
    except (struct.error, ValueError, KeyError, IndexError, TypeError, OverflowError, OSError):
        return None


def _first_page(file: BinaryIO) -> tuple[dict[int, tuple[int, ...]], str, bool] | None:
    """(numbers of each tag, byte order, whether a camera's mark stands behind the header)."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None
    version = struct.unpack(order + "H", head[2:4])[0]
    if version == 42:
        at, count_code, entry_code, room = struct.unpack(order + "I", head[4:8])[0], "H", "HHI", 4
    elif version == 43:
        at, count_code, entry_code, room = struct.unpack(order + "Q", head[8:])[0], "Q", "HHQ", 8
    else:
        return None
    file.seek(at)
    size = struct.calcsize(order + count_code)
    count = min(struct.unpack(order + count_code, file.read(size))[0], 4096)
    entry_size = struct.calcsize(order + entry_code) + room
    entries = file.read(count * entry_size)
    tags: dict[int, tuple[int, ...]] = {}
    for i in range(len(entries) // entry_size):
        entry = entries[i * entry_size : (i + 1) * entry_size]
        tag, kind, number = struct.unpack(order + entry_code, entry[:-room])
        if kind not in _TYPES or not 0 < number <= _MOST_VALUES:
            continue
        code = f"{order}{number}{_TYPES[kind]}"
        size, data = struct.calcsize(code), entry[-room:]
        if size > room:
            file.seek(struct.unpack(order + ("I" if room == 4 else "Q"), data)[0])
            data = file.read(size)
        if _TYPES[kind] != "c":
            tags[tag] = struct.unpack(code, data[:size])
        else:
            tags[tag] = tuple(data[:size])
    return tags, order, version == 42 and head[8:10] == b"CR"


def _tags(tags: dict[int, tuple[int, ...]], order: str, camera: bool, raw_suffix: bool) -> TiffTags:
    width, height = tags[256][0], tags[257][0]
    samples = tags.get(277, (1,))[0]
    if not 1 <= samples <= 4096:
        raise ValueError("SamplesPerPixel")
    photometric = tags.get(262, (WHITE_IS_ZERO,))[0]
    preview = bool(tags.get(254, (0,))[0] & 1) and 330 in tags  # of a picture in a SubIFD
    offsets = tags.get(273) or tags.get(324) or ()
    lengths = tags.get(279) or tags.get(325) or ()
    return TiffTags(
        hw=(height, width),
        order=order,
        bits=_each(tags.get(258, (1,)), samples),
        formats=_each(tuple(1 if f == 4 else f for f in tags.get(339, (1,))), samples),
        photometric=photometric,
        planar=tags.get(284, (1,))[0],
        extra=tags.get(338, ()),
        compression=tags.get(259, (1,))[0],
        predictor=tags.get(317, (1,))[0],
        orientation=tags.get(274, (1,))[0],
        ends_at=max((a + b for a, b in zip(offsets, lengths, strict=False)), default=0),
        is_raw_photo=camera or raw_suffix or preview or 50706 in tags or photometric == 32803,
    )


def _each(values: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """One value for each sample; a single one stands for all."""
    return values * samples if len(values) == 1 else (values * samples)[:samples]
