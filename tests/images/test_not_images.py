"""Files that are no images under names of images: each is named, with the way out."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from detr_viz.common.errors import UserError
from detr_viz.common.file_kinds import kind_of
from detr_viz.images.collect import expand
from detr_viz.images.loaded_image import ImageError
from detr_viz.images.read import load_image


def box(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("a.jpg", "x")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HEIC = box(b"heic", b"mif1", b"heic")
KINDS = {
    "lfs": (LFS, "git-lfs pointer", "run git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--a.jpg\n", "git-annex pointer", "git annex get"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page", "download"),
    "html with a mark": (b"\xef\xbb\xbf<HTML lang='en'>", "a web page", "download"),
    "xhtml": (b"<?xml version='1.0'?><!-- x --><html xmlns='x'>", "a web page", "download"),
    "json": (b'{"message": "Not Found"}', "JSON text", "fetch"),
    "xml": (
        b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>",
        "XML text",
        "fetch",
    ),
    "text": ("Zugriff verweigert - bitte spät".encode(), "is text", "fetch"),
    "svg": (b"<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns='x'/>", "an SVG", "PNG"),
    "svg bare": (b"<svg width='3'/>", "an SVG", "PNG"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "a PDF", "PNG"),
    "heif": (box(b"mif1", b"heic", b"miaf"), "a HEIC photo", 'pip install "detr_viz[heic]"'),
    "heic": (HEIC, "a HEIC photo", 'pip install "detr_viz[heic]"'),
    "heic of 24 bytes": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo", "[heic]"),
    "jxl": (b"\xff\x0a" + bytes(9), "a JPEG XL", "PNG"),
    "jxl in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"jxl "), "a JPEG XL", "PNG"),
    "mp4": (box(b"isom", b"iso2", b"avc1", b"mp41"), "MP4 or QuickTime video", "frames"),
    "mov": (box(b"qt  "), "MP4 or QuickTime video", "frames"),
    "old mov": (b"\0\0\x12\x34moov\0\0\0\x6cmvhd" + bytes(9), "QuickTime video", "frames"),
    "webm": (b"\x1aE\xdf\xa3\x9fB\x86\x81" + bytes(9), "WebM or Matroska video", "frames"),
    "avi": (b"RIFF\0\x10\0\0AVI LIST" + bytes(9), "an AVI video", "frames"),
    "mpeg": (b"\0\0\1\xb3\x14\0\xf0\x13" + bytes(99), "an MPEG video", "frames"),
    "zip": (archive(), "a ZIP archive", "unpack"),
    "gzip": (gzip.compress(b"x" * 99), "gzip-compressed", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z archive", "unpack"),
    "broken psd": (b"8BPS\0\x01" + bytes(9), "a Photoshop file", "PNG"),
    "dicom": (bytes(128) + b"DICM\x02\0\0\0UL" + bytes(9), "a DICOM scan", "PNG"),
    "cr3": (box(b"crx ", b"isom"), "a raw photo of a camera (CR3)", "develop"),
    "raf": (b"FUJIFILMCCD-RAW 0201", "a raw photo of a camera (RAF)", "develop"),
    "rw2": (b"IIU\0\x18\0\0\0" + bytes(99), "a raw photo of a camera (RW2)", "develop"),
    "npy": (npy(), "a NumPy array", "numpy"),
    "zeros": (bytes(3000), "full of zeros", "fetch"),
    "pickle": (b"\x80\x04\x95" + bytes(30), "a Python pickle", "give an image"),
}


@pytest.fixture
def no_heic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_each_kind_is_named_with_the_way_out(tmp_path, no_heic, capfd, kind, name):
    data, title, way_out = KINDS[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / name)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / name} is ") and title in line and way_out in line
    assert isinstance(caught.value, UserError) and line.isprintable()
    if kind in ("lfs", "annex"):  # a converted pointer would be committed in place of the image
        assert "convert" not in line and "PNG" not in line
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", ["avif", "jpg_2000"])
@pytest.mark.parametrize("present", [True, False])
def test_a_codec_that_pillow_lacks_is_told_from_a_damaged_file(
    tmp_path, monkeypatch, codec, present
):
    start = box(b"avif", b"mif1") if codec == "avif" else b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(9)
    (tmp_path / "a.img").write_bytes(start)
    monkeypatch.setattr(features, "check", lambda name: present)
    Image.preinit()
    usual = ("BMP", "GIF", "JPEG", "PPM", "PNG")  # no plugin that has a codec of its own
    monkeypatch.setattr(Image, "OPEN", {name: Image.OPEN[name] for name in usual})
    monkeypatch.setattr(Image, "ID", [*usual])
    monkeypatch.setattr(Image, "init", lambda: None)
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "a.img")
    assert ("cut short" in str(caught.value)) is present
    assert ("AVIF" in str(caught.value) or "JPEG 2000" in str(caught.value)) is not present


def raw_photo(extra: dict[int, int], mark: bytes = b"") -> bytes:
    """A TIFF with an 8 x 8 gray preview, as cameras write it first."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 300, 277: 1, 278: 8, 279: 64, **extra}
    start = 16 if mark else 8
    out = b"II*\0" + start.to_bytes(4, "little") + mark.ljust(start - 8, b"\0")
    out += len(tags).to_bytes(2, "little")
    for tag, value in sorted(tags.items()):
        out += tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    return out.ljust(300, b"\0") + bytes(range(64))


