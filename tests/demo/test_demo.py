"""The demo's scenes, losses, helpers and files against hand values, brute force and torchvision."""

import argparse
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.ops
from PIL import Image

from detr_viz import load_model
from detr_viz.checkpoints.type_names import real_weights
from detr_viz.common import assets
from detr_viz.demo import losses, shapes, train, trainee, training_set
from detr_viz.demo.augment import augment
from detr_viz.demo.evaluate import average_precision, detections
from detr_viz.demo.recipe import TrainingConfig
from detr_viz.models import demos, get

SMALL = TrainingConfig(
    enc_layers=1,
    dec_layers=2,
    blocks=(1, 1),
    widths=(16, 16),
    d_model=32,
    dim_feedforward=32,
    queries=7,
    scenes=12,
    batch=2,
)
SMALL_OF = {
    "detr": SMALL,
    "cd_detr": SMALL,
    "deformable_detr": replace(SMALL, levels=1),
    "efficient_detr": replace(SMALL, levels=1, dec_layers=1, queries_at_first=9, groups=1),
    "anchor_detr": replace(SMALL, queries=9, groups=1),
    "salience_detr": replace(
        SMALL, levels=3, blocks=(1, 1, 1, 1), widths=(16, 16, 16, 16), groups=1
    ),
    "sparse_rcnn": replace(SMALL, levels=1),
    "dynamic_detr": replace(
        SMALL, levels=3, blocks=(1, 1, 1, 1), widths=(16, 16, 16, 16), groups=2
    ),
}
HEADS_OF = {"dynamic_detr": 4}  # others have 8
GROUPED = {  # with groups of queries -> their embedding
    "detr": "query_embed",
    "cd_detr": "query_embed",
    "deformable_detr": "query_embed",
    "sparse_rcnn": "init_proposal_features",
    "dynamic_detr": "init_proposal_features",
}


