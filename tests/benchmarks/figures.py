"""A grid of head maps drawn and saved / the same grid as an Axes a panel, the common way.

Eight heads, a photo of 1066 x 800, maps of 34 x 25 cells, files 1600 pixels wide. No network runs.

    png      10 queries to PNG, seconds
    pdf      10 queries to PDF, seconds, and the size of our file
    memory   100 queries to PNG, peak of a process of its own, and how far that is above the process
             with its imports alone

Times are medians of interleaved pairs in one process, after both ran once: imports and caches that
fill at the first figure are outside. Memory is one run each; the common way takes about a minute
and 6 GB.

The common way brings a map to the photo's pixels and lays it over the photo. With --light imshow
stretches the cells itself, which is cheaper; the targets are not for that.

python tests/benchmarks/figures.py [pairs] [--only png|pdf|memory] [--light]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from fake_explanation import FakeExplanation, fake
from ratios import clean_seconds, in_pairs, keep

from detr_viz import figures
from detr_viz.figures.styles import PageFormat

RATIOS = {
    "figures: 10 queries x 8 heads, PNG": "<= 0.05",
    "figures: 10 queries x 8 heads, PDF": "<= 0.15",
    "figures: MB of the PDF": "<= 2.2",
    "figures: 100 queries x 8 heads, memory": "<= 0.15",
}
WIDTH_IN, DPI = 8.0, 200.0  # 1600 pixels
PHOTO_HW, STRIDE, HEADS = (800, 1066), 32, 8
NAMES = (
    "dining table",
    "potted plant",
    "traffic light",
    "baseball glove",
    "wine glass",
    "fire hydrant",
    "tennis racket",
    "parking meter",
    "cell phone",
    "teddy bear",
)
BILINEAR = Image.Resampling.BILINEAR
Draw = Callable[[FakeExplanation, Path], None]


def ours(e: FakeExplanation, path: Path) -> None:
    queries, page_format = range(len(e.scores)), PageFormat(WIDTH_IN, DPI)
    figures.save(figures.head_grid(e, queries, "combine", page_format=page_format), path)


def naive(e: FakeExplanation, path: Path, resize: bool = True) -> None:
    """An Axes a panel: the photo, the map over it, the box, a title."""
    photo, maps = e.image.rgb, e.maps("combine")
    (height, width), rows, columns = photo.shape[:2], len(e.scores), HEADS + 1
    panel_in = 0.905 * WIDTH_IN / (columns + (columns - 1) * 0.05)
    row_in = panel_in * height / width + 0.12  # with its title
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH_IN, rows * row_in), dpi=DPI)
    fig.subplots_adjust(
        left=0.09, right=0.995, bottom=0.005 / rows, top=1 - 0.11 / row_in / rows, wspace=0.05
    )
    for query in range(rows):
        x0, y0, x1, y1 = e.boxes_xyxy_px[query]
        for column in range(columns):
            ax = axes[query, column]
            ax.imshow(photo)
            if column:
                head = column - 1
                weights = maps[query, head]
                if resize:
                    weights = Image.fromarray(weights).resize((width, height), BILINEAR)
                ax.imshow(
                    weights,
                    cmap="inferno",
                    alpha=0.6,
                    extent=(0, width, height, 0),
                    interpolation=None if resize else "bilinear",
                )
                ax.set_title(f"query {query}, head {head}", fontsize=5, pad=2)
            box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1)
            ax.add_patch(box)
            ax.axis("off")
        label = f"{e.label_name(query)}\n{e.scores[query]:.2f}"
        axes[query, 0].text(
            -0.05, 0.5, label, transform=axes[query, 0].transAxes, ha="right", va="center", size=6
        )
    fig.savefig(path)
    plt.close(fig)


def light(e: FakeExplanation, path: Path) -> None:
    """The same, but imshow stretches the cells."""
    naive(e, path, resize=False)


def photo() -> np.ndarray:
    """Clouds of colour with detail at every scale: spectra fall with 1 / f, as a photo's do."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(PHOTO_HW[0])[:, None], np.fft.rfftfreq(PHOTO_HW[1]))
    frequency[0, 0] = np.inf
    noise = (np.fft.rfft2(rng.normal(size=PHOTO_HW)) / frequency for _ in range(3))
    planes = (np.fft.irfft2(spectrum, PHOTO_HW) for spectrum in noise)
    red, gray, blue = (plane / plane.std() for plane in planes)
    rgb = (gray + 0.3 * red, gray, gray + 0.3 * blue)
    return np.stack([np.clip(115 + 45 * plane, 0, 255).astype(np.uint8) for plane in rgb], -1)


