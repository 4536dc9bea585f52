"""Pictures of every kind become the same thing, and that the network's input."""

import hashlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from golden import fillrule
from PIL import Image, features

from detr_viz.images.loaded_image import ImageError, LoadedImage
from detr_viz.images.read import load_image
from detr_viz.images.resize import normalised, target_size, to_tensor

PICTURE = fillrule.image(48, 64, 1)
WHITE = (255, 255, 255)


def save(im, path, **options):
    im = im if isinstance(im, Image.Image) else Image.fromarray(im)
    im.save(path, **options)
    return path


# ---- the network's input ----------------------------------------------------------------------


@pytest.mark.parametrize("short, longest", [(800, 1333), (256, 1333), (480, 640), (7, 9), (1, 1)])
def test_target_size_is_the_official_rule(short, longest):
    sides = [1, 2, 3, 5, 31, 64, 199, 200, 333, 427, 480, 639, 640, 800, 801, 1333, 2667, 10000]
    compared = 0
    for h in sides:
        for w in sides:
            size = target_size(h, w, short, longest)
            expected = fillrule.target_size(h, w, short, longest)
            assert min(size) >= 1
            if min(expected) >= 1:
                compared += 1
                assert size == expected, (h, w)
    assert compared > 50


@pytest.mark.parametrize(
    "hw, expected",
    [
        ((480, 640), (800, 1066)),  # int(1066.67)
        ((640, 480), (1066, 800)),
        ((200, 640), (417, 1334)),  # the long side passes 1333 by truncation of another ratio
        ((1, 1), (800, 800)),
        ((1, 10000), (1, 1333)),  # the official rule gives 0 x 0
        ((10000, 1), (1333, 1)),
        ((3, 10000), (1, 1333)),
        ((10, 10000), (1, 1000)),  # the last that the official rule can do
    ],
)
def test_target_size_by_hand(hw, expected):
    assert target_size(*hw) == expected


@pytest.mark.parametrize("args", [(0, 5), (5, 0), (5, 5, 0), (5, 5, 800, 0), (5, 5, -1)])
def test_sizes_without_pixels_are_refused(args):
    with pytest.raises(ImageError):
        target_size(*args)


@pytest.mark.parametrize(
    "h, w, seed, short, hw, source_crc, input_crc",
    [  # from the reference run of the official model
        (480, 640, 1, 256, (256, 341), 2463390123, 2258769146),
        (480, 640, 1, 800, (800, 1066), 2463390123, 3128685323),
        (427, 640, 2, 256, (256, 383), 2762004458, 340830381),
        (640, 427, 3, 256, (383, 256), 842427290, 3937558647),
    ],
)
def test_tensor_has_the_bits_of_the_reference_run(h, w, seed, short, hw, source_crc, input_crc):
    array = fillrule.image(h, w, seed)
    assert zlib.crc32(array) == source_crc
    x = to_tensor(load_image(array), short)
    assert x.shape == (1, 3, *hw) and x.is_contiguous()
    assert zlib.crc32(x.numpy()) == input_crc


@pytest.mark.parametrize(
    "h, w, short, longest",
    [(48, 64, 48, 1333), (48, 64, 31, 40), (64, 48, 100, 1333), (1, 1, 20, 30), (5, 400, 50, 90)],
)
def test_tensor_equals_the_reference_rule(h, w, short, longest):
    array = np.random.default_rng(h * w).integers(0, 256, (h, w, 3), dtype=np.uint8)
    expected = fillrule.preprocess(array, short, longest)
    x = to_tensor(load_image(array), short, longest).numpy()
    assert x.dtype == np.float32
    assert np.array_equal(x[0], expected)


def test_thin_pictures_reach_the_network(tmp_path):
    thin = np.arange(10000, dtype=np.uint32).astype(np.uint8)[None]
    image = load_image(save(thin, tmp_path / "thin.png"))
    assert image.hw == (1, 10000)
    assert to_tensor(image).shape == (1, 3, 1, 1333)
    assert to_tensor(load_image(thin.T)).shape == (1, 3, 1333, 1)


def test_a_size_beyond_all_memory_is_refused():
    with pytest.raises(ImageError, match="smaller size"):
        to_tensor(load_image(PICTURE), 200_000, 10**9)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, detr_viz.images.read, detr_viz.detections.labels; "
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- files that can be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.ppm", {}),
        ("a.tif", {}),
        ("b.tif", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
        ("picture without suffix", {"format": "PNG"}),
        ("a.jpg", {"format": "PNG"}),  # the suffix lies
    ],
)
def test_lossless_files_come_back_whole(tmp_path, name, options):
    if name.endswith("webp") and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = save(PICTURE, tmp_path / name, **options)
    image = load_image(path)
    assert np.array_equal(image.rgb, PICTURE) and image.rgb.dtype == np.uint8
    assert not image.rgb.flags.writeable
    assert image.hw == (48, 64)
    assert image.path == str(path)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.notes == ()
    assert np.array_equal(load_image(str(path)).rgb, PICTURE)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path, progressive):
    path = save(PICTURE, tmp_path / "a.jpg", quality=90, progressive=progressive)
    assert np.array_equal(load_image(path).rgb, np.asarray(Image.open(path)))