RAW = {
    "a.dng": ({50706: 0x0401}, b""),
    "dng.tif": ({50706: 0x0401}, b""),
    "a.nef": ({254: 1, 330: 200}, b""),
    "nef.jpg": ({254: 1, 330: 200}, b""),
    "cr2.tif": ({}, b"CR\2\0\0\0\0\0"),
    "a.arw": ({}, b""),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_photos_are_not_taken_for_their_previews(tmp_path, name):
    (tmp_path / "plain.tif").write_bytes(raw_photo({}))
    assert load_image(tmp_path / "plain.tif").hw == (8, 8)
    (tmp_path / name).write_bytes(raw_photo(*RAW[name]))
    with pytest.raises(ImageError, match=r"is a raw photo of a camera \(.*TIFF inside"):
        load_image(tmp_path / name)


def test_a_list_of_images_is_told_how_to_write_it(tmp_path):
    (tmp_path / "val.txt").write_text("images/1.jpg\nimages/2.jpg\n")
    with pytest.raises(ImageError, match=r"if it lists images, write @\S*val\.txt$"):
        load_image(tmp_path / "val.txt")


def test_images_that_pillow_reads_are_not_refused():
    for kind in ("png", "jpeg", "gif", "bmp", "ppm", "webp"):
        file = io.BytesIO()
        Image.new("RGB", (3, 3)).save(file, format=kind)
        assert kind_of(file.getvalue()) is None


# ---- HEIC -------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("name", ["a.HEIC", "whatsapp.jpg"])
def test_heic_photos_are_read_and_stand_upright(tmp_path, name, orientation):
    heif = pytest.importorskip("pillow_heif")
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48] = (255, 0, 0)  # red at the top left of what is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    heif.from_pillow(Image.fromarray(stored)).save(
        tmp_path / name, quality=100, exif=exif.tobytes()
    )
    rgb = load_image(tmp_path / name).rgb.astype(int)
    red_at = {1: (8, 8), 3: (-8, -8), 6: (8, -8), 8: (-8, 8)}[orientation]
    assert rgb.shape[:2] == ((64, 96) if orientation in (1, 3) else (96, 64))
    corners = {(y, x): rgb[y, x, 0] > 200 for y in (8, -8) for x in (8, -8)}
    assert [at for at, red in corners.items() if red] == [red_at]


def test_a_damaged_heic_photo(tmp_path):
    pytest.importorskip("pillow_heif")
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_image(tmp_path / "a.heic")


# ---- folders ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").mkdir()
    return tmp_path / "f"


LEFT_OUT = [
    ([], ""),
    (["a.txt"], "left out 1 file: 1 is not an image (.txt)"),
    (
        ["a.txt", "b.TXT", "c.json", "d"],
        "left out 4 files: 4 are not images (.txt, .json, no suffix)",
    ),
    ([".DS_Store", "a.txt"], "left out 2 files: 1 is not an image (.txt), 1 is hidden"),
    ([".b.jpg", ".c.jpg"], "left out 2 files: 2 are hidden"),
    (
        ["a.heic", "b.HEIC"],
        "left out 2 files: 2 are HEIC photos "
        '(.heic; pip install "detr_viz[heic]", or convert them)',
    ),
    (["a.nef"], "left out 1 file: 1 is a raw photo (.nef; develop them)"),
    (["a.ico"], "left out 1 file: 1 is searched for by name only (.ico)"),
    (
        ["a.a", "b.b", "c.c", "d.d", "e.e"],
        "left out 5 files: 5 are not images (.a, .b, .c, .d, ...)",
    ),
    (["out/a_detr.png", "out/index.csv"], "left out 1 file: 1 is a figure of --out"),
]


@pytest.mark.parametrize(("others", "line"), LEFT_OUT)
def test_a_folder_says_what_it_leaves_out(folder, monkeypatch, others, line):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (folder / "out").mkdir()
    for name in ("z.jpg", *others):
        (folder / name).touch()
    notes: list[str] = []
    assert [one.name for one in expand(["f"], skip="f/out", notes=notes)] == ["z"]
    assert notes == ([f"f: {line}"] if line else [])
    if line:
        (folder / "z.jpg").unlink()
        with pytest.raises(UserError, match=r"^no images in f: ") as caught:
            expand(["f"], skip="f/out")
        assert line in str(caught.value)


def test_heic_photos_are_searched_for_where_they_can_be_read(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (folder / "a.HEIC").touch()
    notes: list[str] = []
    assert [one.name for one in expand(["f"], notes=notes)] == ["a"]
    assert notes == []
