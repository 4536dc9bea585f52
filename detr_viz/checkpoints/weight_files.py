"""Files of weights: what is read, and one line on each thing that cannot be.

    opened = read(Path("detr-r50-e632da11.pth"))     # torch (zip or older), safetensors, HF folder
    opened.content["model"], opened.hf_config, opened.files

Nothing that a file asks to be run is run: torch.load(weights_only=True), with the harmless values
of plain_values.py (the `args` of training checkpoints, a metric, a path) as the one addition.
"""

from __future__ import annotations

import errno
import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from detr_viz.checkpoints.refused_names import refused
from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError
from detr_viz.common.file_kinds import HEAD_BYTES, kind_of
from detr_viz.common.files import path_text, reason
from detr_viz.common.regular import (
    NotRegularError,
    check_regular,
    open_regular,
    read_regular,
)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a Hugging Face folder
_SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".pkl")
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
_IMAGES = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image"}  # that images/ reads
_IMAGE, _FORMAT = "give a checkpoint, and the image to --image", "give a checkpoint"
_WEIGHTS_FORMAT = f"{_FORMAT} of torch or safetensors"
_WAYS_OUT = {  # group of a FileKind -> what to do
    "lfs": "{title}, not the weights: run git lfs pull",
    "annex": "{title}, not the weights: run git annex get",
    "web": "a web page saved under this name: download the file itself",
    "text": f"a text file: {_WEIGHTS_FORMAT}",
    "page": f"{{title}}: {_FORMAT}",
    "video": f"{{title}}: {_FORMAT}",
    "scan": f"{{title}}: {_FORMAT}",
    "archive": "{title}: unpack it first",
    "array": f"{{title}}: {_WEIGHTS_FORMAT}",
    "data": f"{{title}}: {_WEIGHTS_FORMAT}",
    "broken": "{title} (a download that did not end?): download or save it again",
    **dict.fromkeys(("picture", "avif", "heic", "raw"), f"{{title}}: {_IMAGE}"),
}


class CheckpointError(UserError):
    """Weights that cannot be used; one line names the file and the way out."""

    def __init__(self, message: str) -> None:
        # keys and globals are quoted from files that may be damaged or hostile
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


@dataclass(frozen=True)
class WeightFile:
    """What was read: the unpickled content (or the tensors), a HF folder's config, the files."""

    content: Any
    hf_config: Mapping[str, Any] | None
    files: tuple[Path, ...]


def read(path: Path) -> WeightFile:
    """Open a checkpoint or a Hugging Face folder; CheckpointError where that cannot be."""
    try:
        if path.is_dir():
            return _read_folder(path)
        if is_index(path):
            return _read_shards(path.parent, path.name, config_in(path.parent))
        if _SHARD.fullmatch(path.name):
            raise CheckpointError(f"{path_text(path)} is one of several shards: give its folder")
        return WeightFile(_read_file(path), None, (path,))
    except OSError as error:
        name = path_text(error.filename or path)
        raise CheckpointError(f"cannot read {name}: {reason(error)}") from None


def is_index(path: Path) -> bool:
    """Whether a path is that of the list of a Hugging Face model's shards."""
    return path.name in [f"{name}.index.json" for name in WEIGHTS]


def _read_folder(folder: Path) -> WeightFile:
    config = config_in(folder)
    if config is None:
        ours = [*folder.iterdir(), *folder.glob("checkpoints/*")]  # the latter of Lightning
        inside = sorted(str(p.relative_to(folder)) for p in ours if p.suffix in _SUFFIXES)
        hint = f", or name the file: {folder.name}/{inside[0]}" if inside else ""
        raise CheckpointError(
            f"{path_text(folder)} is a folder without config.json: give a checkpoint file or a "
            f"Hugging Face folder{hint}"
        )
    for name in WEIGHTS:
        if (folder / name).is_file():
            return WeightFile(_read_file(folder / name), config, (folder / name,))
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, f"{name}.index.json", config)
    shards = [path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name)]
    if shards:
        index = f"model.safetensors.index.json ({len(shards)} shards are there)"
        if min(shards).endswith(".bin"):
            index = index.replace("model.safetensors", "pytorch_model.bin")
        raise CheckpointError(f"{path_text(folder)} lacks {index}: fetch it")
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))
    hint = f", or name the file: {folder.name}/{others[0]}" if others else ""
    raise CheckpointError(
        f"{path_text(folder)} has a config.json but neither model.safetensors nor "
        f"pytorch_model.bin: fetch the weights too{hint}"
    )


def _read_shards(folder: Path, index: str, config: Mapping[str, Any] | None) -> WeightFile:
    weight_map = json_in(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path_text(folder / index)} has no weight_map: fetch the folder again"
        )
    names = sorted({str(value) for value in weight_map.values()})
    files = tuple(_shard(folder, name, index) for name in names)
    tensors: dict[str, Any] = {}
    for name, file in zip(names, files, strict=True):
        part = _read_file(file)
        if not isinstance(part, Mapping):
            raise CheckpointError(f"{path_text(file)} holds no weights: fetch it again")
        keys = [key for key, shard in weight_map.items() if shard == name]
        absent = [key for key in keys if key not in part]
        if absent:
            raise CheckpointError(
                f"{path_text(file)} lacks {absent[0][:80]!r}, which {index} places there: fetch it "
                "again"
            )
        tensors.update((key, part[key]) for key in keys)
    return WeightFile(tensors, config, files)


