"""Flags of figures as a user types them: sizes, what files say of themselves, comparisons."""

from __future__ import annotations

import csv
import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import small_config, small_state_dict, training
from conftest import ROOT, demo_model
from PIL import Image
from pypdf import PdfReader

from detr_viz import cli, explain, heatmaps
from detr_viz.attention.terms import MODES
from detr_viz.demo.shapes import scene
from detr_viz.figures.styles import NORMS
from detr_viz.models.config import BackboneConfig

DETR, CD_DETR = (str(ROOT / f"weights/{name}_demo.pth") for name in ("detr", "cd_detr"))
SHA256 = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (DETR, CD_DETR)}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder as the working directory, with one image in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(2_000_000_100, 160).rgb).save("shapes.png")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Type a command about the image; what it prints, once it is sure that it went well."""

    def typed(*argv: str) -> list[str]:
        coarse = [] if {"--dpi", "--preset", "--width"} & {*argv} else ["--dpi", "110"]
        code = cli.main(["--image", "shapes.png", *coarse, *argv])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out.splitlines()

    return typed


def written(lines: list[str]) -> list[str]:
    return [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]


def ids(lines: list[str]) -> list[list[int]]:
    """Query ids of the tables that were printed."""
    tables: list[list[int]] = []
    for line in lines:
        if line.split()[:2] == ["query", "class"]:
            tables.append([])
        elif tables and line[:5].strip().isdecimal():
            tables[-1].append(int(line[:5]))
    return tables


def small(path: str, type: str, nheads: int, **sizes: object) -> str:
    content = training(small_state_dict(type, small_config(nheads=nheads, **sizes)))
    content["args"].nheads = nheads
    torch.save(content, path)
    return path


# --- what files say of themselves -------------------------------------------------------------


def facts_of(path: str) -> tuple[str, str, str]:
    """Title, software and description of a figure, by readers that are not ours."""
    if path.endswith(".png"):
        with Image.open(path) as picture:
            return tuple(picture.text[k] for k in ("Title", "Software", "Description"))
    if path.endswith(".pdf"):
        found = PdfReader(path).metadata
        return found["/Title"], found["/Creator"], found["/Subject"]
    dc = "{http://purl.org/dc/elements/1.1/}"
    root = ET.parse(path).getroot()
    title, creator, description = (
        next(root.iter(dc + k)) for k in ("title", "creator", "description")
    )
    return title.text, "".join(creator.itertext()).strip(), description.text


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_every_format_carries_the_facts(run, suffix):
    out = f"fig.{suffix}"
    looks = ["--style", "heat", "--norm", "query", "--cmap", "cividis", "--interpolation", "linear"]
    argv = ["--type", "detr", "cd_detr", "--plot", "position", "--queries", "top:1", *looks]
    run(*argv, "--layer", "0,2", "--scale", "layer", "--out", out)
    title, software, description = facts_of(out)
    assert title == "DETR and Conditional DETR: position attention of each head"
    assert re.fullmatch(r"detr_viz \d+\.\d+\.\d+", software)
    assert "\n" not in description
    for words in (
        "decoder layers 0 and 2 of 0\N{EN DASH}2;",
        "position p_q · p_k;",
        "logits at the layer's own scale; queries matched by box IoU;",
        "scale layer;",
        f"normalisation query ({NORMS['query']});",
        "style heat, linear interpolation, colour map cividis;",
        f"DETR: weights detr_demo.pth sha256 {SHA256[DETR]}",
        f"Conditional DETR: weights cd_detr_demo.pth sha256 {SHA256[CD_DETR]}",
        f"image shapes.png sha256 {hashlib.sha256(Path('shapes.png').read_bytes()).hexdigest()}",
    ):
        assert description.count(words) == 1, words


def test_each_look_is_another_figure_and_says_so(run):
    """The flag reaches the pixels and the metadata; its default is what it says."""
    base = ["--queries", "top:1", "--dpi", "100", "--out"]
    flags = {
        "style overlay": ["--style", "overlay"],
        "style heat, nearest": ["--style", "heat"],
        "style contour": ["--style", "contour"],
        "normalisation head": ["--norm", "head"],
        "normalisation query": ["--norm", "query"],
        "normalisation figure": ["--norm", "figure"],
        "colour map violet": ["--cmap", "violet"],
        "colour map magma": ["--cmap", "magma"],
        "overlay, linear interpolation": ["--interpolation", "linear"],
        "overlay, nearest interpolation": ["--interpolation", "nearest"],
    }
    files = set()
    for words, more in flags.items():
        run(*base, "a.png", *more)
        assert words in facts_of("a.png")[2]
        with Image.open("a.png") as picture:
            files.add(picture.tobytes())
    assert len(files) == len(flags)
    run(*base, "b.png")
    for defaults in ("--style overlay", "--norm even", "--zoom auto", "--font sans"):
        run(*base, "a.png", *defaults.split())
        assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def digest_of(path: str) -> str:
    with Image.open(path) as picture:
        return picture.text["Recipe"]


def test_zoom_contours_font_letters_and_notes_reach_the_figure_and_its_digest(run):
    """Each value is another picture and another recipe than without it, and than the others.

    But for the picture of --zoom none: of a map of 16 cells auto shows no view of 10.
    """
    base = ["--queries", "6,1", "--plot", "position", "--dpi", "60", "--out", "a.png"]
    lines = ["--style", "contour"]
    looks = [
        [],
        ["--zoom", "none"],
        ["--zoom", "2"],
        ["--zoom", "4.5"],
        ["--font", "serif"],
        ["--font", "DejaVu Sans Mono"],
        ["--letters"],
        ["--notes"],
        ["--letters", "--notes"],
        lines,
        [*lines, "--contours", "80"],
        [*lines, "--contours", "50,80"],
        [*lines, "--contours", "80,50"],
    ]
    pictures, digests = [], set()
    for argv in looks:
        run(*base, *argv)
        digests.add(digest_of("a.png"))
        with Image.open("a.png") as picture:
            pictures.append(picture.tobytes())
    assert len(digests) == len(looks)
    assert pictures[0] == pictures[1] and len(set(pictures)) == len(looks) - 1


def drawn_words(path: str) -> list[str]:
    """The texts that an SVG draws, without those of its metadata."""
    svg = "{http://www.w3.org/2000/svg}"
    return [
        "".join(node.itertext()).strip() for node in ET.parse(path).getroot().iter(svg + "text")
    ]


def test_letters_and_notes_in_words(run):
    """Letters count the queries; notes are the sentences that the facts have in any case."""
    run("--queries", "6,1", "--out", "plain.svg")
    run("--queries", "6,1", "--letters", "--notes", "--font", "serif", "--out", "full.svg")
    plain, full = drawn_words("plain.svg"), drawn_words("full.svg")
    assert [word for word in full if re.match(r"\(\w\)", word)] == ["(a) cross", "(b) circle"]
    assert {"cross", "circle"} <= set(plain) and not any(
        re.match(r"\(\w\)", word) for word in plain
    )
    for note in ("flat: no cell has twice the weight of an even map", "map of 16"):
        assert note in " ".join(full) and note not in " ".join(plain)
        assert note in facts_of("plain.svg")[2] and note in facts_of("full.svg")[2]
    fonts = [Path(path).read_text() for path in ("plain.svg", "full.svg")]
    assert ["DejaVu Serif" in text for text in fonts] == [False, True]


def test_a_zoom_shows_less_of_the_photo(run):
    """With a factor the photo beside the panels is a view, and the whole of it stands in it."""
    for zoom, count in (("none", 0), ("2", 1)):
        run("--queries", "1", "--zoom", zoom, "--out", "a.svg")
        assert Path("a.svg").read_text().count("#000000; stroke-width: 0.4;") == count


@pytest.mark.parametrize(
    ("argv", "inches", "dpi"),
    [
        (["--width", "4.6"], 4.6, 335),
        (["--preset", "column"], 3.25, 600),
        (["--preset", "page"], 6.875, 300),
        (["--preset", "slide"], 13.3, 150),
        (["--preset", "poster"], 23.4, 150),
        (["--width", "5"], 5, 335),
        (["--width", "85mm"], 85 / 25.4, 335),
        (["--width", "8.5cm", "--dpi", "200"], 8.5 / 2.54, 200),
        (["--width", "234pt", "--dpi", "100.5"], 3.25, 100.5),
        (["--preset", "slide", "--width", "10"], 10, 150),
        (["--preset", "page", "--dpi", "120"], 6.875, 120),
    ],
)
def test_sizes(run, argv, inches, dpi):
    run("--queries", "top:1", *argv, "--out", "fig.png")
    with Image.open("fig.png") as picture:
        assert inches * dpi * 0.985 - 1 < picture.width <= inches * dpi
        assert picture.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)


def test_vector_files_have_the_width_in_points(run):
    run("--queries", "top:1", "--preset", "column", "--out", "fig.pdf")
    (page,) = PdfReader("fig.pdf").pages
    assert 0.985 * 3.25 * 72 < float(page.mediabox.width) <= 3.25 * 72


# --- layers -----------------------------------------------------------------------------------


def test_several_layers_are_one_query_in_order(run):
    lines = run("--layer", "2,0", "--save-maps", "--caption")
    assert ids(lines) == [[1]]  # top:1, not top:5
    stem = "outputs/shapes_detr_combine_layers"
    ends = (".png", ".tex", "_layer0.npz", "_layer2.npz")
    assert written(lines) == [stem + end for end in ends]
    e = explain(demo_model("detr"), "shapes.png", layers="all")
    for layer in (0, 2):
        saved = heatmaps.load(f"{stem}_layer{layer}.npz")
        np.testing.assert_array_equal(saved.maps["combine"], e.maps("combine", [1], layer))
        assert saved.layers.tolist() == [layer] and saved.query_ids.tolist() == [1]
    first = Path(f"{stem}.png").read_bytes()
    run("--layer", "0,2")
    assert Path(f"{stem}.png").read_bytes() == first  # the order of the decoder, however written


def test_all_layers_with_all_modes_and_queries_of_ones_own(run):
    lines = run("--layer", "all", "--plot", "all", "--queries", "15,6", "--style", "contour")
    assert ids(lines) == [[15, 6]]
    (figure,) = written(lines)
    assert figure == "outputs/shapes_detr_all_layers_contour.png"
    title, _, description = facts_of(figure)
    assert title.startswith("DETR: combine, position and content")
    assert "decoder layers 0\N{EN DASH}2;" in description
    assert description.index("query 15") < description.index("query 6")


def test_one_layer_is_no_series(run):
    assert written(run("--layer", "0", "--queries", "1")) == ["outputs/shapes_detr_combine.png"]
    assert written(run("--layer", "last")) == ["outputs/shapes_detr_combine.png"]


# --- comparisons ------------------------------------------------------------------------------


def test_two_types_are_one_figure_of_the_same_objects(run):
    lines = run("--type", "detr", "cd_detr", "--queries", "6,1", "--plot", "all", "--save-maps")
    assert lines[0].startswith("demo checkpoint") and "demo" not in lines[-1]
    assert [line for line in lines if line.endswith(".pth)")] == [
        "DETR (detr_demo.pth)",
        "Conditional DETR (cd_detr_demo.pth)",
    ]
    first, second = ids(lines)
    assert first == [6, 1] and len(second) == 2  # ids are those of the first model
    stem = "outputs/shapes_detr_vs_cd_detr_all"
    ends = (".png", "_detr.npz", "_conditional_detr.npz")
    assert written(lines) == [stem + end for end in ends]
    for name, end, wanted in (("detr", ends[1], first), ("cd_detr", ends[2], second)):
        saved = heatmaps.load(stem + end)
        e = explain(demo_model(name), "shapes.png")
        assert saved.query_ids.tolist() == wanted and set(saved.maps) == set(MODES)
        for mode, maps in saved.maps.items():
            np.testing.assert_array_equal(maps, e.maps(mode, wanted))
        assert [e.label_name(q) for q in wanted] == ["cross", "circle"]
    description = facts_of(stem + ".png")[2]
    for name, queries in (("DETR", first), ("Conditional DETR", second)):
        assert re.findall(rf"(?<!l ){name}: \w+, \d\.\d\d, query (\d+)", description) == [
            str(q) for q in queries
        ]


def test_weights_tell_their_types_and_come_in_their_order(run):
    argv = ["--weights", CD_DETR, DETR, "--queries", "top:1", "--style", "heat"]
    lines = run(*argv)
    assert written(lines) == ["outputs/shapes_cd_detr_vs_detr_combine_heat.png"]
    before = Path(written(lines)[0]).read_bytes()
    Path(written(lines)[0]).unlink()
    assert written(run(*argv, "--type", "cd_detr", "detr")) == written(lines)
    assert Path(written(lines)[0]).read_bytes() == before


def test_one_type_for_all_weights_and_names_that_differ(run):
    """Two trainings of one model: called as their files, and files of maps never one for two."""
    names = ["run-a.pth", "run_a.pth"]
    for name in names:
        Path(name).write_bytes(Path(DETR).read_bytes())
    lines = run("--type", "detr", "--weights", *names, "--queries", "1", "--save-maps")
    assert ids(lines) == [[1], [1]]
    maps = [path for path in written(lines) if path.endswith(".npz")]
    assert len(set(maps)) == 2
    assert [heatmaps.load(path).meta["weights"] for path in maps] == names
    assert facts_of(written(lines)[0])[0].startswith("run-a and run_a: combine")


def test_flags_may_be_repeated(run):
    """What is written after each is one list, in its order."""
    Image.fromarray(scene(2_000_000_101, 160).rgb).save("other.png")
    rest = ["--queries", "top:1", "--save-maps", "--caption"]
    at_once = ["--image", "other.png", "--weights", CD_DETR, DETR, "--type", "cd_detr", "detr"]
    one_by_one = ["--type", "cd_detr", "--weights", CD_DETR, "--image", "other.png"]
    one_by_one += ["--weights", DETR, "--type", "detr"]
    found = []
    for argv in (at_once, one_by_one):
        run(*argv, *rest, "--quiet")
        with open("outputs/index.csv", newline="") as file:
            files = [row["files"].split(";") for row in csv.DictReader(file) if row["model"]]
        names = dict.fromkeys(f"outputs/{name}" for group in files for name in group)
        found.append({path: Path(path).read_bytes() for path in names})
    assert list(found[0]) == [
        f"outputs/{name}_cd_detr_vs_detr_combine{end}"
        for name in ("shapes", "other")
        for end in (".png", ".tex", "_conditional_detr.npz", "_detr.npz")
    ]
    assert found[0] == found[1]
    assert written(run("--type", "detr", "--type", "cd_detr", "--queries", "top:1")) == [
        "outputs/shapes_detr_vs_cd_detr_combine.png"
    ]


def test_two_models_whose_combine_is_not_the_same(run):
    """At the last layer Conditional DETR has no cross terms; with layer 0 no model is without."""
    whole, halves = "(c_q + p_q) · (c_k + p_k)", "c_q · c_k + p_q · p_k"
    argv = ["--type", "detr", "cd_detr", "--queries", "top:1", "--caption", "--out", "a.png"]
    run(*argv)
    said = facts_of("a.png")[2]
    assert f"; combine DETR {whole}; Conditional DETR {halves}; " in said
    tex = Path("a.tex").read_text()
    assert r"\emph{combine} (DETR $(c_q + p_q)" in tex and r"Conditional DETR $c_q" in tex
    run(*argv, "--layer", "all")
    assert f"; combine {whole}; " in facts_of("a.png")[2] and halves not in facts_of("a.png")[2]


def test_a_choice_that_one_model_alone_answers_to(run):
    """The other's query of that object is looked for, in the figure as in the list."""
    sure = {n: explain(demo_model(n), "shapes.png").scores > 0.99 for n in ("cd_detr", "detr")}
    assert sure["detr"].sum() == 4 and not sure["cd_detr"].any()
    argv = ["--type", *sure, "--queries", "score:0.99"]
    first, second = ids(run(*argv))
    assert sorted(second) == np.flatnonzero(sure["detr"]).tolist() and len(first) == 4
    assert ids(run(*argv, "--list-queries")) == [first, second]