UPRIGHT = {  # EXIF 2.3, tag 0x0112: where the stored first row and first column belong
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_stand_upright(tmp_path, orientation):
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    expected = UPRIGHT[orientation](stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(stored, tmp_path / "a.png", exif=exif)
    save(stored, tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    save(stored, tmp_path / "b.tif", tiffinfo={0x0112: orientation}, compression="tiff_lzw")
    for name in ("a.png", "a.tif", "b.tif"):
        image = load_image(tmp_path / name)
        assert np.array_equal(image.rgb, expected), name
        assert image.hw == expected.shape[:2]
        with Image.open(tmp_path / name) as im:
            assert np.array_equal(load_image(im).rgb, expected), name
    blocks = np.kron(stored, np.ones((16, 16, 1), np.uint8))  # JPEG keeps flat blocks as they are
    rgb = load_image(save(blocks, tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)).rgb
    assert np.abs(rgb[8::16, 8::16].astype(int) - expected).max() <= 2


def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path):
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"):
        assert load_image(save(PICTURE, tmp_path / "a.jpg", exif=block)).hw == (48, 64)
        assert np.array_equal(
            load_image(save(PICTURE, tmp_path / "a.png", exif=block)).rgb, PICTURE
        )


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk(tmp_path, name):
    inks = np.array([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]])
    light = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0), WHITE]
    patches = np.kron(inks.astype(np.uint8)[None], np.ones((16, 16, 1), np.uint8))
    path = save(Image.fromarray(patches, "CMYK"), tmp_path / name)
    if name == "a.jpg":  # Adobe's marker: ink is stored inverted
        assert b"Adobe" in path.read_bytes()[:200]
    rgb = load_image(path).rgb[8, 8::16]
    assert np.abs(rgb.astype(int) - light).max() <= 3


def palette_image():
    im = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    im.putpalette([200, 100, 50, 10, 20, 30, 0, 0, 0])
    return im


def test_palettes(tmp_path):
    opaque = load_image(save(palette_image(), tmp_path / "a.png"))
    assert opaque.rgb.tolist() == [[[200, 100, 50], [10, 20, 30], [0, 0, 0]]]
    assert opaque.notes == ()
    for name, key in (("b.png", 1), ("c.gif", 1), ("d.png", bytes([255, 0, 255]))):
        image = load_image(save(palette_image(), tmp_path / name, transparency=key))
        assert image.rgb.tolist() == [[[200, 100, 50], list(WHITE), [0, 0, 0]]], name
        assert image.notes == ("transparent: laid over white",)
    half = load_image(save(palette_image(), tmp_path / "e.png", transparency=bytes([255, 255, 51])))
    assert half.rgb[0, 2].tolist() == [204] * 3  # a fifth of black over white


def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.array([[[9, 9, 9, 0], [9, 8, 7, 255], [0, 100, 255, 51]]], np.uint8)
    over = [[[255, 255, 255], [9, 8, 7], [204, 224, 255]]]
    for source in (save(rgba, tmp_path / "a.png"), rgba, Image.fromarray(rgba)):
        image = load_image(source)
        assert image.rgb.tolist() == over
        assert image.notes == ("transparent: laid over white",)
    la = Image.fromarray(np.array([[[40, 255], [0, 51]]], np.uint8), "LA")
    assert load_image(save(la, tmp_path / "b.png")).rgb.tolist() == [[[40] * 3, [204] * 3]]
    assert load_image(la.convert("La")).rgb.tolist() == [[[40] * 3, [204] * 3]]
    assert load_image(Image.fromarray(rgba).convert("RGBa")).rgb[0, 1].tolist() == [9, 8, 7]
    rgba[..., 3] = 255
    assert load_image(rgba).notes == ()
    assert load_image(rgba).rgb.tolist() == rgba[..., :3].tolist()


def test_colors_declared_transparent(tmp_path):
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert load_image(save(rgb, tmp_path / "a.png", transparency=(1, 2, 3))).rgb.tolist() == [
        [list(WHITE), [4, 5, 6]]
    ]
    gray = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert load_image(save(gray, tmp_path / "b.png", transparency=8)).rgb.tolist() == [
        [[7] * 3, list(WHITE)]
    ]


