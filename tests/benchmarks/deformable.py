"""Ratios, each the median of interleaved pairs (Deformable DETR R50, 800 x 1066, 4 levels, CPU):

ours / transformers   our forward pass / transformers' eager one with the same weights
capture               our forward pass with the last layer captured, checked and three modes of five
                      queries computed / without
memory                the peak of the resident set, ours / theirs (Linux)
batch / bare loop     images a second of a batch (read, network, last layer, drawn, PNG + npz) / of
                      a bare loop that only runs our forward pass, as in batch.py

python tests/benchmarks/deformable.py [pairs]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from batch import rate
from forward import with_last_layer
from golden.fillrule import image
from hf_factory import hub_names, new_names, renamed
from network_tools import filled_deformable
from ratios import in_pairs, keep, peak, print_peak

from detr_viz import models
from detr_viz.images.read import load_image
from detr_viz.images.resize import to_tensor

RATIOS = {
    "forward, Deformable DETR R50: ours / transformers": "<= 0.35",
    "forward, Deformable DETR R50: capture of the last layer": "<= 1.03",
    "forward, Deformable DETR R50: memory, ours / transformers": "<= 1.00",
    "batch / bare loop, Deformable DETR R50": ">= 0.85",
}
PAIRS = 5
PHOTOS = 16  # of a round of `rate`: few enough to wait for, enough to hide the last drawing
RULES = (  # the authors' names -> those of files on the hub
    (r"^backbone\.0\.body\.", "model.backbone.conv_encoder.model."),
    (r"^transformer\.", "model."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^input_proj\.", "model.input_proj."),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
)


def theirs_of(state_dict: dict[str, torch.Tensor]) -> torch.nn.Module:
    """transformers' model with these weights."""
    import transformers

    config = transformers.DeformableDetrConfig(
        num_labels=91, use_pretrained_backbone=False, attn_implementation="eager"
    )
    model = transformers.DeformableDetrForObjectDetection(config).eval()
    split = {}
    for key, value in state_dict.items():
        if ".in_proj_" in key:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                split[key.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            split[key] = value
    named = hub_names(renamed(split, RULES))
    if "model.encoder.layers.0.fc1.weight" not in model.state_dict():  # transformers 5 on
        named = new_names(named)
    model.load_state_dict(named, strict=True)
    return model


def networks(side: str, pairs: int) -> None:
    """The ratios of the two networks, or with a side the peak of its forward pass."""
    spec, state_dict = models.get("deformable_detr"), filled_deformable("deformable")
    x = to_tensor(load_image(image(480, 640, 1)), 800, 1333)
    if side != "theirs":
        ours = spec.build(spec.read_config(state_dict, 8, False)).eval()
        ours.load_state_dict(state_dict, strict=True)
        ours.fold_batch_norm()
    if side != "ours":
        theirs = theirs_of(state_dict)
    del state_dict
    if side:
        with torch.inference_mode():
            return print_peak(lambda: (ours if side == "ours" else theirs)(x))
    captured = with_last_layer(ours, "deformable_detr", x)
    with torch.inference_mode():
        a, b = ours(x), theirs(x)
        worst = float((a["pred_logits"] - b.logits).abs().max())
        worst = max(worst, float((a["pred_boxes"] - b.pred_boxes).abs().max()))
        threads = torch.get_num_threads()
        print(f"input {tuple(x.shape)}, {threads} threads, torch {torch.__version__}")
        print(f"largest difference of the two networks: {worst:.1e}")
        found = in_pairs(lambda: ours(x), lambda: theirs(x), pairs)
        keep(RATIOS, "forward, Deformable DETR R50: ours / transformers", found.median, found)
        found = in_pairs(captured, lambda: ours(x), pairs)
        keep(RATIOS, "forward, Deformable DETR R50: capture of the last layer", found.median, found)


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        return networks(sys.argv[2], 0)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    networks("", pairs)
    ours, theirs = peak(__file__, "ours"), peak(__file__, "theirs")
    name = "forward, Deformable DETR R50: memory, ours / transformers"
    keep(RATIOS, name, ours / theirs, f"{ours:.0f} / {theirs:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "deformable.pth"
        torch.save({"model": filled_deformable("deformable")}, weights)
        found = rate(pairs, PHOTOS, Path(folder), weights, command=False)["batch"]
        keep(RATIOS, "batch / bare loop, Deformable DETR R50", found.median, found)


if __name__ == "__main__":
    main()
