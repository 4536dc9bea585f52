"""Names of files that every file system keeps, and keeps apart: shortened with a digest if needed.

fitting("a" * 300, ".npz")       # 'aaa...-3f0c8a2b9d41.npz', 255 bytes at most
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

LONGEST = 255  # bytes of a file's name on nearly all file systems
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\\/]|[. ]$')


def alike(name: str) -> str:
    """One key for all names that are the same file on some file system."""
    return unicodedata.normalize("NFC", name.casefold())


def digest_of(text: str) -> str:
    """Twelve hex digits that depend on the text alone."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def with_digest(name: str, most: int, whole: str | None = None) -> str:
    """The start of a name and a digest of `whole` (default: of the name), `most` bytes at most."""
    digest = digest_of(name if whole is None else whole)
    start = os.fsencode(name)[: most - len(digest) - 1].decode("utf-8", "ignore").rstrip(" .-_")
    return f"{start}-{digest}"


def fitting(stem: str, suffix: str = "", most: int = LONGEST) -> str:
    """stem + suffix, as it is if it has `most` bytes at most, else with a shortened stem."""
    if len(os.fsencode(stem + suffix)) <= most:
        return stem + suffix
    return with_digest(stem, most - len(os.fsencode(suffix))) + suffix


def is_reserved(name: str) -> bool:
    """Whether Windows keeps a name for a device, as it does with con and aux.txt."""
    return _RESERVED.fullmatch(name.rstrip(" .")) is not None


def for_windows(name: str) -> str:
    """A name of a file or folder as Windows takes it: unchanged, or with a digest."""
    clean = _FORBIDDEN.sub("_", name)
    if is_reserved(clean):
        clean = f"_{clean}"
    return name if clean == name else with_digest(clean, LONGEST, name)