def test_the_list_of_several_models(run, here):
    argv = ["--type", "detr", "cd_detr", "--list-queries", "--caption", "--save-maps"]
    assert [len(table) for table in ids(run(*argv))] == [20, 20]
    assert ids(run(*argv, "--layer", "all"))[0] == ids(run(*argv))[0]
    first, second = ids(run(*argv, "--queries", "19"))
    assert first == [19] and second == [9]  # the same circle, not query 19 of both
    assert [p.name for p in here.iterdir()] == ["shapes.png"]


def test_models_of_other_sizes_side_by_side(run):
    """Heads, layers, queries, classes and grid all differ."""
    a = small("a.pth", "detr", 4, dec_layers=1, num_queries=6, num_logits=5)
    coarse = BackboneConfig(block="basic", stem=8, widths=(8, 8, 16), blocks=(1, 1, 1))
    b = small("b.pth", "cd_detr", 2, dec_layers=4, num_queries=9, num_logits=3, backbone=coarse)
    argv = ["--weights", DETR, a, b, "--queries", "top:2", "--size", "128", "--max-size", "213"]
    lines = run(
        *argv, "--plot", "all", "--layer", "all", "--save-maps", "--caption", "--norm", "query"
    )
    figure, tex, *maps = written(lines)
    assert figure == "outputs/shapes_detr_vs_detr_vs_cd_detr_all_layers.png"
    stem = figure.removesuffix(".png")
    layers = {"detr_demo": 3, "a": 1, "b": 4}
    assert maps == [
        f"{stem}_{name}_layer{i}.npz" for name, count in layers.items() for i in range(count)
    ]
    heads = {"detr_demo": 8, "a": 4, "b": 2}
    for path in maps:
        name = path.removeprefix(f"{stem}_").split("_layer")[0]
        assert heatmaps.load(path).maps["position"].shape[1] == heads[name]
    description = facts_of(figure)[2]
    for words in (
        "detr_demo: decoder layers 0\N{EN DASH}2; a: decoder layer 0 of 0\N{EN DASH}0; "
        "b: decoder layers 0\N{EN DASH}3",
        "all models: map of 16 \N{MULTIPLICATION SIGN} 16 cells",
        "coarser cells spread evenly over these: b 8 \N{MULTIPLICATION SIGN} 8",
        "a: no match",
    ):
        assert words in description
    objects = len(re.findall("; a: (?:class|no match)", description))
    assert f"; and {objects - 2} more objects)" in Path(tex).read_text()


