"""Forward passes of DETR and Conditional DETR R50 (800 x 1066, float32, CPU), each ratio the median
of interleaved pairs:

ours / plain    our forward pass / the same network run the plain way (plain.py,
                plain_conditional.py)
capture         our forward pass with the last layer captured, checked and all modes of five queries
                computed / without
all sites       our forward pass with every attention of every layer captured and checked / without
memory          what that adds to the peak of the resident set, MB (Linux)

python tests/benchmarks/forward.py [pairs] [--only detr|cd_detr]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from conftest import filled_state_dict
from golden.fillrule import image
from network_tools import as_detector
from plain import PlainDETR
from plain_conditional import PlainConditional
from ratios import in_pairs, keep, peak, print_peak

from detr_viz import models
from detr_viz.explanation.capture import record
from detr_viz.images.read import load_image
from detr_viz.images.resize import to_tensor

RATIOS = {
    "forward, DETR R50: ours / plain": "<= 0.45",
    "forward, DETR R50: capture of the last layer": "<= 1.03",
    "forward, DETR R50: capture of all sites": "<= 1.20",
    "forward, DETR R50: MB that all sites add": "<= 150",
    "forward, Conditional DETR R50: ours / plain": "<= 0.45",
    "forward, Conditional DETR R50: capture of the last layer": "<= 1.03",
    "forward, Conditional DETR R50: capture of all sites": "<= 1.20",
    "forward, Conditional DETR R50: MB that all sites add": "<= 150",
}
TITLES = {"detr": "DETR R50", "cd_detr": "Conditional DETR R50"}
PLAIN = {"detr": PlainDETR, "cd_detr": PlainConditional}
KEYS = {"detr": "detr_r50", "cd_detr": "cond_r50"}


def with_last_layer(
    network: Callable[[torch.Tensor], object], name: str, x: torch.Tensor
) -> Callable[[], None]:
    """A forward pass with the last layer captured, checked and all modes of five queries."""
    sites, modes = as_detector(network, name).attention_sites(), models.get(name).modes

    def captured() -> None:
        with record(sites, [("cross", 5)]) as calls:
            network(x)
        call = calls["cross", 5]
        assert call.residual < 1e-4
        for mode in modes:
            call.attention.weights(mode, [0, 1, 2, 3, 4])

    return captured


def with_all_sites(
    network: Callable[[torch.Tensor], object], name: str, x: torch.Tensor
) -> Callable[[], None]:
    """A forward pass with every attention captured and checked."""
    sites = as_detector(network, name).attention_sites()

    def everything() -> None:
        with record(sites, sites) as calls:
            network(x)
        for where, call in calls.items():
            assert where == ("decoder", 0) or call.residual < 1e-4

    return everything


def measure(name: str, pairs: int, side: str = "") -> None:
    """The ratios of a model; with a side, its peak alone."""
    spec, state_dict = models.get(name), filled_state_dict(KEYS[name])
    config = spec.read_config(state_dict, 8, False)
    ours = spec.build(config).eval()
    ours.load_state_dict(state_dict, strict=True)
    ours.fold_batch_norm()
    x = to_tensor(load_image(image(480, 640, 1)), 800, 1333)
    everything = with_all_sites(ours, name, x)
    with torch.inference_mode():
        if side:
            ours(x)
            return print_peak(everything if side == "sites" else lambda: ours(x))
        plain = PLAIN[name](config).eval()
        plain.load_state_dict(state_dict, strict=True)
        a, b = ours(x), plain(x)
        worst = max(float((a[k] - b[k]).abs().max()) for k in ("pred_logits", "pred_boxes"))
        print(f"largest difference of the two networks: {worst:.1e} (golden tolerance 1e-3)")
        start = f"forward, {TITLES[name]}: "
        found = in_pairs(lambda: ours(x), lambda: plain(x), pairs)
        keep(RATIOS, start + "ours / plain", found.median, found)
        captured = with_last_layer(ours, name, x)
        found = in_pairs(captured, lambda: ours(x), pairs)
        keep(RATIOS, start + "capture of the last layer", found.median, found)
        found = in_pairs(everything, lambda: ours(x), pairs)
        keep(RATIOS, start + "capture of all sites", found.median, found)
    added = peak(__file__, name, "sites") - peak(__file__, name, "plain")
    keep(RATIOS, start + "MB that all sites add", added)


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        return measure(sys.argv[2], 0, sys.argv[3])
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="?", type=int, default=9)
    parser.add_argument("--only", choices=list(TITLES))
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in [args.only] if args.only else TITLES:
        measure(name, args.pairs)


if __name__ == "__main__":
    main()
