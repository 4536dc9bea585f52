"""Bad files and flags of Deformable DETR: each is one line with the way out, and writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bad_input_tools import refused, weights
from network_tools import tiny
from PIL import Image

from detr_viz import cli

OFFSETS = "transformer.decoder.layers.1.cross_attn.sampling_offsets"


def network(**changes):
    return dict(tiny("deformable_detr", **changes).network.state_dict())


def wide(**more):
    """Plain, with these tensors in place of its own."""
    return network() | more


def less(part: str, **changes):
    return {key: value for key, value in network(**changes).items() if part not in key}


TWO_STAGE = {"refine": True, "two_stage": True}
FILES = {  # what is wrong -> (state dict, parts of the line)
    "no level_embed": (lambda: less("level_embed"), "it looks like Deformable DETR or one of"),
    "flat level_embed": (
        lambda: wide(**{"transformer.level_embed": torch.ones(96)}),
        "transformer.level_embed has shape (96,)",
    ),
    "two levels, three projections": (
        lambda: wide(**{"transformer.level_embed": torch.ones(2, 32)}),
        "level_embed has 2 levels, but input_proj has",
    ),
    "no projections": (lambda: less("input_proj"), "level_embed has 3 levels, but input_proj"),
    "offsets of other rows": (
        lambda: wide(**{f"{OFFSETS}.weight": torch.ones(20, 32)}),
        f"{OFFSETS}.weight has shape (20, 32)",
        "(24, 32)",
    ),
    "rows that no heads share": (
        lambda: {
            key: value[:11] if ".cross_attn.attention_weights." in key else value
            for key, value in network().items()
        },
        "11 samples a query, which 2 heads",
    ),
    "queries of half the width": (
        lambda: wide(**{"query_embed.weight": torch.ones(4, 32)}),
        "query_embed is 32 wide, not twice the model width 32",
    ),
    "two-stage without refinement": (
        lambda: less("decoder.bbox_embed", **TWO_STAGE),
        "a two-stage model without refinement",
    ),
    "two-stage without the proposals' norm": (
        lambda: less("enc_output_norm", **TWO_STAGE),
        "lacks 2 of",
        "enc_output_norm",
    ),
    "NaN": (
        lambda: wide(**{f"{OFFSETS}.bias": torch.full((24,), torch.nan)}),
        "NaN or infinite",
    ),
    "a layer without its offsets": (lambda: less(OFFSETS), "lacks 2 of", OFFSETS),
    "integers": (
        lambda: {key: value.to(torch.int8) for key, value in network().items()},
        "int8",
    ),
    "DINO": (lambda: wide(**{"label_enc.weight": torch.ones(3, 3)}), "DN-DETR or DINO"),
    "DAB-Deformable-DETR": (
        lambda: less("query_embed", refine=True) | {"refpoint_embed.weight": torch.ones(4, 4)},
        "DAB-Deformable-DETR: give one of these",
    ),
    "Sparse DETR": (
        lambda: (
            network(refine=True)
            | {"transformer.enc_mask_predictor.layer1.0.weight": torch.ones(32)}
        ),
        "it looks like Sparse DETR: give one of these",
    ),
    "Deformable DETR with a mask head": (
        lambda: wide(**{"transformer.enc_score.weight": torch.ones(3)}),
        "beyond those of",
    ),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((120, 90), 60).convert("RGB").save("a.png")
    Image.effect_noise((4, 3), 60).convert("RGB").save("tiny.png")
    return tmp_path


@pytest.mark.parametrize("wrong", FILES)
def test_bad_files(here, capsys, wrong):
    state_dict, *parts = FILES[wrong]
    file = weights(state_dict())
    line = refused(capsys, "--weights", file, "--nheads", "2")
    assert file in line
    for part in parts:
        assert part in line, line


FLAGS = {  # flags -> parts of the line
    "--nheads 7": "7 heads do not divide the model width 32: set --nheads",
    "--nheads 0": "--nheads",
    "--nheads 2 --dilation": "needs bottleneck blocks",
    "--nheads 2 --type detr": "is Deformable DETR",
    "--nheads 2 --type cd_detr": "is Deformable DETR",
    "--nheads 2 --ablate level:3": "no level 3: this model has 0..2",
    "--nheads 2 --ablate term:cq.pk": "Deformable DETR has no term:cq.pk",
    "--nheads 2 --queries 4": "no query 4",
    "--nheads 2 --layer 2": "no decoder layer 2",
    "--nheads 2 --plot terms": "sums of content, position, bias",
    "--nheads 2 --size 0": "--size",
    "": "12 samples a query, which 8 heads on 3 levels",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_bad_flags(here, capsys, flags):
    line = refused(capsys, "--weights", weights(network()), *flags.split())
    assert FLAGS[flags] in line, line


def test_a_truncated_file(here, capsys):
    file = weights(network())
    data = Path(file).read_bytes()
    Path(file).write_bytes(data[: len(data) // 2])
    line = refused(capsys, "--weights", file, "--nheads", "2")
    assert "bad.pth is truncated or damaged: download or save it again" in line


def test_an_image_of_fewer_tokens_than_proposals(here, capsys):
    file = weights(network(**TWO_STAGE), nheads=2, dilation=False, num_queries=300)
    line = refused(capsys, "--weights", file, "--image", "tiny.png", "--size", "32")
    assert "tokens, too few for 300 proposals" in line and "--size" in line, line


def test_args_that_contradict_the_weights(here, capsys):
    line = refused(capsys, "--weights", weights(network(), nheads=5, dilation=False))
    assert "5 heads do not divide the model width 32" in line and "bad.pth" in line


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("num_feature_levels", 3, "num_feature_levels 3, and the weights have 4"),
        ("with_box_refine", True, "with_box_refine True, and the weights have False"),
        ("encoder_attention_heads", 5, "5 encoder and 4 decoder heads"),
        ("decoder_n_points", 5, "decoder_n_points 5, and the weights have 3: fetch both again"),
        ("encoder_n_points", 4, "encoder_n_points 4, and the weights have 2"),
        ("two_stage", True, "two_stage True, and the weights have False"),
        ("num_queries", 300, "num_queries 300, and the weights have 7"),
        ("model_type", "dab-detr", "which says how DAB-DETR resizes images"),
        ("d_model", 128, "d_model 128, and the weights have 64"),
    ],
)
def test_a_folder_whose_config_contradicts_its_weights(here, capsys, hub_folder, key, value, part):
    shutil.copytree(hub_folder, "model")
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps(config | {key: value}))
    line = refused(capsys, "--weights", "model")
    assert "model" in line and part in line, line


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    from checkpoints.test_huggingface_deformable import small
    from hf_factory import save

    return save(small(), tmp_path_factory.mktemp("hub") / "plain")


def test_half_precision_files_are_read(here, capsys):
    """Not bad: the numbers of such a file are those of float32 after rounding."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in network().items()}
    argv = ["--weights", weights(halves, nheads=2, dilation=False), "--image", "a.png", "--quiet"]
    assert cli.main([*argv, "--size", "64", "--device", "cpu", "--out", "a/x.png"]) == 0
    assert Path("a/x.png").is_file()
