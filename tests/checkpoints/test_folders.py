"""What lies in a Hugging Face folder, or in a folder below: shards, checkpoints, snapshots."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from hf_factory import save, small
from safetensors.torch import load_file, save_file

from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.load_model import load_model
from detr_viz.checkpoints.locate import check_weights
from detr_viz.common.errors import UserError

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder of a transformers model, its state dict as it is read)."""
    folder = save(small("detr", "own"), tmp_path_factory.mktemp("hf") / "model")
    return folder, load_checkpoint(folder).state_dict


def same(checkpoint, expected):
    assert checkpoint.state_dict.keys() == expected.keys()
    assert all(torch.equal(checkpoint.state_dict[key], expected[key]) for key in expected)


def test_shards_are_read_from_where_the_index_places_each_tensor(tmp_path, model):
    """As transformers itself writes them, in either format; a stale tensor elsewhere is not."""
    source, expected = model
    for number, (form, name, write) in enumerate(
        [
            ("model{}.safetensors", "model.safetensors.index.json", save_file),
            ("pytorch_model{}.bin", "pytorch_model.bin.index.json", torch.save),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(source / "config.json", folder)
        tensors = load_file(source / "model.safetensors")
        keys = sorted(tensors)
        weight_map = {}
        for i in range(3):
            shard = form.format(f"-{i + 1:05}-of-00003")
            part = {key: tensors[key] for key in keys[i::3]}
            weight_map |= dict.fromkeys(part, shard)
            part[keys[(i + 1) % 3]] = torch.zeros(1)  # of an earlier save
            write(part, folder / shard)
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        for weights in (folder, folder / name):
            check_weights(weights, None)
            same(load_checkpoint(weights), expected)
        with pytest.raises(UserError, match="one of several shards: give its folder"):
            load_checkpoint(folder / shard)
        text = (folder / name).read_text()
        (folder / name).unlink()
        with pytest.raises(UserError, match=rf"lacks {name} \(3 shards are there\)"):
            load_checkpoint(folder)
        (folder / name).write_text(text)
        (folder / shard).unlink()
        with pytest.raises(UserError, match=f"lacks '{re.escape(shard)}', which {name} names"):
            load_checkpoint(folder)


def test_transformers_own_shards(tmp_path, model):
    source, expected = model
    transformers = pytest.importorskip("transformers")
    theirs = transformers.DetrForObjectDetection.from_pretrained(source)
    theirs.save_pretrained(tmp_path / "m", max_shard_size="60KB")
    assert (tmp_path / "m" / "model.safetensors.index.json").is_file()
    same(load_checkpoint(tmp_path / "m"), expected)


@pytest.mark.parametrize(
    ("place", "fragment"),
    [
        ("../other/model.safetensors", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("..\\other\\model.safetensors", "outside its folder"),
        ("C:\\model.safetensors", "outside its folder"),
        ("", "outside its folder"),
        ("absent.safetensors", "lacks 'absent.safetensors'"),
        ("part.safetensors", "lacks 'model.wanted', which"),
    ],
)
def test_an_index_that_cannot_be_followed(tmp_path, model, place, fragment):
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copy(model[0] / "config.json", folder)
    (tmp_path / "other").mkdir()
    shutil.copy(model[0] / "model.safetensors", tmp_path / "other")
    save_file({"x": torch.zeros(1)}, folder / "part.safetensors")
    index = {"weight_map": {"model.wanted": place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=re.escape(fragment)) as raised:
        load_checkpoint(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("inside", "given"),
    [
        ("checkpoint-500", "out"),
        (f"snapshots/{HASH}", "models--owner--name"),
        (f"models--owner--name/snapshots/{HASH}", "hub"),
        (HASH, "snapshots"),
        ("best", "run"),
    ],
)
def test_the_only_checkpoint_in_a_folder_is_taken_and_named(tmp_path, model, inside, given):
    top = tmp_path / given
    (top / "runs").mkdir(parents=True)
    shutil.copytree(model[0], top / inside)
    (top / "empty" / "snapshots").mkdir(parents=True)
    (top / "half").mkdir()
    shutil.copy(model[0] / "config.json", top / "half")  # without weights
    checkpoint = load_checkpoint(top)
    same(checkpoint, model[1])
    assert checkpoint.notes[0] == f"{inside} is used, the only checkpoint in {given}"
    assert checkpoint.path == str(top / inside)


def test_several_are_named_the_last_one_as_the_way_out(tmp_path, model):
    for steps in (500, 1000, 1500):
        shutil.copytree(model[0], tmp_path / "out" / f"checkpoint-{steps}")
    with pytest.raises(UserError) as raised:
        load_checkpoint(tmp_path / "out")
    assert str(raised.value) == (
        f"{tmp_path}/out holds 3 checkpoints (checkpoint-500, checkpoint-1000, checkpoint-1500): "
        f"give one of them, as {tmp_path}/out/checkpoint-1500"
    )
    same(load_checkpoint(tmp_path / "out" / "checkpoint-500"), model[1])
    for file in model[0].iterdir():  # what the Trainer saves at its end comes first
        shutil.copy(file, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").notes == ()


def test_the_preprocessing_may_lie_above_a_trainers_checkpoint(tmp_path, model):
    out = tmp_path / "out"
    shutil.copytree(model[0], out / "checkpoint-500")
    (out / "preprocessor_config.json").write_text('{"size": 48, "max_size": 77}')
    for weights in (out, out / "checkpoint-500", out / "checkpoint-500" / "model.safetensors"):
        assert load_model(weights, device="cpu").input_hw((30, 80)) == (29, 77)
    own = out / "checkpoint-500" / "preprocessor_config.json"
    own.write_text('{"size": 40, "max_size": 60}')
    assert load_model(out, device="cpu").input_hw((30, 80)) == (22, 60)
    shutil.copytree(model[0], out / "other")  # no folder of the Trainer
    assert load_model(out / "other", device="cpu").input_hw((30, 80)) == (500, 1333)


def test_class_names_by_id(tmp_path, model):
    """Keys are strings in any order, and a gap is called by its number."""
    source, _ = model
    config = json.loads((source / "config.json").read_text())
    for number, (labels, names) in enumerate(
        [
            ({"0": "a", "1": "b", "2": "c"}, ("a", "b", "c")),
            ({"2": "c", "0": "a", "1": "b"}, ("a", "b", "c")),
            ({"2": "c", "0": "a"}, ("a", "class 1", "c")),
            ({"2": "c"}, ("class 0", "class 1", "c")),
            ({"0": "N/A", "1": "b", "2": "c"}, ("N/A", "b", "c")),
            ({"0": "a", "1": None, "2": ""}, None),  # one name, three classes
            ({"0": None, "1": "", "2": "c"}, ("class 0", "class 1", "c")),
            (None, ("x", "y", "z")),  # label2id's
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(source / "model.safetensors", folder)
        content = config | {"id2label": labels, "label2id": {"y": 1, "x": 0, "z": 2}}
        (folder / "config.json").write_text("\ufeff" + json.dumps(content))  # as editors save it
        assert load_checkpoint(folder).class_names == names
