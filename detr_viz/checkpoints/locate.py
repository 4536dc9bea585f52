"""From the words of --weights to a file or folder on the disk, downloaded if necessary.

check_weights("no_such.pth", None)     # CheckpointError: what is wrong with the words; no torch
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detr_viz import models
from detr_viz.checkpoints import hub
from detr_viz.checkpoints.downloads import KNOWN, KnownWeights, fetch_checked
from detr_viz.checkpoints.folders import model_folder
from detr_viz.checkpoints.weight_files import CheckpointError, check_head, is_index
from detr_viz.common import assets
from detr_viz.common.files import path_text, reason
from detr_viz.common.words import nearest, plain

if TYPE_CHECKING:
    from detr_viz.models.spec import ModelSpec

BY_FILENAME = {known.filename: known for known in KNOWN.values()}
_ADDRESS = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)
_HUB_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+))?",
    re.IGNORECASE,
)
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_COPY = re.compile(r" ?\(\d+\)(?=\.)")  # that a browser puts into a second download's name


@dataclass(frozen=True)
class WeightsLocation:
    """A file or folder of weights. sha256: of the file, if it is known already.

    note: why the path is another one than was given.
    """

    path: Path
    sha256: str | None = None
    note: str = ""


class NamedType(NamedTuple):
    """A type by the word of --type and its title, where its ModelSpec would need torch."""

    name: str
    title: str


def locate(
    weights: str | os.PathLike[str] | None, type: str | None, cache: Path | None, progress: bool
) -> WeightsLocation:
    """Path of the weights, downloaded if necessary; CheckpointError if there are none.

    For a folder with a model in a folder below: that one.
    """
    local = _local(weights, type)
    if local is not None:
        return local
    text = os.fspath(weights or "")
    if text.startswith(hub.PREFIX):
        return WeightsLocation(hub.fetch_hf(text.removeprefix(hub.PREFIX), cache, progress))
    return WeightsLocation(*fetch_checked(text, cache, progress))


def check_weights(weights: str | os.PathLike[str] | None, type: str | None) -> None:
    """CheckpointError for words of --weights that name nothing, before torch is imported.

    Nothing is downloaded; of a file the first bytes are read.
    """
    local = _local(weights, type)
    if local is None:
        text = os.fspath(weights or "")
        if text.startswith(hub.PREFIX):
            hub.check(text.removeprefix(hub.PREFIX))
    elif local.path.is_file() and not is_index(local.path):
        check_head(local.path)


def _local(weights: str | os.PathLike[str] | None, type: str | None) -> WeightsLocation | None:
    """The weights that are on the disk; None for names of what can be downloaded."""
    if weights is None:
        path = assets.find(f"weights/{type or models.names()[0]}_demo.pth")
        entry = models.REGISTRY.get(type or models.names()[0])
        if entry is not None and not entry.demo:
            other = f", or {hub.PREFIX}{entry.hub[0]}" if entry.hub else ""
            raise CheckpointError(
                f"{entry.title} has no demo checkpoint: give --weights a file{other}"
            )
        if not path.is_file():
            raise CheckpointError(
                f"the demo checkpoint {path_text(path)} is not there: give --weights a file or a "
                f"known name such as {next(iter(KNOWN))}"
            )
        return WeightsLocation(path)
    text = os.fspath(weights)
    if text.startswith(hub.PREFIX):
        return None
    if known := KNOWN.get(text):
        if type is not None and type != known.type:
            raise CheckpointError(type_contradiction(text, _named(known.type), _named(type)))
        return None
    try:
        exists = bool(text) and os.path.exists(text)
    except ValueError:  # a null character
        exists = False
    if not exists:
        raise CheckpointError(f"no checkpoint at {path_text(text)}: {_way_out(text)}")
    return _found(Path(text))


def _found(path: Path) -> WeightsLocation:
    try:
        if path.is_dir():
            path, note = model_folder(path)
            return WeightsLocation(path, note=note)
    except OSError as error:
        name = path_text(error.filename or path)
        raise CheckpointError(f"cannot read {name}: {reason(error)}") from None
    return WeightsLocation(path)


def _way_out(text: str) -> str:
    """What to give instead of words that name no file."""
    if known := _released(text):
        return (
            f"it is the released {known.title}: give --weights {known.name}, which downloads it "
            "once"
        )
    hub_address = _HUB_ADDRESS.match(text)
    repo = hub_address["repo"] if hub_address else text
    if hub_address or (_REPO.fullmatch(text) and not Path(text).suffix):
        owner, name = repo.split("/")
        if owner.casefold() in ("datasets", "spaces"):
            return "it is no model: give a file, hf:owner/name or a name of --list-models"
        revision = (hub_address and hub_address["revision"]) or "main"
        word = f"{hub.PREFIX}{repo}{'' if revision == 'main' else f'@{revision}'}"
        same = next((k for k in KNOWN.values() if plain(k.name) == plain(name)), None)
        other = f", or {same.name}: the authors' own file of {same.title}" if same else ""
        if hub_address:
            return f"for a model of the Hugging Face hub give {word}{other}"
        return f"give a file, {word} if it is on the Hugging Face hub{other}"
    if _ADDRESS.match(text):
        return "addresses are not opened: download it, and give the file"
    near = nearest(text, KNOWN)
    near += [f"{BY_FILENAME[f].name} ({f})" for f in nearest(_last_part(text), BY_FILENAME)]
    if near:
        return f"give a file, or did you mean {near[0]}?"
    return "give a file, hf:owner/name, or a known name (--list-models prints them)"


def _released(text: str) -> KnownWeights | None:
    """The released checkpoint whose file an address or a path names."""
    words = re.split(r"[?#]", text)[0] if _ADDRESS.match(text) else text
    name = _COPY.sub("", _last_part(words)).casefold()
    return next((known for file, known in BY_FILENAME.items() if file.casefold() == name), None)


def _last_part(path: str) -> str:
    """The name of a file, whichever system wrote its path."""
    return re.split(r"[/\\]", path)[-1]


def _named(name: str) -> NamedType:
    return NamedType(name, models.REGISTRY[name].title)


def type_contradiction(
    where: str, actual: ModelSpec | NamedType, wanted: ModelSpec | NamedType
) -> str:
    """The message for a checkpoint of another type than --type says."""
    return (
        f"{where} is {actual.title} (--type {actual.name}), not {wanted.title} "
        f"(--type {wanted.name}): leave --type out, or change one of them"
    )
