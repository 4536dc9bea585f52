"""Other people's models on the command line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image

from detr_viz import adapters, cli, explain, heatmaps, load_model
from detr_viz.adapters import AdapterEntry
from detr_viz.common.errors import UserError

transformers = pytest.importorskip("transformers")
RGB = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)


def saved(model_type, folder, processor):
    tiny.build(model_type).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rt_detr(tmp_path_factory):
    """A folder of save_pretrained, with its image processor: 96 x 128, stretched."""
    processor = transformers.RTDetrImageProcessor(size={"height": 96, "width": 128})
    return saved("rt_detr", tmp_path_factory.mktemp("rt_detr"), processor)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "a.png"
    Image.fromarray(RGB).save(path)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, argv, *words):
    """Exit code 2, one line with these words, and nothing written."""
    assert cli.main([*map(str, argv), "--out", "x/"]) == 2
    err = capsys.readouterr().err
    line = err.splitlines()[-1]
    assert line.startswith("error: ") and all(word in line for word in words), err
    from pathlib import Path

    assert not list(Path("x").glob("*"))


def test_figure_npz_batch_record_and_check(rt_detr, photo, capsys):
    """One folder through the command: the numbers are those of the library."""
    argv = ["--weights", str(rt_detr), "--queries", "top:2", "--jobs", "1"]
    assert cli.main([*argv, "--image", str(photo), "--out", "one/", "--save-maps"]) == 0
    said = capsys.readouterr()
    assert "Loading weights" not in said.err + said.out
    assert "images are resized by RT-DETR's own image processor" in said.out + said.err
    alone = heatmaps.load("one/a_rt_detr_combine.npz")
    e = explain(load_model(rt_detr), photo)
    ids = e.by_score()[:2]
    np.testing.assert_allclose(alone.maps["combine"], e.maps("combine", ids), atol=1e-6)
    assert alone.class_names[0] == "class 0" if hasattr(alone, "class_names") else True
    folder = photo.parent / "many"
    folder.mkdir()
    for name in "ab":
        shutil.copy(photo, folder / f"{name}.png")
    batch = [*argv, "--image", str(folder), "--out", "many", "--format", "png,npz"]
    assert cli.main(batch) == 0
    many = heatmaps.load("many/a_rt_detr_combine.npz")
    np.testing.assert_array_equal(many.maps["combine"], alone.maps["combine"])
    record = ["record", "--weights", str(rt_detr), "--image", str(photo), "--out", "base"]
    assert cli.main(record) == 0
    capsys.readouterr()
    assert cli.main(["check", "base", "--anywhere"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 same"


def test_encoder_decoder_and_ablation(rt_detr, photo):
    argv = ["--weights", str(rt_detr), "--image", str(photo), "--queries", "top:1", "--quiet"]
    assert cli.main([*argv, "--attention", "encoder", "--out", "e/"]) == 0
    assert cli.main([*argv, "--attention", "decoder", "--out", "d/"]) == 0
    assert cli.main([*argv, "--ablate", "head:1", "--out", "h.png"]) == 0


def test_what_cannot_be_done_is_one_line(rt_detr, photo, capsys):
    argv = ["--weights", rt_detr, "--image", photo]
    refused(capsys, [*argv, "--size", "300"], "RT-DETR's own image processor decides the size")
    refused(capsys, [*argv, "--rollout"], "no rollout of RT-DETR", "within one level")
    refused(capsys, [*argv, "--plot", "terms"], "the logits of RT-DETR are sums of")
    refused(capsys, [*argv, "--precision", "bfloat16"], "RT-DETR runs in float32 here")
    refused(capsys, [*argv, "--prompt", "a cat"], "RT-DETR has classes of its own")
    refused(capsys, [*argv, "--type", "d_fine"], "is RT-DETR, not D-FINE")
    refused(capsys, [*argv, "--type", "detr"], "is RT-DETR, not of --type detr")
    refused(capsys, ["--type", "rt_detr"], "no demo checkpoint", "hf:PekingU/rtdetr_r50vd")


def test_folders_that_are_not_whole(rt_detr, photo, tmp_path, capsys):
    argv = ["--image", photo, "--weights"]
    alone = shutil.copytree(rt_detr, tmp_path / "alone")
    (alone / "preprocessor_config.json").unlink()
    refused(capsys, [*argv, alone], "no preprocessor_config.json")
    config = json.loads((rt_detr / "config.json").read_text())
    other = shutil.copytree(rt_detr, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({**config, "decoder_layers": 3}))
    refused(capsys, [*argv, other], "of the weights of RT-DETR", "save it again")
    wide = shutil.copytree(rt_detr, tmp_path / "wide")
    (wide / "config.json").write_text(json.dumps({**config, "decoder_ffn_dim": 48}))
    refused(capsys, [*argv, wide], "wide")
    no_weights = shutil.copytree(rt_detr, tmp_path / "none")
    (no_weights / "model.safetensors").unlink()
    refused(capsys, [*argv, no_weights], "no weights")


def test_a_network_that_the_installed_transformers_lacks(rt_detr, photo, monkeypatch, capsys):
    from transformers.models.auto import configuration_auto

    monkeypatch.setattr(configuration_auto, "CONFIG_MAPPING", {"detr": object})
    words = f"is RT-DETR, which transformers {transformers.__version__} does not have"
    refused(capsys, ["--image", photo, "--weights", rt_detr], words, "pip install --upgrade")


def test_code_of_a_folder_is_never_run(rt_detr, photo, tmp_path, capsys):
    folder = shutil.copytree(rt_detr, tmp_path / "evil")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "evil.C", "AutoModelForObjectDetection": "evil.M"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    assert cli.main(["--weights", str(folder), "--image", str(photo), "--out", "a.png"]) in (0, 2)
    assert not (tmp_path / "ran").exists()


def test_without_transformers_one_line(rt_detr, photo, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    argv = ["--weights", rt_detr, "--image", photo]
    refused(capsys, argv, "is RT-DETR, which needs transformers: run pip install 'detr-viz[hf]'")


@pytest.mark.parametrize("model_type", ["detr", "conditional_detr", "deformable_detr"])
def test_our_network_and_theirs_agree(model_type, tmp_path):
    """The same folder, run by this project's network and by that of transformers."""
    names = {"detr": "Detr", "conditional_detr": "ConditionalDetr"}
    name = names.get(model_type, "DeformableDetr")
    processor = getattr(transformers, f"{name}ImageProcessor")
    processor = processor(size={"shortest_edge": 96, "longest_edge": 160})
    from hf_factory import small

    if model_type == "deformable_detr":
        folder = saved(model_type, tmp_path / "m", processor)
    else:
        folder = tmp_path / "m"
        small(model_type).save_pretrained(folder)
        processor.save_pretrained(folder)
    picture = np.array(Image.fromarray(RGB).resize((128, 96)))  # as both resize it: not at all
    ours = explain(load_model(folder), picture, layers="all", sites=["encoder", "decoder"])
    theirs = load_model(folder, network="transformers")
    assert type(theirs).__name__ == "AttachedDetector"
    e = explain(theirs, picture, layers="all", sites=["encoder", "decoder"])
    np.testing.assert_allclose(e.boxes_xyxy_px, ours.boxes_xyxy_px, atol=0.05)
    np.testing.assert_allclose(e.scores, ours.scores, atol=1e-4)
    assert e.modes == ours.modes and e.sites == ours.sites
    assert [g.hw for g in e.grids()] == [g.hw for g in ours.grids()]
    for mode in e.modes:
        for layer in e.layers:
            kwargs = {"mode": mode, "layer": layer}
            np.testing.assert_allclose(e.maps(**kwargs), ours.maps(**kwargs), atol=2e-4)
        encoder = [x.attention(("encoder", 0), mode) for x in (e, ours)]
        np.testing.assert_allclose(*encoder, atol=2e-4)


