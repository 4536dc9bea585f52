"""Where the time of a forward pass goes: the largest kinds of operators, per model.

Networks of the official sizes (R50, 800 x 1066, float32, CPU), random weights where no official
file says the shapes. Time is that of each operator alone, by torch's profiler, summed over passes;
"before" is the same network with torch's own convolutions and products.

python tests/benchmarks/shares.py [passes] [--only MODEL ...]        # a table of Markdown
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from conftest import filled_state_dict
from golden.fillrule import image
from network_tools import filled, filled_deformable, filled_salience

from detr_viz import models
from detr_viz.attention import onednn
from detr_viz.images.read import load_image
from detr_viz.images.resize import to_tensor
from detr_viz.models.dynamic_config import DynamicConfig
from detr_viz.models.efficient_detr import EfficientConfig
from detr_viz.models.layers import convolution

OFFICIAL = {
    "detr": lambda: filled_state_dict("detr_r50"),
    "cd_detr": lambda: filled_state_dict("cond_r50"),
    "deformable_detr": lambda: filled_deformable("deformable_refine"),
    "anchor_detr": lambda: filled("anchor", "anchor"),
    "salience_detr": filled_salience,
    "sparse_rcnn": lambda: filled("sparse", "sparse"),
}
SIZES = {
    "efficient_detr": lambda: EfficientConfig(num_logits=91, enc_layers=3, dec_layers=1),
    "dynamic_detr": DynamicConfig,
}
KINDS = {  # beginning of an operator's name -> what it is
    "mkldnn::_convolution": "convolutions",
    "aten::mkldnn_convolution": "convolutions",
    "aten::_slow_conv": "convolutions",
    "aten::thnn_conv2d": "convolutions",
    "aten::max_pool": "pooling",
    "mkldnn::_linear": "products",
    "aten::addmm": "products",
    "aten::mm": "products",
    "aten::bmm": "products",
    "aten::baddbmm": "products",
    "aten::_scaled_dot_product": "attention",
    "aten::_softmax": "softmax",
    "aten::native_layer_norm": "norms",
    "aten::native_group_norm": "norms",
    "aten::_embedding_bag": "sampling",
    "aten::index": "gathering",
    "aten::gather": "gathering",
    "aten::index_select": "gathering",
    "aten::copy_": "copies",
    "aten::cat": "copies",
    "aten::add": "sums and scales",
    "aten::mul": "sums and scales",
    "aten::sub": "sums and scales",
    "aten::div": "sums and scales",
    "aten::clamp": "ReLU",
    "aten::relu": "ReLU",
    "torchvision::roi_align": "RoIAlign",
}


def network_of(name: str) -> torch.nn.Module:
    """A network of the official size, ready for inference."""
    spec = models.get(name)
    torch.manual_seed(0)
    if name in SIZES:
        network = spec.build(SIZES[name]())
    else:
        values = OFFICIAL[name]()
        network = spec.build(spec.read_config(values, 8, False))
        network.load_state_dict(values, strict=False)
    network = network.eval().requires_grad_(False)
    network.fold_batch_norm()
    return network


@contextmanager
def plain_operators() -> Iterator[None]:
    """Without oneDNN's fused convolutions and its products of float32."""
    with (
        mock.patch.object(convolution, "fuses", lambda *_: False),
        mock.patch.object(onednn, "multiplies", lambda *_: False),
    ):
        yield


def kinds(network: torch.nn.Module, x: torch.Tensor, passes: int) -> Counter[str]:
    """Seconds of a pass by kind of operator."""
    network(x)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(passes):
            network(x)
    found: Counter[str] = Counter()
    for event in profiled.key_averages():
        kind = next((k for start, k in KINDS.items() if event.key.startswith(start)), "the rest")
        found[kind] += event.self_cpu_time_total / 1e6 / passes
    return found


def words(found: Counter[str], most: int = 4) -> str:
    total = found.total()
    largest = [(kind, part) for kind, part in found.most_common() if kind != "the rest"][:most]
    return ", ".join(f"{kind} {part / total:.2f}" for kind, part in largest)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("passes", nargs="?", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="MODEL", default=[*OFFICIAL, *SIZES])
    args = parser.parse_args()
    x = to_tensor(load_image(image(480, 640, 1)), 800, 1333)
    print("| model | before | now | time now / before |\n|---|---|---|---|")
    for name in args.only:
        network = network_of(name)
        with torch.inference_mode():
            with plain_operators():
                before = kinds(network, x, args.passes)
            now = kinds(network, x, args.passes)
        ratio = now.total() / before.total()
        print(f"| {models.get(name).title} | {words(before)} | {words(now)} | {ratio:.2f} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