def _shard(folder: Path, name: str, index: str) -> Path:
    """A shard that an index names; CheckpointError where it is not there or not in the folder."""
    outside = {"..", "/", "\\"} & {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive
    if outside or absolute or not name or "\0" in name:
        raise CheckpointError(
            f"{path_text(folder / index)} names {name[:80]!r}, which is outside its folder: fetch "
            "the folder again"
        )
    file = folder / name
    if not file.is_file():
        raise CheckpointError(
            f"{path_text(folder)} lacks {name[:80]!r}, which {index} names: fetch it"
        )
    return file


def config_in(folder: Path) -> Mapping[str, Any] | None:
    """config.json of a Hugging Face folder, None where there is none."""
    config = folder / "config.json"
    return json_in(config) if config.is_file() else None


def json_in(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file; CheckpointError where it is none."""
    try:
        size = check_regular(path).st_size
        if size > bound("json"):
            raise CheckpointError(f"{path_text(path)} has {beyond('json', size)}")
        data = read_regular(path)
    except NotRegularError as error:
        raise CheckpointError(f"{path_text(path)} cannot be read: {reason(error)}") from None
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        what = _what(data[:HEAD_BYTES])
        if "git-lfs" in what or "web page" in what:
            raise CheckpointError(f"{path_text(path)} {what}".replace("the weights", "the file"))
        raise CheckpointError(f"{path_text(path)} is not a JSON object: fetch or write it again")
    return value


def check_head(path: Path) -> bytes:
    """The first bytes of a file of weights; CheckpointError where they are of something else.

    Imports no torch, so that such a mistake is answered at once.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path_text(path)} is not a regular file: give a checkpoint file")
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    # of safetensors: 8 bytes of length, then JSON
    if not head.startswith((ZIP, PICKLE)) and head[4:9] != b"\0\0\0\0{":
        what = _what(head)
        if path.suffix == ".json" and (path.parent / "config.json").is_file():
            what = "is a text file, not the weights: give its folder"
        raise CheckpointError(f"{path_text(path)} {what}")
    return head


def _read_file(path: Path) -> Any:
    head = check_head(path)
    if head.startswith((ZIP, PICKLE)):
        arrays = None if head.startswith(ZIP) else _read_arrays(path)
        return _read_torch(path, zipped=head.startswith(ZIP)) if arrays is None else arrays
    from detr_viz.checkpoints.bounded import read_safetensors

    return read_safetensors(path)


def _what(head: bytes) -> str:
    """Says of a file by its first bytes what it is instead of a checkpoint."""
    if not head:
        return "is empty: download or save it again"
    for start, title in _IMAGES.items():
        if head.startswith(start):
            return f"is {title}: {_IMAGE}"
    kind = kind_of(head)
    if kind is not None:
        group = "web" if kind.title == "XML text" else kind.group  # a server's error
        return f"is {_WAYS_OUT[group].format(title=kind.title)}"
    return "is not a checkpoint: neither torch.save nor safetensors wrote it"


def _read_arrays(path: Path) -> Any:
    """A pickle of numpy arrays, as detectron2 writes them; None if it is not one."""
    from detr_viz.checkpoints import numpy_pickles

    if numpy_pickles.is_of_torch(path):
        return None
    try:
        content = numpy_pickles.read(path)
    except OSError:
        raise
    except numpy_pickles.RefusedError as error:
        # torch.load reads protocol 2, and says it itself
        if error.protocol > 2 and not error.name.startswith("torch."):
            raise CheckpointError(f"{path_text(path)} {refused(error.name)}") from None
        return None
    except Exception:  # a damaged pickle can raise anything: torch.load says what is wrong
        return None
    return content if numpy_pickles.has_tensors(content) else None


def _read_torch(path: Path, zipped: bool) -> Any:
    import torch

    from detr_viz.checkpoints.bounded import check_pickle
    from detr_viz.checkpoints.plain_values import allowed

    check_pickle(path, zipped)
    try:
        with allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, on what is then refused in one line
            # mapped, so that an optimizer's state beside the weights is never read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged pickle can raise anything, EINVAL of a wild seek too
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise CheckpointError(f"{path_text(path)} {_why_not(path, zipped, error)}") from None


def _why_not(path: Path, zipped: bool, error: Exception) -> str:
    """What is wrong with a file that torch.load refused."""
    message = str(error)
    if isinstance(error, pickle.UnpicklingError):
        dotted = r"(?:GLOBAL|[Cc]lass) `?([A-Za-z_][\w.]*\.[\w.]*\w)"
        asked = re.search(dotted, message) or re.search(r"GLOBAL (\w+) was not", message)
        if asked or "Can only" in message or "Trying to call" in message:
            return refused(asked[1] if asked else "")
        if "torch.nested" in message:
            return "holds nested tensors: save state_dict() with plain ones"
        if "nsupported operand" in message:
            return "is a pickle that torch.save did not write: save model.state_dict() with torch"
    if zipped:
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
        except Exception:  # BadZipFile, and what damaged names and sizes raise
            return "is truncated or damaged: download or save it again"
        if "constants.pkl" in names:
            return "is a TorchScript archive: give the weights, saved as model.state_dict()"
        if "data.pkl" not in names:
            return "is a zip archive that torch.save did not write: give a checkpoint"
    elif "magic number" in message:
        return "is a pickle that torch.save did not write: save model.state_dict() with torch"
    return f"is truncated or damaged ({reason(error)[:80]}): download or save it again"
