"""The network's part of a batch: what fails together is tried alone, with the memory given back."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import demo_model

from detr_viz.batch.local_engine import LocalEngine
from detr_viz.batch.scheduler import Item, Ready
from detr_viz.batch.tasks import Draw, Failure, Pixels, Setup
from detr_viz.explanation import explain_image
from detr_viz.images.loaded_image import ImageFacts
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe, of_models

SIZE = 64


@pytest.fixture
def recipe():
    return of_models([demo_model("detr")], Recipe((), queries="top:1", size=SIZE))


def ready(i: int) -> Ready:
    pixels = np.random.default_rng(i).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    facts = ImageFacts((SIZE, SIZE), f"{i}.png", f"{i:02}")
    return Ready(Item(i, f"{i}.png", str(i)), Pixels(facts, (pixels,)))


class OutOfMemory(RuntimeError):
    """As torch says it where a batch is too large."""


def test_a_batch_that_is_too_large_is_done_image_by_image(recipe, monkeypatch):
    real, sizes = explain_image.explain_batch, []
    held: list[weakref.ref] = []

    class Activations:
        """What the frames of a failed forward pass hold."""

    def small(model, facts, pixels, *more):
        sizes.append(len(facts))
        gc.disable()  # what only a cycle holds would not be gone in time
        assert not any(ref() for ref in held)
        gc.enable()
        if len(facts) > 1:
            activations = Activations()
            held.append(weakref.ref(activations))
            raise OutOfMemory("CUDA out of memory")
        return real(model, facts, pixels, *more)

    monkeypatch.setattr(explain_image, "explain_batch", small)
    engine = LocalEngine([demo_model("detr")], recipe, OutputPaths(Path("out")), [])
    made = engine.explainer([ready(i) for i in range(3)])
    assert sizes == [3, 1, 1, 1] and len(held) == 1
    assert [order.i for order in made] == [0, 1, 2]
    assert all(isinstance(order, Draw) for order in made)


def test_only_the_image_at_fault_fails(recipe, monkeypatch):
    real = explain_image.explain_batch

    def picky(model, facts, *more):
        if any(fact.path == "1.png" for fact in facts):
            raise ValueError("no way")
        return real(model, facts, *more)

    monkeypatch.setattr(explain_image, "explain_batch", picky)
    engine = LocalEngine([demo_model("detr")], recipe, OutputPaths(Path("out")), [])
    first, second, third = engine.explainer([ready(i) for i in range(3)])
    assert isinstance(first, Draw) and isinstance(third, Draw)
    assert isinstance(second, Failure) and "no way" in second.reason and not second.fatal
    assert set(engine.done) == {0, 2}


class Slow:
    """A helper that takes its time to be set up."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def set_up(self, setup: Setup) -> None:
        self.asked.set()
        assert self.go_on.wait(10)

    def ask(self, order):
        return Failure("asked after all")


def test_stop_while_helpers_are_being_set_up_is_not_forgotten(recipe, tmp_path):
    helper = Slow()
    engine = LocalEngine([demo_model("detr")], recipe, OutputPaths(tmp_path), [helper])

    def stop() -> None:
        assert helper.asked.wait(10)
        engine.stop()
        helper.go_on.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    items = (Item(i, f"{i}.png", str(i)) for i in range(1000))
    assert list(engine.run(items, tmp_path, print)) == []
    stopper.join()
