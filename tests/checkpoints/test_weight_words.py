"""Words of --weights and --type that people type: each is told the name that does it."""

from __future__ import annotations

import pytest

from detr_viz import models
from detr_viz.adapters import REGISTRY as ADAPTERS
from detr_viz.adapters import AdapterEntry
from detr_viz.checkpoints.downloads import KNOWN
from detr_viz.checkpoints.locate import check_weights
from detr_viz.checkpoints.type_names import aliases, type_name
from detr_viz.common.errors import UserError
from detr_viz.common.words import plain

FB = "https://dl.fbaipublicfiles.com/detr"
HUB = "https://huggingface.co/facebook"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("detr-r50-e632da11.pth", "--weights detr_resnet50,"),
        ("my/weights/DETR-R50-e632da11.pth", "--weights detr_resnet50,"),
        (r"C:\weights\detr-r101-2c7b67e5.pth", "--weights detr_resnet101,"),
        ("detr-r50-e632da11 (1).pth", "--weights detr_resnet50,"),
        (f"{FB}/detr-r50-dc5-f0fb7ef5.pth", "--weights detr_resnet50_dc5,"),
        (f"{FB}/detr-r50-e632da11.pth?download=1#x", "--weights detr_resnet50,"),
        ("http://a.b/ConditionalDETR_r101_epoch50.pth", "--weights conditional_detr_resnet101,"),
        (f"{HUB}/detr-resnet-50", "give hf:facebook/detr-resnet-50, or detr_resnet50:"),
        (f"{HUB}/detr-resnet-101/tree/main", "give hf:facebook/detr-resnet-101, or detr_resnet101"),
        (f"{HUB}/detr-resnet-50/blob/v2/model.safetensors", "give hf:facebook/detr-resnet-50@v2,"),
        ("hf.co/me/mine", "give hf:me/mine"),
        ("https://huggingface.co/datasets/me", "it is no model"),
        ("facebook/detr-resnet-50", "hf:facebook/detr-resnet-50 if it is on the Hugging Face hub"),
        ("microsoft/conditional-detr-resnet-50", "or conditional_detr_resnet50:"),
        ("DETR-ResNet-50", "did you mean detr_resnet50?"),
        ("detr_resnet5O", "did you mean detr_resnet50?"),
        ("detr-r50-e632da1.pth", "did you mean detr_resnet50 (detr-r50-e632da11.pth)?"),
        ("https://a.b/c.pth", "download it, and give the file"),
        ("hf:facebook", "hf:owner/name"),
        ("mine.pth", "--list-models"),
    ],
)
def test_weights_that_are_not_there(words, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        check_weights(words, None)
    line = str(caught.value)
    assert name in line and "\n" not in line
    assert f"mean {words}" not in line and f"or {words}" not in line


def test_each_released_file_is_known_by_its_address_and_its_name():
    for known in KNOWN.values():
        for words in (known.url, known.filename):
            with pytest.raises(UserError, match=f"give --weights {known.name},"):
                check_weights(words, None)
        assert check_weights(known.name, known.type) is None
        with pytest.raises(UserError, match="leave --type out"):
            check_weights(known.name, next(n for n in models.names() if n != known.type))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("detr", "detr"),
        ("DETR", "detr"),
        *((word, "cd_detr") for word in ("cd-detr", "CD_DETR", "conditional_detr")),
        *(
            (word, "cd_detr")
            for word in ("conditional-detr", "Conditional DETR", "ConditionalDETR")
        ),
        ("toy-thing", "toy_thing"),
        ("My Toy", "toy_thing"),
        ("toythng", None),
        ("", None),
    ],
)
def test_words_of_type(word, name, monkeypatch):
    monkeypatch.setitem(ADAPTERS, "toy_thing", AdapterEntry("no.module", "Toy", ("my-toy",)))
    if name is not None:
        assert type_name(word) == name
        return
    with pytest.raises(UserError, match="hoose from detr, cd_detr") as caught:
        type_name(word)
    assert ("did you mean toy_thing?" in str(caught.value)) is (word == "toythng")


def test_no_word_stands_for_two_types():
    words = [plain(w) for name, more in aliases().items() for w in {*map(plain, (name, *more))}]
    assert len(set(words)) == len(words)
