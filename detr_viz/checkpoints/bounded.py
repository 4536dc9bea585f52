"""Weights are looked at before anything of them is joined, converted or copied.

check_members(path)              # of a zip archive of torch.save, before torch.load
check_tensors(state_dict, where) # kinds, strides, and how much they share
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from detr_viz.checkpoints.pickle_costs import check_costs
from detr_viz.checkpoints.weight_files import CheckpointError
from detr_viz.common.bounds import beyond, bound
from detr_viz.common.files import path_text, reason
from detr_viz.common.regular import open_regular

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_SIDE = 2**31
_SLACK = 1 << 24  # bytes of tensors that share others, whatever the share
_KINDS = ("float64", "float32", "float16", "bfloat16")


def check_pickle(path: Path, zipped: bool) -> None:
    """CheckpointError for a file of torch.save that would unpack to more than it is, as read."""
    size = path.stat().st_size
    if not zipped:
        with open_regular(path) as file:
            _check_costs(file, size, path, pickles=4)  # magic, protocol, system, content
        return
    check_members(path)
    try:
        with zipfile.ZipFile(path) as archive:
            held = [archive.read(n) for n in archive.namelist() if n.endswith("data.pkl")]
    except Exception:  # damaged: torch.load says so
        return
    for data in held:
        _check_costs(io.BytesIO(data), len(data), path)


def _check_costs(file: BinaryIO, size: int, path: Path, pickles: int = 1) -> None:
    try:
        check_costs(file, size, pickles)
    except ValueError as error:
        raise CheckpointError(f"{path_text(path)} is not read, its pickle: {error}") from None


def check_members(path: Path) -> None:
    """CheckpointError for an archive that would unpack to more than it is.

    torch.save stores tensors as they are, in members named by numbers; all others are small.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # damaged: torch.load says so
        return
    others = 0
    for member in members:
        title = f"{path_text(path)}: its member {member.filename[-60:]!r}"
        if member.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{title} is compressed, which torch.save does not do: unpack the archive and "
                "save the weights again"
            )
        if not member.filename.rsplit("/", 1)[-1].isdigit():
            others += member.file_size
    if others > bound("pickle"):
        raise CheckpointError(f"{path_text(path)} has {beyond('pickle', others)} (no tensors)")


def check_tensors(state_dict: Mapping[str, Any], where: str) -> None:
    """CheckpointError for tensors of a kind that is not read, or of more values than bytes."""
    import torch

    tensors = {key: value for key, value in state_dict.items() if torch.is_tensor(value)}
    if len(tensors) > bound("tensors"):
        raise CheckpointError(f"{where} has {beyond('tensors', len(tensors))}")
    for key, tensor in tensors.items():
        if fault := _fault(tensor):
            raise CheckpointError(
                f"{where}: {str(key)[:80]} {fault}: give a checkpoint as the training code saved it"
            )
    wanted, held = _bytes_of(tensors.values())
    if wanted > bound("shared") * held + _SLACK:
        times = -(-wanted // max(held, 1))
        raise CheckpointError(
            f"{where}: its tensors share their bytes, and alone they would be "
            f"{beyond('shared', times)}"
        )


def _fault(tensor: Tensor) -> str:
    import torch

    if tensor.is_meta:
        return "has no data (it was saved from the meta device)"
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse or quantized"
    if max(tensor.shape, default=0) >= _LARGEST_SIDE:
        return f"has the shape {tuple(tensor.shape)}"
    if tensor.is_floating_point() and str(tensor.dtype).removeprefix("torch.") not in _KINDS:
        return f"is of {tensor.dtype}, which is not read"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"is an expanded view of shape {tuple(tensor.shape)}"  # of any size at no cost
    return ""


def _bytes_of(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes of the tensors as copies, and of the storages that they lie in, each once."""
    wanted, storages = 0, {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        wanted += tensor.numel() * tensor.element_size()
        storages[storage.data_ptr()] = storage.nbytes()
    return wanted, sum(storages.values())


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; CheckpointError for a damaged one, whatever the reader raises."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError:
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise CheckpointError(
            f"{path_text(path)} is a truncated or damaged safetensors file ({reason(error)[:80]}): "
            "download it again"
        ) from None
