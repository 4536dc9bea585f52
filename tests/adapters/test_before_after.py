"""Two fine-tunings of one model of transformers: side by side, and in a test run of the user's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny
import torch
from PIL import Image

from detr_viz import cli, heatmaps

transformers = pytest.importorskip("transformers")
sys.path.append(str(Path(__file__).parents[1] / "regression"))
from test_pytest_plugin import ran  # noqa: E402

RGB = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)


if "dab-detr" not in tiny.installed_types():
    pytest.skip("DAB-DETR is not in this transformers", allow_module_level=True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(RGB).save("a.png")
    return tmp_path


def save(model, folder):
    model.save_pretrained(folder)
    size = {"shortest_edge": 96, "longest_edge": 160}
    transformers.ConditionalDetrImageProcessor(size=size).save_pretrained(folder)


def test_queries_of_two_fine_tunings_are_matched_by_boxes(here, capsys):
    """The second has the same queries in another order: query n is query order[n] of the first."""
    order = [3, 5, 0, 6, 1, 4, 2]
    first = tiny.build("dab-detr")
    save(first, "before")
    with torch.no_grad():
        for name, value in first.named_parameters():
            if "query_refpoint" in name or ("query" in name and len(value) == 7):
                value.copy_(value[order].clone())
        first.class_embed.bias.add_(0.2)
    save(first, "after")
    argv = ["--weights", "before", "after", "--image", "a.png", "--queries", "top:3"]
    assert cli.main([*argv, "--save-maps", "--out", "x/"]) == 0
    tables = re.split(r"DAB-DETR \((?:before|after)\)", capsys.readouterr().out)[1:]
    rows = [re.findall(r"^ +(\d+)  .*?((?: +-?[\d.]+){4})$", t, re.MULTILINE) for t in tables]
    assert len(rows) == 2 and len(rows[0]) == 3
    for (query, box), (other, other_box) in zip(*rows, strict=True):
        assert order[int(other)] == int(query) and int(other) != int(query)
        np.testing.assert_allclose(*(np.fromstring(b, sep=" ") for b in (box, other_box)), atol=0.2)
    both = [heatmaps.load(path) for path in sorted(here.glob("x/*.npz"), key=str)]
    after, before = both if "after" in str(sorted(here.glob("x/*.npz"))[0]) else both[::-1]
    same = [after.query_ids.tolist().index(order.index(q)) for q in before.query_ids]
    np.testing.assert_allclose(before.maps["combine"], after.maps["combine"][same], atol=1e-4)


TEST = """
import warnings
import numpy as np
import transformers
from detr_viz import explain

def test_where_it_looks(heatmap_regression):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForObjectDetection.from_pretrained("m")
        processor = transformers.AutoImageProcessor.from_pretrained("m")
    e = explain(model, "a.png", processor=processor)
    heatmap_regression.check(e, atol=0.01, max_tv=0.05)
"""


def test_the_fixture_of_pytest_with_a_model_of_the_user_s(here):
    save(tiny.build("dab-detr"), "m")
    kinds, printed = ran(here, TEST)
    assert kinds == {"failed": 1} and list(here.glob("**/*.npz")), printed  # written, to be read
    assert ran(here, TEST)[0] == {"passed": 1}
    model = tiny.build("dab-detr")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "decoder" in name and value.ndim > 1:
                value.mul_(1.5)
    save(model, "m")
    kinds, printed = ran(here, TEST)
    assert kinds == {"failed": 1} and "test_where_it_looks" in printed
    assert re.search(r"combine +\d class \d +1 +\d", printed), printed
