"""TIFFs by their tags: the pixels that the tags mean, or one line that names the property.

The files are written by tifffile, and what they mean is worked out here with numpy.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from detr_viz.images.loaded_image import ImageError
from detr_viz.images.read import load_image
from detr_viz.images.tiff_tags import TIFFFILE, read_tags, reader

tifffile = pytest.importorskip("tifffile")

H, W = 24, 40
RNG = np.random.default_rng(1)


def noise(kind: str, samples: int, most: int | None = None) -> np.ndarray:
    """(H, W, samples), or (H, W) for one sample; 0 and `most` are among the first samples."""
    dtype = np.dtype(kind)
    top = most or (1 if dtype.kind == "f" else np.iinfo(dtype).max)
    drawn = RNG.random((H, W, samples)) * top
    drawn[0, 0], drawn[0, 1] = 0, top
    drawn = drawn.astype(dtype)
    return drawn[..., 0] if samples == 1 else drawn


def eight(samples: np.ndarray, white: float) -> np.ndarray:
    return np.floor(samples.astype(np.float64) * 255 / white + 0.5).astype(int)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(255 - alpha[..., None] / 255 * (255 - colours)).astype(int)


U16, RGB16, RGB11 = noise("u2", 1), noise("u2", 3), noise("u2", 3, 2040)
RGBA16, LA16, CMYK16 = noise("u2", 4), noise("u2", 2), noise("u2", 4)
F32, F64, I32, U32 = noise("f4", 3), noise("f8", 1), noise("i4", 1), noise("u4", 1)
S16, S8 = noise("i2", 1, 30000) - 15000, (noise("u1", 1) // 2 - 60).astype(np.int8)
U8, FIVE8, FIVE16 = noise("u1", 3), noise("u1", 5), noise("u2", 5)
PALETTE = RNG.integers(0, 65536, (3, 65536)).astype(np.uint16)
WIDE = ((S16.astype(float) - S16.min()) * 255 / (S16.max() - float(S16.min()))).round().astype(int)
NOTE16 = "16-bit: 65535 is full scale, the largest sample is"


def planes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 0)


KINDS = {
    # name: (what is written, how, the picture, a word of the notes)
    "rgb16": (RGB16, {}, eight(RGB16, 65535), f"{NOTE16} 65535"),
    "rgb 11 bits": (RGB11, {}, eight(RGB11, 65535), f"{NOTE16} 2040"),
    "rgb16 deflated": (RGB16, {"compression": "zlib"}, eight(RGB16, 65535), NOTE16),
    "rgb16 predicted": (
        RGB16,
        {"compression": "zlib", "predictor": 2},
        eight(RGB16, 65535),
        NOTE16,
    ),
    "rgb16 big-endian": (RGB16, {"byteorder": ">"}, eight(RGB16, 65535), NOTE16),
    "rgb16 BigTIFF": (RGB16, {"bigtiff": True}, eight(RGB16, 65535), NOTE16),
    "rgb16 tiled": (RGB16, {"tile": (16, 16)}, eight(RGB16, 65535), NOTE16),
    "rgb16 strips": (RGB16, {"rowsperstrip": 5}, eight(RGB16, 65535), NOTE16),
    "rgb16 planes": (planes(RGB16), {"planarconfig": 2}, eight(RGB16, 65535), NOTE16),
    "rgb 11 bits planes": (planes(RGB11), {"planarconfig": 2}, eight(RGB11, 65535), "is 2040"),
    "rgb16 planes deflated": (
        planes(RGB16),
        {"planarconfig": 2, "compression": "zlib", "byteorder": ">"},
        eight(RGB16, 65535),
        NOTE16,
    ),
    "rgb8 planes": (planes(U8), {"planarconfig": 2}, U8, ""),
    "rgba8 and one more in planes": (
        planes(FIVE8),
        {"planarconfig": 2, "extrasamples": [2, 0]},
        over_white(FIVE8[..., :3], FIVE8[..., 3]),
        "transparent",
    ),
    "rgbx16": (
        RGBA16,
        {"extrasamples": [0]},
        eight(RGBA16[..., :3], 65535),
        "1 more sample a pixel left out",
    ),
    "rgba16": (
        RGBA16,
        {"extrasamples": [2]},
        over_white(eight(RGBA16[..., :3], 65535), eight(RGBA16[..., 3], 65535)),
        "transparent",
    ),
    "five bands": (
        FIVE16,
        {"extrasamples": [0, 0]},
        eight(FIVE16[..., :3], 65535),
        "2 more samples",
    ),
    "five bands of 8": (FIVE8, {"extrasamples": [0, 0]}, FIVE8[..., :3], ""),
    "BlackIsZero rgb16": (
        RGB16,
        {"photometric": "minisblack", "planarconfig": 1},
        eight(RGB16, 65535),
        "BlackIsZero with 3 samples",
    ),
    "BlackIsZero rgb8": (U8, {"photometric": "minisblack", "planarconfig": 1}, U8, "BlackIsZero"),
    "gray16": (U16, {}, eight(U16, 65535), NOTE16),
    "WhiteIsZero 16": (U16, {"photometric": "miniswhite"}, 255 - eight(U16, 65535), NOTE16),
    "WhiteIsZero 16 big-endian": (
        U16,
        {"photometric": "miniswhite", "byteorder": ">"},
        255 - eight(U16, 65535),
        NOTE16,
    ),
    "gray16 and alpha": (
        LA16,
        {"extrasamples": [2], "planarconfig": 1},
        over_white(eight(LA16[..., :1], 65535), eight(LA16[..., 1], 65535)),
        "transparent",
    ),
    "float rgb": (
        F32,
        {},
        np.rint(F32.astype(float) * 255).astype(int),
        "32-bit: 0 is black, 1 is",
    ),
    "double": (F64, {}, np.rint(F64 * 255).astype(int), "64-bit: 0 is black, 1 is white"),
    "float big-endian deflated": (
        F32[..., 0],
        {"byteorder": ">", "compression": "zlib"},
        np.rint(F32[..., 0].astype(float) * 255).astype(int),
        "1 is white",
    ),
    "WhiteIsZero float": (
        F32[..., 0],
        {"photometric": "miniswhite"},
        255 - np.rint(F32[..., 0].astype(float) * 255).astype(int),
        "1 is white",
    ),
    "32-bit": (I32, {}, np.rint(I32.astype(float) * 255 / I32.max()).astype(int), "32-bit"),
    "32-bit unsigned": (
        U32,
        {},
        np.rint(U32.astype(float) * 255 / U32.max()).astype(int),
        "4.29497e",
    ),
    "32-bit unsigned big-endian": (
        U32,
        {"byteorder": ">"},
        np.rint(U32.astype(float) * 255 / U32.max()).astype(int),
        "4.29497e",
    ),
    "signed 16": (S16, {}, WIDE, "-15000 is black, 15000 is white"),
    "signed 16 big-endian deflated": (
        S16,
        {"byteorder": ">", "compression": "zlib"},
        WIDE,
        "-15000",
    ),
    "signed 8": (
        S8,
        {},
        np.rint((S8.astype(float) + 60) * 255 / 127).astype(int),
        "-60 is black, 67 is white",
    ),
    "palette 16": (
        U16,
        {"photometric": "palette", "colormap": PALETTE},
        eight(np.moveaxis(PALETTE, 0, -1)[U16], 65535),
        "",
    ),
    "cmyk16": (
        CMYK16,
        {"photometric": "separated", "planarconfig": 1},
        np.asarray(Image.fromarray(eight(CMYK16, 65535).astype(np.uint8), "CMYK").convert("RGB")),
        NOTE16,
    ),
}


def written(path, array, options):
    """A TIFF; three or more samples are red, green and blue unless the options say otherwise."""
    colours = "rgb" if array.ndim == 3 and "photometric" not in options else "minisblack"
    if array.ndim == 3 and array.shape[-1] == 2:
        colours = "minisblack"
    tifffile.imwrite(path, array, **{"photometric": colours, **options})
    return path


@pytest.mark.parametrize("with_tifffile", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_what_the_tags_mean_or_a_line_names_them(
    tmp_path, monkeypatch, capfd, kind, with_tifffile
):
    array, options, expected, word = KINDS[kind]
    path = written(tmp_path / "a.tif", array, options)
    if not with_tifffile:
        monkeypatch.setitem(sys.modules, "tifffile", None)
    try:
        image = load_image(path)
    except ImageError as error:
        assert not with_tifffile
        assert 'pip install "detr_viz[tiff]"' in str(error) and "SamplesPerPixel" in str(error)
        assert str(path) in str(error) and str(error).isprintable()
    else:
        expected = expected if expected.ndim == 3 else expected[..., None]
        off = np.abs(image.rgb - np.broadcast_to(expected, image.rgb.shape)).max()
        assert off <= (1 if "alpha" in kind or "rgba" in kind else 0)  # rounded twice
        assert word in "; ".join(image.notes)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "tags", [{"compression": 32773, "predictor": 2}, {"compression": 50001}], ids=str
)
def test_what_libtiff_decodes_wrong_or_not_at_all_is_left_to_tifffile(tmp_path, tags):
    with open(written(tmp_path / "a.tif", RGB16, {}), "rb") as file:
        plain = read_tags(file)
    assert reader(plain) != TIFFFILE == reader(replace(plain, **tags))


def test_pillow_alone_reads_deep_colours_that_lie_together(tmp_path, monkeypatch):
    path = written(tmp_path / "a.tif", RGB11, {"compression": "zlib"})
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert np.array_equal(load_image(path).rgb, eight(RGB11, 65535))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"planarconfig": 2}])
def test_deep_pages_stand_upright(tmp_path, orientation, options):
    array = planes(RGB16) if options else RGB16
    path = written(
        tmp_path / "a.tif", array, {**options, "extratags": [(274, "H", 1, orientation, True)]}
    )
    # the first row and column of what is stored lie where TIFF 6.0 says
    turned = {
        1: RGB16,
        2: RGB16[:, ::-1],
        3: RGB16[::-1, ::-1],
        4: RGB16[::-1],
        5: RGB16.swapaxes(0, 1),
        6: RGB16[::-1].swapaxes(0, 1),
        7: RGB16[::-1, ::-1].swapaxes(0, 1),
        8: RGB16[:, ::-1].swapaxes(0, 1),
    }[orientation]
    assert np.array_equal(load_image(path).rgb, eight(turned, 65535))


@pytest.mark.parametrize("options", [{}, {"planarconfig": 2}])
def test_the_first_of_several_deep_pages(tmp_path, options):
    pages = np.stack([planes(RGB16), planes(RGB11)] if options else [RGB16, RGB11])
    path = written(tmp_path / "a.tif", pages, {"photometric": "rgb", **options})
    image = load_image(path)
    assert np.array_equal(image.rgb, eight(RGB16, 65535))
    assert image.notes[0] == "first of 2 pages"


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_sample_in_separate_planes_is_the_same_picture(tmp_path, kind, photometric):
    array = (noise("u1", 1) // 2).astype(kind)
    path = written(tmp_path / "a.tif", array, {"photometric": photometric})
    together = load_image(path).rgb
    unit = struct.pack("<HHI", 296, 3, 1)  # ResolutionUnit, made into PlanarConfiguration 2
    start, end = path.read_bytes().split(unit)
    path.write_bytes(start + struct.pack("<HHIHH", 284, 3, 1, 2, 0) + end[4:])
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].planarconfig == 2
    assert np.array_equal(load_image(path).rgb, together)


def test_premultiplied_alpha(tmp_path):
    alpha = noise("u2", 1)
    colours = (RGB16 * (alpha[..., None] / 65535)).astype(np.uint16)
    path = written(tmp_path / "a.tif", np.dstack([colours, alpha]), {"extrasamples": [1]})
    expected = eight(colours, 65535) + 255 - eight(alpha, 65535)[..., None]
    assert np.abs(load_image(path).rgb - expected.clip(0, 255)).max() <= 1


def test_an_opened_page_that_pillow_misreads(tmp_path):
    path = written(tmp_path / "a.tif", planes(RGB16), {"planarconfig": 2})
    with Image.open(path) as im, pytest.raises(ImageError, match="give the path instead"):
        load_image(im)
    path = written(tmp_path / "b.tif", U16, {})
    with Image.open(path) as im:
        assert np.array_equal(load_image(im).rgb[..., 0], eight(U16, 65535))


REFUSED = {
    "BlackIsZero five": (
        FIVE16,
        {"photometric": "minisblack", "planarconfig": 1},
        "SamplesPerPixel 5",
    ),
    "complex": (noise("f4", 1).astype(np.complex64), {}, "SampleFormat 6"),
    "filter array": (U16, {"photometric": 32803}, "raw photo"),
    "lab 16": (RGB16, {"photometric": "cielab"}, "PhotometricInterpretation 8"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_reader_knows_is_named(tmp_path, kind):
    array, options, word = REFUSED[kind]
    path = written(tmp_path / "a.tif", array, options)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert word in str(caught.value) and str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_packed_depth_without_its_codec_is_named(tmp_path):
    tags = {256: 4, 257: 1, 258: 14, 259: 1, 262: 1, 273: 200, 277: 1, 278: 1, 279: 7}
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes((head + bytes(4)).ljust(200, b"\0") + bytes(7))
    with pytest.raises(ImageError, match="BitsPerSample 14"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_deep_pages_that_are_cut_short(tmp_path, kept):
    path = written(tmp_path / "a.tif", planes(RGB16), {"planarconfig": 2})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ImageError, match="cut short"):
        load_image(path)
