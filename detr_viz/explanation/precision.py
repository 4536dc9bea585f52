"""Precisions of the network's arithmetic, and the settings of torch for each.

float32   every product in float32, on a GPU too (torch's own default there is TF32 in convolutions)
tf32      products of 10-bit mantissas, sums in float32: NVIDIA GPUs from Ampere on
bfloat16  backbone and encoder in bfloat16; the decoder, whose attention is shown, and the heads in
          float32: with 8 bits of mantissa a box of 1000 pixels would be off by up to 4 pixels
float64   everything in float64: slow, to compare with a reference; CPUs and NVIDIA GPUs
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

from detr_viz.attention.terms import PRECISIONS
from detr_viz.common.errors import UserError


def check_precision(precision: str, device: torch.device) -> None:
    """UserError for an unknown precision, or one that the device cannot compute in."""
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise UserError(
            f"--precision tf32 is for NVIDIA GPUs, the network runs on {device.type}: "
            "use float32 or bfloat16"
        )

    if precision == "float64" and device.type not in ("cpu", "cuda"):
        raise UserError(
            f"--precision float64 is not for {device.type}, which has none: use float32, or "
            "--device cpu"
        )


def in_tf32() -> bool:
    """Whether CUDA multiplies float32 matrices in TF32 (torch has an older and a newer setting)."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # torch 2.9 on
    return matmul.allow_tf32 if precision is None else precision == "tf32"


@contextmanager
def own_arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """The tool's own settings inside the block, whatever the caller's settings are.

    No autocast, no gradients, products of float32 as `precision` says. Threads that ask for
    different products wait for each other, since torch has one setting for all of them.
    """
    with undisturbed(device), _one_rule.shared(precision == "tf32", fp32_rule(precision)):
        yield


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """No autocast and no gradients inside the block, on the device and on the CPU."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        for kind in {device.type, "cpu"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


class _Shared:
    """A lock that holders of the same value share. A thread that holds it may enter again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[int, int] = {}  # thread -> depth
        self._value: object = None
        self._rule: AbstractContextManager[None] = nullcontext()

    @contextmanager
    def shared(self, value: object, rule: AbstractContextManager[None]) -> Iterator[None]:
        """rule: entered by the first holder and left by the last, so that what was before stays."""
        me = threading.get_ident()
        with self._changed:
            again = me in self._holders
            if not again:
                self._changed.wait_for(lambda: not self._holders or self._value == value)
            if not self._holders:
                rule.__enter__()
                self._value, self._rule = value, rule
            self._holders[me] = self._holders.get(me, 0) + 1
            inner = rule if again and value != self._value else nullcontext()
        try:
            with inner:
                yield
        finally:
            with self._changed:
                self._holders[me] -= 1
                if not self._holders[me]:
                    del self._holders[me]
                if not self._holders:
                    self._rule.__exit__(None, None, None)
                self._changed.notify_all()


_one_rule = _Shared()


@contextmanager
def fp32_rule(precision: str) -> Iterator[None]:
    """Products of float32 on a GPU in TF32 for "tf32", else exactly; afterwards as before.

    On a CPU always exactly: "medium" products, as the caller may have set, are bfloat16 there.
    """
    backends = [torch.backends.cuda.matmul, torch.backends.cudnn]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # do not mix in the older names
        backends[1:] = [torch.backends.cudnn.conv]
        name, value = "fp32_precision", "tf32" if precision == "tf32" else "ieee"
    else:
        name, value = "allow_tf32", precision == "tf32"
    wanted = [(backend, value) for backend in backends]
    if name == "fp32_precision":  # before, the setting of CUDA's products was that of all
        of_cpu = (getattr(torch.backends.mkldnn, what, None) for what in ("matmul", "conv"))
        wanted += [(backend, "ieee") for backend in of_cpu if backend is not None]
    before = [getattr(backend, name) for backend, _ in wanted]
    try:
        for backend, value in wanted:
            setattr(backend, name, value)
        yield
    finally:
        for (backend, _), old in zip(wanted, before, strict=True):
            setattr(backend, name, old)
