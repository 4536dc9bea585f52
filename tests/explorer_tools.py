"""Explanations as a trained DETR would have them, without a network: for pages of known content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.detections.detections import Detections
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.explanation.stored import StoredExplanation
from detr_viz.images.annotated import Annotated
from detr_viz.images.loaded_image import LoadedImage

MODES = ("combine", "position", "content")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last two axes."""
    flat = logits.reshape(*logits.shape[:2], -1).astype(np.float64)
    weights = np.exp(flat - flat.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).reshape(logits.shape).astype(np.float32)


def dense(
    rgb: np.ndarray,
    queries: int = 100,
    heads: int = 8,
    hw: tuple[int, int] = (25, 38),
    *,
    names: Sequence[str] = ("cat", "dog", "teapot"),
    path: str | None = "photo.jpg",
    annotated: Annotated | None = None,
    noise: float = 0.7,
    seed: int = 0,
) -> StoredExplanation:
    """Dense attention: a head looks at a side of its query's box or inside, as trained ones do.

    Position logits are Gaussians there, content logits smooth objects with noise, which is what
    costs bytes.
    """
    rng = np.random.default_rng(seed)
    h, w = hw
    grid = Grid(hw, (h * 32, w * 32), 32)
    height, width = rgb.shape[:2]
    center, size = rng.uniform(0.1, 0.9, (queries, 2)), rng.uniform(0.08, 0.4, (queries, 2))
    low, high = np.clip(center - size / 2, 0, 1), np.clip(center + size / 2, 0, 1)
    boxes = np.concatenate([low, high], 1) * np.array([width, height] * 2)
    terms = _terms(rng, center, size, heads, hw, noise)
    total = sum(terms.values())
    maps = {
        "combine": softmax(total),
        "position": softmax(terms["pq.pk"]),
        "content": softmax(terms["cq.ck"]),
    }
    class_scores = rng.beta(0.3, 3, (queries, len(names))).astype(np.float32)
    scores, labels = class_scores.max(1), class_scores.argmax(1).astype(np.int64)
    boxes = boxes.astype(np.float32)
    output = Detections(scores, labels, boxes, class_scores)
    shares = {name: np.full((queries, heads), 0.25, np.float32) for name in terms}
    ledger = LogitTerms(terms, total, maps["combine"], shares, 0.0)
    return StoredExplanation(
        model_type="detr",
        model_title="DETR",
        modes=MODES,
        image=LoadedImage(rgb, path, "ab" * 32, annotated=annotated),
        attention_kind="dense",
        term_names=tuple(terms),
        layer_grids={5: (grid,)},
        scores=scores,
        labels=labels,
        class_names=tuple(names),
        boxes_xyxy_px=boxes,
        class_scores=class_scores,
        num_heads=heads,
        num_layers=6,
        num_encoder_layers=6,
        layers=(5,),
        outputs={5: output},
        formulas={5: {mode: mode for mode in MODES}},
        separate=frozenset(),
        reference_px=None,
        residuals={5: 0.0},
        meta={"weights": "made.pth", "weights_sha256": "ab" * 32},
        pairwise=False,
        kept=tuple(range(queries)),
        scale="mode",
        stored={(mode, 5): (weights,) for mode, weights in maps.items()},
        stored_samples={},
        stored_terms={5: ledger},
    )


def _terms(
    rng: np.random.Generator,
    center: np.ndarray,
    size: np.ndarray,
    heads: int,
    hw: tuple[int, int],
    noise: float,
) -> dict[str, np.ndarray]:
    """Logits (q, M, h, w) of each product of parts, the mean of each map subtracted."""
    h, w = hw
    y, x = ((np.arange(n) + 0.5) / n for n in hw)
    angle = np.arange(heads) / max(heads - 1, 1) * 2 * np.pi
    side = np.stack([np.cos(angle), np.sin(angle)], -1) * (np.arange(heads) > 0)[:, None] / 2
    at = center[:, None] + side * size[:, None]  # (q, M, 2)
    wide = (0.35 * size + 0.04)[:, None]
    squared = ((x - at[..., :1]) / wide[..., :1])[:, :, None, :] ** 2 + (
        (y - at[..., 1:]) / wide[..., 1:]
    )[:, :, :, None] ** 2
    things = rng.normal(0, 1, (heads, 5, 7))
    smooth = np.stack([_enlarged(one, hw) for one in things])  # (M, h, w)
    likes = rng.normal(0, 1.5, (len(center), heads, 1, 1))
    content = likes * smooth + rng.normal(0, noise, (len(center), heads, h, w))
    terms = {
        "cq.ck": content,
        "cq.pk": rng.normal(0, 0.2, (len(center), heads, h, w)),
        "pq.ck": 0.3 * likes[::-1] * smooth,
        "pq.pk": -np.minimum(squared, 12) / 2,
    }
    return {k: (t - t.mean((2, 3), keepdims=True)).astype(np.float32) for k, t in terms.items()}


def _enlarged(field: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """A coarse field, linearly between its points."""
    rows = np.linspace(0, field.shape[0] - 1, hw[0])
    columns = np.linspace(0, field.shape[1] - 1, hw[1])
    across = np.stack([np.interp(columns, np.arange(field.shape[1]), line) for line in field])
    return np.stack([np.interp(rows, np.arange(len(field)), c) for c in across.T], 1)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """The coffee of scikit-image with grain, so that it is as hard to pack as a camera's photo."""
    from PIL import Image
    from skimage.data import coffee

    rng = np.random.default_rng(seed)
    large = np.asarray(Image.fromarray(coffee()).resize((width, height), Image.Resampling.LANCZOS))
    return np.clip(large + rng.normal(0, 4, large.shape), 0, 255).astype(np.uint8)
