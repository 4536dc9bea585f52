"""The notebook's DETR against its 50 lines, and what it has no answer to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from detr_viz import cli, explain, load_model
from detr_viz.common.errors import UserError
from detr_viz.detections.labels import COCO_NAMES

WIDTH, HEADS = 32, 8

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")


class Listing(nn.Module):
    """As the authors' notebook has it, with a smaller backbone and transformer."""

    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
        del self.backbone.fc
        self.conv = nn.Conv2d(512, WIDTH, 1)
        self.transformer = nn.Transformer(WIDTH, HEADS, 2, 2, 48)
        self.linear_class, self.linear_bbox = nn.Linear(WIDTH, 92), nn.Linear(WIDTH, 4)
        self.query_pos = nn.Parameter(torch.rand(7, WIDTH))
        self.row_embed = nn.Parameter(torch.rand(50, WIDTH // 2))
        self.col_embed = nn.Parameter(torch.rand(50, WIDTH // 2))

    def forward(self, images):
        b = self.backbone
        x = b.maxpool(b.relu(b.bn1(b.conv1(images))))
        h = self.conv(b.layer4(b.layer3(b.layer2(b.layer1(x)))))
        height, width = h.shape[-2:]
        columns = self.col_embed[:width].unsqueeze(0).repeat(height, 1, 1)
        rows = self.row_embed[:height].unsqueeze(1).repeat(1, width, 1)
        pos = torch.cat([columns, rows], dim=-1).flatten(0, 1).unsqueeze(1)
        src = pos + 0.1 * h.flatten(2).permute(2, 0, 1)
        h = self.transformer(src, self.query_pos.unsqueeze(1)).transpose(0, 1)
        return self.linear_class(h), self.linear_bbox(h).sigmoid()


@pytest.fixture(scope="module")
def listing():
    torch.manual_seed(3)
    model = Listing().eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if "transformer" in name and value.dim() > 1:
            value.copy_(torch.randn(value.shape) * 2 * value.shape[1] ** -0.5)
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    model.query_pos.normal_()
    return model


@pytest.fixture(scope="module")
def file(listing, tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "demo.pth"
    torch.save(listing.state_dict(), path)
    return path


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)


def attention_of(listing, pixels):
    """Site -> weights (heads, Q, K) of the listing's own nn.MultiheadAttention modules."""
    given = {}
    hooks = []
    kinds_of = {
        "encoder": {"self_attn": "encoder"},
        "decoder": {"self_attn": "decoder", "multihead_attn": "cross"},
    }
    for stack, kinds in kinds_of.items():
        for i, layer in enumerate(getattr(listing.transformer, stack).layers):
            for name, kind in kinds.items():
                module = getattr(layer, name)

                def keep(module, args, kwargs, site=(kind, i)):
                    given[site] = module, args

                hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        outputs = listing(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        for hook in hooks:
            hook.remove()
    return outputs, {
        site: module(*args[:3], average_attn_weights=False)[1][0]
        for site, (module, args) in given.items()
    }


def test_outputs_and_weights_of_every_site_are_the_listings(listing, file, image):
    model = load_model(file, device="cpu")
    e = explain(model, image, size=64, max_size=96, layers="all", sites=["encoder", "decoder"])
    (logits, boxes), weights = attention_of(listing, model.prepare(image[None]))
    scores = logits.softmax(-1)[0, :, :-1].numpy()
    np.testing.assert_allclose(e.class_scores, scores, atol=1e-5)
    x, y, w, h = boxes[0].numpy().T
    expected = np.stack([(x - w / 2) * 96, (y - h / 2) * 64, (x + w / 2) * 96, (y + h / 2) * 64], 1)
    np.testing.assert_allclose(e.boxes_xyxy_px, expected, atol=1e-3)
    assert len(weights) == 6 == len(e.sites)
    for site, of_site in weights.items():
        found = e.attention(site)  # (q, heads, K)
        np.testing.assert_allclose(found, of_site.transpose(0, 1).numpy(), atol=1e-5)
    assert weights["cross", 1].std() * 6 > 0.1  # far from even
    assert max(v for v in e.residuals.values()) < 1e-4
    assert e.class_names == COCO_NAMES and e.formula("combine") == "q · k"


def test_the_papers_listing_has_a_sequential_backbone_and_no_factor(listing, tmp_path, image):
    """backbone = nn.Sequential(*list(resnet50().children())[:-2]); pos + h"""
    b = listing.backbone
    children = [b.conv1, b.bn1, b.relu, b.maxpool, b.layer1, b.layer2, b.layer3, b.layer4]
    sequential = nn.Sequential(*children).state_dict()
    kept = {k: v for k, v in listing.state_dict().items() if not k.startswith("backbone.")}
    kept |= {f"backbone.{k}": v for k, v in sequential.items()}
    for key in ("conv.weight", "conv.bias"):  # pos + h / 10, which the listing computes too
        kept[key] = kept[key] / 10
    paper = {f"model.{k}": v for k, v in kept.items()}
    torch.save({"state_dict": {**paper, "loss.weight": torch.ones(3)}}, tmp_path / "w.ckpt")
    model = load_model(tmp_path / "w.ckpt", device="cpu")
    assert any("paper's listing" in note for note in model.notes)
    assert not any("as in the notebook" in note for note in model.notes)
    logits, _ = listing(model.prepare(image[None]))
    e = explain(model, image, size=64, max_size=96)
    np.testing.assert_allclose(e.class_scores, logits.softmax(-1)[0, :, :-1].numpy(), atol=1e-5)


def test_only_combine_exists_and_the_reason_is_said(file, image):
    model = load_model(file, device="cpu")
    e = explain(model, image, size=64, max_size=96, sites=["encoder"])
    assert model.info.modes == ("combine",)
    assert any("positions once" in note for note in model.notes)
    assert any("0.1" in note for note in model.notes)
    for ask in (
        lambda: e.maps("position"),
        lambda: e.maps("cq.pk"),
        lambda: e.logit_terms(),
        lambda: e.attention(("encoder", 0), "content"),
        lambda: e.ablate("position"),
        lambda: e.ablate("term:cq.pk"),
    ):
        with pytest.raises(UserError, match="positions once, to its input"):
            ask()


def test_heads_can_be_taken_out(listing, file, image):
    """Against the listing whose output projection has no columns for the head."""
    e = explain(load_model(file, device="cpu"), image, size=64, max_size=96)
    found = e.ablate("head:3", layers="all")
    cut = Listing().eval().requires_grad_(False)
    cut.load_state_dict(listing.state_dict())
    for layer in cut.transformer.decoder.layers:
        layer.multihead_attn.out_proj.weight.unflatten(1, (HEADS, -1))[:, 3] = 0
    logits, _ = cut(e.model.prepare(image[None]))
    expected = logits.softmax(-1)[0, :, :-1].numpy()
    np.testing.assert_allclose(found.after.class_scores, expected, atol=1e-5)
    assert np.abs(found.before.class_scores - expected).max() > 1e-4


def test_the_command_draws_combine_and_refuses_position(file, tmp_path, capsys):
    argv = ["--weights", str(file), "--image", "image/scene_1.jpg", "--queries", "top:1"]
    argv += ["--size", "64", "--device", "cpu", "--out", str(tmp_path / "o.png")]
    assert cli.main([*argv, "--plot", "all"]) == 0
    assert (tmp_path / "o.png").is_file()
    capsys.readouterr()
    argv[-1] = str(tmp_path / "p.png")
    for flags in (["--plot", "position"], ["--plot", "terms"], ["--ablate", "position"]):
        assert cli.main([*argv, *flags]) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error:") and "positions once" in last
    assert not (tmp_path / "p.png").exists()
