"""Recipes: what is the same work, and which files are known again."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import ROOT, demo_model
from handmade import annotated

from detr_viz.explanation.explain_image import explain
from detr_viz.figures.styles import PageFormat, Style
from detr_viz.images.loaded_image import ImageFacts
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.images.read import load_image
from detr_viz.render.file_digests import carries, replaced_by
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import ModelFacts, Recipe, of_models
from detr_viz.render.run import draw, measure

MODEL = ModelFacts("detr", "a.pth", "ab" * 32, 8, False, ("cat", "dog"), 800, 1333)
PLAIN = Recipe((MODEL,))


def digest(recipe: Recipe) -> str:
    return recipe.digest_of("cd" * 32, "val/cat.jpg")


@pytest.mark.parametrize(
    "same",
    [
        replace(PLAIN, style=Style("overlay", "even", None, None, None, "auto", (0.5,))),
        replace(PLAIN, style=Style(contours=(0.5, 0.8))),  # lines of another style
        replace(PLAIN, page_format=PageFormat(4.6, 335, font="sans", letters=False, notes=False)),
        replace(PLAIN, size=800, max_size=1333),
        replace(PLAIN, models=(replace(MODEL),)),
        replace(PLAIN, page_format=PageFormat.of()),
    ],
)
def test_what_is_left_to_a_default_is_the_same_recipe(same):
    assert digest(same) == digest(PLAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Style("heat"), Style("heat", interpolation="nearest")),
        (Style(zoom=2), Style(zoom=2.0)),
        (Style("contour"), Style("contour", contours=(0.5,))),
    ],
)
def test_a_value_written_in_two_ways_is_the_same_recipe(one, other):
    assert digest(replace(PLAIN, style=one)) == digest(replace(PLAIN, style=other))


LOOKS = {
    "name": ("heat", "contour"),
    "norm": ("head", "query", "figure"),
    "cmap": ("violet", "viridis"),
    "interpolation": ("smooth", "cubic", "linear", "nearest"),
    "heads": ("mean", (0, 3), (3, 0)),
    "zoom": ("none", 1.5, 2.0),
    "contours": ((0.8,), (0.5, 0.8), (0.8, 0.5)),
    "levels": ("all", (0,), (0, 2)),
    "truth": (True,),
}
PAGES = {
    "width_in": (5.0,),
    "dpi": (200,),
    "type_size": (1.1,),
    "height_in": (8.0,),
    "grid": (True,),
    "font": ("serif", "Carlito"),
    "letters": (True,),
    "notes": (True,),
}


def test_every_part_of_the_look_counts():
    """smooth too: without an interpolation large cells, and those of a view, are not smoothed."""
    assert set(LOOKS) == {field.name for field in fields(Style)}
    assert set(PAGES) == {field.name for field in fields(PageFormat)}
    lines = replace(PLAIN, style=Style("contour"))
    others = [lines]
    for name, values in LOOKS.items():
        start = lines if name == "contours" else PLAIN
        others += [replace(start, style=replace(start.style, **{name: v})) for v in values]
    del others[1 + LOOKS["name"].index("contour")]  # the same as the first
    for name, values in PAGES.items():
        page = PLAIN.page_format
        others += [replace(PLAIN, page_format=replace(page, **{name: v})) for v in values]
    assert len({digest(recipe) for recipe in [PLAIN, *others]}) == 1 + len(others)


def test_layers_are_the_same_in_any_order():
    assert digest(replace(PLAIN, layer=(2, 0))) == digest(replace(PLAIN, layer=(0, 2, 2)))


CHANGED = {
    "models": (replace(MODEL, sha256="ef" * 32),),
    "plot": "content",
    "queries": "top:4",
    "layer": 5,
    "scale": "layer",
    "style": Style("heat"),
    "page_format": PageFormat.of("column"),
    "size": 640,
    "max_size": 1000,
    "precision": "bfloat16",
    "device": "cuda",
    "software": ("torch 9",),
    "removed": ("head:3",),
    "removed_in": "last",
    "biography": True,
    "views": ("cross", "encoder"),
    "points": ("1,2",),
}


def test_every_part_of_a_recipe_and_of_a_model_counts():
    # words of commands name files by paths, which change no picture
    uncounted = {"free_style", "free_layer", "score", "words", "run_words"}
    assert {*CHANGED, *uncounted} == {field.name for field in fields(Recipe)}
    named = replace(PLAIN, words=(("--type", "detr"),), run_words=("--size", "99"))
    assert digest(named) == digest(PLAIN)
    others = [replace(PLAIN, **{name: value}) for name, value in CHANGED.items()]
    others[-1] = replace(others[-1], views=("encoder",))  # points are of no other view
    others.append(replace(PLAIN, views=("encoder",)))
    of_model = {
        "type": "cd_detr",
        "weights": "b.pth",
        "sha256": "ee" * 32,
        "nheads": 4,
        "dilation": True,
        "class_names": ("cat", "bird"),
        "size": 801,
        "max_size": 1334,
        "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5)),
    }
    assert {*of_model, "samples", "stages", "taps"} == {field.name for field in fields(ModelFacts)}
    others += [replace(PLAIN, models=(replace(MODEL, **{k: v}),)) for k, v in of_model.items()]
    others += [replace(PLAIN, models=(MODEL, MODEL)), replace(PLAIN, style=Style(cmap="inferno"))]
    assert len({digest(recipe) for recipe in [PLAIN, *others]}) == 1 + len(others)


def test_what_is_annotated_counts_where_errors_are_asked_for():
    image = ImageFacts((60, 80), "a.png", "ab" * 32, (), annotated(([1, 2, 3, 4], "cat")))
    moved = replace(image, annotated=annotated(([1, 2, 3, 5], "cat")))
    assert PLAIN.digest(image) == PLAIN.digest(moved) == replace(PLAIN, score=0.3).digest(image)
    asked = replace(PLAIN, queries="top:4&missed")
    others = [PLAIN, asked, replace(asked, score=0.3)]
    assert len({*(one.digest(image) for one in others), asked.digest(moved)}) == 4


SAMPLED = replace(PLAIN, models=(replace(MODEL, samples=True),))


def test_the_usual_style_is_that_of_the_attention_and_of_the_view():
    free = replace(PLAIN, free_style=True)
    assert digest(free) == digest(PLAIN) and free.stem("a", "cross") == PLAIN.stem("a", "cross")
    sampled = replace(SAMPLED, free_style=True)
    points = replace(SAMPLED, style=Style("points"))
    assert sampled.of_view("cross").style.name == "points"
    assert digest(sampled) == digest(points) != digest(SAMPLED) == digest(PLAIN)
    for other in ("encoder", "rollout", "faithfulness"):
        assert sampled.of_view(other).style.name == "overlay"
    both = replace(sampled, views=("cross", "encoder"))
    assert digest(both.of_view("encoder")) == digest(replace(SAMPLED, views=("encoder",)))
    assert digest(both) != digest(replace(both, free_style=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": ("head:3",)},
        {"biography": True},
        {"plot": "terms"},
        {"style": Style(norm="head")},
        {"style": Style(cmap="violet")},
        {"style": Style(interpolation="linear")},
        {"style": Style(heads="mean")},
        {"models": (replace(MODEL, samples=True), MODEL)},  # one style for both
    ],
)
def test_where_colours_are_asked_for_maps_stay_the_usual_style(changes):
    recipe = replace(SAMPLED, free_style=True, **changes)
    assert recipe.of_view("cross").style.name == "overlay"
    assert "overlay" not in recipe.stem("a", "cross")


def test_names_have_levels_and_a_style_that_is_not_the_usual_one():
    free = replace(SAMPLED, free_style=True)
    assert free.stem("a", "cross") == replace(free, style=Style(heads=(0,))).stem(
        "a", "cross"
    ).replace("_heads_0", "")
    assert free.stem("a", "cross").endswith("_combine")
    assert SAMPLED.stem("a", "cross").endswith("_combine_overlay")
    assert replace(SAMPLED, style=Style("points")).stem("a", "cross").endswith("_combine")
    assert replace(PLAIN, style=Style("heat")).stem("a", "cross").endswith("_heat")
    for levels, end in (("all", "_level_all"), ((0, 2), "_level_0_2")):
        recipe = replace(free, style=Style(levels=levels))
        assert recipe.stem("a", "cross").endswith(f"_combine{end}")
    one = replace(free, style=Style("points", heads="all-in-one"))
    assert one.stem("a", "cross").endswith("_heads_all-in-one")


def test_the_image_counts_by_its_bytes_and_its_name_not_by_its_folder():
    known = digest(PLAIN)
    assert PLAIN.digest_of("cd" * 32, "train/cat.jpg") == known
    assert PLAIN.digest_of("cd" * 32, "val/dog.jpg") != known
    assert PLAIN.digest_of("ce" * 32, "val/cat.jpg") != known
    assert PLAIN.digest_of("cd" * 32, "latin-\udce9.jpg") != known  # no UTF-8


FORMATS = (".png", ".pdf", ".svg", ".jpg", ".tif", ".eps", ".npz")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every kind of file, of a recipe of the demo."""
    folder = tmp_path_factory.mktemp("made")
    model = demo_model("detr")
    recipe = of_models([model], Recipe((), queries="top:1"))
    picture = load_image(str(ROOT / "image/scene_1.jpg"))
    found = [explain(model, picture)]
    paths = OutputPaths(folder, "a.b", FORMATS, caption=True)
    (written,) = draw(measure(found, recipe), picture, recipe, paths, "a")
    return recipe.digest(picture), written.files, picture


