"""Small pickles that would take a machine."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from bombs import RUN

Build = Callable[[Path], list[str]]


def _weights(name: str) -> list[str]:
    return [*RUN, "--weights", name]


def _torch_zip(data: bytes) -> Build:
    """An archive of torch.save with this data.pkl."""

    def build(home: Path) -> list[str]:
        buffer = io.BytesIO()
        torch.save({"model": {"a.weight": torch.zeros(2)}}, buffer)
        source = zipfile.ZipFile(buffer)
        with zipfile.ZipFile(home / "a.pth", "w") as archive:
            for name in source.namelist():
                own = data if name.endswith("data.pkl") else source.read(name)
                archive.writestr(name, own)
        return _weights("a.pth")

    return build


def _pickle_file(data: bytes) -> Build:
    def build(home: Path) -> list[str]:
        (home / "a.pkl").write_bytes(data)
        return _weights("a.pkl")

    return build


def _calls(name: str, argument: bytes, times: int) -> bytes:
    """A pickle that calls one function again and again on one large value."""
    module, leaf = name.rsplit(".", 1)
    head = b"\x80\x02" + argument + b"q\x00" + f"c{module}\n{leaf}\n".encode() + b"q\x01"
    return head + b"]" + b"h\x01h\x00\x85Ra" * times + b"."


def _laughs(depth: int, width: int) -> bytes:
    """Lists of one list, again and again: small as a pickle, endless as a copy."""
    inner: object = ["x"] * width
    for _ in range(depth):
        inner = [inner] * width
    return pickle.dumps({"model": {}, "meta": {"type": "detr", "classes": inner}}, 2)


_LONG = b"X" + struct.pack("<I", 4_000_000) + b"a" * 4_000_000
_MANY = b"](" + b"K\x01" * 3_000_000 + b"e"
_ARRAY = (  # numpy's _reconstruct of an array of 10^11 numbers, without any of them
    b"\x80\x02}X\x05\x00\x00\x00modelcnumpy.core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\n\x8a\x05\x00\xe8vH\x17\x85U\x01f\x87Rs."
)
_BYTES = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85R."
_TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00actorch\nFloatTensor\n" + b"J\x00\xc3\x00\x00" * 2 + b"\x86Rs."
)


def lying_zip(home: Path) -> list[str]:
    """A member of 2 bytes that says it has 4 GB."""
    _torch_zip(pickle.dumps({"model": {}}, 2))(home)
    data = (home / "a.pth").read_bytes()
    with zipfile.ZipFile(home / "a.pth") as archive:
        size = archive.getinfo("archive/data.pkl").file_size
    (home / "a.pth").write_bytes(
        data.replace(struct.pack("<II", size, size), struct.pack("<II", 2**32 - 2, 2**32 - 2))
    )
    return _weights("a.pth")


PICKLES: dict[str, tuple[Build, str]] = {  # name -> (builder, words of the error; "": may succeed)
    "pickle: bytes of 10 GB": (_torch_zip(_BYTES), "error: "),
    "pickle: a tensor of no bytes": (_torch_zip(_TENSOR), "error: "),
    "pickle: copies of a list": (
        _torch_zip(_calls("collections.deque", _MANY, 200_000)),
        "error: ",
    ),
    "pickle: copies of a text": (
        _torch_zip(_calls("torch.torch_version.TorchVersion", _LONG, 200_000)),
        "error: ",
    ),
    "pickle: lists of a list": (_torch_zip(_laughs(12, 300)), "error: "),
    "pkl: lists of a list": (_pickle_file(_laughs(6, 300)), "error: "),
    "pkl: copies of a text": (_pickle_file(_calls("_codecs.encode", _LONG, 200_000)), "error: "),
    "pkl: an array of no bytes": (_pickle_file(_ARRAY), "error: "),
    "zip that lies of sizes": (lying_zip, "error: "),
}
