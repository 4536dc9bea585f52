"""Whatever the program around the library has set, the numbers are those of the tool alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from network_tools import TINIES, TINY, as_detector, tiny

from detr_viz import attach, explain, models
from detr_viz.common.errors import UserError
from detr_viz.explanation import rollout
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.precision import in_tf32, own_arithmetic
from detr_viz.explanation.stored import store

NAMES = ("detr", "cd_detr", *TINIES)
IMAGES = [np.random.default_rng(k).integers(0, 255, (64, 80, 3), np.uint8) for k in range(8)]


@contextmanager
def setting(get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return setting(torch.get_default_dtype, torch.set_default_dtype, dtype)


# name, what the caller is in
CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float16": lambda: default_dtype(torch.float16),
    "default device": lambda: torch.device("meta"),
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "coarse products": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "numpy raises": lambda: np.errstate(all="raise"),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}


def sites_of(model) -> list[str]:
    """All kinds of further attention that it has."""
    return ["encoder", "decoder"] if model.info.num_encoder_layers else ["decoder"]


def part_of(model) -> str:
    """A part that an ablation of it can leave out."""
    return "head:1" if model.info.num_heads > 1 else "box:inside"


def results(model, image) -> dict[str, np.ndarray]:
    """All that the library can say of an image, by name."""
    e = explain(model, image, layers="all", sites=sites_of(model))
    arrays = {"scores": e.class_scores, "boxes": e.boxes_xyxy_px}
    arrays |= {f"maps {mode}": e.maps(mode) for mode in e.modes}
    arrays |= {f"attention {site}": e.attention(site) for site in e.sites}
    ablation = e.ablate(part_of(e.model))
    arrays |= {"ablated": ablation.after.class_scores}
    arrays |= {f"ablated {n}": weights for n, weights in ablation.weights.items()}
    hidden = faithfulness(e, [0], orders=1)
    arrays |= {"deletion": hidden.deletion["combine"], "random": hidden.random}
    if samples := e.samples("combine", [0], e.layers[-1]):
        arrays |= dict(zip(("xy", "weight"), samples, strict=True))
    if e.attention_kind == "dense":
        arrays |= {f"term {k}": v for k, v in e.logit_terms([0], e.layers[-1]).terms.items()}
    if e.salience is None and not e.stages:
        rolled = rollout.of_queries(e, [0, 1])
        arrays |= {"rolled": rolled.both, "cells": rollout.of_cells(e, [3])}
        arrays |= {"last": rollout.last_of_cells(e, [3])}
    return arrays


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch, of anomaly detection
@pytest.mark.parametrize("name", NAMES)
def test_the_callers_settings_do_not_reach_in(name):
    model = tiny(name)
    expected = results(model, IMAGES[0])
    for title, context in CONTEXTS.items():
        with context():
            found = results(model, IMAGES[0])
        try:
            assert_same(found, expected)
        except AssertionError as error:
            raise AssertionError(title) from error


@pytest.mark.parametrize("name", NAMES)
def test_what_was_explained_before_is_computed_alike_in_a_callers_context(name):
    """Maps are worked out when asked for, which may be inside the caller's autocast."""
    e = explain(tiny(name), IMAGES[0], layers="all", sites=sites_of(tiny(name)))
    expected = [e.maps(mode) for mode in e.modes], e.ablate(part_of(e.model)).after.class_scores
    late = explain(tiny(name), IMAGES[0], layers="all", sites=sites_of(tiny(name)))
    with torch.autocast("cpu", torch.bfloat16):
        maps, ablated = (
            [late.maps(mode) for mode in late.modes],
            late.ablate(part_of(e.model)).after,
        )
    np.testing.assert_array_equal(maps, expected[0])
    np.testing.assert_array_equal(ablated.class_scores, expected[1])


@pytest.mark.parametrize("part", ["all", "batch norm", "one site"])
def test_a_network_in_training_mode_is_refused(part):
    """Batch norm, which would also average over the image, is not in released networks."""
    network = models.get("detr").build(TINY, torch.nn.BatchNorm2d).eval().requires_grad_(False)
    model = as_detector(network, "detr")
    e = explain(model, IMAGES[0])
    inner = {
        "all": network,
        "batch norm": network.backbone[0],
        "one site": model.attention_sites()["cross", 0].module,
    }[part]
    inner.train()
    for run in (lambda: explain(model, IMAGES[0]), lambda: e.ablate(part_of(e.model))):
        with pytest.raises(UserError, match=r"training mode.*eval"):
            run()
    with pytest.raises(UserError, match="training mode"):
        faithfulness(e, [0], orders=1)
    network.eval()
    assert_same({"maps": explain(model, IMAGES[0]).maps()}, {"maps": e.maps()})


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_says_the_same(name):
    model = tiny(name)
    e = explain(model, IMAGES[0], layers="all", sites=sites_of(model))
    again = copy.deepcopy(e)
    assert again.model is not e.model
    found, expected = (
        {f"maps {mode}": x.maps(mode) for mode in x.modes}
        | {"ablated": x.ablate(part_of(x.model)).after.class_scores}
        for x in (again, e)
    )
    assert_same(found, expected)
    assert_same(results(copy.deepcopy(e.model), IMAGES[1]), results(e.model, IMAGES[1]))


