"""Files of weights: what is read, and one line on each thing that cannot be.

    opened = read(Path("detr-r50-e632da11.pth"))     # torch (zip or older), safetensors, HF folder
    opened.content["model"], opened.hf_config, opened.files

Nothing that a file asks to be run is run: torch.load(weights_only=True), with argparse.Namespace
(a class without behaviour, the `args` of training checkpoints) as the one addition.
"""

from __future__ import annotations

import argparse
import errno
import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text, reason

if TYPE_CHECKING:
    import torch

HEAD_BYTES = 512
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
_OTHER_FORMATS = (  # first bytes -> what it is; the ways out are in _refuse_head
    (b"version https://git-lfs", "a git-lfs pointer, not the weights: run git lfs pull"),
    (b"\x89PNG", "a PNG image: give a checkpoint, and the image to --image"),
    (b"\xff\xd8\xff", "a JPEG image: give a checkpoint, and the image to --image"),
    (b"%PDF", "a PDF: give a checkpoint"),
    (b"\x93NUMPY", "a NumPy array: give a checkpoint of torch or safetensors"),
    (b"\x89HDF", "an HDF5 file (Keras?): give a checkpoint of torch or safetensors"),
    (b"GGUF", "a GGUF file: give a checkpoint of torch or safetensors"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"BZh", "bzip2-compressed: unpack it first"),
    (b"\xfd7zXZ", "xz-compressed: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
)
_FOREIGN_CLASSES = (  # start of the global a pickle asks for -> who writes such files
    ("ultralytics.", "a YOLO checkpoint of ultralytics"),
    ("models.yolo.", "a YOLO checkpoint"),
    ("models.common.", "a YOLO checkpoint"),
    ("mmengine.", "a checkpoint of OpenMMLab"),
    ("mmcv.", "a checkpoint of OpenMMLab"),
    ("detectron2.", "a checkpoint of detectron2"),
    ("torchvision.models.", "a whole torchvision model"),
    ("transformers.", "a whole transformers model"),
    ("models.", "a whole model rather than its weights"),
    ("__main__.", "a whole model rather than its weights"),
)


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
        return WeightFile(_read_file(path), None, (path,))
    except OSError as error:
        name = path_text(error.filename or path)
        raise CheckpointError(f"cannot read {name}: {reason(error)}") from None


def _read_folder(folder: Path) -> WeightFile:
    config = config_in(folder)
    if config is None:
        inside = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt"))
        hint = f", or name the file: {folder.name}/{inside[0]}" if inside else ""
        raise CheckpointError(
            f"{path_text(folder)} is a folder without config.json: give a checkpoint file or a "
            f"Hugging Face folder{hint}"
        )
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return WeightFile(_read_file(folder / name), config, (folder / name,))
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, f"{name}.index.json", config)
    raise CheckpointError(
        f"{path_text(folder)} has a config.json but neither model.safetensors nor "
        "pytorch_model.bin: fetch the weights too"
    )


def _read_shards(folder: Path, index: str, config: Mapping[str, Any]) -> WeightFile:
    weight_map = _json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path_text(folder / index)} has no weight_map: fetch the folder again"
        )
    tensors: dict[str, Any] = {}
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(
                f"{path_text(folder)} lacks {name!r}, which {index} names: fetch it"
            )
        part = _read_file(file)
        if not isinstance(part, Mapping):
            raise CheckpointError(f"{path_text(file)} holds no weights: fetch it again")
        tensors.update(part)
        files.append(file)
    return WeightFile(tensors, config, tuple(files))


def config_in(folder: Path) -> Mapping[str, Any] | None:
    """config.json of a Hugging Face folder, None where there is none."""
    config = folder / "config.json"
    return _json(config) if config.is_file() else None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path_text(path)} is not a JSON object: fetch or write it again")
    return value


def check_head(path: Path) -> bytes:
    """The first bytes of a file of weights; CheckpointError where they are of something else.

    Imports no torch, so that such a mistake is answered at once.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path_text(path)} is not a regular file: give a checkpoint file")
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    # of safetensors: 8 bytes of length, then JSON
    if not head.startswith((ZIP, PICKLE)) and head[4:9] != b"\0\0\0\0{":
        raise CheckpointError(f"{path_text(path)} {_what(head)}")
    return head


def _read_file(path: Path) -> Any:
    head = check_head(path)
    if head.startswith((ZIP, PICKLE)):
        return _read_torch(path, zipped=head.startswith(ZIP))
    return _read_safetensors(path)


def _what(head: bytes) -> str:
    """Says of a file by its first bytes what it is instead of a checkpoint."""
    if not head:
        return "is empty: download or save it again"
    for start, title in _OTHER_FORMATS:
        if head.startswith(start):
            return f"is {title}"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it first"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page saved under this name: download the file itself"
    if not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head):
        return "is a text file: give a checkpoint of torch or safetensors"
    return "is not a checkpoint: neither torch.save nor safetensors wrote it"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path_text(path)} is a truncated or damaged safetensors file ({reason(error)[:80]}): "
            "download it again"
        ) from None


def _read_torch(path: Path, zipped: bool) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
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
        asked = re.search(r"(?:GLOBAL|[Cc]lass) `?([A-Za-z_][\w.]*\.[\w.]*\w)", message)
        if asked:
            who = next((t for s, t in _FOREIGN_CLASSES if asked[1].startswith(s)), None)
            return (
                f"is refused{f' ({who})' if who else ''}: its pickle asks for {asked[1]}, and only "
                "plain weights are loaded; save model.state_dict() instead"
            )
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
