"""What a file is by its first bytes, whatever its name says.

kind = kind_of(head)      # FileKind("video", "an MP4 or QuickTime video"), None if not known
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 1024


@dataclass(frozen=True)
class FileKind:
    """group: what can be done about it, see the reader's own table. title: "a ..."."""

    group: str
    title: str


_STARTS: tuple[tuple[bytes, str, str], ...] = (  # first bytes, group, title
    (b"version https://git-lfs", "lfs", "a git-lfs pointer"),
    (b"%PDF", "page", "a PDF"),
    (b"\x93NUMPY", "array", "a NumPy array (.npy)"),
    (b"8BPS", "page", "a Photoshop file (PSD)"),
    (b"gimp xcf", "page", "a GIMP file (XCF)"),
    (b"AT&TFORM", "page", "a DjVu document"),
    (b"\x76\x2f\x31\x01", "picture", "an OpenEXR picture"),
    (b"#?RADIANCE", "picture", "a Radiance HDR picture"),
    (b"\xff\x0a", "picture", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "picture", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "picture", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "picture", "a JPEG 2000 picture"),
    (b"BPG\xfb", "picture", "a BPG picture"),
    (b"FUJIFILMCCD-RAW", "raw", "a raw photo of a camera (RAF)"),
    (b"IIRO", "raw", "a raw photo of a camera (ORF)"),
    (b"IIRS", "raw", "a raw photo of a camera (ORF)"),
    (b"MMOR", "raw", "a raw photo of a camera (ORF)"),
    (b"IIU\0", "raw", "a raw photo of a camera (RW2)"),
    (b"FOVb", "raw", "a raw photo of a camera (X3F)"),
    (b"\0MRM", "raw", "a raw photo of a camera (MRW)"),
    (b"\x1aE\xdf\xa3", "video", "a WebM or Matroska video"),
    (b"\0\0\1\xba", "video", "an MPEG video"),
    (b"\0\0\1\xb3", "video", "an MPEG video"),
    (b"FLV\1", "video", "a Flash video"),
    (b"OggS", "video", "an Ogg video or sound"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "a Windows Media video"),
    (b"PK\3\4", "archive", "a ZIP archive"),
    (b"PK\5\6", "archive", "a ZIP archive without files"),
    (b"\x1f\x8b", "archive", "gzip-compressed"),
    (b"BZh", "archive", "bzip2-compressed"),
    (b"\xfd7zXZ", "archive", "xz-compressed"),
    (b"\x28\xb5\x2f\xfd", "archive", "zstd-compressed"),
    (b"7z\xbc\xaf", "archive", "a 7z archive"),
    (b"Rar!", "archive", "a RAR archive"),
    (b"\x89HDF", "data", "an HDF5 file"),
    (b"GGUF", "data", "a GGUF file"),
    (b"PAR1", "data", "a Parquet table"),
    (b"SQLite format 3", "data", "an SQLite database"),
    (b"\x80\x02", "data", "a Python pickle"),
    (b"\x80\x04", "data", "a Python pickle"),
    (b"\x80\x05", "data", "a Python pickle"),
    (b"\0\5\x16\7", "data", "an AppleDouble file (what macOS stores beside a file)"),
    (b"bplist", "data", "a property list of macOS (an iCloud placeholder?)"),
    (b"\x7fELF", "data", "a program"),
    (b"MZ", "data", "a program"),
)
_BRANDS = (  # of the ISO media file format: bytes 8 to 12, and compatible ones after them
    (
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
        "heic",
        "a HEIC photo",
    ),
    ((b"avif", b"avis"), "avif", "an AVIF picture"),
    ((b"crx ",), "raw", "a raw photo of a camera (CR3)"),
    ((b"jxl ",), "picture", "a JPEG XL picture"),
    ((b"jp2 ", b"jpx "), "picture", "a JPEG 2000 picture"),
    ((b"mif1", b"msf1", b"mif2"), "heic", "a HEIF photo"),
)
_PICTURE_TEXT = rb"P[1-7fF]\s|GIF8|#define |/\* XPM|%!PS"  # pictures that begin as text
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # of QuickTime before 2001
_MOVIE = FileKind("video", "an MP4 or QuickTime video")


def kind_of(head: bytes) -> FileKind | None:
    """What a file is by its first HEAD_BYTES; None for an empty file and for what is not known."""
    for start, group, title in _STARTS:
        if head.startswith(start):
            return FileKind(group, title)
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[4:8] in _ATOMS and head[:4] != b"\0\0\0\0":
        return _MOVIE
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return FileKind("video", "an AVI video" if head[8:12] == b"AVI " else "a sound (WAV)")
    if head[128:132] == b"DICM":
        return FileKind("scan", "a DICOM scan")
    if head[257:262] == b"ustar":
        return FileKind("archive", "a tar archive")
    if head and not head.strip(b"\0"):
        return FileKind("broken", "full of zeros")
    return _text(head)


def _by_brand(head: bytes) -> FileKind:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    for brand in brands:  # the major one first
        for known, group, title in _BRANDS[:-1]:
            if brand in known:
                return FileKind(group, title)
    names, group, title = _BRANDS[-1]
    return FileKind(group, title) if brands[0] in names else _MOVIE


def _text(head: bytes) -> FileKind | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" in head[:8]:
        return FileKind("text", "text in UTF-16")
    if re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head) or re.match(_PICTURE_TEXT, head):
        return None
    try:  # a character may be cut at the end
        text = head.decode("utf-8-sig", "strict" if len(head) < 4 else "replace")
    except UnicodeDecodeError:
        return None
    if text[:-3].count("\N{REPLACEMENT CHARACTER}"):
        return None
    start = text.lstrip().lower()
    if not text:
        return None
    if re.match(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg\b", start, re.S):
        return FileKind("page", "an SVG drawing")
    if re.match(r"<!doctype html|<html|<head|<body|<!--.*?<html", start, re.S):
        return FileKind("web", "a web page")
    if "<html" in start[:600] and start.startswith("<"):
        return FileKind("web", "a web page")
    if start.startswith("<"):
        return FileKind("text", "XML text")
    if re.match(r'[{\[]\s*(["{}\[\]]|-?\d|$)', start):
        return FileKind("text", "JSON text")
    if re.search(r"annex/objects/|\.git/annex", start[:300]):
        return FileKind("annex", "a git-annex pointer")
    return FileKind("text", "text")