# ---- --model: a file of the user's --------------------------------------------------------------

SCRIPT = """
import fifty_lines
import detr_viz

def build():
    return detr_viz.attach(fifty_lines.built(), **fifty_lines.ATTACHED, title="Fifty lines")

def wrong():
    raise KeyError("no such weights")

def other():
    return fifty_lines.built()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "my_file.py"
    path.write_text(SCRIPT)
    return path


def test_a_function_of_a_file(script, photo, capsys):
    argv = ["--model", f"{script}:build", "--image", str(photo), "--queries", "top:1"]
    assert cli.main([*argv, "--out", "a.png"]) == 0
    said = capsys.readouterr()
    assert f"the code of {script} is run" in said.out + said.err
    with Image.open("a.png") as picture:
        assert "Fifty lines" in picture.text["Title"]


def test_a_file_that_gives_no_detector(script, photo, capsys):
    def line(name, *words):
        refused(capsys, ["--image", photo, "--model", name], *words)

    line("my_file.py", "is not FILE.py:FUNCTION")
    line("none.py:build", "there is no file none.py")
    line(f"{script}:missing", "has no function missing")
    line(f"{script}:wrong", "failed (line 9): KeyError: 'no such weights'")
    line(f"{script}:other", "gave a FiftyLines, not a detector: return detr_viz.attach")
    script.write_text("import no_such_package\n")
    line(f"{script}:build", "failed (line 1): ModuleNotFoundError")
    script.write_text("def build(:\n")
    line(f"{script}:build", "failed (line 1): SyntaxError")
    argv = ["record", "--model", f"{script}:build", "--out", "x"]
    assert cli.main(argv) == 2
    assert "a baseline does not keep --model" in capsys.readouterr().err


# ---- entry points -------------------------------------------------------------------------------


def test_an_installed_package_registers_by_entry_point(monkeypatch):
    import importlib.metadata as metadata

    point = metadata.EntryPoint("toy_sampled", "toys.sampled_adapter", "detr_viz.adapters")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    monkeypatch.setattr(adapters.registry, "REGISTRY", dict(adapters.REGISTRY))
    monkeypatch.setattr(adapters, "REGISTRY", adapters.registry.REGISTRY)
    model = load_model(type="toy_sampled")
    assert model.info.title == "Toy sampler"
    gone = AdapterEntry("no_such_module", "Gone")
    monkeypatch.setitem(adapters.registry.REGISTRY, "gone", gone)
    with pytest.raises(UserError, match="adapter gone cannot be imported"):
        load_model(type="gone")


def test_list_models_says_how_each_is_reached(capsys):
    assert cli.main(["--list-models"]) == 0
    out = capsys.readouterr().out
    assert "RT-DETR: hf:PekingU/rtdetr_r50vd" in out
    assert "Grounding DINO: hf:IDEA-Research/grounding-dino-tiny, with --prompt" in out
    assert "with --network transformers" in out and "--model FILE.py:FUNCTION" in out


def test_help_and_mistakes_import_no_transformers():
    import subprocess
    import sys

    code = (
        "import sys\nfrom detr_viz import cli\ncli.main(['--list-models'])\n"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
