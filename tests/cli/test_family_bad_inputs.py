"""Bad files and flags of Anchor DETR and Salience DETR: one line each, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bad_input_tools import refused, weights
from network_tools import tiny
from PIL import Image

ANCHOR, SALIENCE = "anchor_detr", "salience_detr"
CROSS = "transformer.decoder_layers.0.cross_attn"
OFFSETS = "transformer.decoder.layers.1.cross_attn.sampling_offsets"


def network(name, **tensors):
    """The tensors of a small network, with these in place of its own."""
    return dict(tiny(name).network.state_dict()) | tensors


def less(name, part):
    return {key: value for key, value in network(name).items() if part not in key}


def small(name):
    return {key: value.to(torch.int8) for key, value in network(name).items()}


NAN = torch.full((32,), torch.nan)
FILES = {  # what is wrong -> (state dict, part of the line)
    "anchors of three numbers": (
        lambda: network(ANCHOR, **{"transformer.position.weight": torch.ones(2, 3)}),
        "transformer.position has 3 numbers an anchor, not x and y",
    ),
    "patterns of half the width": (
        lambda: network(ANCHOR, **{"transformer.pattern.weight": torch.ones(3, 16)}),
        "model width 16 is no multiple of 32",
    ),
    "flat patterns": (
        lambda: network(ANCHOR, **{"transformer.pattern.weight": torch.ones(96)}),
        "transformer.pattern.weight has shape (96,)",
    ),
    "plain attention": (
        lambda: network(ANCHOR, **{f"{CROSS}.in_proj_weight": torch.ones(96, 32)}),
        "its cross-attention is nn.MultiheadAttention",
    ),
    "two feature levels": (
        lambda: network(ANCHOR, **{"input_proj.1.0.weight": torch.ones(32, 8, 3, 3)}),
        "2 feature levels: only Anchor DETR with one is supported",
    ),
    "a layer without its norm": (
        lambda: less(ANCHOR, "encoder_layers.0.norm1"),
        "encoder_layers.0.norm1",
    ),
    "anchor NaN": (
        lambda: network(ANCHOR, **{f"{CROSS}.out_proj.bias": NAN}),
        "NaN or infinite",
    ),
    "anchor integers": (lambda: small(ANCHOR), "int8"),
    "one share for three levels": (
        lambda: network(SALIENCE, **{"transformer.level_filter_ratio": torch.ones(1)}),
        "transformer.level_filter_ratio is (1.0,): no share between 0 and 1 for each of 3",
    ),
    "a share of one and a half": (
        lambda: network(
            SALIENCE, **{"transformer.layer_filter_ratio": torch.tensor([1.5, 0.6, 0.2])}
        ),
        "transformer.layer_filter_ratio is (1.5, 0.6, 0.2): no share between 0 and 1",
    ),
    "a neck of two levels": (lambda: less(SALIENCE, "neck.convs.2."), "neck.convs has others"),
    "two heads of the encoder": (
        lambda: network(SALIENCE, **{"transformer.encoder.enhance_mcsp.bias": torch.ones(91)}),
        "but they are one head: the file is damaged",
    ),
    "other wavelengths": (
        lambda: network(SALIENCE, **{"position_embedding.dim_tx": torch.ones(16)}),
        "not the wavelengths of a position encoding of temperature 10000",
    ),
    "background of three dimensions": (
        lambda: network(
            SALIENCE,
            **{"transformer.encoder.background_embedding.row_embed.weight": torch.ones(4, 4, 4)},
        ),
        "row_embed.weight has shape (4, 4, 4)",
    ),
    "a layer without its offsets": (lambda: less(SALIENCE, OFFSETS), OFFSETS),
    "salience NaN": (
        lambda: network(SALIENCE, **{"transformer.encoder.layers.0.pre_norm.bias": NAN}),
        "NaN or infinite",
    ),
    "salience integers": (lambda: small(SALIENCE), "int8"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((120, 90), 60).convert("RGB").save("a.png")


@pytest.mark.parametrize("wrong", FILES)
def test_bad_files(here, capsys, wrong):
    state_dict, part = FILES[wrong]
    file = weights(state_dict())
    line = refused(capsys, "--weights", file, "--nheads", "2")
    assert file in line and part in line, line


FLAGS = {  # (type, flags) -> part of the line
    (ANCHOR, "--nheads 7"): "7 heads do not divide the model width 32: set --nheads",
    (ANCHOR, "--nheads 2 --type salience_detr"): "is Anchor DETR",
    (ANCHOR, "--nheads 2 --plot salience"): "has no salience",
    (ANCHOR, "--nheads 2 --plot proposals"): "has no proposals",
    (ANCHOR, "--nheads 2 --queries anchor:2"): "no anchor 2: this model has 2, 0..1",
    (ANCHOR, "--nheads 2 --queries 6"): "no query 6",
    (ANCHOR, "--nheads 2 --ablate level:0"): "Anchor DETR has no level:0",
    (SALIENCE, "--nheads 7"): "7 heads do not divide the model width 32: set --nheads",
    (SALIENCE, "--nheads 2 --type anchor_detr"): "is Salience DETR",
    (SALIENCE, "--nheads 2 --plot terms"): "sums of content, position, bias",
    (SALIENCE, "--nheads 2 --ablate row"): "Salience DETR has no row to remove",
    (SALIENCE, "--nheads 2 --ablate level:3"): "no level 3: this model has 0..2",
    (SALIENCE, "--nheads 2 --queries anchor:1"): "no two queries of this model share a point",
    (SALIENCE, "--nheads 2 --rollout"): "there is no rollout of Salience DETR",
    (SALIENCE, "--nheads 2 --layer 2"): "no decoder layer 2",
}


@pytest.mark.parametrize(("name", "flags"), FLAGS)
def test_bad_flags(here, capsys, name, flags):
    more = ["--size", "96", *flags.split()]
    line = refused(capsys, "--weights", weights(network(name)), *more)
    assert FLAGS[name, flags] in line, line


@pytest.mark.parametrize("name", [ANCHOR, SALIENCE])
def test_a_truncated_file(here, capsys, name):
    file = weights(network(name))
    data = Path(file).read_bytes()
    Path(file).write_bytes(data[: len(data) // 2])
    line = refused(capsys, "--weights", file, "--nheads", "2")
    assert "bad.pth is truncated or damaged: download or save it again" in line
