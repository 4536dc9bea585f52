"""Files that are no checkpoint of ours: one line each, that names the file and the way out."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import BOTTLENECK, small_config, small_state_dict, training
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file

from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.common import assets
from detr_viz.common.errors import UserError

DETR = small_state_dict("detr")
CONDITIONAL = small_state_dict("cd_detr")


def refused(weights, *fragments, type=None, **flags):
    """Loading fails with one line that has these fragments, and the file's name."""
    with pytest.raises(UserError) as raised:
        load_checkpoint(weights, type, **flags)
    message = str(raised.value)
    assert "\n" not in message and len(message) < 400, message
    for fragment in (str(weights), *fragments):
        assert fragment in message
    return message


def torch_bytes(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zip_bytes(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x" * 200)
    return buffer.getvalue()


GOOD = torch_bytes({"model": DETR})
OLD = torch_bytes({"model": DETR}, _use_new_zipfile_serialization=False)
SAFE = safetensors_bytes(DETR)

FILES = {
    "empty": (b"", "is empty"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page"),
    "xml": (b"<?xml version='1.0'?><Error/>", "is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "text": (b"epoch 3, loss 4.5\n" * 9, "is a text file"),
    "json": (b'{"model": {"a": 1}}', "is a text file"),
    "json, brace at 8": (b'{"abcd":{"a": 1}}', "is a text file"),
    "noise": (bytes(range(3, 256)) * 9, "neither torch.save nor safetensors"),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0" + b"\0" * 99, "JPEG image"),
    "npy": (b"\x93NUMPY\x01\0" + b"\0" * 99, "NumPy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "HDF5"),
    "gguf": (b"GGUF\3\0\0\0" + b"\0" * 99, "a GGUF file: give a checkpoint of torch"),
    "pdf": (b"%PDF-1.7\n" + b"\1" * 99, "is a PDF: give a checkpoint"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"\1" * 99, "zstd-compressed: unpack it first"),
    "rar": (b"Rar!\x1a\7\0" + b"\1" * 99, "a RAR archive: unpack it first"),
    "annex": (b"/annex/objects/SHA256E-s9--ab.pth\n", "run git annex get"),
    "video": (b"\0\0\0\x18ftypmp42" + b"\0" * 99, "video: give a checkpoint"),
    "heic": (b"\0\0\0\x18ftypheic" + b"\0" * 99, "a HEIC photo: give a checkpoint, and the image"),
    "zeros": (bytes(4096), "full of zeros (a download that did not end?)"),
    "utf-16": (("epochs\n" * 9).encode("utf-16"), "is a text file"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 99, "unpack it"),
    "tar": (b"weights" + b"\0" * 250 + b"ustar\x0000" + b"\0" * 300, "unpack it"),
    "npz": (zip_bytes("maps.npy"), "zip archive that torch.save did not write"),
    "TorchScript": (zip_bytes("model/constants.pkl"), "TorchScript"),
    "zip, cut": (GOOD[: len(GOOD) // 2], "truncated or damaged"),
    "zip, a few bytes": (GOOD[:40], "truncated or damaged"),
    "zip, damaged pickle": (GOOD.replace(b"ctorch._utils", b"ctorch._utilz"), "torch._utilz"),
    "zip, damaged names": (
        GOOD.replace(b"archive/data/5", b"archive/data/\xfa"),
        "truncated or damaged",
    ),
    "old, cut in the data": (OLD[: len(OLD) - 999], "truncated or damaged"),
    "old, cut in the pickle": (OLD[:300], "truncated or damaged"),
    "old, a few bytes": (OLD[:5], "truncated or damaged"),
    "safetensors, cut": (SAFE[:-9], "truncated or damaged safetensors"),
    "safetensors, cut in the header": (SAFE[:100], "truncated or damaged safetensors"),
    "plain pickle": (pickle.dumps(DETR.keys().__len__()), "torch.save did not write"),
    "plain pickle, protocol 2": (pickle.dumps({"a": 1}, protocol=2), "torch.save did not write"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoint(tmp_path, name):
    data, fragment = FILES[name]
    file = tmp_path / "weights.pth"
    file.write_bytes(data)
    refused(file, fragment)


class Payload:
    """Unpickled without care, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_not_run(tmp_path, zipped):
    trap = tmp_path / "trap"
    file = tmp_path / "w.pth"
    content = {"model": DETR, "evil": Payload(trap)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    refused(file, "mkdir", "refused")
    assert not trap.exists()
    torch.load(file, weights_only=False)  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize(
    ("module", "who"),
    [
        ("ultralytics.nn.tasks", "YOLO checkpoint of ultralytics"),
        ("models.yolo", "YOLO"),
        ("models.detr", "a whole model"),
        ("mmengine.config", "OpenMMLab"),
        ("somebody.net", "asks for"),
    ],
)
def test_whole_models_and_other_classes_are_named(tmp_path, monkeypatch, module, who):
    file = tmp_path / "yolov8n.pt"
    made = type("DetectionModel", (torch.nn.Linear,), {"__module__": module})
    with monkeypatch.context() as patch:
        for depth in range(1, len(module.split(".")) + 1):
            name = ".".join(module.split(".")[:depth])
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[module].DetectionModel = made
        torch.save({"model": made(2, 2), "epoch": -1}, file)
    refused(file, f"{module}.DetectionModel", who, "model.state_dict()")


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"rng": np.random.default_rng(0)}, "numpy.random"),
        ({"log": functools.partial(int, 3)}, "functools.partial"),
        ({"args": argparse.Namespace(logger=io.StringIO)}, "io.StringIO"),
    ],
)
def test_a_pickle_that_wants_more_than_a_namespace(tmp_path, extra, name):
    file = tmp_path / "w.pth"
    torch.save(training(DETR, **extra), file)
    refused(file, name, "only plain weights are loaded")


def changed(key, value):
    return {**DETR, key: value}


def without(*keys):
    return {key: value for key, value in DETR.items() if key not in keys}


FIRST = "transformer.encoder.layers.0.linear1.weight"
NAN, INF = DETR[FIRST].clone(), DETR[FIRST].clone()
NAN[3, 4], INF[0, 0] = float("nan"), float("-inf")
HUGE = DETR[FIRST].double()
HUGE[0, 0] = 1e300

CONTENTS = {
    "list": ([DETR], "a list, not a dict"),
    "tensor": (torch.ones(3), "a Tensor, not a dict"),
    "nothing": ({}, "holds an empty dict"),
    "no weights": ({"epoch": 3, "optimizer": {"lr": 0.1}}, "holds no weights, only epoch"),
    "model is not a dict": ({"model": "detr_resnet50"}, "holds no weights"),
    "NaN": ({"model": changed(FIRST, NAN)}, f"{FIRST} has NaN or infinite"),
    "infinity": ({"model": changed(FIRST, INF)}, f"{FIRST} has NaN or infinite"),
    "beyond float32": ({"model": changed(FIRST, HUGE)}, f"{FIRST} has NaN or infinite"),
    "wrong shape": ({"model": changed(FIRST, torch.ones(24, 31))}, "(24, 31)", "(24, 32)"),
    "missing": ({"model": without("class_embed.bias", "input_proj.bias")},
                "lacks 2 of", "class_embed.bias, input_proj.bias"),
    "many missing": ({"model": {k: v for k, v in DETR.items() if "layers.1.norm" not in k}},
                     "lacks 6 of", "... 3 more"),
    "surplus": ({"model": changed("transformer.extra.weight", torch.ones(2))},
                "has 1 tensors beyond those of DETR", "transformer.extra.weight"),
    "a name with a line break": ({"model": changed("transformer.\nextra\x1b[31m", torch.ones(2))},
                                 "transformer.?extra?[31m"),
    "gap": ({"model": {k.replace("decoder.layers.1", "decoder.layers.3"): v
                       for k, v in DETR.items()}}, "lacks", "transformer.decoder.layers.1."),
    "absurd index": ({"model": changed("transformer.decoder.layers.99999.norm1.bias",
                                       torch.ones(32))}, "damaged"),
    "no queries": ({"model": without("query_embed.weight")}, "query_embed.weight"),
    "flat conv": ({"model": changed("backbone.0.body.conv1.weight", torch.ones(8))},
                  "backbone.0.body.conv1.weight"),
    "empty queries": ({"model": changed("query_embed.weight", torch.ones(0, 0))}, "query_embed"),
    "integers": ({"model": changed(FIRST, torch.ones(24, 32, dtype=torch.int8))}, "torch.int8"),
    "complex": ({"model": changed(FIRST, torch.ones(24, 32, dtype=torch.cfloat))}, "complex64"),
    "not a tensor": ({"model": changed(FIRST, [1.0])}, "is a list, not a tensor"),
    "meta": ({"model": changed(FIRST, torch.ones(24, 32, device="meta"))}, "has no data"),
    "sparse": ({"model": changed(FIRST, DETR[FIRST].to_sparse())}, "sparse"),
    "expanded": ({"model": changed("query_embed.weight", torch.ones(1, 1).expand(10**9, 32))},
                 "expanded view"),
    "pre-norm, half": ({"model": changed("transformer.encoder.norm.weight", torch.ones(32))},
                       "lacks 1 of", "transformer.encoder.norm.bias"),
    "pre-norm Conditional DETR": ({"model": {**CONDITIONAL, **{f"transformer.encoder.norm.{leaf}":
                                  torch.ones(32) for leaf in ("weight", "bias")}}},
                                  "pre-norm", "Conditional DETR does not have"),
    "pre-norm in args": ({"model": DETR, "args": argparse.Namespace(pre_norm=True)}, "pre-norm"),
    "learned positions, half": ({"model": changed("backbone.1.row_embed.weight",
                                                  torch.ones(50, 16))},
                                "lacks 1 of", "backbone.1.col_embed.weight"),
    "sine in args": ({"model": changed("backbone.1.row_embed.weight", torch.ones(50, 16)),
                      "args": argparse.Namespace(position_embedding="sine")},
                     "position_embedding=sine", "it has backbone.1.row_embed.weight"),
    "learned in args": ({"model": DETR, "args": argparse.Namespace(position_embedding="learned")},
                        "learned positions"),
    "three-channel head": ({"model": changed("bbox_embed.layers.2.weight", torch.ones(3, 32))},
                           "bbox_embed.layers.2.weight has shape (3, 32)"),
    "type in meta": ({"model": DETR, "meta": {"type": "cd_detr", "nheads": 8}}, "'cd_detr'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_torch_files_that_hold_no_network_of_ours(tmp_path, name):
    content, *fragments = CONTENTS[name]
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    refused(file, *fragments)


def dab(state_dict):
    """Its query is a box: refpoint_embed instead of query_embed."""
    kept = {k: v for k, v in state_dict.items() if k != "query_embed.weight"}
    return {**kept, "refpoint_embed.weight": torch.ones(6, 4)}


def named(*keys):
    return {key: torch.ones(2) for key in keys}


FOREIGN = {
    "Deformable DETR": named(
        "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight", "query_embed.weight"
    ),
    "DN-DETR or DINO": named("label_enc.weight", "transformer.level_embed.weight"),
    "DAB-DETR": dab(CONDITIONAL),
    "Anchor DETR": named("transformer.adapt_pos2d.0.weight", "transformer.pattern.weight"),
    "Salience DETR": named("transformer.enc_mask_predictor.layer1.0.weight"),
    "Sparse R-CNN": named("head.head_series.0.linear1.weight", "init_proposal_boxes.weight"),
    "RT-DETR": named("decoder.denoising_class_embed.weight", "encoder.input_proj.0.conv.weight"),
    "YOLO": named("model.0.conv.weight", "model.1.bn.bias", "model.22.dfl.conv.weight"),
    "a ResNet image classifier": named("conv1.weight", "layer1.0.conv1.weight", "fc.weight"),
    "R-CNN": named("rpn.head.conv.weight", "roi_heads.box_head.fc6.weight"),
    "OpenMMLab": named("backbone.layer1.0.conv1.weight", "bbox_head.fc_cls.weight"),
    "a vision transformer": named("blocks.0.attn.qkv.weight", "norm.weight"),
    "(encoder.weight, decoder.weight)": named("encoder.weight", "decoder.weight"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_networks_are_named(tmp_path, what):
    torch.save({"model": FOREIGN[what]}, tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth", what)
    assert "DETR" in message


def test_heads_must_divide_the_width(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"model": DETR}, file)
    refused(file, "5 heads", "width 32", "--nheads", nheads=5)
    refused(file, "0 heads", "--nheads", nheads=0)
    torch.save({"model": small_state_dict("detr", small_config(d_model=20, nheads=4))}, file)
    refused(file, "8 heads", "width 20", "--nheads")  # assumed
    assert load_checkpoint(file, nheads=4).config.nheads == 4


def test_basic_blocks_cannot_dilate(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"model": DETR}, file)
    refused(file, "bottleneck", "--dilation", dilation=True)
    torch.save({"model": small_state_dict("detr", small_config(BOTTLENECK))}, file)
    assert load_checkpoint(file, dilation=True).config.backbone.stride == 4


def test_names_and_paths_that_lead_nowhere(tmp_path, monkeypatch):
    refused(tmp_path / "no.pth", "no checkpoint at")
    refused("detr_resnet5O", "detr_resnet50")
    refused("detr-r50-e632da1.pth", "detr-r50-e632da11.pth")
    refused("facebook/detr-resnet-50", "hf:facebook/detr-resnet-50")
    refused("yolov8n", "hf:owner/name", "--list-models")
    refused("", "no checkpoint at")
    refused(tmp_path / "w.pth" / "under", "no checkpoint at")
    for name in ("a\0b", "a\nb", "x" * 5000):
        with pytest.raises(UserError) as raised:
            load_checkpoint(name)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="unknown model type 'yolo'"):
        load_checkpoint(tmp_path / "no.pth", "yolo")
    monkeypatch.setattr(assets, "find", lambda relative: tmp_path / relative)
    with pytest.raises(UserError, match=r"weights/cd_detr_demo\.pth.*--weights"):
        load_checkpoint(None, "cd_detr")


def test_what_is_not_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(pipe, "not a regular file")
    refused(Path("/dev/null"), "not a regular file")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    refused(loop)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    file = tmp_path / "w.pth"
    torch.save({"model": DETR}, file)

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", denied)  # root may read everything
    refused(file, "Permission denied")


def folder(path, **files):
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def test_folders_that_are_no_checkpoint(tmp_path):
    config = json.dumps({"model_type": "detr"}).encode()
    refused(folder(tmp_path / "a"), "without config.json")
    refused(folder(tmp_path / "b", last__pth=GOOD), "b/last.pth")
    refused(folder(tmp_path / "c", config__json=config), "neither model.safetensors")
    bad = folder(tmp_path / "d", config__json=b"{", model__safetensors=SAFE)
    with pytest.raises(UserError, match=r"d/config\.json is not a JSON object"):
        load_checkpoint(bad)
    refused(folder(tmp_path / "e", config__json=b"[]", model__safetensors=SAFE).joinpath(
        "config.json"), "is a text file")  # fmt: skip
    other = json.dumps({"model_type": "yolos"}).encode()
    save_file(named("vit.encoder.layer.0.weight"), tmp_path / "y.safetensors")
    yolos = folder(
        tmp_path / "f",
        config__json=other,
        model__safetensors=(tmp_path / "y.safetensors").read_bytes(),
    )
    refused(yolos, "model_type 'yolos'")


def test_sharded_folders_that_are_not_whole(tmp_path):
    config = json.dumps({"model_type": "detr"}).encode()
    for number, index in enumerate(
        [
            {},
            {"weight_map": {}},
            {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
            {"weight_map": {"a": "../a.safetensors"}},
        ]
    ):
        path = folder(tmp_path / str(number), config__json=config)
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(path)


def test_hugging_face_names_alone_are_not_a_network(tmp_path):
    save_file(named("model.query_position_embeddings.weight"), tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "not a checkpoint of DETR")


def test_an_ordered_dict_is_a_dict(tmp_path):
    torch.save(collections.OrderedDict(DETR), tmp_path / "w.pth")
    assert load_checkpoint(tmp_path / "w.pth").spec.name == "detr"
