"""More than 8 bits a sample: scaled, never clipped."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from detr_viz.images.read import load_image

LEVELS = np.array([[0, 128, 129, 257 * 100, 40000, 65535]], np.uint16)  # 128 / 257 rounds to 0
LEVELS_8 = [[0, 0, 1, 100, 156, 255]]


def save(im, path, **options):
    im = im if isinstance(im, Image.Image) else Image.fromarray(im)
    im.save(path, **options)
    return path


def tiff(samples, bits, photometric=1):
    """A TIFF of one strip and one row, written by hand: Pillow does not write these."""
    packed = "".join(f"{v:0{bits}b}" for v in samples)
    packed += "0" * (-len(packed) % 8)
    data = bytes(int(packed[i : i + 8], 2) for i in range(0, len(packed), 8))
    if bits == 16:  # little-endian, as the header says
        data = np.array(samples, "<u2").tobytes()
    tags = {256: len(samples), 257: 1, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1}
    tags |= {278: 1, 279: len(data)}
    out = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, value in tags.items():
        out += struct.pack("<HHII", tag, 4, 1, value)
    return (out + bytes(4)).ljust(200, b"\0") + data


def png16(samples, transparent=None):
    """A 16-bit PNG of samples (H, W, channels), written by hand."""
    h, w, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", w, h, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if transparent is not None:
        chunks.insert(1, (b"tRNS", struct.pack(">H", transparent)))
    for name, data in chunks:
        out += struct.pack(">I", len(data)) + name + data
        out += struct.pack(">I", zlib.crc32(name + data))
    return out


def gray_levels(image):
    assert (image.rgb == image.rgb[..., :1]).all()
    return image.rgb[..., 0].tolist()


def test_16_bit_gray_is_scaled(tmp_path):
    big_endian = Image.frombytes("I;16B", (6, 1), LEVELS.astype(">u2").tobytes())
    sources = [
        save(LEVELS, tmp_path / "a.png"),
        save(LEVELS, tmp_path / "a.tif"),
        save(LEVELS, tmp_path / "b.tif", compression="tiff_lzw"),
        save(big_endian, tmp_path / "c.tif"),
        Image.fromarray(LEVELS),
        big_endian,
    ]
    if features.check("jpg_2000"):
        sources.append(save(LEVELS, tmp_path / "a.jp2"))
    for source in sources:
        image = load_image(source)
        assert gray_levels(image) == LEVELS_8, source
        assert len(image.notes) == 1 and "65535" in image.notes[0]
    ramp = load_image(save(np.arange(65536, dtype=np.uint16).reshape(256, 256), tmp_path / "d.png"))
    assert np.array_equal(ramp.rgb[..., 0].ravel(), np.rint(np.arange(65536) / 257))


def test_16_bit_gray_with_a_transparent_level(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(LEVELS[..., None], transparent=40000))
    assert gray_levels(load_image(tmp_path / "a.png")) == [[0, 0, 1, 100, 255, 255]]


def test_16_bit_gray_where_0_is_white(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(LEVELS[0], 16, photometric=0))
    assert gray_levels(load_image(tmp_path / "a.tif")) == [[255, 255, 254, 155, 99, 0]]


def test_12_bits_are_scaled_by_12_bits(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff([0, 8, 9, 2048, 4080, 4095], 12))
    assert gray_levels(load_image(tmp_path / "a.tif")) == [[0, 0, 1, 128, 254, 255]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_channels_are_scaled(tmp_path, channels):
    samples = np.zeros((1, 6, channels), np.uint16)
    samples[..., 0] = LEVELS
    if channels >= 3:
        samples[..., 1] = LEVELS[:, ::-1]
    if channels != 3:
        samples[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png16(samples))
    image = load_image(tmp_path / "a.png")
    assert len(image.notes) == 1 and image.notes[0].startswith("16-bit: 65535 is full scale")
    rgb = image.rgb.astype(int)
    assert np.abs(rgb[..., 0] - LEVELS_8).max() <= 1
    if channels >= 3:
        assert np.abs(rgb[:, ::-1, 1] - LEVELS_8).max() <= 1


def ppm(white):
    return lambda samples: b"P6 6 1 %d\n" % white + samples.astype(">u2").tobytes()


def jp2(samples):
    """Samples of 8 bits, said to be of 16 in the codestream."""
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(samples, 6, 0).astype(np.uint8)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    start = data.find(b"\xff\x4f\xff\x51")
    data[start + 42 : start + 51 : 3] = bytes([15] * 3)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "written", "note"),
    [
        ("a.png", png16, "65535 is full scale, the largest sample is at most 2047"),
        ("a.ppm", ppm(65535), "65535 is full scale, the largest sample is at most"),
        ("a.jp2", jp2, "65535 is full scale, the largest sample is at most"),
        ("a.ppm", ppm(2047), "2047 is full scale, the largest sample is at most 2042"),
    ],
)
def test_dark_16_bit_colours_are_said(tmp_path, name, written, note):
    if name == "a.jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    samples = np.full((1, 6, 3), 2040, np.uint16)
    (tmp_path / name).write_bytes(written(samples))
    assert len(notes := load_image(tmp_path / name).notes) == 1
    assert notes[0].startswith(f"16-bit: {note}")


@pytest.mark.parametrize(
    "values, dtype, expected, white",
    [
        ([0, 1, 254, 255], np.int32, [0, 1, 254, 255], "255 is white"),
        ([0, 128, 129, 65535], np.int32, [0, 0, 1, 255], "65535 is white"),
        ([0, 50_000, 100_000], np.int32, [0, 128, 255], "100000 is white"),  # 127.5, to even
        ([-100, 0, 155], np.int32, [0, 100, 255], "-100 is black, 155 is white"),
        ([-2, -2], np.int32, [0, 0], "0 is white"),
        ([0, 0.5, 1], np.float32, [0, 128, 255], "1 is white"),
        ([0, 0.4, 2, 255], np.float32, [0, 0, 2, 255], "255 is white"),
        ([0, 500, 1000], np.float32, [0, 128, 255], "1000 is white"),
        ([500, 1000], np.float32, [128, 255], "1000 is white"),
        ([-3e38, 3e38], np.float32, [0, 255], "3e+38 is white"),
        ([0, 0], np.float32, [0, 0], "1 is white"),
    ],
)
def test_32_bits_are_scaled(tmp_path, values, dtype, expected, white):
    path = save(np.array([values], dtype), tmp_path / "a.tif")
    image = load_image(path)
    assert gray_levels(image) == [expected]
    assert len(image.notes) == 1 and image.notes[0].endswith(white)


def test_samples_that_are_not_numbers_are_drawn_as_the_lowest(tmp_path):
    values = np.array([[np.nan, -1, 1, np.inf, -np.inf]], np.float32)
    image = load_image(save(values, tmp_path / "a.tif"))
    assert gray_levels(image) == [[0, 0, 255, 0, 0]]
    assert image.notes[0].startswith("3 samples are not finite")
    assert gray_levels(load_image(Image.fromarray(values[:, :1]))) == [[0]]


def test_16_bit_pgm_stays_dark_where_it_is_dark(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 0, 200))
    assert gray_levels(load_image(tmp_path / "a.pgm")) == [[0, 1]]
