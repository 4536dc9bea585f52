"""Which files of a folder are left out of the images, and why, in one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from detr_viz.common.files import path_text

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
_RAW_SUFFIXES = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf"}
_RAW_SUFFIXES |= {".rw2", ".rwl", ".sr2", ".srw", ".x3f"}
_MOST_SUFFIXES = 4


@dataclass
class LeftOut:
    """Files that a search passed over. hidden: files and folders. outputs: figures of --out."""

    hidden: list[str] = field(default_factory=list)
    others: list[tuple[str, bool]] = field(default_factory=list)
    outputs: int = 0

    def add(self, path: str, is_picture: bool) -> None:
        """A file by its suffix. is_picture: of a format that is read only if it is named."""
        self.others.append((path, is_picture))

    def drop_below(self, folder: str) -> None:
        """Forget what lies in the output folder."""
        start = os.path.join(os.path.normpath(folder), "")
        self.hidden = [p for p in self.hidden if not os.path.normpath(p).startswith(start)]
        self.others = [p for p in self.others if not os.path.normpath(p[0]).startswith(start)]

    def drop(self, files: Iterable[str]) -> None:
        """Forget files that were of use."""
        used = {os.path.abspath(file) for file in files}
        self.others = [p for p in self.others if os.path.abspath(p[0]) not in used]

    def note(self, word: str) -> list[str]:
        """What a run says of a folder or pattern: a line, or none."""
        line = self.line()
        return [f"{path_text(word)}: {line}"] if line else []

    def line(self) -> str:
        """All reasons with their counts; "" if nothing was left out."""
        suffixes: dict[str, Counter[str]] = {}
        for path, is_picture in self.others:
            suffix = os.path.splitext(path)[1].lower() or "no suffix"
            reason = "picture" if is_picture else "other"
            if suffix in HEIC_SUFFIXES:
                reason = "heic"
            elif suffix in _RAW_SUFFIXES:
                reason = "raw"
            suffixes.setdefault(reason, Counter())[suffix] += 1
        parts = []
        for reason, one, many, way_out in _REASONS:
            if counts := suffixes.get(reason):
                number = counts.total()
                shown = sorted(counts, key=lambda suffix: (-counts[suffix], suffix))
                shown = shown[:_MOST_SUFFIXES]
                shown += ["..."] if len(counts) > len(shown) else []
                words = one if number == 1 else many
                parts.append(f"{number} {words} ({', '.join(shown)}{way_out})")
        if self.hidden:
            parts.append(f"{len(self.hidden)} {'is' if len(self.hidden) == 1 else 'are'} hidden")
        if self.outputs:
            figures = "is a figure" if self.outputs == 1 else "are figures"
            parts.append(f"{self.outputs} {figures} of --out")
        count = len(self.others) + len(self.hidden) + self.outputs
        files = "file" if count == 1 else "files"
        return f"left out {count} {files}: {', '.join(parts)}" if parts else ""


_REASONS = (  # reason, for one file, for several, what to do
    (
        "heic",
        "is a HEIC photo",
        "are HEIC photos",
        '; pip install "detr_viz[heic]", or convert them',
    ),
    ("raw", "is a raw photo", "are raw photos", "; develop them"),
    ("picture", "is searched for by name only", "are searched for by name only", ""),
    ("other", "is not an image", "are not images", ""),
)
