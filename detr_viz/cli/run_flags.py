"""Flags of how a network runs, and how many images at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detr_viz.adapters.transformers_types import NETWORKS
from detr_viz.attention.terms import PRECISIONS
from detr_viz.cli.arguments import positive


def add_running(parser: argparse.ArgumentParser) -> None:
    """How the network runs, and settings that a checkpoint may lack."""
    add = parser.add_argument_group("how to run").add_argument
    add("--size", type=positive, metavar="PX", help="shorter side (default: the model's, else 800)")
    add(
        "--max-size",
        type=positive,
        metavar="PX",
        help="bound on the longer side (default: the model's, else 1333)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network runs (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the network's arithmetic: tf32 and bfloat16 are quicker and less exact, float64 "
        "is slow and more exact; a run that draws says how far weights move (default: %(default)s)",
    )
    add(
        "--classes",
        metavar="FILE",
        help="class names: a line each (from 0), COCO, id2label, YOLO .yaml",
    )
    add(
        "--network",
        choices=NETWORKS,
        default="own",
        help="for a Hugging Face folder of DETR, Conditional or Deformable DETR: the network of "
        "this project, or that of transformers (default: %(default)s)",
    )
    add(
        "--nheads",
        type=positive,
        metavar="N",
        help="attention heads, where the file does not say it",
    )
    add(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="DC5: dilated last stage, where the file does not say it",
    )
    add("--cache", metavar="DIR", help="where downloads go (default: weights/)")


def add_speed(add: Callable[..., object]) -> None:
    """How many images run at a time."""
    add(
        "--jobs",
        type=positive,
        metavar="N",
        help="processes that read and draw beside the network (default: as the machine has cores)",
    )
    add(
        "--timeout",
        type=positive,
        metavar="S",
        help="seconds until a process that does not answer is replaced (default: 600)",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images of one size that share a forward pass, never padded (default: 1; 8 on a GPU)",
    )
