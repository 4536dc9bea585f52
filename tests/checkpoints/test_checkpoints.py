"""What is accepted, what is read off it, and what is said of it."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
import torch
from checkpoint_factory import (
    BOTTLENECK,
    prefixed,
    sha256,
    small_config,
    small_state_dict,
    training,
)
from conftest import filled_state_dict
from safetensors.torch import save_file

from detr_viz import models
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.fit import skeleton
from detr_viz.checkpoints.load_model import load_model
from detr_viz.common import assets
from detr_viz.common.errors import UserError

SMALL = {kind: small_state_dict(kind) for kind in ("detr", "cd_detr")}


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


def same(loaded, expected):
    assert loaded.keys() == expected.keys()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert all(torch.equal(loaded[key], expected[key].float()) for key in expected)


def released(sd):
    return {"model": sd}


def counted(sd):
    """With the counters of ordinary batch norm, and the loss's buffer."""
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(5)
        for key in sd
        if key.endswith("running_var")
    }
    return {"model": {**sd, **counters, "criterion.empty_weight": torch.ones(5)}}


FORMS = {
    "release": released,
    "training": training,
    "training, module.": lambda sd: training(prefixed("module.", sd)),
    "bare": dict,
    "bare, module.": lambda sd: prefixed("module.", sd),
    "compiled": lambda sd: {"model": prefixed("_orig_mod.", sd)},
    "lightning": lambda sd: {"state_dict": prefixed("model.", sd), "epoch": 1, "loops": {}},
    "args as a dict": lambda sd: training(sd, args={"nheads": 8, "dilation": False}),
    "counters": counted,
    "demo": lambda sd: {"model": sd, "meta": {"nheads": 8, "classes": ["a", "b", "c", "d"]}},
    "parameters": lambda sd: {"model": {k: torch.nn.Parameter(v) for k, v in sd.items()}},
    "ema": lambda sd: training(zeros(sd), ema=sd),
    "ema, module": lambda sd: training(zeros(sd), ema={"module": sd, "updates": 9}),
    "model_ema": lambda sd: training(zeros(sd), model_ema=prefixed("module.", sd)),
    "ema alone": lambda sd: {"ema_model": sd},
    "ema without buffers": lambda sd: training(sd, ema=without_statistics(zeros(sd))),
}


def zeros(sd):
    return {key: torch.zeros_like(value) for key, value in sd.items()}


def without_statistics(sd):
    return {key: value for key, value in sd.items() if "running" not in key}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", SMALL)
def test_every_form_gives_the_same_weights(tmp_path, kind, form):
    file = save(tmp_path / "weights.pth", FORMS[form](SMALL[kind]))
    checkpoint = load_checkpoint(file)
    assert checkpoint.spec is models.get(kind)
    same(checkpoint.state_dict, SMALL[kind])
    assert checkpoint.config == small_config()
    assert checkpoint.path == str(file)
    assert checkpoint.sha256 == sha256(file)
    checkpoint.spec.build(checkpoint.config).load_state_dict(checkpoint.state_dict, strict=True)


@pytest.mark.parametrize("kind", SMALL)
def test_older_torch_files_and_safetensors(tmp_path, kind):
    old = save(tmp_path / "old.pth", training(SMALL[kind]), _use_new_zipfile_serialization=False)
    same(load_checkpoint(old).state_dict, SMALL[kind])
    save_file(SMALL[kind], tmp_path / "new.safetensors")
    same(load_checkpoint(tmp_path / "new.safetensors").state_dict, SMALL[kind])
    (tmp_path / "misnamed.pth").write_bytes((tmp_path / "new.safetensors").read_bytes())
    same(load_checkpoint(tmp_path / "misnamed.pth").state_dict, SMALL[kind])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    stored = {key: value.to(dtype) for key, value in SMALL["detr"].items()}
    same(load_checkpoint(save(tmp_path / "w.pth", released(stored))).state_dict, stored)


def test_weights_do_not_follow_the_file(tmp_path):
    file = save(tmp_path / "w.pth", released(SMALL["detr"]))
    loaded = load_checkpoint(file).state_dict
    with open(file, "r+b") as stream:  # in place: a mapped tensor would see it
        stream.write(b"\0" * file.stat().st_size)
    same(loaded, SMALL["detr"])


