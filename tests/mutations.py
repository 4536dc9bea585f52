"""What a check must catch and what it must let pass, to be tried one by one on a demo checkpoint.

test_mutations.py tries all; benchmarks/mutations.py prints the README's table.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from detr_viz import cli, heatmaps
from detr_viz.attention import dense
from detr_viz.common import assets
from detr_viz.demo.shapes import scene
from detr_viz.models import network
from detr_viz.models.layers import split_attention
from detr_viz.models.layers.split_attention import ConcatAttention
from detr_viz.models.network import DetrNetwork

WEIGHTS, IMAGE, BASE = Path("mine.pth"), Path("a.png"), Path("base")
LAST = "transformer.decoder.layers.2."
SWAPPED = (2, 5)
# of Conditional DETR's cross-attention, what its maps are made of
MAPPING = ("ca_qcontent", "ca_qpos_sine", "ca_kcontent", "ca_kpos")


def project() -> None:
    """A checkpoint, an image and its baseline, in the working directory."""
    WEIGHTS.write_bytes(assets.find("weights/cd_detr_demo.pth").read_bytes())
    Image.fromarray(scene(2_000_000_300, 192).rgb).save(IMAGE)
    argv = ["record", "--out", str(BASE), "--weights", str(WEIGHTS), "--image", str(IMAGE)]
    assert cli.main([*argv, "--plot", "all", "--quiet"]) == 0


def checked(*argv: str) -> tuple[int, str]:
    """The exit code of the check command, and all that it said."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = cli.main(["check", str(BASE), *argv])
    return code, out.getvalue()


# ---- changes: of files (functions), of the code (context managers) ------------------------------


def with_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[], None]:
    def make() -> None:
        checkpoint = torch.load(WEIGHTS, weights_only=True)
        change(checkpoint["model"])
        torch.save(checkpoint, WEIGHTS)

    return make


def scaled(name: str) -> Callable[[], None]:
    return with_weights(lambda state: state[f"{LAST}{name}_proj.weight"].mul_(1.01))


@with_weights
def one_weight(state: dict[str, torch.Tensor]) -> None:
    state[f"{LAST}ca_kcontent_proj.weight"][3, 5] += 1e-4


@with_weights
def heads_swapped(state: dict[str, torch.Tensor]) -> None:
    """In every tensor of the layer, so that what the network finds stays as it was."""
    a, b = SWAPPED
    for name in (*MAPPING, "ca_v"):
        for kind in ("weight", "bias"):
            tensor = state[f"{LAST}{name}_proj.{kind}"].unflatten(0, (8, -1))
            tensor[[a, b]] = tensor[[b, a]]
    out = state[f"{LAST}cross_attn.out_proj.weight"].unflatten(1, (8, -1))
    out[:, [a, b]] = out[:, [b, a]]


def one_pixel_wider() -> None:
    picture = Image.open(IMAGE)
    picture.resize((picture.width + 1, picture.height)).save(IMAGE)


@contextmanager
def positions_transposed() -> Iterator[None]:
    def transposed(*args: object) -> torch.Tensor:
        y, x = plain_positions(*args).chunk(2, -1)
        return torch.cat((x, y), -1)

    plain_positions = network.sine_positions
    with mock.patch.object(network, "sine_positions", transposed):
        yield


@contextmanager
def scale_of_one_half() -> Iterator[None]:
    """1 / sqrt(D), where query and key are 2 D wide."""
    with mock.patch.object(ConcatAttention, "scale", property(lambda site: site.head_width**-0.5)):
        yield


@contextmanager
def layer_before() -> Iterator[None]:
    right = DetrNetwork.attention_sites

    def wrong(self: DetrNetwork) -> dict:
        found = right(self)
        return {(kind, i): found[kind, max(i - 1, 0)] for kind, i in found}

    with mock.patch.object(DetrNetwork, "attention_sites", wrong):
        yield