def test_what_is_assumed_of_one_model_says_of_which(run):
    torch.save(torch.load(DETR, weights_only=True)["model"], "bare.pth")
    small = ["--size", "128", "--max-size", "213"]
    lines = run("--weights", CD_DETR, "bare.pth", "--list-queries", *small)
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes[0].startswith("note: bare.pth: assumed 8 heads")
    assert len(notes) == 1
    lines = run("--type", "detr", "cd_detr", "--list-queries", "--size", "512")
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == ["note: --size 512 came down to 213, for --max-size is 213"]


# --- what goes beside -------------------------------------------------------------------------


def test_a_folder_of_several_images(run):
    Path("sub").mkdir()
    Image.fromarray(scene(2_000_000_101, 160).rgb).save("sub/shapes.png")
    argv = ["--image", "sub/shapes.png", "--type", "cd_detr", "--queries", "top:1", "--quiet"]
    run(*argv, "--style", "heat", "--out", "figs", "--caption", "--save-maps")
    stems = [f"figs/{name}_cd_detr_combine_heat" for name in ("shapes", "shapes-2")]
    made = [s + end for s in stems for end in (".png", ".tex", ".npz")]
    assert sorted(map(str, Path("figs").iterdir())) == sorted([*made, "figs/index.csv"])
    for stem in stems:
        tex = Path(f"{stem}.tex").read_text()
        assert f"]{{{Path(stem).name}.png}}" in tex and r" on \texttt{shapes.png}: " in tex


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (["--preset", "column"], "figure"),
        (["--width", "85mm"], "figure"),
        (["--preset", "page"], "figure*"),
        ([], "figure*"),
        (["--width", "8.5", "--dpi", "100"], "figure*"),
        (["--preset", "slide"], "figure*"),
    ],
)
def test_a_caption_is_for_the_columns_it_was_made_for(run, argv, environment):
    run("--queries", "top:1", "--caption", "--out", "fig.pdf", *argv)
    tex = Path("fig.tex").read_text()
    assert f"\\begin{{{environment}}}[t]" in tex
    (width,) = re.findall(r"  \\includegraphics\[width=(\S+)\]\{fig\.pdf\}", tex)
    (page,) = PdfReader("fig.pdf").pages
    if "slide" in argv:
        assert width == r"\linewidth"  # there is no page so wide
    else:
        assert 0 <= float(page.mediabox.width) / 72 - float(width.removesuffix("in")) < 0.0101
    assert f"% weights detr_demo.pth sha256 {SHA256[DETR]}" in tex


def test_captions_are_replaced_by_the_same(run):
    argv = ["--type", "detr", "cd_detr", "--queries", "top:2", "--caption", "--out", "a b%.png"]
    assert written(run(*argv)) == ["a b%.png", "a b%.tex"]
    first = Path("a b%.tex").read_bytes()
    run(*argv)
    assert Path("a b%.tex").read_bytes() == first
    for path in (DETR, CD_DETR):
        assert f"\\texttt{{{SHA256[path][:12]}}}".encode() in first


def test_the_table_of_an_early_layer_is_what_its_figure_shows(run):
    lines = run("--layer", "0", "--save-maps", "--out", "early.png")
    (header,) = (i for i, line in enumerate(lines) if line.split()[:2] == ["query", "class"])
    assert lines[header].endswith("of decoder layer 0")
    saved = heatmaps.load("early.npz")
    for row, line in enumerate(lines[header + 1 : header + 1 + len(saved.query_ids)]):
        query, name, score, *box = line.split()
        assert (int(query), name) == (saved.query_ids[row], saved.label_names[row])
        assert float(score) == pytest.approx(saved.scores[row], abs=6e-4)
        assert np.array(box, float) == pytest.approx(saved.boxes_xyxy_px[row], abs=0.06)
