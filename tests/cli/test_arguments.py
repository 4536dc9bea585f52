"""Values of flags: what is understood, and the one line that says why not."""

from __future__ import annotations

import argparse

import pytest

from detr_viz.cli.arguments import (
    OneLineParser,
    colormap,
    contour_shares,
    dpi,
    layers,
    positive,
    width_in,
    zoom,
)

Refused = argparse.ArgumentTypeError


@pytest.mark.parametrize(
    ("text", "inches"),
    [
        ("3.25", 3.25),
        ("6.875in", 6.875),
        ("25.4mm", 1),
        ("85mm", 3.34646),
        ("85 mm", 3.34646),
        ("8.5cm", 3.34646),
        ("8.5CM", 3.34646),
        ("234pt", 3.25),
        (".5", 0.5),
        ("200", 200),
        ("1e1", 10),
    ],
)
def test_widths_come_out_in_inches(text, inches):
    assert width_in(text) == pytest.approx(inches, rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        *("", "mm", "in", "wide", "3.25ft", "8,5cm", "8 5mm", '3.25"', "85mmm", "0x3"),
        *("0", "-1", "-85mm", "nan", "inf", "-inf", "1e9", "nanmm", "0.49", "200.1", "5081mm"),
    ],
)
def test_what_is_no_width(text):
    with pytest.raises(Refused, match=r"not a width of 0\.5 to 200 inches \(write 3\.25 or 85mm\)"):
        width_in(text)


def test_resolutions():
    assert [dpi("20"), dpi("335.5"), dpi("2400")] == [20, 335.5, 2400]


@pytest.mark.parametrize("text", ["", "0", "-5", "19.9", "2401", "1e6", "nan", "inf", "300dpi"])
def test_what_is_no_resolution(text):
    with pytest.raises(Refused, match="not a resolution of 20 to 2400 dpi"):
        dpi(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("last", "last"),
        ("all", "all"),
        ("0", 0),
        ("12", 12),
        ("0,2", [0, 2]),
        ("2, 0", [2, 0]),
        ("1,1", [1, 1]),
    ],
)
def test_layers(text, meant):
    assert layers(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "0,",
        "0,,2",
        "-1",
        "0,-1",
        "all,0",
        "last,0",
        "first",
        "1.0",
        "1e0",
        "0;2",
        "9" * 10,
    ],
)
def test_what_is_no_layer(text):
    with pytest.raises(Refused, match=r"is not last, all, a layer from 0 or several layers"):
        layers(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("auto", "auto"), ("none", "none"), ("1", 1.0), ("2.5", 2.5), ("1e3", 1000.0)],
)
def test_zooms(text, meant):
    assert zoom(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "Auto", "0", "0.99", "-2", "nan", "inf", "1001", "2x", "200%", "1,5", "auto,2"],
)
def test_what_is_no_zoom(text):
    with pytest.raises(Refused, match="is no zoom: write auto, none, or a factor from 1 to 1000"):
        zoom(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("50", (0.5,)),
        ("50,80,95", (0.5, 0.8, 0.95)),
        ("50 80", (0.5, 0.8)),
        ("80,50", (0.8, 0.5)),  # the first is the full line
        ("1,99", (0.01, 0.99)),
    ],
)
def test_shares_of_contours(text, meant):
    assert contour_shares(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "50,", "50,,80", "0", "100", "50,100", "-5", "50.5", "0.5", "50%", "half"),
        *("50;80", "50,50", "5000", "50,050", "\N{SUPERSCRIPT TWO}"),
    ],
)
def test_what_are_no_contours(text):
    with pytest.raises(Refused, match="are no contours: write per cent from 1 to 99, such as"):
        contour_shares(text)


def test_colour_maps_are_left_to_matplotlib_but_for_what_no_name_can_be():
    assert colormap("viridis") == "viridis" and colormap("no_such") == "no_such"
    for text in ("", "  ", "x" * 61):
        with pytest.raises(Refused, match="not the name of a colour map"):
            colormap(text)


@pytest.mark.parametrize("read", [width_in, dpi, layers, positive, colormap, zoom, contour_shares])
def test_a_long_value_is_not_repeated_at_length(read):
    with pytest.raises(Refused) as caught:
        read("wrong\n" * 1000)
    assert len(str(caught.value)) < 150 and "\n" not in str(caught.value)


def said(capsys, argv: list[str]) -> str:
    parser = OneLineParser(prog="tool", allow_abbrev=False)
    parser.add_argument("--interpolation", choices=("cubic", "linear"))
    parser.add_argument("--width", type=width_in)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(argv)
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith("error: ") and err.endswith(" (see tool --help)\n")
    assert err.count("\n") == 1 and len(err) < 400
    return err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--width", "wide"], "argument --width: 'wide' is not a width"),
        (["--width", "-1"], "'-1' is not a width"),  # a number, not a flag
        (["--width=-1mm"], "'-1mm' is not a width"),
        (["--width"], "--width: expected one argument"),
        (["--interpolation", ""], "invalid choice: ''"),
        (["--interpolation", "cubic\nlinear"], "'cubic\\nlinear'"),
        (["--interpolation", "c" * 10_000], "..."),
        (["--interpolate", "cubic"], "did you mean --interpolation?"),
        (["--wdith", "3"], "did you mean --width?"),
        (["--zzz"], "unrecognized arguments: --zzz (see"),
        (["a\nb"], "unrecognized arguments: a b"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, words):
    assert words in said(capsys, argv)