def test_gray_and_one_bit(tmp_path):
    gray = np.array([[0, 7, 255]], np.uint8)
    assert load_image(save(gray, tmp_path / "a.png")).rgb.tolist() == [
        [[0] * 3, [7] * 3, [255] * 3]
    ]
    bits = Image.fromarray(gray > 100)
    assert bits.mode == "1"
    assert load_image(save(bits, tmp_path / "b.png")).rgb.tolist() == [
        [[0] * 3, [0] * 3, [255] * 3]
    ]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_color_spaces(mode):
    im = Image.fromarray(np.full((4, 4, 3), (200, 120, 40), np.uint8)).convert(mode)
    assert np.abs(load_image(im).rgb.astype(int) - (200, 120, 40)).max() <= 4


FRAMES = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (200, 0)]


@pytest.mark.parametrize(
    "name, note",
    [
        ("a.gif", "animated: first of 2 frames"),
        ("a.png", "animated: first of 2 frames"),
        ("a.webp", "animated: first of 2 frames"),
        ("a.tif", "first of 2 pages"),
        ("a.mpo", "first of 2 pictures"),
    ],
)
def test_of_several_frames_the_first(tmp_path, name, note):
    if name.endswith("webp") and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    path = save(FRAMES[0], tmp_path / name, save_all=True, append_images=FRAMES[1:])
    image = load_image(path)
    assert np.abs(image.rgb.astype(int) - 200).max() <= 2
    assert image.notes == (note,)
    with Image.open(path) as im:  # who opens it chooses the frame
        im.seek(1)
        assert load_image(im).rgb.max() <= 2
        assert im.tell() == 1


def test_layers_are_not_frames(tmp_path):
    # Photoshop, by hand: 1 x 2 gray, two empty layers of one channel, then the picture they make
    layer = bytes(16) + struct.pack(">HHI", 1, 0, 2) + b"8BIMnorm" + bytes(4 + 4)
    layers = struct.pack(">h", 2) + layer * 2 + bytes(2 + 2)
    section = struct.pack(">II", len(layers) + 4, len(layers)) + layers
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, 1, 2, 8, 1)
    (tmp_path / "a.psd").write_bytes(header + bytes(8) + section + bytes([0, 0, 7, 200]))
    with Image.open(tmp_path / "a.psd") as im:
        assert im.n_frames == 2
    image = load_image(tmp_path / "a.psd")
    assert image.rgb.tolist() == [[[7] * 3, [200] * 3]]
    assert image.notes == ()


def test_damage_in_a_later_frame_does_not_cost_the_first(tmp_path):
    path = save(FRAMES[0], tmp_path / "a.gif", save_all=True, append_images=FRAMES[1:])
    path.write_bytes(path.read_bytes()[:-20])
    image = load_image(path)
    assert image.rgb.min() == image.rgb.max() == 200
    assert image.notes[0].startswith("animated: first")


# ---- arrays and PIL images --------------------------------------------------------------------


def test_arrays():
    image = load_image(PICTURE)
    assert isinstance(image, LoadedImage) and image.path is None and image.notes == ()
    assert np.array_equal(image.rgb, PICTURE)
    assert image.sha256 == hashlib.sha256(PICTURE.tobytes()).hexdigest()
    assert image.sha256 != load_image(255 - PICTURE).sha256
    assert load_image(image) is image
    gray = PICTURE[..., 0]
    assert np.array_equal(load_image(gray).rgb, np.stack([gray] * 3, 2))
    flipped = load_image(PICTURE[:, ::-1])
    assert np.array_equal(flipped.rgb, PICTURE[:, ::-1]) and flipped.rgb.flags.c_contiguous


def test_arrays_are_copied():
    array = PICTURE.copy()
    image = load_image(array)
    array[:] = 0
    assert np.array_equal(image.rgb, PICTURE)
    assert array.flags.writeable and not image.rgb.flags.writeable


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays(dtype):
    assert np.array_equal(load_image((PICTURE / 255).astype(dtype)).rgb, PICTURE)
    assert load_image(np.zeros((1, 1), dtype)).rgb.tolist() == [[[0, 0, 0]]]
    rgba = np.array([[[0, 0, 0, 0.2]]], dtype)
    assert load_image(rgba).rgb.tolist() == [[[204, 204, 204]]]


def test_pil_images():
    im = Image.fromarray(PICTURE)
    image = load_image(im)
    assert np.array_equal(image.rgb, PICTURE) and image.path is None
    assert image.sha256 == load_image(PICTURE).sha256
    im.paste((0, 0, 0), (0, 0, 64, 48))
    assert np.array_equal(image.rgb, PICTURE)


def test_normalised_is_the_official_arithmetic_on_every_value():
    """rgb / 255 (torchvision's to_tensor), then (x - mean) / std (its normalize), to the bit."""
    from torchvision.transforms import functional

    values = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1).repeat(3, axis=3)
    made = normalised(values)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for i in range(2):
        official = functional.normalize(functional.to_tensor(values[i]), mean, std)
        assert torch.equal(made[i], official)
    assert made.is_contiguous() and made.dtype == torch.float32
