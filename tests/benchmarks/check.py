"""What the check command costs beside the network: 100 small baselines.

Each is of a scene of its own of 256 x 256 pixels, five queries, all modes. Prints the share of time
outside the network's forward passes.

    R50 800   DETR R50, input 800 x 800 as usual
    R50 256   the same with --size 256
    demo 128  the checkpoint of the project: a pass takes less than 10 ms, most of it is the rest

    checking  from the first baseline to the last, the model loaded
    command   from the start of Python to its end, with all imports and the reading of the weights

python tests/benchmarks/check.py [--baselines 100] [--rounds 3] [--profile]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = map(str, (HERE, HERE.parent, ROOT))

from ratios import keep

RATIOS = {
    "check: share outside the network, R50 800": "<= 0.15",
    "check: share outside the network, R50 256": "",
    "check: share outside the network, demo 128": "",
}


def once(profile: bool) -> None:
    """Check the folder "base", in this process; print the seconds as JSON."""
    from detr_viz.common.many_passes import for_many_passes, own_process

    own_process()  # as the command does
    for_many_passes()
    from detr_viz import cli
    from detr_viz.models.network import DetrNetwork

    passes: list[tuple[float, float]] = []
    right = DetrNetwork.forward

    def forward(self, *args, **more):
        start = time.perf_counter()
        out = right(self, *args, **more)
        passes.append((start, time.perf_counter()))
        return out

    DetrNetwork.forward = forward
    if profile:
        import cProfile

        cProfile.runctx('cli.main(["check", "base", "--quiet"])', {"cli": cli}, {}, sort="cumtime")
        return
    assert cli.main(["check", "base", "--quiet"]) == 0
    end = time.perf_counter()
    inside = sum(b - a for a, b in passes)
    print(json.dumps({"passes": len(passes), "inside": inside, "checking": end - passes[0][0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        once(args.profile)
        return
    import torch
    from conftest import filled_state_dict
    from PIL import Image

    from detr_viz import cli
    from detr_viz.demo.shapes import scene

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("in").mkdir()
        for i in range(args.baselines):
            Image.fromarray(scene(2_000_000_100 + i, 256).rgb).save(f"in/{i:03}.png")
        torch.save({"model": filled_state_dict("detr_r50")}, "r50.pth")
        models = {
            "R50 800": ["--weights", "r50.pth"],
            "R50 256": ["--weights", "r50.pth", "--size", "256"],
            "demo 128": ["--type", "detr"],
        }
        for name, flags in models.items():
            argv = ["record", "--out", "base", *flags, "--plot", "all", "--image", "in"]
            assert cli.main([*argv, "--quiet"]) == 0
            shares: dict[str, list[float]] = {"checking": [], "command": []}
            command = [sys.executable, __file__, "--once", *["--profile"] * args.profile]
            for _ in range(args.rounds):
                start = time.perf_counter()
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                if args.profile:
                    print(done.stdout[:6000])
                    return
                spent = json.loads(done.stdout) | {"command": time.perf_counter() - start}
                for what, found in shares.items():
                    found.append(1 - spent["inside"] / spent[what])
            said = ", ".join(
                f"{what} {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
                for what, found in shares.items()
            )
            share = statistics.median(shares["checking"])
            keep(RATIOS, f"check: share outside the network, {name}", share, said)
            for path in Path("base").iterdir():
                path.unlink()


if __name__ == "__main__":
    main()
