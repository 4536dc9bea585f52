"""Files of annotated objects about single images: YOLO, Pascal VOC, LabelMe; where they lie, and
what they say.

found = beside(paths, "data/", notes)          # for each image its objects, or None
found = of_files(paths, files, "labels/")      # of files that the user has named
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from detr_viz.common.bounds import bound
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.common.words import listed
from detr_viz.images.annotated import Annotated
from detr_viz.images.label_places import IMAGE_FOLDERS, KINDS, VOC, YOLO, Kind, Places
from detr_viz.images.labelme_json import read_labelme
from detr_viz.images.marked import INSTALL, Marked, check_globox, has_globox
from detr_viz.images.names import posix_path
from detr_viz.images.text_files import LABEL_BYTES, read_bytes
from detr_viz.images.voc_xml import counts_from_one, edges, image_of, read_voc
from detr_viz.images.yolo_labels import YoloClasses, read_yolo

_SHOWN = 2


def beside(
    paths: Sequence[str], top: str, notes: list[str], classes: YoloClasses | None = None
) -> list[Annotated | None]:
    """The objects of images from files beside them, or in the folders that such data sets have.

    top: the folder that was searched. notes: gets a line that says what was taken, and one for
    files that are no annotations. classes: of YOLO; None: of a file near the labels.
    """
    title = path_text(top or ".")
    for kind, files in _by_kind(paths):
        count = sum(file is not None for file in files)
        if not has_globox():
            words = "file is" if count == 1 else "files are"
            notes.append(f"{title}: {count} {kind.suffix} {words} not read for boxes: {INSTALL}")
            continue
        faults: list[str] = []
        found, more = _read_all(files, kind, classes, faults)
        if len(faults) == count:
            beside_images = "file beside images is" if count == 1 else "files beside images are"
            notes.append(
                f"{title}: {count} {kind.suffix} {beside_images} no {kind.title} "
                f"annotation{'' if count == 1 else 's'} ({faults[0]})"
            )
            continue
        boxes = sum(one is not None for one in found)
        notes.append(
            f"{title}: boxes of {boxes} of {len(paths)} images from {kind.title} files{more}"
        )
        if faults:
            shown = [*faults[:_SHOWN], *(["..."] if len(faults) > _SHOWN else [])]
            notes.append(f"{title}: {len(faults)} of these files not read: {'; '.join(shown)}")
        return found
    return [None] * len(paths)


def unread_beside(paths: Sequence[str], top: str, notes: list[str]) -> list[str]:
    """The files that `beside` would read; notes gets a line that says how to read them."""
    for kind, files in _by_kind(paths):
        found = [file for file in files if file is not None]
        one = len(found) == 1
        words = "file has the name of an image" if one else "files have names of images"
        notes.append(
            f"{path_text(top or '.')}: {len(found)} {kind.suffix} {words}: --gt reads "
            f"{'it' if one else 'them'} as {kind.title} annotations"
        )
        return found
    return []


def _by_kind(paths: Sequence[str]) -> list[tuple[Kind, list[str | None]]]:
    """For each kind that has files beside images, the commonest first: the file of each image."""
    places = Places()
    by_kind = [(kind, [places.beside(path, kind) for path in paths]) for kind in KINDS]
    by_kind.sort(key=lambda one: -sum(file is not None for file in one[1]))
    return [(kind, files) for kind, files in by_kind if any(file is not None for file in files)]


def of_files(
    files: Sequence[str | None], kind: Kind, title: str, notes: list[str]
) -> list[Annotated | None]:
    """The objects of files that the user has named; UserError for one that is not read."""
    check_globox()
    faults: list[str] = []
    found, more = _read_all(files, kind, None, faults)
    if faults:
        raise UserError(f"{faults[0]}: correct it, or leave it out")
    boxes = sum(one is not None for one in found)
    notes.append(f"{title}: boxes of {boxes} of {len(files)} images from {kind.title} files{more}")
    return found


def _read_all(
    files: Sequence[str | None], kind: Kind, classes: YoloClasses | None, faults: list[str]
) -> tuple[list[Annotated | None], str]:
    """(objects of each file, what else a note says); faults: gets a line for each bad file."""
    marked: list[Marked | None] = []
    near = cache(YoloClasses.near)
    sources: dict[str, None] = {}
    for file in files:
        marked.append(None)
        if file is None:
            continue
        try:
            if kind is YOLO:
                own, source = (classes, "") if classes else near(os.path.dirname(file))
                sources[source] = None
                marked[-1] = read_yolo(_bytes(file, LABEL_BYTES), own)
            elif kind is VOC:
                marked[-1] = read_voc(_bytes(file, LABEL_BYTES))
            else:
                marked[-1] = read_labelme(_bytes(file, bound("json")))[0]
        except (ValueError, UserError) as error:
            named = isinstance(error, UserError) and path_text(file) in str(error)
            faults.append(str(error) if named else f"{path_text(file)}: {error}")
    words = []
    real = [one for one in marked if one is not None]
    if kind is VOC and any(one.boxes for one in real):
        from_one = counts_from_one(real)
        marked = [edges(one) if one is not None and from_one else one for one in marked]
        words.append(f"pixels from {1 if from_one else 0}")
    if kind is YOLO and classes is None and real:
        named = [path_text(_from_here(source)) for source in sources if source]
        words.append(f"classes of {listed(named)}" if named else "without names of classes")
    if left_out := sum(one.left_out for one in real):
        words.append(f"{left_out} object{'' if left_out == 1 else 's'} without a box left out")
    found = [
        None if one is None else annotated_of(one, str(file))
        for one, file in zip(marked, files, strict=True)
    ]
    return found, f" ({', '.join(words)})" if words else ""


def _from_here(path: str) -> str:
    """A path relative to the working directory, where it lies below."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


def annotated_of(one: Marked, source: str) -> Annotated:
    """What a file says, in the form that images carry."""
    return Annotated.of_boxes(one.boxes, one.names, one.crowd, source, one.of_hw)


def one_file(path: str) -> tuple[str, Annotated]:
    """The image that a LabelMe or a Pascal VOC file is about, and its objects.

    UserError where it is none, or does not say which image.
    """
    check_globox()
    title = path_text(path)
    is_voc = path.lower().endswith(VOC.suffix)
    try:
        data = _bytes(path, LABEL_BYTES if is_voc else bound("json"))
        marked, name = (read_voc(data), image_of(data)) if is_voc else read_labelme(data)
    except ValueError as error:
        raise UserError(f"{title}: {error}") from None
    if not name:
        raise UserError(f"{title} names no image: give the image, and this file as --annotations")
    if is_voc and counts_from_one([marked]):
        marked = edges(marked)
    return _image_near(path, posix_path(name)), annotated_of(marked, path)


def _image_near(path: str, name: str) -> str:
    """The image that a file names: relative to it, or, from another machine, beside it."""
    here, last = os.path.dirname(path), name.rpartition("/")[2]
    tried = [os.path.join(here, name), os.path.join(here, last)]
    tried += [os.path.join(os.path.dirname(here) or "..", one, last) for one in IMAGE_FOLDERS]
    return next((os.path.normpath(one) for one in tried if os.path.isfile(one)), tried[1])


def _bytes(file: str, most: int) -> bytes:
    return read_bytes(file, path_text(file), most)
