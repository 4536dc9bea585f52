"""The messages between command, driver and workers, and how a cluster is divided."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_viz.batch.engine import Result
from detr_viz.batch.scheduler import Item
from detr_viz.checkpoints.sources import ModelSource
from detr_viz.common.errors import EXIT_USER_ERROR, UserError, in_a_line
from detr_viz.render.options import RunOptions
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe

NEEDS = '--engine ray needs Ray: pip install "detr-viz[ray]" (or: pip install "ray[data]")'
RESUME = "finished images are kept: go on with --resume"
_CPUS = 4  # of a worker at most: more threads gain little, fewer mean more models in memory
_USED = 0.75  # of the CPUs at least, by workers of as many CPUs
_LONGEST_BLOCK = {0: 16, 1: 128}  # images, by GPUs: some seconds of work


@dataclass(frozen=True)
class Job:
    """The settings of a worker.

    sources       of the models, which each worker loads itself
    options       of the run
    temporary     the folder for unfinished files, absolute
    running       a folder that exists while the run goes on; it has a file for each worker start
    cwd           where the paths of images, weights and outputs start
    inputs        folders that the images are in, as the command sees them
    """

    sources: tuple[ModelSource, ...]
    options: RunOptions
    recipe: Recipe
    paths: OutputPaths
    temporary: Path
    running: Path
    cwd: str
    inputs: tuple[str, ...]


def ended_folder(running: Path) -> Path:
    """The name of the folder `running` after the run has been stopped."""
    return running.with_name(f"{running.name}-over")


@dataclass(frozen=True)
class Trouble:
    """An error that ends a run. by_user: the user can correct it. trace: where it came from."""

    line: str
    by_user: bool
    trace: str

    @classmethod
    def of(cls, error: BaseException, where: str = "") -> Trouble:
        line, code = in_a_line(error)
        by_user = code == EXIT_USER_ERROR
        line = line if by_user else f"{type(error).__name__}: {error}"
        return cls(where + line, by_user, "".join(traceback.format_exception(error)))

    def error(self) -> Exception:
        """The exception to raise in the command."""
        error = (UserError if self.by_user else RuntimeError)(self.line)
        error.__cause__ = RuntimeError(f"in another process:\n{self.trace}")
        return error


Message = Result | Trouble | str  # a str is a note


@dataclass(frozen=True)
class Share:
    """How a cluster is divided: the number of workers, and the CPUs and GPUs of each."""

    workers: int
    cpus: int
    gpus: int = 0

    def fits(self, node: Mapping[str, float]) -> bool:
        """Whether a node has enough for a worker. node: its resources, as Ray names them."""
        return node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus

    def __str__(self) -> str:
        cpus = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        return f"{cpus} and a GPU" if self.gpus else cpus


def divide(nodes: Sequence[Mapping[str, float]], device: str, threads: str | None) -> Share:
    """The workers for a cluster. threads: OMP_NUM_THREADS, CPUs of a worker where it is a number.

    With GPUs, one worker for each, with its part of the node's CPUs; without, the largest workers
    that leave few CPUs idle. UserError where there is no CPU, or no GPU for --device cuda.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) if cpu else 0 for node, cpu in zip(nodes, cpus, strict=True)]
    if not any(cpus):
        raise UserError("the Ray cluster has no CPU: add a node with ray start --num-cpus=2")
    if any(gpus) and device in ("auto", "cuda"):
        both = [(cpu, gpu) for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        each = min(max(1, cpu // gpu) for cpu, gpu in both)
        return Share(sum(min(gpu, cpu // each) for cpu, gpu in both), each, 1)
    if device == "cuda":
        raise UserError("the Ray cluster has no GPU: use --device cpu (or auto)")

    def workers(each: int) -> int:
        return sum(cpu // each for cpu in cpus)

    if threads is not None and threads.isdecimal() and int(threads):
        each = min(int(threads), max(cpus))
    else:
        each = next(n for n in range(_CPUS, 0, -1) if workers(n) * n >= _USED * sum(cpus))
    return Share(workers(each), each)


def blocks(items: Sequence[Item], share: Share) -> list[list[Item]]:
    """The images that a worker takes at a time.

    Long blocks cost less to start and end; short ones let all workers finish together. The block of
    a worker that dies is done again.
    """
    size = min(_LONGEST_BLOCK[share.gpus], -(-len(items) // (4 * share.workers)))
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
