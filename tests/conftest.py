"""Shared fixtures: official-format checkpoints made of the fill rule, and the demo models."""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the process that starts others imports nothing heavy
    import numpy as np
    import torch

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent
WORKERS = 4  # at most; each holds its own models
# The files that take longest, longest first: begun first, so that no worker ends long after others.
LONGEST = (
    "test_tour.py",
    "html/test_page_in_browser.py",
    "attacks/test_terminal.py",
    "attacks/test_not_regular.py",
    "attacks/test_settings_and_names.py",
    "attacks/test_callers_context.py",
    "cli/test_cli_figures.py",
    "batch/test_resume.py",
    "cli/test_cli.py",
    "figures/test_layout.py",
    "test_models_table.py",
    "test_salience.py",
    "regression/test_regression.py",
    "regression/test_places.py",
    "test_examples.py",
    "batch/test_helpers.py",
    "checkpoints/test_huggingface.py",
    "figures/test_contact.py",
    "figures/test_contact_files.py",
    "models/test_golden.py",
    "demo/test_shipped_weights.py",
    "regression/test_pytest_plugin.py",
    "figures/test_fonts.py",
    "checkpoints/test_plain_values.py",
    "checkpoints/test_checkpoints.py",
    "test_deformable_levels.py",
    "figures/test_figure_files.py",
    "test_deformable.py",
    "cli/test_atlas_command.py",
    "figures/test_decoder_figures.py",
    "render/test_one_loop.py",
    "figures/test_overlaps.py",
    "figures/test_notebook_cells.py",
    "html/test_explorer_cell.py",
    "figures/test_notebook.py",
    "explanation/test_faithfulness.py",
    "test_anchor_views.py",
    "batch/test_budget.py",
    "adapters/test_command.py",
    "models/test_deformable_golden.py",
    "adapters/test_transformers.py",
    "figures/test_contour_figures.py",
    "heatmaps/test_fuzz.py",
    "checkpoints/test_preprocessing.py",
    "batch/test_cluster_runs.py",
    "figures/test_styles.py",
    "demo/test_demo.py",
    "figures/test_proposal_figures.py",
    "figures/test_contours.py",
    "adapters/test_attach.py",
    "batch/test_batch.py",
)
# Whole programs, their processes and what attacks them; long tables of figures; trainings. Half of
# the suite's time: these files wait for --thorough, with which CI runs, or for being named.
THOROUGH = frozenset(
    (
        "adapters/test_command.py",
        "attacks/test_callers_context.py",
        "attacks/test_not_regular.py",
        "attacks/test_settings_and_names.py",
        "attacks/test_terminal.py",
        "batch/test_batch.py",
        "batch/test_budget.py",
        "batch/test_cluster_runs.py",
        "batch/test_helpers.py",
        "batch/test_journal_killed.py",
        "batch/test_resume.py",
        "checkpoints/test_plain_values.py",
        "cli/test_atlas_command.py",
        "cli/test_bad_figure_flags.py",
        "cli/test_bad_inputs.py",
        "cli/test_cli.py",
        "cli/test_cli_figures.py",
        "cli/test_deformable_bad_inputs.py",
        "cli/test_explore_command.py",
        "cli/test_family_bad_inputs.py",
        "demo/test_demo.py",
        "demo/test_shipped_weights.py",
        "demo/test_training_files.py",
        "figures/test_contact.py",
        "figures/test_contact_files.py",
        "figures/test_contour_figures.py",
        "figures/test_contours.py",
        "figures/test_decoder_figures.py",
        "figures/test_figure_files.py",
        "figures/test_fonts.py",
        "figures/test_notebook_cells.py",
        "figures/test_overlaps.py",
        "figures/test_proposal_figures.py",
        "figures/test_styles.py",
        "heatmaps/test_fuzz.py",
        "html/test_explorer_cell.py",
        "html/test_page_in_browser.py",
        "regression/test_mutations.py",
        "regression/test_pytest_plugin.py",
        "regression/test_reports.py",
        "render/test_one_loop.py",
        "test_anchor_views.py",
        "test_deformable_levels.py",
        "test_examples.py",
        "test_models_table.py",
        "test_pictures.py",
        "test_proposals_command.py",
        "test_stages_command.py",
        "test_tour.py",
    )
)

# Figures multiply small matrices: with threads that costs numpy twice the time. Before its import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if "PYTEST_XDIST_WORKER" in os.environ:
    import torch

    torch.set_num_threads(1)  # the workers are as many as there are CPUs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="also the files that take half of the time, as CI"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of THOROUGH are left out of a run of the whole suite; those that are named are not."""
    here = Path(__file__).parent
    whole = all((config.rootpath / arg).resolve() in (here, ROOT) for arg in config.args)
    if config.option.thorough or not whole or here not in collection_path.parents:
        return None
    return collection_path.relative_to(here).as_posix() in THOROUGH or None


def pytest_collection_finish() -> None:
    """What is imported and collected stays: no garbage collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Whole suites and folders run on several CPUs, file by file, unless the command says how.

    Files and tests that are named run in this process, for starting workers takes longer than they
    gain; so do all with -n 0, -s, --pdb or without pytest-xdist (-p no:xdist).
    """
    option = config.option
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if is_worker or not hasattr(option, "numprocesses") or option.numprocesses is not None:
        return
    folders = [arg for arg in config.args if Path(arg.partition("::")[0]).is_dir()]
    alone = option.collectonly or option.capture == "no"
    if option.dist == "no" and folders and not alone:
        option.numprocesses, option.maxprocesses = "logical", option.maxprocesses or WORKERS
        option.dist = "loadfile"  # a file's tests share what its fixtures build
        option.loadscopereorder = False  # the order is that of pytest_collection_modifyitems


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first where files run side by side."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    here = Path(__file__).parent
    place = {here / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def filled_state_dict(name: str) -> dict[str, torch.Tensor]:
    """The official state dict `name` (keys_<name>.txt), filled by the rule, float32."""
    import torch
    from golden.fillrule import fill

    lines = (GOLDEN / f"keys_{name}.txt").read_text().splitlines()
    shapes = {key: tuple(map(int, dims.split(","))) for key, dims in map(str.split, lines)}
    return {key: torch.from_numpy(fill(key, shape)) for key, shape in shapes.items()}


@cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    import numpy as np

    with np.load(GOLDEN / f"{name}.npz") as archive:
        return dict(archive)


@pytest.fixture(autouse=True)
def _one_thread_rule():
    """Results must not depend on a test that changed the number of threads."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _helpers_that_stay(request: pytest.FixtureRequest):
    """Batches in this process draw with worker processes that an earlier test has left."""
    if request.node.get_closest_marker("own_helpers"):
        yield
    else:
        from warm_helpers import warm_helpers

        with warm_helpers():
            yield


@pytest.fixture(scope="session", autouse=True)
def _models_that_stay():
    """Commands in this process draw with demo models that an earlier one has loaded."""
    from kept_models import kept_models

    with kept_models():
        yield


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
def here(tmp_path, monkeypatch):
    """An empty folder of the test's own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    """A folder of 20 images, 5 of them broken, and what an uninterrupted run makes of it."""
    from batch_tools import QUICK, folder_of_scenes, run_here
    from warm_helpers import warm_helpers

    home = tmp_path_factory.mktemp("whole")
    bad = folder_of_scenes(home / "in", 20, broken=5)
    argv = [*QUICK, "--image", "in", "--out", "out", "--format", "png,npz"]
    with warm_helpers():
        done = run_here(*argv, cwd=home)
    assert done.returncode == 1, done.stderr
    return home, [str(Path(path).relative_to(home)) for path in bad], done
