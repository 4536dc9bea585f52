"""preprocessor_config.json beside a Hugging Face model's weights, in all forms since 2021.

    beside(folder)              # Preprocessing, or None where the folder has no such file

`size` has been a number with `max_size`, and a dict of `shortest_edge` and `longest_edge`, of
`max_height` and `max_width` or of `height` and `width`. The size of an image is then what
transformers makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_viz.checkpoints.weight_files import CheckpointError, json_in
from detr_viz.common.files import path_text
from detr_viz.images.preprocessing import (
    OFFICIAL_MAX_SIZE,
    OFFICIAL_SIZE,
    RESCALE,
    TRANSFORMERS,
    Preprocessing,
)
from detr_viz.images.resize import MEAN_RGB, STD_RGB

FILE = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of transformers 5: the same under "image_processor"
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
# Processors of the family: sizes, filters and padding are the same in all of them.
_KNOWN = re.compile(r"(Conditional|Deformable)?Detr(ImageProcessor(Fast|Pil)?|FeatureExtractor)")
_MOST = 1e300
_MOST_PIXELS = 10**6  # of a side


def beside(folder: Path) -> Preprocessing | None:
    """What the file beside the weights says; CheckpointError where it is damaged.

    The Trainer of transformers may have it above checkpoint-500/ only.
    """
    here = [folder]
    if re.fullmatch(r"checkpoint-\d+", folder.absolute().name):
        here.append(folder.absolute().parent)
    for place in here:
        for name, part in ((PROCESSOR, "image_processor"), (FILE, None)):
            path = place / name
            if not path.is_file():
                continue
            values: Any = json_in(path)
            if part is not None:
                values = values.get(part)
            if isinstance(values, Mapping):
                return parsed(values, path)
    return None


def parsed(values: Mapping[str, Any], path: Path) -> Preprocessing:
    """The content of such a file; CheckpointError names the entry that cannot be followed."""
    config = _Config(values, path)
    rescale = config.number("rescale_factor", RESCALE)
    scaled = config.switch("do_rescale", True)
    normalised = config.switch("do_normalize", True)
    sizes, remarks = _sizes(config)
    return Preprocessing(
        **sizes,
        rule=TRANSFORMERS,
        resample=_filter(config),
        mean=config.colours("image_mean", MEAN_RGB) if normalised else (0.0, 0.0, 0.0),
        std=config.colours("image_std", STD_RGB) if normalised else (1.0, 1.0, 1.0),
        rescale=rescale if scaled else 1.0,
        pad_hw=_padded(config),
        source=path.name,
        remarks=(*remarks, *_remarks(config)),
    )


class _Config:
    """The entries of a file, checked one by one."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def wrong(self, key: str) -> CheckpointError:
        value = repr(self.values[key])
        value = value if len(value) <= 60 else value[:57] + "..."
        return CheckpointError(
            f"{path_text(self.path)} has {key} {value}, which cannot be followed: correct it, or "
            "remove the file to resize as DETR does"
        )

    def get(self, key: str, default: Any) -> Any:
        """An entry; null is as if it were absent."""
        value = self.values.get(key)
        return default if value is None else value

    def switch(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key)
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not _is_number(value) or value <= 0:
            raise self.wrong(key)
        return float(value)

    def colours(self, key: str, default: tuple[float, ...]) -> tuple[float, float, float]:
        """Three numbers, or one for all three."""
        value = self.get(key, default)
        values = [value] * 3 if _is_number(value) else value
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise self.wrong(key)
        if not all(map(_is_number, values)) or (key == "image_std" and min(values) <= 0):
            raise self.wrong(key)
        red, green, blue = map(float, values)
        return red, green, blue

    def pixels(self, key: str, value: Any) -> int:
        """A side: a part of the entry `key`."""
        if not _is_number(value) or value != int(value) or not 1 <= value <= _MOST_PIXELS:
            raise self.wrong(key)
        return int(value)


def _is_number(value: Any) -> bool:
    """A number that a float holds: JSON may have whole ones beyond."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and -_MOST < value < _MOST


def _sizes(config: _Config) -> tuple[dict[str, Any], list[str]]:
    """Arguments of Preprocessing for the size of an image, and remarks."""
    none: dict[str, Any] = {"size": None, "max_size": None}
    if not config.switch("do_resize", True):
        return none, []
    size = config.get("size", None)
    bound = config.get("max_size", None)
    bound = None if bound is None else config.pixels("max_size", bound)
    if size is None:
        return {"size": OFFICIAL_SIZE, "max_size": OFFICIAL_MAX_SIZE}, []
    if _is_number(size):
        return {"size": config.pixels("size", size), "max_size": bound or OFFICIAL_MAX_SIZE}, []
    if isinstance(size, list) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    if not isinstance(size, Mapping):
        raise config.wrong("size")
    sides = {
        str(key): config.pixels("size", side) for key, side in size.items() if side is not None
    }
    keys = frozenset(sides)
    if keys == {"shortest_edge", "longest_edge"}:
        return {"size": sides["shortest_edge"], "max_size": sides["longest_edge"]}, []
    if keys == {"max_height", "max_width"}:
        return none | {"within_hw": (sides["max_height"], sides["max_width"])}, []
    if keys == {"height", "width"}:
        return none | {"exact_hw": (sides["height"], sides["width"])}, []
    if keys == {"shortest_edge"}:
        return {"size": sides["shortest_edge"], "max_size": bound}, []
    if keys == {"longest_edge"}:
        return none | {"max_size": sides["longest_edge"]}, [
            f"{config.path.name} has longest_edge alone, which transformers refuses: the longer "
            "side is made so long, as Table Transformer's own code does"
        ]
    raise config.wrong("size")


def _filter(config: _Config) -> str:
    number = config.get("resample", _FILTERS.index("bilinear"))
    if not isinstance(number, int) or isinstance(number, bool) or number not in range(6):
        raise config.wrong("resample")
    return _FILTERS[number]


def _padded(config: _Config) -> tuple[int, int] | None:
    """pad_size; without it a single image is not padded."""
    size = config.get("pad_size", None)
    if size is None or not config.switch("do_pad", True):
        return None
    if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
        raise config.wrong("pad_size")
    return config.pixels("pad_size", size["height"]), config.pixels("pad_size", size["width"])


def _remarks(config: _Config) -> list[str]:
    """What of the file is not followed, a line each."""
    remarks = []
    kind = config.get("image_processor_type", config.get("feature_extractor_type", None))
    name = config.path.name
    if kind is not None and not _KNOWN.fullmatch(str(kind)):
        remarks.append(f"{name} is of {str(kind)[:60]}, and is read as if it were of DETR")
    if config.get("do_center_crop", False) is True:
        remarks.append(f"{name} has do_center_crop, which transformers' DETR ignores: so do we")
    return remarks
