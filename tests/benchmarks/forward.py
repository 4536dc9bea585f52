"""Two ratios, each the median of interleaved pairs (DETR R50, 800 x 1066, float32, CPU):

forward   our forward pass / the same network run the plain way (plain.py)        target <= 0.65
capture   our forward pass with the last layer captured, checked and three modes of five queries
          computed / without                                                      target <= 1.03

python tests/benchmarks/forward.py [pairs]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from conftest import filled_state_dict
from golden.fillrule import image
from plain import PlainDETR

from detr_viz import images, models
from detr_viz.attention import weights
from detr_viz.capture import record


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


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    spec, state_dict = models.get("detr"), filled_state_dict("detr_r50")
    config = spec.read_config(state_dict, 8, False)
    plain, ours = PlainDETR(config).eval(), spec.build(config).eval()
    plain.load_state_dict(state_dict, strict=True)
    ours.load_state_dict(state_dict, strict=True)
    ours.fold_batch_norm()
    x = images.to_tensor(images.load(image(480, 640, 1)), 800, 1333)

    def captured() -> None:
        with record(ours, [("cross", 5)]) as recorded:
            ours(x)
        site = recorded["cross", 5]
        assert site.residual < 1e-4
        for mode in spec.modes:
            weights(site.terms, mode, queries=[0, 1, 2, 3, 4])

    with torch.inference_mode():
        a, b = ours(x), plain(x)
        worst = max(float((a[k] - b[k]).abs().max()) for k in ("pred_logits", "pred_boxes"))
        threads = torch.get_num_threads()
        print(f"input {tuple(x.shape)}, {threads} threads, torch {torch.__version__}")
        print(f"largest difference of the two networks: {worst:.1e} (golden tolerance 1e-3)")
        print("forward  ours / plain:   ", ratio(lambda: ours(x), lambda: plain(x), pairs))
        print("capture  with / without: ", ratio(captured, lambda: ours(x), pairs))


if __name__ == "__main__":
    main()