def test_averaged_weights_are_named_in_a_note(tmp_path):
    ema = load_checkpoint(save(tmp_path / "a.pth", FORMS["ema, module"](SMALL["detr"])))
    assert ema.notes == ("the averaged weights (ema) are used, not model",)
    part = load_checkpoint(save(tmp_path / "b.pth", FORMS["ema without buffers"](SMALL["detr"])))
    assert part.notes == ("model is used: the averaged weights (ema) are not complete",)


def test_panoptic_checkpoints_show_their_detector(tmp_path):
    extra = torch.ones(2)
    heads = {"mask_head.lay1.weight": extra, "bbox_attention.q_linear.bias": extra}
    file = save(tmp_path / "w.pth", {"model": {**prefixed("detr.", SMALL["detr"]), **heads}})
    checkpoint = load_checkpoint(file)
    same(checkpoint.state_dict, SMALL["detr"])
    assert any("mask head is left aside" in note for note in checkpoint.notes)


BIG = small_state_dict("detr", small_config(BOTTLENECK))


def with_args(**args):
    return {"model": BIG, "args": argparse.Namespace(**args)}


@pytest.mark.parametrize(
    ("name", "content", "flags", "heads", "dilation", "notes"),
    [
        ("w", released(BIG), {}, 8, False,
         ["assumed 8 heads (--nheads) and no dilation (--dilation): the file does not say"]),
        ("w", released(BIG), {"nheads": 4}, 4, False,
         ["assumed no dilation (--dilation): the file does not say"]),
        ("w", released(BIG), {"nheads": 4, "dilation": True}, 4, True, []),
        ("r50-DC5-x", released(BIG), {"nheads": 8}, 8, True,
         ["dilation (DC5) was told by the file name alone"]),
        ("r50-dc5-x", released(BIG), {"nheads": 8, "dilation": False}, 8, False, []),
        ("r50-dc5-x", with_args(nheads=4, dilation=False), {}, 4, False, []),
        ("w", with_args(nheads=4, dilation=True), {}, 4, True, []),
        ("w", with_args(nheads=4, dilation=True), {"nheads": 2, "dilation": False}, 2, False,
         ["--nheads 2 overrules the file, which says 4",
          "--dilation False overrules the file, which says True"]),
        ("w", with_args(lr=1.0), {}, 8, False,
         ["assumed 8 heads (--nheads) and no dilation (--dilation): the file does not say"]),
        ("w", {"model": BIG, "meta": {"type": "detr", "nheads": 2}}, {}, 2, False, []),
        ("w", {"model": BIG, "meta": {"nheads": 2, "dilation": True}}, {}, 2, True, []),
        ("detr-r50-dc5-f0fb7ef5", released(BIG), {}, 8, True, []),
        ("detr-r50-e632da11", released(BIG), {}, 8, False, []),
        ("ConditionalDETR_r50dc5_epoch50", released(BIG), {}, 8, True, []),
    ],
)  # fmt: skip
def test_heads_and_dilation(tmp_path, name, content, flags, heads, dilation, notes):
    checkpoint = load_checkpoint(save(tmp_path / f"{name}.pth", content), **flags)
    assert checkpoint.config.nheads == heads
    assert checkpoint.config.backbone.dilation is dilation
    assert list(checkpoint.notes) == notes


@pytest.mark.parametrize("content", [SMALL["detr"], {"model": SMALL["detr"]}])
def test_a_file_that_says_nothing_is_run_at_the_size_of_its_authors(tmp_path, content):
    model = load_model(save(tmp_path / "w.pth", content), device="cpu")
    (said,) = [note for note in model.info.notes if "resized" in note]
    assert "800" in said and "1333" in said and "--size" in said
    meta = {"type": "detr", "nheads": 8, "size": 160}
    known = save(tmp_path / "known.pth", {"model": SMALL["detr"], "meta": meta})
    assert not any("resized" in note for note in load_model(known, device="cpu").info.notes)


def test_sizes_are_read_off_the_shapes(tmp_path):
    config = small_config(
        BOTTLENECK, num_queries=9, num_logits=3, d_model=48, enc_layers=3, dec_layers=1
    )
    for kind in SMALL:
        file = save(tmp_path / "w.pth", released(small_state_dict(kind, config)))
        assert load_checkpoint(file).config == config


