"""Shared fixtures: official-format checkpoints made of the fill rule, and the demo models."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fillrule import fill

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


def filled_state_dict(name: str) -> dict[str, torch.Tensor]:
    """The official state dict `name` (keys_<name>.txt), filled by the rule, float32."""
    lines = (GOLDEN / f"keys_{name}.txt").read_text().splitlines()
    shapes = {key: tuple(map(int, dims.split(","))) for key, dims in map(str.split, lines)}
    return {key: torch.from_numpy(fill(key, shape)) for key, shape in shapes.items()}


@cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return dict(archive)


@pytest.fixture(autouse=True)
def _one_thread_rule():
    """Results must not depend on a test that changed the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@cache
def demo_model(name: str):
    """The shipped demo checkpoint of a type, loaded once, on the CPU."""
    from detr_viz import load_model

    return load_model(type=name, device="cpu")


@pytest.fixture(params=["detr", "cd_detr"])
def explanation(request):
    """The default scene explained by either demo, every layer captured."""
    return demo_explanation(request.param)


@cache
def demo_explanation(name: str):
    from detr_viz import explain
    from detr_viz.common import assets

    return explain(demo_model(name), assets.find(assets.DEFAULT_IMAGE), layers="all")


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(argv, says): the command ends in one line that says so, and writes nothing."""
    from detr_viz import cli

    def check(argv: list[str], says: str) -> None:
        try:
            code = cli.main([*argv, "--out", f"{tmp_path}/", "--quiet"])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and err.count("\n") == 1 and says in err
        assert not list(tmp_path.iterdir())

    return check


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A folder of 24 images, 5 of them broken, and what an uninterrupted run makes of it."""
    from batch_tools import QUICK, folder_of_scenes, run

    home = tmp_path_factory.mktemp("whole")
    bad = folder_of_scenes(home / "in", 24, broken=5)
    done = run(*QUICK, "--image", "in", "--out", "out", "--format", "png,npz", cwd=home)
    assert done.returncode == 1, done.stderr
    return home, [str(Path(path).relative_to(home)) for path in bad], done
