"""Safe reading of archives of arrays (.npz) from anywhere, with a limit on the bytes.

    arrays = read("cat.npz", most_bytes=1 << 27)

numpy.load trusts an archive: it would run pickles if allowed, reserve as much memory as a small
header claims, and unpack a zip bomb.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.files import reason
from detr_viz.common.regular import open_regular

MOST_MEMBERS = 1000
_MOST_HEADER = 10_000  # characters of a .npy header, as numpy has it
_POINTER = b"version https://git-lfs"
_PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class ArchiveError(ValueError):
    """An error of an archive; its text continues a sentence after the file's name."""


def read(path: str | Path, most_bytes: int, *only: str) -> dict[str, NDArray[Any]]:
    """All arrays of an archive: numbers and texts, no objects, at most `most_bytes` in all.

    only: names of arrays to read; without names, all. Missing names are left out.
    ArchiveError if it is not an archive, is damaged or too large; OSError if it cannot be read.
    """
    with open_regular(path) as file:
        begins = file.read(len(_POINTER))
        if begins.startswith(b"\x93NUMPY"):
            raise ArchiveError("it is a single array")
        if begins == _POINTER:
            raise ArchiveError("it is a git-lfs pointer, not the file: run git lfs pull")
        try:
            return _read(file, most_bytes, only)
        except ArchiveError:
            raise
        except OSError as error:
            if error.errno is not None:  # of the disk; zipfile and gzip raise bare ones
                raise
            raise ArchiveError(f"it is damaged: {reason(error)}") from error
        except Exception as error:  # a damaged archive makes zipfile raise nearly anything
            raise ArchiveError(_error_text(error)) from error


def _error_text(error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile) and "not a zip file" in str(error):
        return "it is no zip archive, or is cut short"
    return f"it is damaged: {reason(error)[:200]}"


def _read(file: IO[bytes], most_bytes: int, only: Collection[str]) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise ArchiveError(f"it has {len(members)} members")
        arrays: dict[str, NDArray[Any]] = {}
        left = most_bytes
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays:
                raise ArchiveError(f"its member {member.filename[:60]!r} is no array of its own")
            if member.compress_type not in _PACKED:
                raise ArchiveError(f"its member {name[:60]!r} is packed in an unknown way")
            if only and name not in only:
                continue
            with archive.open(member) as stream:
                arrays[name] = _array(stream, name, left)
            left -= arrays[name].nbytes
    return arrays


def _array(stream: IO[bytes], name: str, most_bytes: int) -> NDArray[Any]:
    """One array in numpy's format (numpy.lib.format, versions 1.0 to 3.0)."""
    title = repr(name[:60])
    version = np.lib.format.read_magic(stream)
    headers = {
        (1, 0): (2, np.lib.format.read_array_header_1_0),
        (2, 0): (4, np.lib.format.read_array_header_2_0),
    }
    if version not in headers:
        raise ArchiveError(f"{title} is in a format of its own ({version})")
    size_of_length, read_header = headers[version]
    length = stream.read(size_of_length)  # numpy would read a header of any length
    if int.from_bytes(length, "little") > _MOST_HEADER:
        raise ArchiveError(f"{title} has a header of {int.from_bytes(length, 'little'):,} bytes")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    shape, fortran, dtype = read_header(header, max_header_size=_MOST_HEADER)
    if dtype.hasobject or dtype.kind not in "biufSU" or not dtype.itemsize:
        raise ArchiveError(
            f"{title} holds objects (a pickle) or records: nothing that is read here"
        )
    if len(shape) > 8 or any(n < 0 for n in shape):
        raise ArchiveError(f"{title} has the shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > most_bytes:
        raise ArchiveError(f"{title} is too large ({size:,} bytes)")
    data = stream.read(size)
    # one byte more: at the end of the stream zipfile checks the CRC
    if len(data) < size or stream.read(1):
        raise ArchiveError(f"{title} is not as long as it says")
    flat = np.frombuffer(data, dtype) if size else np.empty(math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def checksums(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """CRC-32 of each array, with its type and shape, as eight hexadecimal digits."""
    sums = {}
    for name, array in arrays.items():
        head = zlib.crc32(f"{array.dtype.str}{array.shape}".encode())
        flat = np.ascontiguousarray(array).reshape(-1)  # a view, since the array may be large
        sums[name] = f"{zlib.crc32(flat.view(np.uint8), head):08x}"
    return sums