def bright_box(picture: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels above half of the brightest."""
    lit = picture > picture.max() / 2
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


# --- scenes --------------------------------------------------------------------------------------


def test_a_seed_gives_one_scene_and_another_seed_another():
    a, b, c = shapes.scene(5, 96), shapes.scene(5, 96), shapes.scene(6, 96)
    assert (a.rgb == b.rgb).all() and (a.boxes_xyxy_px == b.boxes_xyxy_px).all()
    assert (a.labels == b.labels).all()
    assert (a.rgb != c.rgb).any()
    assert a.rgb.dtype == np.uint8 and a.rgb.shape == (96, 96, 3)
    assert a.boxes_xyxy_px.dtype == np.float32 and a.labels.dtype == np.int64


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_is_the_same_scene_at_every_size(seed):
    small, large = shapes.scene(seed, 128), shapes.scene(seed, 512)
    np.testing.assert_allclose(small.boxes_xyxy_px * 4, large.boxes_xyxy_px, rtol=1e-5)
    assert (small.labels == large.labels).all()
    shrunk = np.asarray(Image.fromarray(large.rgb).resize((128, 128), Image.Resampling.BOX), float)
    other = shapes.scene(seed + 100, 128).rgb
    assert abs(shrunk - small.rgb).mean() < 3
    assert abs(shrunk - other).mean() > 12  # and another seed is another scene


def test_boxes_are_tight_around_what_is_drawn():
    size = 200
    seen = set()
    for seed in range(30):
        for shape in shapes.describe(seed)[1]:
            canvas = np.zeros((size, size, 3))
            shapes._paint(canvas, replace(shape, colors=((255.0,) * 3, (255.0,) * 3)))
            covered = canvas[..., 0] > 2
            rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
            drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            # the tip of a triangle or star is thinner than a pixel
            np.testing.assert_allclose(drawn, np.array(shape.box) * size, atol=2.0)
            seen.add((shape.label, shape.quarter_turns))
    assert {label for label, _ in seen} == set(range(len(shapes.CLASSES)))


@pytest.mark.parametrize(
    ("name", "low", "high", "most"), [("default", 0.18, 0.62, 6), ("big", 0.26, 0.75, 5)]
)
def test_distributions_keep_their_promises(name, low, high, most):
    counts, longs, aspects, overlaps = set(), [], [], []
    for seed in range(300):
        boxes = np.array([s.box for s in shapes.describe(seed, name)[1]])
        assert (boxes >= 0).all() and (boxes <= 1).all()
        counts.add(len(boxes))
        sides = boxes[:, 2:] - boxes[:, :2]
        longs += list(sides.max(1))
        aspects += list(sides.min(1) / sides.max(1))
        for i in range(len(boxes)):
            for other in boxes[:i]:
                wh = (
                    np.minimum(boxes[i, 2:], other[2:]) - np.maximum(boxes[i, :2], other[:2])
                ).clip(0)
                smaller = min(sides[i].prod(), (other[2:] - other[:2]).prod())
                overlaps.append(wh.prod() / smaller)
    assert counts == set(range(1, most + 1))
    assert low <= min(longs) < low + 0.02 and high - 0.05 < max(longs) <= high
    assert min(aspects) >= 0.4 - 1e-9 and max(aspects) <= 1
    assert max(overlaps) <= 0.2 + 1e-9 and max(overlaps) > 0.1


def test_held_out_seeds_are_never_trained_on():
    held = shapes.held_out_seeds(500)
    for seed in (0, 1, 7, training_set._PROGRESS_SEED):
        assert not set(held) & set(shapes.training_seeds(seed, 1_000_000))
    with pytest.raises(ValueError, match="held-out"):
        shapes.training_seeds(1000, 24_000)
    assert not set(shapes.training_seeds(1, 24_000)) & set(shapes.training_seeds(2, 24_000))


def test_training_set_is_cached_and_equal_when_read_back(tmp_path):
    first = training_set.training_set(1, 6, 64, 0.5, tmp_path, workers=1)
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]
    again = training_set.training_set(1, 6, 64, 0.5, tmp_path, workers=1)
    assert first.rgb.shape == (6, 64, 64, 3) and first.boxes_xyxy.shape == (6, 6, 4)
    for name in ("rgb", "boxes_xyxy", "labels"):
        assert (getattr(first, name) == getattr(again, name)).all()
    assert ((first.labels >= 0).sum(1) >= 1).all()
    assert (first.boxes_xyxy[first.labels < 0] == 0).all()


# --- losses --------------------------------------------------------------------------------------


def random_boxes(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 4) * 0.5 + 0.1


def test_giou_equals_torchvision():
    torch.manual_seed(0)
    a, b = losses.corners(random_boxes(40)), losses.corners(random_boxes(30))
    expected = torchvision.ops.generalized_box_iou(a, b)
    torch.testing.assert_close(losses.giou(a[:, None], b[None]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("focal", [False, True])
def test_matching_is_the_cheapest_of_all_assignments(focal):
    torch.manual_seed(1)
    layers, images, groups, queries, slots, classes = 2, 3, 2, 5, 3, 4
    logits = torch.randn(layers, images, groups, queries, classes + (not focal)) * 2
    boxes = random_boxes(layers, images, groups, queries)
    labels = torch.tensor([[0, 3, 1], [2, -1, -1], [-1, -1, -1]])
    wanted = random_boxes(images, slots)
    got = losses.match(logits, boxes, labels, wanted, focal)
    assert got.movedim(2, 1)[:, :, labels < 0].eq(-1).all()
    for layer in range(layers):
        for image, count in enumerate((3, 1, 0)):
            for group in range(groups):

                def cost(choice, layer=layer, image=image, group=group):
                    total = 0.0
                    for slot, query in enumerate(choice):
                        z = logits[layer, image, group, query]
                        label = labels[image, slot]
                        if focal:
                            p = z.sigmoid()[label]
                            absent = 0.75 * p**2 * -torch.log(1 - p)
                            total += 2 * (0.25 * (1 - p) ** 2 * -torch.log(p) - absent)
                        else:
                            total -= z.softmax(-1)[label]
                        a, b = boxes[layer, image, group, query], wanted[image, slot]
                        total += 5 * (a - b).abs().sum()
                        pair = (losses.corners(v)[None] for v in (a, b))
                        total -= 2 * torchvision.ops.generalized_box_iou(*pair)[0, 0]
                    return float(total)

                best = min(permutations(range(queries), count), key=cost)
                assert tuple(got[layer, image, group, :count].tolist()) == best


def test_set_loss_of_one_pair_by_hand():
    """One query, one object: box off by 0.1 in cx, class probabilities known."""
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).view(1, 1, 1, 1, 4)
    wanted = torch.tensor([0.6, 0.5, 0.2, 0.4]).view(1, 1, 4)
    label = torch.tensor([[1]])
    logits = torch.tensor([0.0, 2.0, -1.0]).view(1, 1, 1, 1, 3)
    iou = 0.1 * 0.4 / (0.3 * 0.4)  # the hull of two such boxes is their union
    for focal in (False, True):
        got = losses.set_loss(logits, boxes, label, wanted, focal)
        assert float(got["l1"]) == pytest.approx(5 * 0.1, abs=1e-5)
        assert float(got["giou"]) == pytest.approx(2 * (1 - iou), abs=1e-5)
    softmax = losses.set_loss(logits, boxes, label, wanted, focal=False)["class"]
    share = np.exp(2) / (1 + np.exp(2) + np.exp(-1))
    assert float(softmax) == pytest.approx(-np.log(share), abs=1e-5)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    expected = 2 * torchvision.ops.sigmoid_focal_loss(logits.view(1, 3), one_hot, reduction="sum")
    sigmoid = losses.set_loss(logits, boxes, label, wanted, focal=True)["class"]
    torch.testing.assert_close(sigmoid, expected)


def test_no_object_weighs_a_tenth():
    boxes = random_boxes(1, 1, 1, 2)
    wanted = boxes[0, 0, 0, :1].clone()[None]
    logits = torch.tensor([[3.0, 0.0, 0.0], [1.0, 0.0, 0.5]])
    got = losses.set_loss(
        logits.view(1, 1, 1, 2, 3), boxes, torch.tensor([[0]]), wanted, focal=False
    )
    nll = -logits.log_softmax(-1)
    assert float(got["class"]) == pytest.approx(
        float((nll[0, 0] + 0.1 * nll[1, 2]) / 1.1), abs=1e-5
    )


def test_losses_sum_over_layers_and_average_over_groups():
    torch.manual_seed(2)
    logits, boxes = torch.randn(1, 2, 1, 5, 6), random_boxes(1, 2, 1, 5)
    labels, wanted = torch.tensor([[1, 2], [4, -1]]), random_boxes(2, 2)
    for focal in (False, True):
        one = losses.set_loss(logits, boxes, labels, wanted, focal)
        many = losses.set_loss(
            logits.expand(3, 2, 4, 5, 6), boxes.expand(3, 2, 4, 5, 4), labels, wanted, focal
        )
        for name, value in one.items():
            torch.testing.assert_close(many[name], 3 * value)


def test_an_image_without_objects_has_only_a_class_loss():
    logits, boxes = torch.randn(2, 1, 1, 4, 6), random_boxes(2, 1, 1, 4)
    got = losses.set_loss(logits, boxes, torch.tensor([[-1]]), torch.zeros(1, 1, 4), focal=True)
    assert got["l1"] == 0 and got["giou"] == 0 and got["class"] > 0


def test_cells_take_the_class_of_the_object_drawn_last_over_them():
    labels = torch.tensor([[2, 5, -1]])
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 0.25, 0.25], [0, 0, 0, 0]]])
    got = losses.cell_targets(labels, boxes, (4, 4), 8, (32, 32))[0]
    assert (
        got[2, 2] == 5
    )  # pixel 16 of 32: the small object's centre, and inside the large one's box
    assert got[2, 0] == 2 and got[2, 1] == 2
    assert (got[:, 3] == -1).all() and got[0, 0] == -1  # the corner lies outside the ellipse


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_pixels_through_augmentation(seed):
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, 8:24, 16:56] = 200
    box = np.array([[[16, 8, 56, 24]]], np.float32) / 64
    images, boxes = augment(picture, box, 32, np.random.default_rng(seed))
    assert images.shape == (1, 3, 32, 32)
    x0, y0, x1, y1 = losses.corners(boxes)[0, 0].numpy() * 32
    lit = images[0, 0].numpy() - images[0, 0].numpy().min()
    np.testing.assert_allclose(bright_box(lit), (x0, y0, x1, y1), atol=0.51)


def test_augmentation_reaches_all_eight_orientations():
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    box = np.array([[[0.1, 0.2, 0.35, 0.75]]], np.float32)
    rng = np.random.default_rng(0)
    seen = {tuple(augment(picture, box, 32, rng)[1].numpy().round(3).ravel()) for _ in range(80)}
    assert len(seen) == 8


@pytest.mark.parametrize("kind", GROUPED)
def test_query_groups_do_not_see_each_other(kind):
    torch.manual_seed(0)
    net = trainee.Trainee(kind, SMALL_OF[kind]).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = net.model(images, None)["pred_logits"]
        getattr(net.model, GROUPED[kind]).weight[SMALL.queries :] += 1.0
        after = net.model(images, None)["pred_logits"]
    # boxes of one level are read together, and their number changes the last bits
    atol = 1e-6 if kind in ("sparse_rcnn", "dynamic_detr") else 0
    torch.testing.assert_close(
        before[:, : SMALL.queries], after[:, : SMALL.queries], atol=atol, rtol=0
    )
    assert not torch.allclose(before[:, SMALL.queries :], after[:, SMALL.queries :])


def test_every_model_that_ships_a_demo_has_a_training():
    assert {*demos()} <= set(SMALL_OF) == set(train.CONFIGS)


@pytest.mark.parametrize("kind", SMALL_OF)
def test_a_short_run_saves_what_loads_strictly_and_says_the_same(
    kind, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(train.CONFIGS, kind, SMALL_OF[kind])
    monkeypatch.setattr(train, "training_set", lambda *a: training_set.training_set(*a, workers=1))
    kept = {}
    real_export = train.export
    monkeypatch.setattr(
        train, "export", lambda t, path, meta: (kept.update(t=t), real_export(t, path, meta))
    )
    monkeypatch.setattr(train, "measure", lambda *a: "")
    out = tmp_path / "made" / "demo.pth"
    train.main(
        ["--type", kind, "--out", str(out), "--steps", "3", "--cache", str(tmp_path / "cache")]
    )
    assert "class" in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ["demo.pth"]

    saved = torch.load(out, weights_only=True)
    meta = saved["meta"]
    assert meta["type"] == kind and meta["classes"] == list(shapes.CLASSES)
    assert meta["nheads"] == HEADS_OF.get(kind, 8)
    assert (meta["size"], meta["max_size"], meta["stride"], meta["seed"]) == (128, 213, 8, 1)
    assert (meta["steps"], meta["images"]) == (3, 6)
    assert all(v.dtype == torch.float16 for v in saved["model"].values())
    assert not [k for k in saved["model"] if "num_batches" in k or "cell_head" in k]
    if kind in GROUPED:
        assert saved["model"][f"{GROUPED[kind]}.weight"].shape[0] == SMALL.queries

    state = {k: v.float() for k, v in saved["model"].items()}
    loaded = load_model(out, device="cpu")
    assert (loaded.info.type, loaded.info.num_queries) == (kind, SMALL_OF[kind].queries)
    assert not any("assumed" in note for note in loaded.info.notes)
    model = get(kind).build(loaded.config)
    model.load_state_dict(state)
    if kind == "salience_detr":  # rounding to fp16 would turn its choices between near scores
        for value in kept["t"].state_dict().values():
            value.copy_(value.half())
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        ours = model.eval()(images, None)
        trained = kept["t"].eval().model(images, None)
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(
            ours[name], trained[name][:, : SMALL_OF[kind].queries], atol=2e-2, rtol=1e-2
        )


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    args = argparse.Namespace(type="detr", seed=3, device="cpu", steps=4, minutes=1.0)
    data = training_set.training_set(3, 12, 128, 0.0, tmp_path, workers=1)
    whole = train.Run(args, SMALL)
    for _ in range(4):
        whole.step(data)
    half = train.Run(args, SMALL)
    for _ in range(2):
        half.step(data)
    half.save(tmp_path / "half.pth")
    rest = train.Run(args, SMALL)
    rest.restore(tmp_path / "half.pth")
    for _ in range(2):
        rest.step(data)
    assert (rest.steps, rest.images) == (4, 8)
    for a, b in zip(whole.trainee.parameters(), rest.trainee.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_few_steps_on_one_batch_lower_the_loss(tmp_path):
    data = training_set.training_set(4, 2, 128, 0.0, tmp_path, workers=1)
    args = argparse.Namespace(type="cd_detr", seed=4, device="cpu", steps=1000, minutes=1.0)
    run = train.Run(args, replace(SMALL, warmup_steps=1, lr=2e-3))
    run.step(data)
    first = sum(run.sums.values())
    for _ in range(25):
        run.step(data)
    run.sums = {}
    run.step(data)
    assert sum(run.sums.values()) < 0.75 * first


# --- accuracy ------------------------------------------------------------------------------------


def test_average_precision_of_perfect_shifted_and_wrong_answers(capsys):
    scenes = [shapes.scene(seed, 64) for seed in range(8)]

    def answers(shift=0.0, turn=0):
        for one in scenes:
            boxes = torch.from_numpy(one.boxes_xyxy_px)
            width = boxes[:, 2:3] - boxes[:, :1]
            move = torch.cat([width, torch.zeros_like(width)] * 2, 1) * shift
            labels = torch.from_numpy((one.labels + turn) % len(shapes.CLASSES))
            yield torch.ones(len(labels)), labels, boxes + move

    perfect = average_precision(scenes, answers())
    assert (perfect.ap50, perfect.ap75, perfect.ap) == pytest.approx((1, 1, 1))
    shifted = average_precision(scenes, answers(shift=0.25))  # IoU 0.75 / 1.25 = 0.6
    assert (shifted.ap50, shifted.ap75) == pytest.approx((1, 0))
    assert average_precision(scenes, answers(turn=1)).ap50 < 0.3
    assert capsys.readouterr().out == ""


def test_detections_of_both_kinds():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.25, 0.25, 0.5, 0.5]])
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 4.0]])
    scores, labels, found = detections(logits, boxes, focal=False)
    torch.testing.assert_close(scores, F.softmax(logits, -1)[[0, 1], [1, 0]])
    assert labels.tolist() == [1, 0]
    torch.testing.assert_close(found[1], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    scores, labels, found = detections(logits, boxes, focal=True)
    assert labels.tolist() == [2, 1, 0, 2, 0, 1]
    torch.testing.assert_close(scores[:2], torch.tensor([4.0, 3.0]).sigmoid())
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.0, 0.5, 0.5]))


# --- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", demos())
def test_a_demo_is_in_the_repository_and_in_the_wheel(name):
    """Git ignores weights/*, and a wheel carries named files only; both name them by a pattern."""
    file = assets.find(f"weights/{name}_demo.pth")
    root = file.parent.parent
    if (root / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "weights"], cwd=root, capture_output=True, text=True, check=True
        )
        assert f"weights/{name}_demo.pth" in listed.stdout.splitlines()
    shipped = (root / "pyproject.toml").read_text().split('"share/detr_viz/weights" = [')[1]
    patterns = re.findall(r'"(.+?)"', shipped.split("]")[0])
    assert any(file in root.glob(pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "--weights detr_resnet50 (see"),
        ("cd_detr", "--weights conditional_detr_resnet50 (see"),
        ("deformable_detr", "--weights hf:SenseTime/deformable-detr (see"),
        ("efficient_detr", "--weights with a file of Efficient DETR of yours"),
    ],
)
def test_real_weights_are_of_the_type(name, says):
    """Those of another type are refused beside --type."""
    assert real_weights(name).startswith(says)
