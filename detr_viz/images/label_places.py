"""Where files about single images lie: beside them, or in a folder that stands for that of images.

images/train/1.jpg      labels/train/1.txt
JPEGImages/1.jpg        Annotations/1.xml
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from detr_viz.common.regular import open_regular


@dataclass(frozen=True)
class Kind:
    """title: in words. folders: names of those beside a folder of images."""

    title: str
    suffix: str
    folders: tuple[str, ...]


YOLO = Kind("YOLO", ".txt", ("labels", "annotations"))
VOC = Kind("Pascal VOC", ".xml", ("annotations", "labels", "xmls", "xml"))
LABELME = Kind("LabelMe", ".json", ("annotations", "labels", "jsons", "json"))
KINDS = (YOLO, VOC, LABELME)
_IMAGES = ("jpegimages", "images", "image", "imgs", "img")  # folders of images, in any case
_HEAD = 65_536  # bytes in which a LabelMe file names its shapes


def is_labelme(path: str) -> bool:
    """Whether a .json file begins as one of LabelMe does."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return False
    return b'"shapes"' in head and b'"images"' not in head


class Places:
    """Looks for files; what a folder has is asked of the disk once."""

    def __init__(self) -> None:
        self._entries: dict[str, list[str]] = {}
        self._places: dict[tuple[str, Kind], list[str]] = {}
        self._stems: dict[tuple[str, str], dict[str, str]] = {}

    def beside(self, path: str, kind: Kind) -> str | None:
        """The file of a kind that belongs to an image; None where there is none."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        if (folder, kind) not in self._places:
            self._places[folder, kind] = [folder, *self._others(os.path.abspath(folder), kind)]
        for place in self._places[folder, kind]:
            if (file := self._files(place, kind.suffix).get(stem)) is not None:
                return os.path.join(place, file)
        return None

    def _others(self, folder: str, kind: Kind) -> list[str]:
        """Folders of labels that stand for one of images, the deepest first."""
        parts = folder.split(os.sep)
        found = []
        for i in range(len(parts) - 1, 0, -1):
            if parts[i].lower() not in _IMAGES:
                continue
            above = os.sep.join(parts[:i]) or os.sep
            inner = {name.lower(): name for name in sorted(self._in(above))}
            names = [inner[name] for name in kind.folders if name in inner]
            found += [os.path.join(above, name, *parts[i + 1 :]) for name in names]
        return found

    def _files(self, folder: str, suffix: str) -> dict[str, str]:
        """Stem -> name of the files with a suffix in a folder."""
        if (folder, suffix) not in self._stems:
            pairs = [(os.path.splitext(name), name) for name in sorted(self._in(folder))]
            named = {stem: name for (stem, end), name in pairs if end.lower() == suffix}
            self._stems[folder, suffix] = named
        return self._stems[folder, suffix]

    def _in(self, folder: str) -> list[str]:
        if folder not in self._entries:
            try:
                self._entries[folder] = os.listdir(folder or ".")
            except OSError:
                self._entries[folder] = []
        return self._entries[folder]
