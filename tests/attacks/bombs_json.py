"""Small JSON, lists, Hugging Face folders and baselines that would take a machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bombs import RUN, SCENE, demo

Build = Callable[[Path], list[str]]


def _weights(name: str) -> list[str]:
    return [*RUN, "--weights", name]


def _image(name: str) -> list[str]:
    return ["--image", name, "--queries", "0"]


def _hf(config: dict, processor: dict | str | None = None) -> Build:
    def build(home: Path) -> list[str]:
        from hf_factory import save, small

        save(small("detr"), home)
        path = home / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        if processor is not None:
            text = processor if isinstance(processor, str) else json.dumps(processor)
            (home / "preprocessor_config.json").write_text(text)
        return _weights(".")

    return build


def stride_zero(home: Path) -> list[str]:
    """q, k and v are one number each, as views without a stride."""
    from hf_factory import save, small

    save(small("detr"), home)
    from safetensors.torch import load_file

    state = load_file(home / "model.safetensors")
    state = {
        k: v.flatten()[:1].expand(25_000, 25_000) if "q_proj.w" in k or "k_proj.w" in k else v
        for k, v in state.items()
    }
    (home / "model.safetensors").unlink()
    torch.save(state, home / "pytorch_model.bin")
    return _weights(".")


def _text(name: str, text: str, *words: str) -> Build:
    def build(home: Path) -> list[str]:
        (home / name).write_text(text)
        return [*words] if words else _image(name)

    return build


def _header(data: bytes, length: int | None = None) -> Build:
    def build(home: Path) -> list[str]:
        size = len(data) if length is None else length
        (home / "a.safetensors").write_bytes(struct.pack("<Q", size) + data)
        return _weights("a.safetensors")

    return build


def _meta(**entries: object) -> Build:
    def build(home: Path) -> list[str]:
        content = demo()
        content["meta"] = {**content["meta"], **entries}
        torch.save(content, home / "a.pth")
        return _weights("a.pth")

    return build


def _remade(size: int) -> Build:
    """A baseline that says its image is resized to this."""

    def build(home: Path) -> list[str]:
        from detr_viz import cli

        words = ["record", "--type", "detr", "--image", SCENE, "--out", str(home / "b"), "--quiet"]
        assert cli.main([*words, "--size", "64"]) == 0
        (path,) = (home / "b").glob("*.npz")
        with np.load(path) as saved:
            arrays = dict(saved)
        meta = json.loads(str(arrays["meta"]))
        meta["remake"] |= {"size": size, "max_size": size}
        arrays["meta"] = np.asarray(json.dumps(meta))
        np.savez(home / "a.npz", **arrays)
        for one in (home / "b").iterdir():
            one.unlink()
        (home / "b").rmdir()
        return ["check", "a.npz"]

    return build


_DEEP = "[" * 4_000_000
_COCO = json.dumps({"images": [{"file_name": f"{i}.j"} for i in range(250_000)]})
JSONS: dict[str, tuple[Build, str]] = {  # name -> (builder, words of the error; "": may succeed)
    "meta: 9,000 pixels": (_meta(size=9000, max_size=9000), "--limit pixels="),
    "meta: 10^300 pixels": (_meta(size=10**300, max_size=10**300), "error: "),
    "meta: stride": (_meta(stride=10**30), ""),
    "processor: 9,000 pixels": (
        _hf({}, {"size": {"shortest_edge": 9000, "longest_edge": 9000}}),
        "--limit pixels=",
    ),
    "processor: 10^300": (_hf({}, {"size": 10**300}), "error: "),
    "processor: padding": (
        _hf({}, {"size": 64, "pad_size": {"height": 60_000, "width": 60_000}, "do_pad": True}),
        "",
    ),
    "processor: depth": (_hf({}, _DEEP), "error: "),
    "config: layers": (_hf({"encoder_layers": 10**6, "decoder_layers": 10**6}), ""),
    "config: width": (_hf({"d_model": 10**6, "encoder_ffn_dim": 10**7}), "error: "),
    "config: queries": (_hf({"num_queries": 10**9}), ""),
    "config: heads": (_hf({"encoder_attention_heads": 10**300}), "error: "),
    "config: labels": (_hf({"id2label": {str(i): "a" for i in range(300_000)}}), ""),
    "views of no stride": (stride_zero, "error: "),
    "safetensors: length": (_header(b"{}", 2**62), "error: "),
    "safetensors: depth": (_header(b'{"a":' * 1_500_000), "error: "),
    "safetensors: words": (_header(b'{"__metadata__":{"a":"' + b"x" * 9_000_000 + b'"}}'), "error"),
    "safetensors: empty tensors": (
        _header(
            json.dumps(
                {
                    f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for i in range(120_000)
                }
            ).encode()
        ),
        "error: ",
    ),
    "baseline: 900,000 pixels": (_remade(900_000), "error: "),
    "JSON: depth": (_text("a.json", _DEEP), "error: "),
    "JSON: digits": (_text("a.json", '{"images": ' + "9" * 9_000_000 + "}"), "error: "),
    "JSON: images": (_text("a.json", _COCO), "error: "),
    "list: lines": (_text("a.txt", "a\n" * 4_000_000, *_image("@a.txt")), "--limit images="),
    "list: a line": (_text("a.txt", "a" * 9_000_000, *_image("@a.txt")), "error: "),
    "classes: depth": (_text("a.json", _DEEP, *RUN, "--classes", "a.json"), "error: "),
}
