"""Words of a command that name the models again, for the command that a page offers to copy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detr_viz.checkpoints.sources import ModelSource


def model_words(sources: Sequence[ModelSource]) -> tuple[tuple[str, ...], ...]:
    """For each model the flags that load it; none where it is the default."""
    return tuple(tuple(_words(source)) for source in sources)


def _words(source: ModelSource) -> list[str]:
    if source.script is not None:
        return _flag("--model", source.script)
    words = []
    for name in ("weights", "type", "classes", "nheads", "prompt", "cache"):
        value = getattr(source, name)
        if value is not None:
            words += _flag(f"--{name}", str(value))
    if source.network != "own":
        words += ["--network", source.network]
    if source.dilation is not None:
        words.append("--dilation" if source.dilation else "--no-dilation")
    return words


def run_words(args: argparse.Namespace) -> tuple[str, ...]:
    """The flags that change what the network sees."""
    words = []
    for name in ("size", "max_size"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.precision != "float32":
        words += ["--precision", args.precision]
    return tuple(words)


def program() -> tuple[str, ...]:
    """How this command was started, as the start of another one."""
    name = Path(sys.argv[0]).name
    if name == "detr-viz":
        return (name,)
    if name == "__main__.py":
        return ("python", "-m", "detr_viz")
    return ("python", "attention_scripts.py")


def _flag(name: str, value: str) -> list[str]:
    """A flag with its value, in one word where the value looks like a flag."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]