def _threads(models, rounds: int, workers: int) -> None:
    """Each of several threads explains an image of its own, ablations between them."""
    jobs = [(models[k % len(models)], IMAGES[k % len(IMAGES)]) for k in range(rounds)]
    alone: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for k, (model, image) in enumerate(jobs):
        key = k % len(models), k % len(IMAGES)
        if key not in alone:
            alone[key] = _of_threads(model, image)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda job: _of_threads(*job), jobs))
    for k, arrays in enumerate(found):
        assert_same(arrays, alone[k % len(models), k % len(IMAGES)])


def _of_threads(model, image) -> dict[str, np.ndarray]:
    e = explain(model, image, layers="all", sites=sites_of(model))
    return {
        "scores": e.class_scores,
        "maps": e.maps(),
        "ablated": e.ablate(part_of(e.model)).after.class_scores,
        **{f"attention {site}": e.attention(site) for site in e.sites},
        "content": e.maps("content") if "content" in e.modes else e.boxes_xyxy_px,
    }


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_a_model(name):
    torch.set_num_threads(1)
    _threads([tiny(name)], rounds=12, workers=4)


def test_threads_share_two_models():
    torch.set_num_threads(1)
    _threads([tiny("detr"), tiny("deformable_detr"), tiny("detr", dec_layers=1)], 12, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_200_explanations_by_8_threads(name):
    torch.set_num_threads(1)
    _threads([tiny(name)], 200, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conditional_detr", "rt_detr", "deformable_detr"])
def test_200_explanations_by_8_threads_of_an_attached_model(name):
    pytest.importorskip("transformers")
    from adapters import tiny_models

    torch.set_num_threads(1)
    model = attach(tiny_models.build(name), processor=tiny_models.processor_of(name))
    _threads([model], 200, 8)


@pytest.mark.slow
def test_200_explanations_by_8_threads_of_two_models():
    torch.set_num_threads(1)
    _threads([tiny("cd_detr"), tiny("anchor_detr")], 200, 8)


def test_threads_of_other_products_wait_for_each_other():
    """torch has one setting of TF32 for all threads: nobody's products change under them."""
    cpu, wrong = torch.device("cpu"), []

    def run(precision: str) -> None:
        for _ in range(300):
            with own_arithmetic(precision, cpu), own_arithmetic(precision, cpu):
                if in_tf32() is not (precision == "tf32"):
                    wrong.append(precision)

    before = in_tf32()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, ["tf32", "float32"] * 3))
    assert not wrong and in_tf32() is before


@pytest.mark.parametrize("what", ["results", "ablation", "detections", "stored", "rollout"])
def test_results_pickle(what):
    e = explain(tiny("detr"), IMAGES[0], layers="all", sites=["encoder", "decoder"])
    value = {
        "results": lambda: e.logit_terms([0], 1),
        "ablation": lambda: e.ablate(part_of(e.model)),
        "detections": lambda: e.output(0),
        "stored": lambda: store(e, [0], ["combine"]),
        "rollout": lambda: rollout.of_queries(e, [0]),
    }[what]()
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert repr(again) == repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_models_and_explanations_pickle(name):
    model = tiny(name)
    e = explain(model, IMAGES[0], layers="all", sites=sites_of(model))
    again = pickle.loads(pickle.dumps(e))
    assert again.model.spec is e.model.spec
    found, expected = (
        {f"maps {mode}": x.maps(mode) for mode in x.modes}
        | {"ablated": x.ablate(part_of(x.model)).after.class_scores}
        for x in (again, e)
    )
    assert_same(found, expected)


def test_faithfulness_hides_cells_from_its_own_thread_alone():
    model = tiny("detr")
    expected = explain(model, IMAGES[0]).class_scores
    e, stop = explain(model, IMAGES[1]), []

    def hide() -> None:
        while not stop:
            faithfulness(e, [0], orders=1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hide)
        try:
            for _ in range(30):
                found = explain(model, IMAGES[0]).class_scores
                np.testing.assert_array_equal(found, expected)
        finally:
            stop.append(True)
        running.result()
