"""How an image becomes the input of one detector: its size, the filter and the numbers.

One rule for all who resize: single images, workers of a batch, baselines made again.

    how = Preprocessing(480, 640).at(size=None, max_size=None)     # the flags overrule
    how.input_hw((1080, 1920)), how.resized(picture), how.notes
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from detr_viz.common.bounds import beyond, bound
from detr_viz.images.loaded_image import ImageError
from detr_viz.images.resize import MEAN_RGB, STD_RGB, resized_to, target_size

if TYPE_CHECKING:
    from detr_viz.images.loaded_image import LoadedImage

OFFICIAL_SIZE, OFFICIAL_MAX_SIZE = 800, 1333  # of the official evaluation transform
OFFICIAL, TRANSFORMERS, TRUNCATED = "official", "transformers", "truncated"
ROUNDED = "rounded"
RESCALE = 1 / 255


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image, as plain values that can be printed, hashed and sent.

    size, max_size  the shorter side, and the bound on the longer one (None: no bound), pixels;
                    size None: the longer side becomes max_size; both None: images stay as they are
    within_hw       the largest size that fits into this height and width, aspect kept
    exact_hw        this height and width, aspect not kept
    rule            how the longer side is rounded: "official", or "transformers", which rounds
                    down from the bound (they differ by some pixels where the bound holds), or
                    "truncated": both sides are, so the shorter one may be a pixel below size, or
                    "rounded": both sides are rounded, as in detectron2
    resample        Pillow's filter, in lower case
    on_floats       whether the filter's result is rounded once, as torchvision resizes tensors,
                    and not after each axis
    mean, std, rescale   (value * rescale - mean) / std, of red, green and blue
    pad_hw          this height and width, filled up with zeros below and to the right, which the
                    network does not attend to; None: no padding
    multiple        the same, to the next multiples of this
    source          the file that says so; "" for none
    overruled       words on what `source` says where a flag has overruled its sizes
    remarks         what else there is to say of the file, a line each
    """

    size: int | None = OFFICIAL_SIZE
    max_size: int | None = OFFICIAL_MAX_SIZE
    within_hw: tuple[int, int] | None = None
    exact_hw: tuple[int, int] | None = None
    rule: str = OFFICIAL
    resample: str = "bilinear"
    on_floats: bool = False
    mean: tuple[float, float, float] = MEAN_RGB
    std: tuple[float, float, float] = STD_RGB
    rescale: float = RESCALE
    pad_hw: tuple[int, int] | None = None
    multiple: int = 1
    source: str = ""
    overruled: str = ""
    remarks: tuple[str, ...] = ()

    def at(self, size: int | None, max_size: int | None) -> Preprocessing:
        """The same with the sizes of --size and --max-size; None: its own."""
        if not size and not max_size:
            return self
        by_sides = self.within_hw is None and self.exact_hw is None
        own_size, own_max = (self.size, self.max_size) if by_sides else (None, None)
        unbounded = own_size is not None and own_max is None
        given = {"--size": size, "--max-size": max_size}
        flags = [flag for flag, value in given.items() if value]
        verb = "overrules" if len(flags) == 1 else "overrule"
        return replace(
            self,
            size=size or own_size or OFFICIAL_SIZE,
            max_size=max_size or own_max or (None if unbounded else OFFICIAL_MAX_SIZE),
            within_hw=None,
            exact_hw=None,
            overruled=f"{' and '.join(flags)} {verb} {self.source} ({self.sizes})",
        )

    def input_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """(h, w) in pixels that an image is resized to, never below 1, before it is padded.

        Raises ImageError for an image without pixels, or with more than the padded size has room
        for.
        """
        h, w = image_hw
        if min(h, w) < 1:
            raise ImageError(f"cannot resize an image of {h} x {w} pixels: it has none")
        try:
            new_h, new_w = self._input_hw(h, w)
        except OverflowError:  # sizes of a file that no float holds
            new_h = new_w = 10**9
        _check_pixels(*self.padded_hw((new_h, new_w)))
        if self.pad_hw is not None and not self.overruled and not self.pads((new_h, new_w)):
            raise ImageError(
                f"an image of {h} x {w} pixels becomes {new_h} x {new_w}, more than the pad_size "
                "{} x {} of {}: give --size".format(*self.pad_hw, self.source)
            )
        return new_h, new_w

    def pads(self, input_hw: tuple[int, int]) -> bool:
        """Whether an image of this size is filled up, once it is resized."""
        return self.pad_hw is not None and all(map(int.__le__, input_hw, self.pad_hw))

    def padded_hw(self, input_hw: tuple[int, int]) -> tuple[int, int]:
        """The height and width of the network's input, of an image that is resized to this."""
        if self.pads(input_hw):
            return self.pad_hw
        return tuple(-(-side // self.multiple) * self.multiple for side in input_hw)

    def _input_hw(self, h: int, w: int) -> tuple[int, int]:
        if self.exact_hw is not None:
            return self.exact_hw
        if self.within_hw is not None:
            scale = min(self.within_hw[0] / h, self.within_hw[1] / w)
            return max(1, int(h * scale)), max(1, int(w * scale))
        if self.size is None:
            if self.max_size is None:
                return h, w
            scale = self.max_size / max(h, w)
            return max(1, round(h * scale)), max(1, round(w * scale))
        if self.rule == TRANSFORMERS:
            return _transformers_size(h, w, self.size, self.max_size)
        if self.rule == TRUNCATED:
            return _truncated_size(h, w, self.size, self.max_size)
        if self.rule == ROUNDED:
            return _rounded_size(h, w, self.size, self.max_size)
        return target_size(h, w, self.size, self.max_size or self.size * max(h, w))

    def resized(self, image: LoadedImage) -> np.ndarray:
        """The picture at the network's size, uint8 (h, w, 3). ImageError for too many pixels."""
        return self.resized_to(image, self.input_hw(image.hw))

    def resized_to(self, image: LoadedImage, hw: tuple[int, int]) -> np.ndarray:
        """The same at this height and width."""
        return resized_to(image, hw, self.resample, self.on_floats)

    @property
    def sizes(self) -> str:
        """The sizes in a few words: "sizes 480/640"."""
        if self.exact_hw is not None:
            return "size {} x {} px (height x width, aspect not kept)".format(*self.exact_hw)
        if self.within_hw is not None:
            return "size at most {} x {} px (height x width)".format(*self.within_hw)
        if self.size is None:
            return "images not resized" if self.max_size is None else f"longer side {self.max_size}"
        if self.max_size is None:
            return f"shorter side {self.size}, longer one without a bound"
        return f"sizes {self.size}/{self.max_size}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Which sizes are used and from where, and what else the file says; () without a file."""
        if not self.source:
            return ()
        padded = "" if self.pad_hw is None else ", padded to {} x {}".format(*self.pad_hw)
        if self.overruled:
            room = f"{padded} where there is room" if padded else ""
            return (f"{self.sizes}{room}: {self.overruled}", *self.remarks)
        return (f"{self.sizes}{padded} from {self.source}", *self.remarks)

    def as_meta(self) -> dict[str, Any]:
        """Plain values for JSON; what is not of the official transform is named."""
        meta: dict[str, Any] = {
            "size_px": self.size,
            "max_size_px": self.max_size,
            "resize": f"Pillow {self.resample} on {'float32' if self.on_floats else 'uint8'}",
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.exact_hw is not None:
            meta["exact_hw_px"] = list(self.exact_hw)
        if self.within_hw is not None:
            meta["within_hw_px"] = list(self.within_hw)
        if self.rule != OFFICIAL:
            meta["rounding"] = self.rule
        if self.pad_hw is not None:
            meta["pad_hw_px"] = list(self.pad_hw)
        if self.multiple != 1:
            meta["pad_multiple_px"] = self.multiple
        if self.rescale != RESCALE:
            meta["rescale"] = self.rescale
        if self.source:
            meta["source"] = self.source
        return meta


def _check_pixels(h: int, w: int) -> None:
    """ImageError for more pixels than a network is given unless it is asked for."""
    if h * w > bound("pixels"):
        raise ImageError(
            f"the network's input would have {beyond('pixels', h * w)}; or choose a smaller --size"
        )


def _transformers_size(h: int, w: int, size: int, bound: int | None) -> tuple[int, int]:
    """transformers' get_size_with_aspect_ratio (4.46 and later): (new_h, new_w), never below 1.

    The longer side follows from the shorter one before that is rounded.
    """
    unrounded: float = size
    if bound is not None and max(h, w) / min(h, w) * size > bound:
        unrounded = bound * min(h, w) / max(h, w)
        size = round(unrounded)
    if size == min(h, w):
        return h, w
    longer = max(1, int(unrounded * max(h, w) / min(h, w)))
    return (longer, max(1, size)) if w < h else (max(1, size), longer)


def _truncated_size(h: int, w: int, size: int, bound: int | None) -> tuple[int, int]:
    """(new_h, new_w), never below 1, by float32 arithmetic as the authors of Salience DETR do it.

    375 x 500 becomes 799 x 1066: torch divides 800 by 375 as 800 * (1 / 375), a little less.
    """
    one = np.float32(1)
    ratio = one / np.float32(min(h, w)) * np.float32(size)
    if bound is not None:
        ratio = min(ratio, one / np.float32(max(h, w)) * np.float32(bound))
    return max(1, int(np.float32(h) * ratio)), max(1, int(np.float32(w) * ratio))


def _rounded_size(h: int, w: int, size: int, bound: int | None) -> tuple[int, int]:
    """detectron2's ResizeShortestEdge.get_output_shape: (new_h, new_w), never below 1."""
    scale = size / min(h, w)
    new_h, new_w = (float(size), scale * w) if h < w else (scale * h, float(size))
    if bound is not None and max(new_h, new_w) > bound:
        scale = bound / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return max(1, int(new_h + 0.5)), max(1, int(new_w + 0.5))