@contextmanager
def softmax_over_queries(everywhere: bool) -> Iterator[None]:
    """In the recomputed maps, and (everywhere) in the network, too."""

    def attend(q, k, v, scale, key_padding_mask=None, hidden=None):
        return (q @ k.transpose(-1, -2) * scale).softmax(-2) @ v

    with contextlib.ExitStack() as stack:
        wrong = mock.patch.object(dense, "normalize", lambda scores, mask: scores.softmax(-2))
        stack.enter_context(wrong)
        if everywhere:
            stack.enter_context(mock.patch.object(split_attention, "attend", attend))
        yield


def saved_again() -> None:
    Image.open(IMAGE).save(IMAGE, compress_level=1)


def queries_reordered() -> None:
    """The baseline's own rows in another order."""
    (path,) = BASE.glob("*.npz")
    maps = heatmaps.load(path)
    rows = [3, 0, 4, 1, 2]
    names = ("query_ids", "scores", "labels", "label_names", "boxes_xyxy_px")
    fields = {name: getattr(maps, name)[rows] for name in names}
    made = {mode: array[rows] for mode, array in maps.maps.items()}
    heatmaps.write(path, replace(maps, maps=made, **fields))


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def batch_of_three() -> Iterator[None]:
    """The image in the middle of others; what is found in it comes first."""
    right = DetrNetwork.forward

    def forward(self, images, mask=None, *, aux=False):
        return right(self, torch.cat((images, images.flip(-1), images.flip(-2))), mask, aux=aux)

    with mock.patch.object(DetrNetwork, "forward", forward):
        yield


@contextmanager
def nothing() -> Iterator[None]:
    yield


# ---- cases --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """files: what is done to the project; code: what is wrong while it is checked.

    says: a pattern of what must be said (on one line), "" where the check must pass.
    """

    name: str
    says: str = ""
    files: Callable[[], None] = lambda: None
    code: Callable[[], contextlib.AbstractContextManager] = nothing


_HEAD = r"(combine|position|content) \d+ \w+ 2 [0-7] \d"  # mode, query, class, layer, head, ...
_WEIGHTS = r"weights file changed \(\w{8} to \w{8}\)"
_CODE = "same inputs, different numbers"
CAUGHT = [
    *(
        Case(
            f"`{name}_proj.weight` of the last cross-attention times 1.01",
            f"{_WEIGHTS}.* {_HEAD}",
            scaled(name),
        )
        for name in MAPPING
    ),
    Case("a single weight, by 0.0001", _WEIGHTS, one_weight),
    Case(
        "heads 2 and 5 swapped, in all their weights",
        rf"{_WEIGHTS}; heads 2 and 5 have changed places \(combine, position, content\).* {_HEAD}",
        heads_swapped,
    ),
    Case("image one pixel wider", rf"image changed .* 193 x 192 px.* {_HEAD}", one_pixel_wider),
    Case("position embedding transposed", f"{_CODE}.* {_HEAD}", code=positions_transposed),
    Case("scale wrong by sqrt 2", f"{_CODE}.* {_HEAD}", code=scale_of_one_half),
    Case("layer off by one", f"{_CODE}.* {_HEAD}", code=layer_before),
    Case(
        "softmax over the queries, where the maps are made",
        "self-check failed in decoder layer 2",
        code=lambda: softmax_over_queries(everywhere=False),
    ),
    Case(
        "softmax over the queries, in the network too",
        rf"{_CODE}; .* as if the softmax were not over the keys .* {_HEAD}",
        code=lambda: softmax_over_queries(everywhere=True),
    ),
]
PASSED = [
    Case("one thread", code=one_thread),
    Case("a batch of three", code=batch_of_three),
    Case("query ids in another order", files=queries_reordered),
    Case("PNG saved again", files=saved_again),
]


@contextmanager
def fresh_project() -> Iterator[None]:
    """In a folder of its own."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            project()
            yield
        finally:
            os.chdir(before)


def tried(case: Case, *argv: str) -> tuple[int, str]:
    """What the check of a changed project comes to; all that is said on one line."""
    case.files()
    with case.code():
        code, told = checked(*argv)
    return code, " ".join(told.split())
