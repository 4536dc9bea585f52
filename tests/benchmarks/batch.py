"""What a batch run costs beside its network (CPU), in one run of this script.

batch / bare loop    images a second of a batch (read, network, top:5 combine drawn, PNG + npz) / of
                     a bare loop that only runs our same forward pass on all cores; 64 photos of
                     800 x 1066, DETR R50. Models are loaded and helpers have their imports in both
command / bare loop  the same for the whole command, from start to exit
memory               peak of proportional set sizes, summed over all processes of the command: 512
                     small images / 64 of them

Rates are medians of rounds; a round is a bare loop and a batch, each in a process of its own, the
order swapped each time.

python tests/benchmarks/batch.py [--rounds 3] [--images 64] [--only rate|memory]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = map(str, (HERE, HERE.parent, ROOT))

from PIL import Image
from ratios import Pairs, keep

from detr_viz.common.many_passes import for_many_passes, own_process
from detr_viz.demo.shapes import scene

RATIOS = {
    "batch / bare loop, DETR R50": ">= 0.93",
    "command / bare loop, DETR R50": "",
    "batch, memory: 512 images / 64": "<= 1.05",
}
COMMAND = [sys.executable, str(ROOT / "attention_scripts.py")]
_FORMATS = ["--format", "png,npz", "--quiet"]


def photos(folder: Path, count: int, hw: tuple[int, int]) -> None:
    folder.mkdir()
    for i in range(count):
        picture = Image.fromarray(scene(2_000_000_100 + i, 256).rgb)
        picture.resize((hw[1], hw[0]), Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg")


def checkpoint(path: Path) -> None:
    """DETR R50 of the official size, its weights from the fill rule of the goldens."""
    import torch
    from conftest import filled_state_dict

    torch.save({"model": filled_state_dict("detr_r50")}, path)


# ---- rate: each side in a process of its own -----------------------------------------------------


def bare(weights: str, folder: str) -> None:
    """Seconds of the forward passes alone, one for each photo; only the first photo is read."""
    import torch

    from detr_viz import load_model
    from detr_viz.images.read import load_image
    from detr_viz.images.resize import to_tensor

    model = load_model(weights, device="cpu")
    names = sorted(Path(folder).iterdir())
    x = to_tensor(load_image(names[0]), 800, 1333)
    with torch.inference_mode():
        model.network(x)
        start = time.perf_counter()
        for _ in names:
            model.network(x)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def batch(weights: str, folder: str, out: str) -> None:
    """Seconds of the run itself: all images read, drawn and written, the index too."""
    own_process()  # as the command does
    for_many_passes()
    import torch

    from detr_viz import load_model
    from detr_viz.batch import tasks, worker_process
    from detr_viz.batch.local_engine import LocalEngine
    from detr_viz.batch.run import run_batch
    from detr_viz.images import collect
    from detr_viz.images.read import load_image
    from detr_viz.images.resize import to_tensor
    from detr_viz.render.paths import OutputPaths
    from detr_viz.render.recipe import Recipe, of_models

    workers = worker_process.start(worker_process.default_count("cpu"))
    model = load_model(weights, device="cpu")
    for helper in workers:
        helper.ask(tasks.Drop(-1))  # its imports are done when it answers
    recipe = of_models([model], Recipe(()))
    found = collect.expand([folder])
    with torch.inference_mode():
        model.network(to_tensor(load_image(found[0].path), 800, 1333))
    outputs = OutputPaths(Path(out), "", (".png", ".npz"))
    start = time.perf_counter()
    summary = run_batch(LocalEngine([model], recipe, outputs, workers), recipe, found, outputs)
    seconds = time.perf_counter() - start
    assert summary.files == 2 * len(found) and not summary.counts.failed
    for helper in workers:
        helper.stop()
    print(json.dumps({"seconds": seconds}))


def timed(*argv: str) -> float:
    line = [sys.executable, __file__, *argv]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def rate(
    rounds: int, count: int, home: Path, weights: Path, command: bool = True
) -> dict[str, Pairs]:
    """Seconds of the bare loop beside those of a batch of `count` photos; command: of it too."""
    folder = home / "photos"
    photos(folder, count, (800, 1066))
    seconds = {name: [] for name in ("bare", "batch", *(["command"] if command else []))}
    for i in range(rounds):
        sides = {
            "bare": lambda: timed("bare", str(weights), str(folder)),
            "batch": lambda i=i: timed("batch", str(weights), str(folder), str(home / f"b{i}")),
        }
        order = list(sides) if i % 2 == 0 else list(sides)[::-1]
        took = {name: sides[name]() for name in order}
        if command:
            start = time.perf_counter()
            argv = ["--weights", str(weights), "--image", str(folder), "--out", str(home / f"c{i}")]
            subprocess.run([*COMMAND, *argv, *_FORMATS], check=True)
            took["command"] = time.perf_counter() - start
        for name, value in took.items():
            seconds[name].append(value)
        rates = ", ".join(f"{name} {count / s:.3f}" for name, s in took.items())
        print(f"  round {i + 1}: images/s {rates}", flush=True)
    said = ", ".join(f"{name} {statistics.median(s):.1f} s" for name, s in seconds.items())
    print(f"medians for {count} images: {said}")
    bare = tuple(seconds.pop("bare"))
    return {name: Pairs(bare, tuple(took)) for name, took in seconds.items()}


# ---- memory -------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with suppress(OSError):  # it ended between two looks
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [p for child in task.read_text().split() for p in tree(int(child))]
    return found


def pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def peak_mb(*argv: str) -> float:
    process = subprocess.Popen([*COMMAND, *argv, *_FORMATS])
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            total = 0
            for pid in tree(process.pid):
                with suppress(OSError):  # it ended between two looks
                    total += pss_kb(pid)
            peak[0] = max(peak[0], total)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.wait() == 0
    watcher.join()
    return peak[0] / 1024


def memory(home: Path) -> None:
    peaks = {}
    for count in (64, 512):
        photos(home / f"small{count}", count, (96, 128))
        argv = ["--image", str(home / f"small{count}"), "--out", str(home / f"m{count}")]
        peaks[count] = peak_mb(*argv, "--size", "96", "--queries", "top:3")
        print(f"  {count} small images: peak {peaks[count]:.0f} MB", flush=True)
    keep(RATIOS, "batch, memory: 512 images / 64", peaks[512] / peaks[64])


def main() -> None:
    if sys.argv[1:2] in (["bare"], ["batch"]):
        {"bare": bare, "batch": batch}[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", choices=("rate", "memory"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{len(os.sched_getaffinity(0))} cores")
        if args.only != "memory":
            weights = Path(folder) / "r50.pth"
            checkpoint(weights)
            for name, found in rate(args.rounds, args.images, Path(folder), weights).items():
                keep(RATIOS, f"{name} / bare loop, DETR R50", found.median, found)
        if args.only != "rate":
            memory(Path(folder))


if __name__ == "__main__":
    main()
