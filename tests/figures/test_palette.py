"""Colours that are read in grey print and by all kinds of colour vision."""

from __future__ import annotations

import numpy as np
import pytest

from detr_viz.figures.page import scale
from detr_viz.figures.page.elements import ALERT, BOX_BLUE
from detr_viz.figures.styles import RAMPS, Style

# Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
# IEC 61966-2-1: linear sRGB to CIE XYZ, D65
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
JUST_SEEN = 2.3  # distance in CIE Lab that is just noticed (Mahy 1994)


def lab(rgb: np.ndarray, vision: str = "normal") -> np.ndarray:
    """CIE Lab of sRGB colours (..., 3) in 0..255, as a vision sees them."""
    c = np.asarray(rgb, float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISIONS[vision].T, 0, 1)
    t = linear @ XYZ.T / WHITE
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def rgb_of(color: str) -> np.ndarray:
    return np.array([*bytes.fromhex(color[1:])], float)


def test_lab_of_known_colours():
    """Values of the CIE formulas for the sRGB primaries, from Lindbloom's tables."""
    assert lab([255, 255, 255]) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab([255, 0, 0]) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)
    assert lab([0, 0, 255]) == pytest.approx([32.30, 79.19, -107.86], abs=0.1)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", RAMPS)
def test_lightness_falls_all_along_a_ramp(name, vision):
    """From near white to near black, in grey print and for every vision."""
    lut = scale.colors(Style(cmap=name)).astype(float)
    light = lab(lut, vision)[:, 0]
    assert (np.diff(light[::5]) < 0).all()  # 51 steps; bytes round each colour
    assert light[0] > 94 and light[-1] < 15
    assert (np.diff(light) < 0.4).all()


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", RAMPS)
def test_ticks_of_the_scale_differ_in_grey_print(name, vision):
    """x1, x4, x16, x64 and x256 lie ten of L* apart or more."""
    lut = scale.colors(Style(cmap=name)).astype(float)
    tones = scale.even_tone(np.array([1.0, 4, 16, 64, 256]))
    light = lab(lut[np.rint(tones * 255).astype(int)], vision)[:, 0]
    assert (np.diff(light) < -10).all()


@pytest.mark.parametrize("vision", VISIONS)
def test_the_two_sides_of_signed_maps_stay_apart(vision):
    """Equal values of either sign are never near to each other, and each side darkens."""
    lut = scale.signed_lut()
    values = np.arange(1, 128)
    below, above = lab(lut[128 - values], vision), lab(lut[127 + values], vision)
    apart = np.linalg.norm(below - above, axis=-1)
    strong = values >= 0.3 * 127
    assert apart[strong].min() > 8 * JUST_SEEN
    assert (np.sign(above[strong, 2] - below[strong, 2]) == 1).all()  # yellower against bluer
    for side in (below, above):
        assert (np.diff(side[::8, 0]) < 0).all()


@pytest.mark.parametrize("vision", VISIONS)
def test_the_blue_of_boxes_stands_out(vision):
    """From all colours of attention, from what a removal has changed and from greys of a photo."""
    box = lab(rgb_of(BOX_BLUE), vision)
    others = {name: scale.colors(Style(cmap=name)) for name in ("ember",)}
    others["alert"] = rgb_of(ALERT)[None]
    others["greys"] = np.arange(256)[:, None].repeat(3, 1)
    others["adds"] = scale.signed_lut()[128:]
    for name, colors in others.items():
        apart = np.linalg.norm(lab(colors, vision) - box, axis=-1)
        assert apart.min() > 8 * JUST_SEEN, name
