"""From a picture to the network's input: the official evaluation transform.

x = to_tensor(load_image("cat.jpg"))            # float32 (1, 3, h, w)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from detr_viz.images import large
from detr_viz.images.loaded_image import MAX_PIXELS, ImageError, LoadedImage

if TYPE_CHECKING:
    import torch

MEAN_RGB = (0.485, 0.456, 0.406)  # ImageNet, as in the official transform
STD_RGB = (0.229, 0.224, 0.225)


def target_size(h: int, w: int, short: int = 800, longest: int = 1333) -> tuple[int, int]:
    """(new_h, new_w) in pixels of the official evaluation transform, never below 1.

    The shorter side becomes `short`, or round(longest * shorter / longer) if the longer side would
    exceed `longest`. The longer side is truncated, and may still exceed `longest` a little. If the
    shorter side rounds to 0 (a ratio of more than 2 * longest : 1), the result is `longest` by 1.
    Raises ImageError for sizes below 1.
    Source: facebookresearch/detr, datasets/transforms.py, `resize`.
    """
    if min(h, w) < 1:
        raise ImageError(f"cannot resize an image of {h} x {w} pixels: it has none")
    if min(short, longest) < 1:
        raise ImageError(
            f"cannot resize to a short side of {short} and a long side of {longest}: "
            "both must be at least 1"
        )
    size = short
    if max(h, w) / min(h, w) * size > longest:
        size = round(longest * min(h, w) / max(h, w))
        if size == 0:
            return (longest, 1) if h > w else (1, longest)
    if size == min(h, w):
        return h, w
    return (int(size * h / w), size) if w < h else (size, int(size * w / h))


def resized(image: LoadedImage, short: int = 800, longest: int = 1333) -> np.ndarray:
    """The picture at the network's size, uint8 (h, w, 3), with (h, w) as `target_size` gives it.

    Pillow's bilinear filter on uint8, as in the official evaluation transform. short, longest in
    pixels. ImageError for more than MAX_PIXELS.
    """
    return resized_to(image, target_size(*image.hw, short, longest))


def resized_to(
    image: LoadedImage, hw: tuple[int, int], resample: str = "bilinear", on_floats: bool = False
) -> np.ndarray:
    """The picture at this size, uint8 (h, w, 3), by one of Pillow's filters on uint8.

    on_floats: on float32 and rounded once, half to even, as torchvision resizes tensors with
    antialiasing. ImageError for more than MAX_PIXELS.
    """
    h, w = hw
    if h * w > MAX_PIXELS:
        raise ImageError(f"{h} x {w} pixels are too many for the network: ask for a smaller size")
    if (h, w) == image.hw:
        return image.rgb
    if on_floats:
        channels = (Image.fromarray(image.rgb[..., k].astype(np.float32)) for k in range(3))
        sized = [c.resize((w, h), Image.Resampling[resample.upper()]) for c in channels]
        return np.rint(np.stack(sized, -1)).clip(0, 255).astype(np.uint8)
    return large.resized(image.rgb, (w, h), Image.Resampling[resample.upper()])


def normalised(
    pixels: np.ndarray,
    device: torch.device | str = "cpu",
    mean: tuple[float, ...] = MEAN_RGB,
    std: tuple[float, ...] = STD_RGB,
    rescale: float = 1 / 255,
) -> torch.Tensor:
    """(rgb * rescale - mean) / std of uint8 (B, h, w, 3): float32 (B, 3, h, w) on the device.

    float32 arithmetic in this order: with the values of the official evaluation transform the
    same bits as its own, which divides by 255.
    """
    import torch

    # divisors as tensors: some devices multiply by the inverse of a plain number instead
    centre, deviation, white = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
        for values in (mean, std, [1 / rescale])
    )
    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(device)
    x = x.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return x.div_(white).sub_(centre).div_(deviation)


def to_tensor(image: LoadedImage, short: int = 800, longest: int = 1333) -> torch.Tensor:
    """The network's input, float32 (1, 3, h, w): `resized`, then `normalised`."""
    return normalised(resized(image, short, longest)[None])
