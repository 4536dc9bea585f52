"""docs/models.md, worked out: every view is tried with a small network of every type.

    python tests/models_table.py            # writes docs/models.md

A view works where the command ends with 0; where not, its own line is the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/models.md"
VIEWS = {  # words on the command line -> what they draw
    "--plot combine": "maps as the network uses them",
    "--plot position": "maps of position alone",
    "--plot content": "maps of content alone",
    "--plot terms": "what each product of parts adds to the logits",
    "--heads mean": "the mean of the heads",
    "--style points": "sampling points",
    "--style cells": "signed cells of a box",
    "--level all": "each level on its own",
    "--biography 0": "one query through all layers",
    "--ablate head:0": "without a head",
    "--ablate position": "without position",
    "--ablate box:outside": "without what is outside the box",
    "--faithfulness": "what hiding the best cells does",
    "--attention encoder": "cells that look at cells",
    "--attention decoder": "queries that look at queries",
    "--rollout": "attention through all layers",
    "--plot proposals": "which tokens became queries",
    "--plot salience": "which tokens the encoder refines",
    "--plot scales": "how much of each level the encoder takes",
}
MAPS = {  # kind of attention -> what a map is
    "dense": "softmax of query times key over all cells of one grid",
    "sampled": "weights of the sampling points of all levels, each on the four cells around it",
    "factored": "a softmax over columns times a softmax over rows",
    "roi": "positive shares of the cells of the box that enters a stage, spread by the adjoint of "
    "RoIAlign; by `--style cells` the signed shares themselves",
}
_INTRO = """# Which views work with which model

Made by `python tests/models_table.py`, which tries every view with a small network of every type;
`tests/test_models_table.py` holds this page against the code. A number refers to the reason below.

"""


def kinds() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Type -> (title, kind of its cross-attention, modes)."""
    from network_tools import tiny

    from detr_viz import explain, models

    found = {}
    for name, entry in models.REGISTRY.items():
        e = explain(tiny(name), Image.new("RGB", (64, 48), "gray"))
        found[name] = entry.title, e.attention_kind, models.get(name).modes
    return found


def weights_of(name: str, folder: Path) -> Path:
    """A small checkpoint of a type, as its authors' files are."""
    from network_tools import tiny

    model, path = tiny(name), folder / f"{name}.pth"
    config = model.network.config
    args = {"nheads": config.nheads, "dilation": False}
    args |= {n: getattr(config, n) for n in ("canonical_px", "samples") if hasattr(config, n)}
    state = {"model": model.network.state_dict(), "args": argparse.Namespace(**args)}
    torch.save(state, path)
    return path


def reason(name: str, weights: Path, words: str, folder: Path) -> str:
    """Why a view does not work with a type, the command's own line; "" where it works."""
    from detr_viz import cli

    argv = ["--type", name, "--weights", str(weights), "--image", str(folder / "cat.png")]
    argv += ["--size", "64", "--quiet", "--format", "npz,csv", "--out", str(folder / "out")]
    if "--biography" not in words:
        argv += ["--queries", "0,1"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main([*argv, *words.split()])
    if code == 0:
        return ""
    assert code == 2, f"{name} {words}: {said.getvalue()}"
    line = said.getvalue().strip().splitlines()[-1].removeprefix("error: ")
    assert "Traceback" not in said.getvalue(), said.getvalue()
    return general(line.replace(str(weights), weights.name), name)


def general(line: str, name: str) -> str:
    """A reason without the file's name and the model's title, so that models share it."""
    from detr_viz import models

    title = models.REGISTRY[name].title
    named = f"{name}.pth ({title})"
    return line.replace(named, title).replace(title, "the model", 1)


def results(names: list[str]) -> Iterator[tuple[str, str, str]]:
    """(type, view, reason) of each view."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        Image.open(ROOT / "image/photo_cat.jpg").resize((96, 72)).save(folder / "cat.png")
        for name in names:
            weights = weights_of(name, folder)
            for words in VIEWS:
                yield name, words, reason(name, weights, words, folder)


def page(
    types: dict[str, tuple[str, str, tuple[str, ...]]], tried: dict[str, dict[str, str]]
) -> str:
    """The page as markdown."""
    lines = ["| `--type` | system | what a map is | modes |", "|---|---|---|---|"]
    for name, (title, kind, modes) in types.items():
        lines.append(f"| `{name}` | {title} | {MAPS[kind]} | {', '.join(modes)} |")
    lines += ["", f"| view | {' | '.join(f'`{name}`' for name in types)} |"]
    lines.append("|---|" + "---|" * len(types))
    notes: dict[str, int] = {}
    for words, what in VIEWS.items():
        marks = []
        for name in types:
            why = tried[name][words]
            marks.append("yes" if not why else f"[{notes.setdefault(why, len(notes) + 1)}]")
        lines.append(f"| `{words}`: {what} | {' | '.join(marks)} |")
    lines += ["", *(f"{number}. {why}" for why, number in notes.items())]
    return _INTRO + "\n".join(lines) + "\n"


def main() -> None:
    types = kinds()
    tried: dict[str, dict[str, str]] = {name: {} for name in types}
    for name, words, why in results(list(types)):
        tried[name][words] = why
        print(name, words, why or "yes", file=sys.stderr)
    PAGE.write_text(page(types, tried), encoding="utf-8")


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
