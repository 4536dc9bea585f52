"""Every Python example of the README and of the pages is run, in the order of its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import detr_viz

sys.path.append(str(ROOT / "tests/adapters"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: str) -> list[str]:
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


WITH = [str(path.relative_to(ROOT)) for path in PAGES if FENCE.search(path.read_text("utf-8"))]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder where the paths of the examples lead to this project's files."""
    for name in ("weights", "image"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("photo.jpg", "image.jpg"):
        (tmp_path / name).symlink_to(ROOT / "image/photo_cat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def run(codes: list[str], names: dict[str, object]) -> dict[str, object]:
    for code in codes:
        exec(compile(code, "example", "exec"), names)
    return names


def test_each_page_with_examples_is_tried_here():
    assert WITH == ["README.md", "README.zh-CN.md", "docs/annotations.md", "docs/checkpoints.md",
                    "docs/explorer.md", "docs/library.md", "docs/notebook.md",
                    "docs/regression.md", "docs/your_model.md"]  # fmt: skip


@pytest.mark.parametrize("page", WITH)
def test_examples_import_public_names_only(page):
    for code in examples(page):
        for module, names in re.findall(r"^ *from (detr_viz[\w.]*) import (.*)$", code, re.M):
            assert module == "detr_viz"
            assert set(names.split(", ")) <= set(detr_viz.__all__)
        for name in re.findall(r"\bdetr_viz\.(\w+)", code):
            assert name in detr_viz.__all__


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_text_names_public_names_only(path):
    """Files are named by their paths, modules that are run by python -m."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(
        r"`(?:[^`\n]*[ (])?detr_viz\.(\w+)", re.sub(r"python -m detr_viz\S*", "", text)
    )
    known = {*detr_viz.__all__, "__all__"}
    assert set(named) - {"attention"} <= known  # its module has the mathematics alone


def test_annotations(place):
    content = {
        "images": [{"id": 1, "file_name": "scene_1.jpg"}],
        "categories": [{"id": 1, "name": "Star"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}],
    }
    (place / "instances.json").write_text(json.dumps(content))
    names = run(examples("docs/annotations.md"), {})
    assert names["e"].truth.boxes_xyxy_px.tolist() == [[10, 20, 40, 60]]
    assert names["e"].class_names[names["e"].truth.labels[0]] == "star"
    assert "annotated objects" in Image.open(place / "with_truth.png").text["Description"]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readme(page, place):
    (code,) = examples(page)
    names = run([code], {})
    e, maps = names["e"], names["maps"]
    assert maps.shape == (3, 8, *e.grid_hw) and np.allclose(maps.sum((2, 3)), 1, atol=1e-5)
    assert names["terms"].shape == (3, 8) and names["after"].shape == (e.num_queries,)
    assert (place / "figure.pdf").read_bytes()[:5] == b"%PDF-"
    assert names["ax"].images and (place / "map.png").stat().st_size > 1000
    names["plt"].close("all")


def test_the_library_page(place):
    import matplotlib

    matplotlib.use("Agg")
    codes = examples("docs/library.md")
    first = run(codes[:1], {})
    (shown,) = re.findall(r">>> e\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    assert repr(first["e"]) == shown.strip()
    names = run(codes, {})
    for file in ("figure.pdf", "two_panels.pdf", "column.pdf", "compare.pdf", "rollout.png",
                 "faithfulness.png", "maps.npz"):  # fmt: skip
        assert (place / file).stat().st_size > 1000, file
    e = names["e"]
    assert repr(e).count("\n") == 2
    assert names["rollout"](e, [3]).both.shape == (1, 256)
    assert names["compare_maps"](names["maps"], names["load_maps"]("maps.npz")).same
    # each line that ends in a shape has it
    shape_at_end = re.compile(r"^((?:e\.|rollout|area)[^#\n]*)  # (\([1Q][^)]*\))", re.M)
    sizes = {"heads": 8, "h": 16, "w": 16, "h w": 256, "Q": 20}
    tried = 0
    for code, shape in shape_at_end.findall("\n".join(codes)):
        wanted = [int(sizes.get(n, n)) for n in shape.strip("()").rstrip(",").split(", ")]
        found = eval(code, names)
        if not isinstance(found, tuple):
            assert found.shape == tuple(wanted), code
            tried += 1
    assert tried >= 10
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_notebook_page(place):
    codes = examples("docs/notebook.md")
    names = run(codes, {})
    assert (place / "page.html").read_text(encoding="utf-8") == names["e"].explore().text
    calls = [line for code in codes for line in code.splitlines() if line.startswith("e.plot(")]
    assert len(calls) == 5
    for call in calls:
        assert eval(call, names)._repr_png_()[0][:4] == b"\x89PNG"


def test_the_fixture_of_pytest(place):
    (code,) = examples("docs/regression.md")
    head = "from detr_viz import explain, load_model\nmodel = load_model(type='cd_detr')\n"
    (place / "test_maps.py").write_text(head + code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_maps.py"]
    plugin = ["-p", "detr_viz.regression.pytest_plugin"]
    first, again = (
        subprocess.run([*command, *plugin], capture_output=True, text=True, cwd=place)
        for _ in range(2)
    )
    assert first.returncode == 1 and "1 failed" in first.stdout, first.stdout
    assert again.returncode == 0 and "1 passed" in again.stdout, again.stdout


def test_models_of_transformers(place, monkeypatch):
    transformers = pytest.importorskip("transformers")
    import tiny_models as tiny

    code, keep = examples("docs/your_model.md")[:2]
    model, processor = tiny.model("rt_detr"), tiny.processor_of("rt_detr")
    with monkeypatch.context() as patch:
        for auto, thing in (
            (transformers.AutoImageProcessor, processor),
            (transformers.AutoModelForObjectDetection, model),
        ):
            given = staticmethod(lambda name, thing=thing: thing)  # in place of a download
            patch.setattr(auto, "from_pretrained", given)
        names = run([code], {"paths": ["photo.jpg", "image/scene_1.jpg"]})
    assert len(names["explanations"]) == 2 and names["e"].num_queries > 0
    own = transformers.RTDetrImageProcessor(size={"height": 96, "width": 128})
    run([keep], {"model": model, "processor": own})
    saved = detr_viz.load_model("my_finetuned_folder", device="cpu")
    assert saved.info.num_queries == names["e"].num_queries


def test_a_checkpoint_of_your_own(place):
    (code,) = examples("docs/checkpoints.md")
    network = detr_viz.load_model(type="detr").network  # of six classes and 128 px
    import torch

    demo = torch.load("weights/detr_demo.pth", weights_only=True)
    stated = code.replace('["cat", "remote"]', "[*'abcdef']")

    class Model:
        def state_dict(self):
            return demo["model"]

    run([stated], {"model": Model()})
    model = detr_viz.load_model("my.pth", device="cpu")
    assert model.class_names == tuple("abcdef") and (model.size, model.max_size) == (800, 1333)
    assert model.notes == () and type(model.network) is type(network)


def test_a_network_of_your_own(place, monkeypatch):
    import torch
    from fifty_lines import FiftyLines
    from torch import nn

    class Detector(nn.Module):
        """Of the fifty lines, with the batch first."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = FiftyLines()

        def forward(self, pixels):
            return {name: part.transpose(0, 1) for name, part in self.inner(pixels).items()}

    warnings.simplefilter("ignore")  # torch's advice on nested tensors
    torch.save(Detector().state_dict(), "my.pth")
    own, fifty = examples("docs/your_model.md")[2:4]
    names = {"MyDetector": Detector}
    own = own.replace('["cat", "remote"]', "[*'abcdef']")  # the small network has six
    d = run([own], names)["build"]()
    assert detr_viz.explain(d, "photo.jpg").num_queries == 9
    d = run([fifty], {"model": FiftyLines().eval(), "detr_viz": detr_viz})["d"]
    e = detr_viz.explain(d, np.asarray(Image.open("photo.jpg").resize((96, 64))))
    assert e.modes == ("combine",) and e.num_queries == 9


@pytest.mark.parametrize("number", [4, 5])
def test_networks_of_packages(number):
    """Compiled everywhere; adapters/test_recipes.py runs them where the packages are installed."""
    pieces = examples("docs/your_model.md")
    assert len(pieces) == 6
    compile(pieces[number], "example", "exec")
    keywords = set(re.findall(r"^    (\w+)=", pieces[number], re.M))
    assert keywords and keywords <= set(detr_viz.attach.__kwdefaults__)


def test_the_explorer_page(place):
    names = run(examples("docs/explorer.md"), {})
    assert (place / "scene_1.html").read_text(encoding="utf-8") == names["e"].explore().text