def test_the_digest_is_of_the_images_file(made):
    recipe = of_models([demo_model("detr")], Recipe((), queries="top:1"))
    path = Path(made[2].path)
    file = hashlib.sha256(path.read_bytes()).hexdigest()
    assert recipe.digest_of(file, path.name) == made[0]


def test_files_are_known_again_by_their_recipe(made, tmp_path):
    mine, files, _ = made
    assert {path.suffix for path in files} == {*FORMATS, ".tex"}
    for path in files:
        assert carries(path, mine), path
        assert not carries(path, "0" * 64), path
        assert not carries(tmp_path / path.name, mine)  # not there


def test_what_is_replaced_are_files_of_other_recipes_and_programs(made, tmp_path):
    mine, files, _ = made
    (foreign := tmp_path / "a.png").write_bytes(b"a picture")
    (damaged := tmp_path / "a.npz").write_bytes(b"PK")
    assert replaced_by(mine, [*files, tmp_path / "none.png"]) == ()
    assert replaced_by("0" * 64, [*files]) == files
    assert replaced_by(mine, [foreign, damaged]) == (foreign, damaged)


def test_a_file_that_is_cut_is_not_known(made, tmp_path):
    mine, files, _ = made
    for path in files:
        data = path.read_bytes()
        for size in (0, len(data) // 2, len(data) - 30):
            (cut := tmp_path / path.name).write_bytes(data[:size])
            assert not carries(cut, mine), (path, size)


def test_a_figure_of_many_queries_has_its_digest_within_reach(tmp_path):
    """The description of a figure of all queries is long, and comes before it."""
    model = demo_model("detr")
    recipe = of_models([model], Recipe((), queries="all", page_format=PageFormat.of(dpi=40)))
    picture = load_image("image/scene_1.jpg")
    paths = OutputPaths(tmp_path, "all", (".png", ".pdf", ".svg"))
    measured = measure([explain(model, picture)], recipe)
    (written,) = draw(measured, picture, recipe, paths, "scene_1")
    assert len(written.files) == 3
    for path in written.files:
        assert carries(path, recipe.digest(picture))


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({}, "detr_combine"),
        ({"plot": "cq.pk+pq.pk"}, "detr_cqpk+pqpk"),
        ({"style": Style(heads=(0, 3))}, "detr_combine_heads_0_3"),
        ({"style": Style("heat", heads="mean")}, "detr_combine_heads_mean_heat"),
        ({"biography": True, "queries": "9", "layer": "all"}, "detr_combine_biography_9"),
        ({"removed": ("head:3", "term:cq.pk")}, "detr_combine_ablated_head3_termcqpk"),
        ({"removed": ("content",), "removed_in": 1}, "detr_combine_ablated_content_in_1"),
        ({"removed": ("content",), "removed_in": (0, 2)}, "detr_combine_ablated_content_in_0_2"),
        ({"removed": tuple(f"head:{i}" for i in range(5))}, "detr_combine_ablated"),
        ({"layer": (0, 2)}, "detr_combine_layers"),
    ],
)
def test_files_are_named_after_what_they_show(more, label):
    assert replace(PLAIN, **more).label == label


def test_annotated_objects_count_only_where_they_are_shown():
    shown = replace(PLAIN, style=Style(truth=True))
    assert PLAIN.digest_of("ab", "a.png", "one") == PLAIN.digest_of("ab", "a.png", "other")
    assert PLAIN.digest_of("ab", "a.png") == PLAIN.digest_of("ab", "a.png", "one")
    known = {shown.digest_of("ab", "a.png", annotated) for annotated in ("", "one", "other")}
    assert len(known) == 3 and PLAIN.digest_of("ab", "a.png") not in known
    assert shown.uses_truth and not PLAIN.uses_truth
