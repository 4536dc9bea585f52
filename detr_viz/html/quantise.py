"""Attention in 8 bits: one curve for all maps of a block, so that codes of any two of them compare.

r = weight * cells                    1 is the weight of a cell in an even map
u = log(1 + r ** 2) / 2               r ** 2 / 2 far below an even spread, log(r) far above it
code = round(u / step),               step = log(1 + cells ** 2) / 2 / levels
|u' - u| <= step / 2, so that r' lies between sqrt((1 + r ** 2) * exp(+- step) - 1)

The figures' colours begin at r = 1 and are logarithmic too (figures/page/scale.py): strong weights
keep their relative accuracy, and what is far below an even spread, where nothing is drawn, costs
few bits.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = (255, 191, 143, 107, 80, 60)  # largest codes: fewer bits, larger steps
_EFFORT = 7  # of zlib: 9 takes three times as long and saves one per cent
FILTERS = ("none", "left", "up")  # what a code is stored as the difference from


@dataclass(frozen=True)
class Curve:
    """Codes of weights on a grid of so many cells. levels: the largest code."""

    cells: int
    levels: int = LEVELS[0]

    @property
    def step(self) -> float:
        """u from code to code."""
        return float(np.log1p(float(self.cells) ** 2) / 2 / self.levels)

    def codes(self, weights: NDArray) -> NDArray[np.uint8]:  # (...)
        """The codes of weights in [0, 1]."""
        flat = np.ravel(weights)
        out = np.zeros(flat.size, np.uint8)
        some = np.flatnonzero(flat > 0.9 * self.least)  # most weights of sampled maps are 0
        r = np.clip(flat[some].astype(np.float64), 0, 1) * self.cells
        out[some] = np.rint(np.log1p(r**2) / 2 / self.step)
        return out.reshape(np.shape(weights))

    @property
    def least(self) -> float:
        """The weight from which on codes are above 0."""
        return float(np.sqrt(np.expm1(self.step)) / self.cells)

    def weights(self, codes: NDArray) -> NDArray[np.float64]:  # (...)
        """The weights of codes."""
        return np.sqrt(np.expm1(2 * self.step * np.asarray(codes, np.float64))) / self.cells

    def bound(self, weights: NDArray) -> NDArray[np.float64]:  # (...)
        """How far a weight moves at most."""
        r = np.asarray(weights, np.float64) * self.cells
        up, down = ((1 + r**2) * np.exp(sign * self.step) - 1 for sign in (1, -1))
        return np.maximum(np.sqrt(up) - r, r - np.sqrt(np.maximum(down, 0))) / self.cells


def linear(values: NDArray, step: float | NDArray) -> NDArray[np.uint8]:  # (...)
    """Signed values as codes around 128: value' = (code - 128) * step, half a step off at most."""
    return (np.clip(np.rint(np.asarray(values, np.float64) / step), -127, 127) + 128).astype(
        np.uint8
    )


@dataclass(frozen=True)
class Block:
    """Codes (..., h, w) as a text of a page. filter: one of FILTERS; text: base64 of deflate."""

    filter: str
    text: str
    shape: tuple[int, ...]

    def as_json(self) -> list[object]:
        return [self.filter, list(self.shape), self.text]

    def __len__(self) -> int:
        """Bytes in the page."""
        return len(self.text)


def packed(codes: NDArray[np.uint8]) -> Block:
    """Codes (..., h, w) by the filter that makes them smallest; mostly zeros as they are."""
    sparse = np.count_nonzero(codes) < codes.size / 8
    names = FILTERS[:1] if sparse else FILTERS
    options = [(name, _deflated(_filtered(codes, name))) for name in names]
    name, data = min(options, key=lambda option: len(option[1]))
    return Block(name, base64.b64encode(data).decode("ascii"), codes.shape)


def packed_bytes(values: NDArray) -> Block:
    """Any array as little-endian bytes, without a filter."""
    data = _deflated(values.astype(values.dtype.newbyteorder("<")))
    return Block("none", base64.b64encode(data).decode("ascii"), values.shape)


def unpacked(block: Block) -> NDArray[np.uint8]:
    """The codes of a block, as the page reads them."""
    data = zlib.decompress(base64.b64decode(block.text), -15)
    codes = np.frombuffer(data, np.uint8).reshape(block.shape)
    axis = {"none": None, "left": -1, "up": -2}[block.filter]
    return codes if axis is None else np.cumsum(codes, axis=axis, dtype=np.uint8)


def _filtered(codes: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Differences (modulo 256) from the cell at the left, or from the one above."""
    if name == "none":
        return codes
    axis = -1 if name == "left" else -2
    first = np.take(codes, [0], axis=axis)
    return np.concatenate([first, np.diff(codes, axis=axis)], axis=axis)


def _deflated(array: NDArray) -> bytes:
    packer = zlib.compressobj(_EFFORT, zlib.DEFLATED, -15)
    return packer.compress(np.ascontiguousarray(array).tobytes()) + packer.flush()
