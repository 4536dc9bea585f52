"""An image with its annotated boxes, for the library.

picture = load_annotated("val/1.jpg", "instances.json")
e = explain(model, picture)                     # e.truth: the boxes with the model's classes
fig = head_grid(e, [3], style=Style(truth=True))
"""

from __future__ import annotations

import os

from detr_viz.common.errors import UserError
from detr_viz.images import collect
from detr_viz.images.loaded_image import LoadedImage
from detr_viz.images.onto_picture import load_onto


def load_annotated(
    image: str | os.PathLike[str], annotations: str | os.PathLike[str] | None = None
) -> LoadedImage:
    """The picture of an image file with the boxes of an annotation file, as `explain` takes it.

    image        an image, or a LabelMe .json or Pascal VOC .xml, which name theirs
    annotations  a COCO .json, a YOLO .txt, a Pascal VOC .xml, a LabelMe .json, or a folder of such
                 files; None: files beside the image
    `picture.annotated` has the boxes (n, 4) in pixels of the upright image, class names and crowds;
    None where no file says anything about this image. `picture.notes` say whether boxes were turned
    or scaled. UserError for files that cannot be read, and for several images.
    """
    word = os.fspath(image)
    if not collect.is_single([word]):
        raise UserError(f"{word} is not one image: name one")
    own = None if annotations is None else os.fspath(annotations)
    (one,) = collect.expand([word], annotations=own)
    if own is None and one.annotated is None:
        from detr_viz.images.label_files import beside

        (boxes,) = beside([one.path], os.path.dirname(one.path), [])
        return load_onto(one.path, boxes)
    return load_onto(one.path, one.annotated)
