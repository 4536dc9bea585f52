"""preprocessor_config.json decides the input: table of all its forms, against transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_factory import save, small
from PIL import Image

from detr_viz import cli
from detr_viz.checkpoints.load_model import load_model
from detr_viz.common.errors import UserError
from detr_viz.explanation.explain_image import explain
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.heatmaps.npz import load_meta
from detr_viz.images.read import load_image
from detr_viz.images.resize import normalised
from detr_viz.render.recipe import Recipe, of_models
from detr_viz.render.run import inputs_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
HW = (30, 80)  # of the image: the bound on the longer side holds in most forms


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small transformers model, saved without preprocessor_config.json."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    save(small("detr", "own"), folder)
    return folder


@pytest.fixture
def folder(weights, tmp_path):
    """write(content, name) -> a folder of the same weights with this file beside them."""

    def write(content, name="preprocessor_config.json"):
        target = tmp_path / f"model_{len(list(tmp_path.iterdir()))}"
        target.mkdir()
        for file in weights.iterdir():
            (target / file.name).symlink_to(file)
        text = content if isinstance(content, str) else json.dumps(content)
        (target / name).write_text(text)
        return target

    return write


@pytest.fixture(scope="module")
def picture():
    rgb = np.random.default_rng(0).integers(0, 256, (HW[0] // 5, HW[1] // 5, 3), np.uint8)
    return np.asarray(Image.fromarray(rgb).resize(HW[::-1], Image.Resampling.BICUBIC))


def edges(short, long):
    return {"size": {"shortest_edge": short, "longest_edge": long}}


FORMS = {  # name -> (the file, the words of the note)
    "number": ({"size": 48}, "sizes 48/1333 from"),
    "number, max_size": ({"size": 48, "max_size": 77}, "sizes 48/77 from"),
    "feature extractor": (
        {"feature_extractor_type": "DetrFeatureExtractor", "size": 64, "max_size": 101},
        "sizes 64/101 from",
    ),
    "edges": (edges(48, 77), "sizes 48/77 from"),
    "edges, no bound": (edges(48, 1333), "sizes 48/1333 from"),
    "max": ({"size": {"max_height": 50, "max_width": 70}}, "size at most 50 x 70 px"),
    "max, upright": ({"size": {"max_height": 40, "max_width": 400}}, "size at most 40 x 400 px"),
    "exact": ({"size": {"height": 64, "width": 96}}, "size 64 x 96 px"),
    "list": ({"size": [64, 96]}, "size 64 x 96 px"),
    "not resized": ({"do_resize": False, **edges(48, 77)}, "images not resized"),
    "no size": ({"image_mean": [0.5, 0.4, 0.3]}, "sizes 800/1333 from"),
    "mean and std": ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **edges(48, 77)}, "48/77"),
    "one mean": ({"image_mean": 0.5, "image_std": 0.25, **edges(48, 77)}, "48/77"),
    "factor": ({"rescale_factor": 1 / 127.5, **edges(48, 77)}, "48/77"),
    "no factor": ({"do_rescale": False, **edges(48, 77)}, "48/77"),
    "not normalised": ({"do_normalize": False, **edges(48, 77)}, "48/77"),
    "neither": ({"do_normalize": False, "do_rescale": False, **edges(48, 77)}, "48/77"),
    "bicubic": ({"resample": 3, **edges(48, 77)}, "48/77"),
    "nearest": ({"resample": 0, **edges(48, 77)}, "48/77"),
    "not padded": ({"do_pad": False, **edges(48, 77)}, "48/77"),
    "annotations": ({"do_convert_annotations": False, "format": "coco_detection"}, "800/1333"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_input_is_that_of_transformers(folder, picture, form):
    transformers = pytest.importorskip("transformers")
    content, words = FORMS[form]
    model = load_model(folder(content), device="cpu")
    known = {k: v for k, v in content.items() if k != "feature_extractor_type"}
    processor = transformers.DetrImageProcessor(**known)
    by_pillow = getattr(transformers, "DetrImageProcessorPil", transformers.DetrImageProcessor)
    assert any(words in note and "preprocessor_config.json" in note for note in model.info.notes)
    for rgb in (picture, picture.transpose(1, 0, 2).copy()):
        image = Image.fromarray(rgb)
        expected = by_pillow(**known)(image, return_tensors="pt")["pixel_values"]
        hw = model.input_hw(rgb.shape[:2])
        assert hw == expected.shape[-2:]
        assert hw == processor(image, return_tensors="pt")["pixel_values"].shape[-2:]
        pixels = model.info.preprocessing_at().resized(load_image(rgb))
        made = model.prepare(pixels[None])
        assert (made - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())


def test_the_size_of_many_images_is_that_of_transformers(folder):
    """Rounding at the bound: sides of 1 to 3000 pixels, and the sizes people have."""
    transforms = pytest.importorskip("transformers.image_transforms")
    utils = pytest.importorskip("transformers.image_utils")
    rng = np.random.default_rng(1)
    images = [tuple(map(int, hw)) for hw in rng.integers(40, 3000, (300, 2))]
    bounded = load_model(folder(edges(800, 1333)), device="cpu")
    within = load_model(folder({"size": {"max_height": 640, "max_width": 480}}), device="cpu")
    official = load_model(device="cpu")
    apart = 0
    for hw in images:
        assert bounded.input_hw(hw) == transforms.get_size_with_aspect_ratio(hw, 800, 1333)
        expected = utils.get_image_size_for_max_height_width(hw, 640, 480)
        assert within.input_hw(hw) == expected
        apart += bounded.input_hw(hw) != official.input_hw(hw, 800, 1333)
    assert apart  # the official rule is another one where the bound holds


@pytest.mark.parametrize(
    ("content", "hw", "words"),
    [
        ({"size": {"longest_edge": 100}}, (38, 100), "longest_edge alone"),
        ({"size": {"shortest_edge": 60}}, (60, 160), "without a bound"),
        ({"size": {"shortest_edge": 60}, "max_size": 80}, (30, 80), "sizes 60/80"),
        ({"image_processor_type": "ViTImageProcessor", "size": 48}, (48, 128), "ViTImageProcessor"),
        ({"do_center_crop": True, **edges(48, 77)}, (29, 77), "do_center_crop"),
    ],
)
def test_what_transformers_does_not_do_is_said(folder, content, hw, words):
    model = load_model(folder(content), device="cpu")
    assert model.input_hw(HW) == hw
    assert any(words in note for note in model.info.notes)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab", "run git lfs pull"),
        ({"size": "big"}, "size 'big'"),
        ({"size": 0}, "size 0"),
        ({"size": True}, "size True"),
        ({"size": 80.5}, "size 80.5"),
        ({"size": {"min_pixels": 9, "max_pixels": 99}}, "size {"),
        ({"size": {"height": 9}}, "size {"),
        ({"size": {"height": -1, "width": 9}}, "size {"),
        ({"size": [9, 9, 9]}, "size [9"),
        ({"size": 48, "max_size": "wide"}, "max_size 'wide'"),
        ({"do_resize": "no"}, "do_resize 'no'"),
        ({"image_mean": [0.5, 0.5]}, "image_mean [0.5"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std [0.5"),
        ({"rescale_factor": 0}, "rescale_factor 0"),
        ({"rescale_factor": float("inf")}, "rescale_factor inf"),
        ({"resample": 9}, "resample 9"),
        ({"resample": "bilinear"}, "resample 'bilinear'"),
        ({"pad_size": 99}, "pad_size 99"),
        ({"pad_size": {"height": 99}}, "pad_size {"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_a_line(folder, content, fragment):
    with pytest.raises(UserError) as raised:
        load_model(folder(content), device="cpu")
    text = str(raised.value)
    assert fragment in text and "preprocessor_config.json" in text and "\n" not in text


def test_transformers_5_may_write_it_into_processor_config(folder):
    content = {"image_processor": edges(48, 77), "processor_class": "X"}
    assert load_model(folder(content, "processor_config.json"), device="cpu").input_hw(HW) == (
        29,
        77,
    )


def test_a_single_file_of_the_folder_and_other_precisions_keep_it(folder):
    here = folder({"image_mean": [0.5] * 3, **edges(48, 77)})
    for model in (
        load_model(here / "model.safetensors", device="cpu"),
        load_model(here, device="cpu", precision="float64"),
    ):
        assert model.input_hw(HW) == (29, 77)
        assert model.info.preprocessing.mean == (0.5, 0.5, 0.5)


def test_without_the_file_all_is_as_it_was(weights):
    model = load_model(weights, device="cpu")
    assert (model.size, model.max_size, model.info.preprocessing) == (800, 1333, None)
    assert model.input_hw((480, 640)) == (800, 1066)
    assert any("no preprocessor_config.json beside the weights" in note for note in model.notes)
    assert not load_model(device="cpu").notes


# ---- padding ------------------------------------------------------------------------------------

PADDED = {"pad_size": {"height": 90, "width": 100}, **edges(48, 77)}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["detr", "conditional_detr"])
def test_a_padded_image_gives_what_transformers_gives(tmp_path, picture, kind):
    transformers = pytest.importorskip("transformers")
    theirs = small(kind, "own")
    here = save(theirs, tmp_path / "padded")
    (here / "preprocessor_config.json").write_text(json.dumps(PADDED))
    by_pillow = getattr(transformers, "DetrImageProcessorPil", transformers.DetrImageProcessor)
    inputs = by_pillow(**PADDED)(Image.fromarray(picture), return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (90, 100)
    assert inputs["pixel_mask"].sum() == 29 * 77
    raw = theirs.eval()(**inputs, output_attentions=True)
    e = explain(load_model(here, device="cpu"), picture, layers="all")
    # (x1, y1, x2, y2) in pixels of the photo, as post_process_object_detection gives them
    x, y, w, h = raw.pred_boxes[0].unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    boxes = corners * torch.tensor([HW[1], HW[0], HW[1], HW[0]])
    np.testing.assert_allclose(e.boxes_xyxy_px, boxes.numpy(), atol=0.005)
    scores = raw.logits.sigmoid() if e.pairwise else raw.logits.softmax(-1)[..., :-1]
    np.testing.assert_allclose(e.class_scores, scores[0].numpy(), atol=2e-5)
    for layer, expected in enumerate(raw.cross_attentions):
        maps = e.maps("combine", list(range(7)), layer)
        expected = expected[0].transpose(0, 1).unflatten(-1, e.grid(layer).hw)
        np.testing.assert_allclose(maps, expected.numpy(), atol=2e-5)
    assert e.input_hw == (29, 77) and e.grid(0).input_hw == (90, 100)
    assert e.meta["preprocessing"]["pad_hw_px"] == [90, 100]
    assert "padded to 90 x 100" in " ".join(e.meta["notes"])


def test_padding_holds_where_there_is_room(folder, picture):
    model = load_model(folder(PADDED), device="cpu")
    narrow = load_model(folder({**PADDED, "pad_size": {"height": 50, "width": 100}}), device="cpu")
    with pytest.raises(UserError, match="30 x 20 pixels becomes 72 x 48"):
        narrow.input_hw((30, 20))
    e = explain(model, picture, size=60, max_size=300)  # the flags overrule: no room, no padding
    assert e.input_hw == e.grid(1).input_hw == (60, 160)
    assert explain(model, picture, size=24).grid(1).input_hw == (90, 100)
    unpadded = load_model(folder({**PADDED, "do_pad": False}), device="cpu")
    assert explain(unpadded, picture).grid(1).input_hw == (29, 77)


def test_no_view_looks_at_the_padding(folder, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here = folder(PADDED)
    e = explain(load_model(here, device="cpu"), picture)
    grid = e.grid(e.num_layers - 1)
    rows = -(-29 * grid.hw[0] // 90)  # cells that the mask leaves, by nearest pixel
    columns = -(-77 * grid.hw[1] // 100)
    assert rows * columns < grid.cells
    maps = e.maps("combine", [0, 1])
    np.testing.assert_allclose(maps[..., :rows, :columns].sum((-1, -2)), 1, atol=1e-5)
    measured = faithfulness(e, [0], ["combine"])
    steps = measured.shares * rows * columns
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)
    Image.fromarray(picture).save("a.png")
    argv = ["--weights", str(here), "--image", "a.png", "--queries", "top:1"]
    for name, flags in {
        "b": ["--attention", "cross", "encoder", "decoder"],
        "c": ["--rollout"],
        "d": ["--faithfulness"],
        "e": ["--ablate", "position"],
    }.items():
        assert cli.main([*argv, *flags, "--out", f"{name}/"]) == 0, capsys.readouterr()


# ---- every way an image takes ------------------------------------------------------------------


def test_all_ways_give_the_network_the_same_pixels(folder, picture, tmp_path):
    """explain, a worker's inputs_of and the flags, for two models with different files."""
    content = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3, "resample": 3}
    models = [
        load_model(folder({**content, "size": {"height": 64, "width": 96}}), device="cpu"),
        load_model(folder(edges(48, 77)), device="cpu"),
    ]
    recipe = of_models(models, Recipe(()))
    image = load_image(picture)
    exact, bounded = inputs_of(image, recipe)
    by_hand = Image.fromarray(picture)
    assert np.array_equal(exact, by_hand.resize((96, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(bounded, by_hand.resize((77, 29), Image.Resampling.BILINEAR))
    prepared = models[0].prepare(exact[None])
    expected = normalised(exact[None], "cpu", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert torch.equal(prepared, expected)
    e = explain(models[0], picture)
    assert e.input_hw == (64, 96)
    meta = e.meta["preprocessing"]
    assert meta["exact_hw_px"] == [64, 96] and meta["size_px"] is None
    assert meta["mean"] == [0.5, 0.4, 0.3] and meta["resize"] == "Pillow bicubic on uint8"
    assert meta["source"] == "preprocessor_config.json"
    with torch.no_grad():
        raw = models[0].network(prepared)
    scores = models[0].spec.class_probabilities(raw["pred_logits"])[0].max(-1).values
    np.testing.assert_allclose(e.scores, scores.numpy(), atol=1e-5)
    overruled = [*inputs_of(image, replace(recipe, size=40, max_size=90))]
    assert [a.shape[:2] for a in overruled] == [(34, 90), (34, 90)]
    assert explain(models[0], picture, size=40, max_size=90).input_hw == (34, 90)


def test_the_digest_depends_on_it_and_on_the_flags(folder, picture):
    image = load_image(picture)
    here = folder(edges(800, 1333))
    plain, other = (
        of_models([load_model(f, device="cpu")], Recipe(()))
        for f in (here, folder({"image_mean": [0.5] * 3, **edges(800, 1333)}))
    )
    digests = {r.digest(image) for r in (plain, other, replace(plain, size=48))}
    assert len(digests) == 3
    assert plain.digest(image) == replace(plain, size=800, max_size=1333).digest(image)


def shown_hw(path):
    return load_meta(path)["preprocessing"]["input_hw_px"]


@pytest.mark.parametrize("jobs", [None, "1"], ids=["one image", "batch"])
def test_runs_say_it_and_the_flags_overrule(folder, picture, tmp_path, capsys, monkeypatch, jobs):
    monkeypatch.chdir(tmp_path)
    here = str(folder({"size": {"height": 64, "width": 96}}))
    (tmp_path / "pictures").mkdir()
    names = ["a"] if jobs is None else ["a", "b"]
    for name in names:
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{name}.png")
    argv = ["--weights", here, "--image", "pictures", "--queries", "top:1", "--save-maps"]
    argv += [] if jobs is None else ["--jobs", jobs]
    note = "size 64 x 96 px (height x width, aspect not kept)"
    for out, flags, hw, words in (
        ("own", [], [64, 96], f"{note} from preprocessor_config.json"),
        (
            "given",
            ["--size", "48", "--max-size", "77"],
            [29, 77],
            f"sizes 48/77: --size and --max-size overrule preprocessor_config.json ({note})",
        ),
    ):
        assert cli.main([*argv, *flags, "--out", f"{out}/"]) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count(words) == 1
        made = sorted((tmp_path / out).glob("*.npz"))
        assert len(made) == len(names)
        for path in made:
            assert shown_hw(path) == hw
            assert words in " ".join(load_meta(path)["notes"])


def test_baselines_are_made_again_by_the_same_rule(folder, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here = folder({"image_std": [0.2] * 3, "size": {"height": 64, "width": 96}})
    Image.fromarray(picture).save("a.png")
    record = ["record", "--weights", str(here), "--image", "a.png", "--queries", "top:1"]
    assert cli.main([*record, "--out", "base"]) == 0
    assert "size 64 x 96 px" in capsys.readouterr().out
    (path,) = (tmp_path / "base").glob("*.npz")
    assert shown_hw(path) == [64, 96]
    assert cli.main(["check", "base"]) == 0
    (here / "preprocessor_config.json").write_text(json.dumps(edges(48, 77)))
    capsys.readouterr()
    assert cli.main(["check", "base"]) == 1
    assert "exact_hw_px" in capsys.readouterr().out


def test_the_atlas_takes_it_too(folder, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here = str(folder({"size": {"height": 64, "width": 96}}))
    Image.fromarray(picture).save("a.png")
    argv = ["atlas", "--weights", here, "--image", "a.png", "--queries", "top:2", "--jobs", "1"]
    assert cli.main([*argv, "--out", "own"]) == 0
    assert "size 64 x 96 px" in capsys.readouterr().out
    assert cli.main([*argv, "--size", "48", "--out", "given"]) == 0
    assert "--size overrules preprocessor_config.json" in capsys.readouterr().out
    tables = [next((tmp_path / out).glob("*.csv")).read_text() for out in ("own", "given")]
    assert tables[0] != tables[1]
