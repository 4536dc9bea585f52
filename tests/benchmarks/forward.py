"""Ratios, each the median of interleaved pairs (DETR R50, 800 x 1066, float32, CPU):

forward   our forward pass / the same network run the plain way (plain.py)        target <= 0.65
capture   our forward pass with the last layer captured, checked and three modes of five queries
          computed / without                                                      target <= 1.03
sites     our forward pass with every attention of every layer captured and checked / without
                                                                                  target <= 1.25
memory    what that adds to the peak of the resident set (Linux)                   target <= 150 MB

python tests/benchmarks/forward.py [pairs]
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from conftest import filled_state_dict
from golden.fillrule import image
from network_tools import as_detector
from plain import PlainDETR

from detr_viz import models
from detr_viz.explanation.capture import record
from detr_viz.images.read import load_image
from detr_viz.images.resize import to_tensor


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> str:
    """Median of ours / theirs over pairs run one after the other, the order swapped each time."""
    ours(), theirs()
    ratios, times = [], ([], [])
    for i in range(pairs):
        order = ((0, ours), (1, theirs)) if i % 2 == 0 else ((1, theirs), (0, ours))
        pair = {which: seconds(run) for which, run in order}
        ratios.append(pair[0] / pair[1])
        for which in (0, 1):
            times[which].append(pair[which])
    low, high = min(ratios), max(ratios)
    medians = " / ".join(f"{statistics.median(t):.3f} s" for t in times)
    return f"{statistics.median(ratios):.3f}  (min {low:.3f}, max {high:.3f}; medians {medians})"


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


def print_peak(run: Callable[[], object]) -> None:
    """Print the kB of this process' peak while something runs, what is loaded included (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    run()
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak(script: str, side: str) -> float:
    """MB that one side of a script prints as its peak, in a process of its own."""
    command = [sys.executable, script, "--peak", side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def memory() -> float:
    """MB that capturing everything adds to the peak, each side in a process of its own."""
    return peak(__file__, "sites") - peak(__file__, "plain")


def main() -> None:
    side = sys.argv[2] if sys.argv[1:2] == ["--peak"] else ""
    pairs = 0 if side else int(sys.argv[1]) if len(sys.argv) > 1 else 9
    spec, state_dict = models.get("detr"), filled_state_dict("detr_r50")
    config = spec.read_config(state_dict, 8, False)
    plain, ours = PlainDETR(config).eval(), spec.build(config).eval()
    plain.load_state_dict(state_dict, strict=True)
    ours.load_state_dict(state_dict, strict=True)
    ours.fold_batch_norm()
    if side:
        del plain
    sites = as_detector(ours, "detr").attention_sites()
    x = to_tensor(load_image(image(480, 640, 1)), 800, 1333)

    def everything() -> None:
        with record(sites, sites) as calls:
            ours(x)
        for where, call in calls.items():
            assert where == ("decoder", 0) or call.residual < 1e-4

    if side:
        with torch.inference_mode():
            ours(x)
            print_peak(everything if side == "sites" else lambda: ours(x))
        return
    captured = with_last_layer(ours, "detr", x)
    with torch.inference_mode():
        a, b = ours(x), plain(x)
        worst = max(float((a[k] - b[k]).abs().max()) for k in ("pred_logits", "pred_boxes"))
        threads = torch.get_num_threads()
        print(f"input {tuple(x.shape)}, {threads} threads, torch {torch.__version__}")
        print(f"largest difference of the two networks: {worst:.1e} (golden tolerance 1e-3)")
        print("forward  ours / plain:   ", ratio(lambda: ours(x), lambda: plain(x), pairs))
        print("capture  with / without: ", ratio(captured, lambda: ours(x), pairs))
        print("sites    with / without: ", ratio(everything, lambda: ours(x), pairs))
    print(f"memory   sites - without:  {memory():.0f} MB")


if __name__ == "__main__":
    main()
