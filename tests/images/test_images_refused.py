"""Pictures that cannot be used end in one line that names them; nothing else is printed."""

import errno
import logging
import os
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from detr_viz.common.errors import UserError
from detr_viz.images.loaded_image import MAX_PIXELS, ImageError
from detr_viz.images.read import load_image

PICTURE = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def refusal(source):
    """The message of the error that `source` ends in, after checking that it is one line."""
    with warnings.catch_warnings(record=True) as seen, pytest.raises(ImageError) as caught:
        warnings.simplefilter("always")
        load_image(source)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert message.isprintable() and message, message
    assert not seen, [str(w.message) for w in seen]
    return message


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize(
    "name, options",
    [
        ("a.jpg", {}),
        ("a.jpg", {"progressive": True}),
        ("a.png", {}),
        ("a.gif", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.ppm", {}),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_cut_files_are_refused(tmp_path, monkeypatch, capfd, name, options, kept, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    path = save(noise, tmp_path / name, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    message = refusal(path)
    assert str(path) in message and "cut short" in message
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient
    assert capfd.readouterr() == ("", "")


def png_header(h, w):
    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = w.to_bytes(4, "big") + h.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    for program_limit in (Image.MAX_IMAGE_PIXELS, None, 10**12):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", program_limit)
        path.write_bytes(png_header(10_000, MAX_PIXELS // 10_000 + 1))
        message = refusal(path)
        assert "too large" in message and "bomb.png" in message and str(MAX_PIXELS) in message
        path.write_bytes(png_header(10_000, MAX_PIXELS // 10_000))  # allowed, but cut short
        assert "cut short" in refusal(path)
        assert program_limit == Image.MAX_IMAGE_PIXELS


def test_between_pillows_warning_and_its_error_pictures_load_silently(tmp_path, monkeypatch):
    path = save(PICTURE, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert load_image(path).hw == (48, 64)
    assert not seen
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 // 2 - 1)  # a program's lower limit
    assert "too large" in refusal(path)
    assert Image.MAX_IMAGE_PIXELS == 48 * 64 // 2 - 1
    assert MAX_PIXELS == 2 * (1024**3 // 4 // 3)


def test_threads_leave_the_settings_as_they_were(tmp_path):
    good, bad = save(PICTURE, tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:100])
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    refused = []

    def work():
        for _ in range(20):
            load_image(good)
            try:
                load_image(bad)
            except ImageError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    assert len(refused) == 80 and after == before


def test_pillows_log_stays_silent(tmp_path, monkeypatch, capfd):
    tags = ((256, 8), (257, 8), (258, 8), (262, 1), (273, 8), (277, 50_000))
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in tags
    )
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0\x06\0" + entries + bytes(100))
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that sets up no logging
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)
    assert "samples per pixel" in capfd.readouterr().err
    refusal(path)
    assert capfd.readouterr() == ("", "")


# ---- paths ------------------------------------------------------------------------------------


def test_paths_that_are_not_there(tmp_path):
    message = refusal(tmp_path / "cat.jpg")
    assert message.startswith(f"no image at {tmp_path}") and "cat.jpg" in message
    assert "''" in refusal("")
    os.symlink(tmp_path / "gone.png", tmp_path / "link.png")
    assert "link.png" in refusal(tmp_path / "link.png")
    (tmp_path / "a.png").write_bytes(b"x")
    assert "a.png" in refusal(tmp_path / "a.png" / "b.png")  # a file as a folder
    assert "xxx" in refusal("x" * 5000)
    assert "\\x00" in refusal("a\0b.png")
    assert "a\\nb.png" in refusal(tmp_path / "a\nb.png")
    assert "download" in refusal("https://example.org/cat.jpg")


def test_paths_that_are_not_files(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path) in message and "folder" in message
    assert "not a regular file" in refusal("/dev/zero")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it would wait for ever
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
    path = save(PICTURE, tmp_path / "a.png")

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr("os.open", fail)
        return refusal(path)

    message = fail_with(PermissionError(errno.EACCES, "Permission denied"))
    assert "permission" in message and "a.png" in message
    message = fail_with(OSError(errno.EIO, "Input/output error"))
    assert "Input/output error" in message and "a.png" in message


def test_whatever_a_decoder_raises_is_one_short_line(tmp_path, monkeypatch):
    path = save(PICTURE, tmp_path / "a.png")

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        return refusal(path)

    assert "memory" in fail_with(MemoryError())
    assert "KeyError" in fail_with(KeyError())
    assert len(fail_with(SyntaxError("two\nlines " * 999))) < len(str(path)) + 200
    monkeypatch.undo()
    assert load_image(path).hw == (48, 64)


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "empty"),
        (b"\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.7\n", "not an image"),
        (b"PK\3\4" + bytes(100), "not an image"),
        (bytes(1000), "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is EPS"),
        (b"P6 0 5 255\n", "cut short"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, capfd, data, word):
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    message = refusal(path)
    assert str(path) in message and word in message
    assert capfd.readouterr() == ("", "")


def test_noise_in_a_file_ends_in_a_picture_or_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for kind in ("jpeg", "png", "gif", "tiff", "bmp", "webp", "ico"):
        data = save(PICTURE, path, format=kind).read_bytes()
        for _ in range(15):
            broken = bytearray(data)
            for position in rng.integers(0, min(len(data), 400), 4):
                broken[position] = rng.integers(256)
            path.write_bytes(broken)
            try:
                assert load_image(path).rgb.dtype == np.uint8
            except ImageError as error:
                assert str(error).isprintable() and str(path) in str(error)


# ---- arrays and PIL images --------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, word",
    [
        (np.zeros(5, np.uint8), r"(5,)"),
        (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)"),
        (np.zeros((8, 8, 1), np.uint8), "(8, 8, 1)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "(1, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), bool), "bool"),
        (np.zeros((8, 8), np.uint16), "uint16"),
        (np.zeros((8, 8), np.complex64), "complex64"),
        (np.zeros((8, 8), object), "object"),
        (np.full((8, 8, 3), 255.0), "255"),
        (np.full((8, 8, 3), -0.1), "-0.1"),
        (np.full((8, 8), np.nan, np.float32), "nan"),
        (np.full((8, 8), np.inf, np.float32), "inf"),
    ],
)
def test_arrays_that_are_no_pictures(array, word):
    message = refusal(array)
    assert message.startswith("image array") and word in message


def test_other_sources(tmp_path):
    for source in (None, 3, b"cat.jpg", [[0, 1], [1, 0]], open):
        assert type(source).__name__ in refusal(source)


def test_pil_images_that_cannot_be_read(tmp_path):
    assert "no pixels" in refusal(Image.new("RGB", (0, 5)))
    path = save(PICTURE, tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-100])
    with Image.open(path) as im:
        assert "cut short" in refusal(im)
    im = Image.open(path)
    im.close()
    assert "the PIL image" in refusal(im)