def explanation(queries: int) -> FakeExplanation:
    """Boxes all over the photo, and for every head a softmax with a peak in or near the box."""
    rng = np.random.default_rng(0)
    h, w = (-(-side // STRIDE) for side in PHOTO_HW)
    size = np.array([*PHOTO_HW[::-1]] * 2, np.float32)
    low, high = rng.uniform(0, 0.55, (queries, 2)), rng.uniform(0.15, 0.4, (queries, 2))
    boxes = np.hstack([low, low + high]).astype(np.float32)
    center = rng.normal((low + high / 2)[:, None], 0.1, (queries, HEADS, 2))
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    away = (y[:, None] - center[..., 1, None, None]) ** 2 + (x - center[..., 0, None, None]) ** 2
    logits = 5 * np.exp(-away / 0.03) + rng.normal(0, 0.7, (queries, HEADS, h, w))
    weights = np.exp(logits)
    weights /= weights.sum((2, 3), keepdims=True)
    return fake(
        image=SimpleNamespace(rgb=photo()),
        input_hw=PHOTO_HW,
        stride=STRIDE,
        names=[NAMES[i % len(NAMES)] for i in range(queries)],
        scores=rng.uniform(0.3, 1, queries),
        made=weights.astype(np.float32),
        boxes_xyxy_px=boxes * size,
    )


def peak_mb() -> float:
    """Peak of this process. Not ru_maxrss, which begins with the peak of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure(draw: Draw, queries: int, path: Path) -> tuple[float, float, float]:
    """(peak with the imports alone, peak at the end, seconds) of the process this runs in."""
    before = peak_mb()
    took = clean_seconds(partial(draw, explanation(queries), path))
    return before, peak_mb(), took


def in_new_process(draw: Draw, queries: int, path: Path) -> tuple[float, float, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, draw, queries, path).result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="?", type=int, default=5)
    parser.add_argument("--only", choices=("png", "pdf", "memory"))
    parser.add_argument("--light", action="store_true")
    args = parser.parse_args()
    draws = (ours, light if args.light else naive)
    ratios = dict.fromkeys(RATIOS, "") if args.light else RATIOS
    kinds = (args.only,) if args.only else ("png", "pdf", "memory")
    print(f"matplotlib {matplotlib.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        ten = explanation(10)
        for kind in (k for k in kinds if k != "memory"):
            paths = [Path(folder, f"{draw.__name__}.{kind}") for draw in draws]
            first, second = (partial(d, ten, p) for d, p in zip(draws, paths, strict=True))
            found = in_pairs(first, second, args.pairs, clock=clean_seconds)
            keep(ratios, f"figures: 10 queries x 8 heads, {kind.upper()}", found.median, found)
            if kind == "pdf":
                keep(ratios, "figures: MB of the PDF", paths[0].stat().st_size / 1e6)
        if "memory" in kinds:
            runs = [in_new_process(d, 100, Path(folder, f"{d.__name__}.png")) for d in draws]
            imports, peaks, times = zip(*runs, strict=True)
            above = [peak - start for peak, start in zip(peaks, imports, strict=True)]
            detail = f"{peaks[0]:.0f} MB / {peaks[1]:.0f} MB; {times[0]:.1f} s / {times[1]:.1f} s"
            keep(ratios, "figures: 100 queries x 8 heads, memory", peaks[0] / peaks[1], detail)
            print(
                f"above the imports ({imports[0]:.0f} MB): {above[0] / above[1]:.4f}"
                f"  ({above[0]:.0f} MB / {above[1]:.0f} MB)"
            )


if __name__ == "__main__":
    main()
