"""How far maps move when nothing has changed that should move them: the table that the limits of
check and compare are chosen by (detr_viz/regression/limits.py). Prints it as Markdown.

Both demo checkpoints on eight scenes, and DETR and Conditional DETR R50 of the official size, whose
weights are the fill rule's of the goldens, on four pictures of 800 x 1066: all modes of five
queries. Each row is one change against the run "as it is" of the same precision, the largest number
of all maps; "peak" counts only what the limits let count.

python tests/benchmarks/noise.py [--demos] [--python OTHER_PYTHON ...]

--python: interpreters with another torch (and this package's needs) for rows of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = map(str, (HERE.parent, ROOT))

MODES = ("combine", "position", "content")
# change -> (environment, what make() does otherwise)
CHANGES = {
    "one thread": ({"OMP_NUM_THREADS": "1"}, {}),
    "batches of four": ({}, {"batch": 4}),
    "attention not fused": ({}, {"fused": False}),
    "batch norm not folded": ({}, {"folded": False}),
    "no AVX": ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, {}),
}
COLUMNS = {
    "weight": "max_abs",
    "total variation": "total_variation",
    "peak, cells": "peak_shift",
    "centre, cells": "centroid_shift",
}


# ---- one run, in a process of its own -----------------------------------------------------------


def make(out: str, like: str, weights: str | None, kind: str, pictures: list[str], how: dict):
    """Maps of the pictures as out/0.npz, ...; of the queries that the files in `like` have."""
    import numpy as np
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from detr_viz import heatmaps, load_model
    from detr_viz.explanation import explain_image
    from detr_viz.images.read import load_image
    from detr_viz.images.resize import resized
    from detr_viz.models.network import DetrNetwork

    if not how.get("folded", True):
        DetrNetwork.fold_batch_norm = lambda self: None
    precision, batch = how.get("precision", "float32"), how.get("batch", 1)
    model = load_model(weights, kind, device="cpu", precision=precision)
    loaded = [load_image(picture) for picture in pictures]
    with ExitStack() as stack:
        if not how.get("fused", True):
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        for start in range(0, len(loaded), batch):
            some = loaded[start : start + batch]
            pixels = [resized(p, model.size, model.max_size) for p in some]
            for i, e in enumerate(
                explain_image.explain_batch(model, some, np.stack(pixels)), start
            ):
                if isinstance(e, Exception):
                    raise e
                ids = heatmaps.load(f"{like}/{i}.npz").query_ids if like else e.by_score()[:5]
                heatmaps.save(f"{out}/{i}.npz", e, [int(q) for q in ids], MODES)


def run(python: str, environment: dict[str, str], **call) -> Path:
    """make() in another process; the folder of its files."""
    Path(call["out"]).mkdir()
    command = [python, str(Path(__file__).resolve()), "--make", json.dumps(call)]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    return Path(call["out"])


# ---- comparing ----------------------------------------------------------------------------------


def apart(old: Path, new: Path) -> dict[str, float]:
    """The largest distances of the files of two folders."""
    from detr_viz import heatmaps
    from detr_viz.heatmaps.compare import judge

    found = dict.fromkeys([*COLUMNS, "1 - IoU", "score", "other classes"], 0.0)
    for path in sorted(old.glob("*.npz")):
        files = heatmaps.load(path), heatmaps.load(new / path.name)
        verdict = judge(*files)
        for change in verdict.heads:
            for column, name in COLUMNS.items():
                found[column] = max(found[column], getattr(change, name))
        found["1 - IoU"] = max([found["1 - IoU"], *(1 - q.iou for q in verdict.queries)])
        changes = [abs(q.scores[0] - q.scores[1]) for q in verdict.queries]
        found["score"] = max([found["score"], *changes])
        found["other classes"] += sum(q.labels[0] != q.labels[1] for q in verdict.queries)
    return found


def row(*cells: str | float) -> str:
    said = [c if isinstance(c, str) else "0" if c == 0 else f"{c:.1e}" for c in cells]
    return f"| {' | '.join(said)} |"


def table(home: Path, models: dict[str, list[tuple]], pythons: dict[str, str]) -> None:
    """Print a row for each precision, models and change."""
    for precision in ("float32", "bfloat16"):
        for name, group in models.items():
            rows: dict[str, dict[str, float]] = {}
            for n, (weights, kind, pictures) in enumerate(group):
                stem = f"{home}/{name}-{precision}-{n}"
                call = {"weights": weights, "kind": kind, "pictures": pictures}
                how = {"precision": precision}
                first = run(sys.executable, {}, out=f"{stem}-0", like="", how=how, **call)
                kinds = {c: (sys.executable, *rest) for c, rest in CHANGES.items()}
                kinds |= {f"torch {v}": (path, {}, {}) for v, path in pythons.items()}
                if precision != "float32":
                    kinds[f"float32 / {precision}"] = (sys.executable, {}, {"precision": "float32"})
                for i, (change, (python, env, other)) in enumerate(kinds.items(), 1):
                    made = run(
                        python,
                        env,
                        out=f"{stem}-{i}",
                        like=str(first),
                        how={**how, **other},
                        **call,
                    )
                    found = apart(first, made)
                    so_far = rows.setdefault(change, found)
                    rows[change] = {key: max(found[key], so_far[key]) for key in found}
            for change, found in rows.items():
                print(row(precision, name, change, *found.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--python", nargs="+", default=[])
    parser.add_argument("--demos", action="store_true", help="only the demo checkpoints")
    args = parser.parse_args()
    if args.make:
        make(**json.loads(args.make))
        return
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        models = {
            "demos": [(None, kind, scenes(home, 8, 192, 192)) for kind in ("detr", "cd_detr")]
        }
        if not args.demos:
            models["R50"] = [
                (checkpoint(home, name), kind, scenes(home, 4, 800, 1066))
                for name, kind in (("detr_r50", "detr"), ("cond_r50", "cd_detr"))
            ]
        said = "import torch; print(torch.__version__)"
        versions = {
            subprocess.run([p, "-c", said], capture_output=True, text=True, check=True).stdout: p
            for p in args.python
        }
        pythons = {version.strip(): path for version, path in versions.items()}
        print(f"torch {torch.__version__}\n")
        heads = ["precision", "models", "change", *COLUMNS, "1 - IoU", "score", "other classes"]
        print(row(*heads))
        print("|---" * len(heads) + "|", flush=True)
        table(home, models, pythons)


def scenes(home: Path, count: int, height: int, width: int) -> list[str]:
    from PIL import Image

    from detr_viz.demo.shapes import scene

    paths = [home / f"{height}-{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        picture = Image.fromarray(scene(2_000_000_300 + i, 192).rgb)
        picture.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return [str(path) for path in paths]


def checkpoint(home: Path, name: str) -> str:
    import torch
    from conftest import filled_state_dict

    path = home / f"{name}.pth"
    torch.save({"model": filled_state_dict(name)}, path)
    return str(path)


if __name__ == "__main__":
    main()