def test_meta_and_class_names(tmp_path):
    meta = {"type": "detr", "nheads": 8, "classes": ["a", "b", "c", "d"], "size": 160}
    checkpoint = load_checkpoint(save(tmp_path / "w.pth", {"model": SMALL["detr"], "meta": meta}))
    assert checkpoint.class_names == ("a", "b", "c", "d")  # 5 logits, the last is no-object
    assert checkpoint.meta == meta
    assert checkpoint.notes == ()
    meta["classes"] = ["a", "b"]
    checkpoint = load_checkpoint(save(tmp_path / "w.pth", {"model": SMALL["detr"], "meta": meta}))
    assert checkpoint.class_names is None
    assert checkpoint.notes == ("the file's 2 class names are left aside: it has 4 classes",)


@pytest.mark.parametrize("kind", SMALL)
def test_type_may_be_given_or_not_but_not_contradict(tmp_path, kind):
    other = next(name for name in SMALL if name != kind)
    file = save(tmp_path / "w.pth", released(SMALL[kind]))
    assert load_checkpoint(file, kind).spec.name == kind
    with pytest.raises(UserError) as raised:
        load_checkpoint(file, other)
    message = str(raised.value)
    assert f"--type {kind}" in message and f"--type {other}" in message and str(file) in message
    assert "\n" not in message


def test_the_type_of_a_known_name_is_checked_before_it_is_fetched(tmp_path):
    with pytest.raises(UserError, match=r"--type cd_detr.*--type detr"):
        load_checkpoint("conditional_detr_resnet50", "detr", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [None, "detr", "cd_detr"])
def test_without_weights_the_demo_of_the_type(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    (tmp_path / "weights").mkdir()
    for name, state_dict in SMALL.items():
        save(tmp_path / "weights" / f"{name}_demo.pth", released(state_dict))
    assert load_checkpoint(None, kind).spec.name == (kind or "detr")


def test_loading_leaves_torch_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(save(tmp_path / "w.pth", training(SMALL["detr"])))
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_file_is_read_once_but_for_its_hash(tmp_path, monkeypatch):
    """Twice is too much for a checkpoint of half a gigabyte."""
    file = save(tmp_path / "w.pth", released(SMALL["detr"]))
    loads = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (loads.append(a), real(*a, **k))[1])
    load_checkpoint(file)
    assert len(loads) == 1


OFFICIAL = {  # name: (type, queries, blocks)
    "detr_r50": ("detr", 100, (3, 4, 6, 3)),
    "cond_r50": ("cd_detr", 300, (3, 4, 6, 3)),
    "detr_r50_dc5": ("detr", 100, (3, 4, 6, 3)),
    "detr_r101": ("detr", 100, (3, 4, 23, 3)),
    "detr_r50_q300": ("detr", 300, (3, 4, 6, 3)),
    "cond_r50_dc5": ("cd_detr", 300, (3, 4, 6, 3)),
}


@pytest.mark.parametrize(
    "name",
    [
        "detr_r50",
        "cond_r50",
        *(pytest.param(name, marks=pytest.mark.slow) for name in list(OFFICIAL)[2:]),
    ],
)
def test_official_full_size_checkpoints_load_strictly(tmp_path, name):
    kind, queries, blocks = OFFICIAL[name]
    state_dict = filled_state_dict(name)
    file = save(tmp_path / f"{name}.pth", released(state_dict))
    checkpoint = load_checkpoint(file)
    config = checkpoint.config
    assert checkpoint.spec.name == kind
    assert (config.num_queries, config.backbone.blocks) == (queries, blocks)
    assert (config.num_logits, config.d_model) == (92 if kind == "detr" else 91, 256)
    assert (config.enc_layers, config.dec_layers, config.dim_feedforward) == (6, 6, 2048)
    assert config.backbone.dilation is name.endswith("dc5")
    same(checkpoint.state_dict, state_dict)
    network = skeleton(checkpoint.spec, config)
    network.load_state_dict(checkpoint.state_dict, strict=True, assign=True)


def test_loading_imports_no_compiler(tmp_path):
    """Networks built on the meta device in the plain way import torch._dynamo, or sympy: seconds.

    In a new process: `explain` is the public function, whatever of its package is imported first.
    """
    file = save(tmp_path / "w.pth", released(SMALL["detr"]))
    code = (
        "import sys, detr_viz; from detr_viz import explain, load_model, Explanation; "
        "import detr_viz.explanation.explain_image; "
        "assert callable(detr_viz.explain) and callable(explain); "
        "from detr_viz.checkpoints import checkpoint, fit; "
        f"c = checkpoint.load_checkpoint({str(file)!r}); fit.skeleton(c.spec, c.config); "
        "sys.exit(3 if {'torch._dynamo', 'sympy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=assets.ROOT).returncode == 0
