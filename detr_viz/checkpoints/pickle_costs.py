"""What a pickle would copy, worked out from its codes before anything of it is done.

check_costs(file, bytes_of_file)    # ValueError for a pickle that asks for far more

A pickle may call one function again and again on one long text or list, or ask for ten gigabytes of
zeros: 40 bytes that fill a machine, of calls that are harmless otherwise. This follows the codes
with the lengths of values in place of the values themselves.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from detr_viz.common.bounds import beyond, bound

_TIMES = 4  # that copies may be larger than the file
_MOST_PARTS = 16  # of a tuple that are looked at: arguments of a call are fewer
_WORD = 8  # bytes of a reference
# torch.save calls none of these; each makes as many numbers as it is told
_MAKERS = re.compile(r"(?:builtins|__builtin__) bytearray|torch[\w.]* \w*(?:Tensor|Storage)")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TO_MARK = {"APPENDS": _WORD, "ADDITEMS": _WORD, "SETITEMS": _WORD}
_ONTO_TOP = {"APPEND": 1, "SETITEM": 2}
_EMPTY = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE"}


class _Value:
    """size: bytes of a copy of it, without its parts. parts: of a tuple. name: of a function."""

    __slots__ = ("name", "parts", "size")

    def __init__(self, size: int, parts: Iterable[_Value] = (), name: str = "") -> None:
        self.size, self.parts, self.name = size, tuple(parts), name

    @property
    def inner(self) -> int:
        """Bytes of its parts, or of itself where it is no tuple."""
        return sum(part.size for part in self.parts) if self.parts else self.size


_MARK = _Value(0)
_PLAIN = _Value(_WORD)


class _Costs:
    """The stack and the memo of a pickle's machine, of lengths."""

    def __init__(self, most: int) -> None:
        self.most, self.total = most, 0
        self.stack: list[_Value] = []
        self.memo: dict[int, _Value] = {}

    def step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code == "MARK":
            stack.append(_MARK)
        elif code in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo.get(int(argument), _PLAIN))
        elif code in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in _EMPTY:
            stack.append(_Value(_WORD))
        elif code in _ONTO_TOP:
            del stack[-_ONTO_TOP[code] :]
            stack[-1].size += _WORD
        elif code in _TO_MARK:
            items = self._to_mark()
            stack[-1].size += _WORD * len(items)
        elif code in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[code])]
            stack.append(_Value(_WORD * len(items), items))
        elif code in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._to_mark()
            stack.append(_Value(_WORD * len(items), items[:_MOST_PARTS]))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            self._call(function, arguments)
        elif code == "NEWOBJ_EX":
            named, arguments, function = stack.pop(), stack.pop(), stack.pop()
            self._call(function, _Value(0, (*arguments.parts, named)))
        elif code == "BUILD":
            self._spend(stack.pop().inner)
        else:
            self._other(code, argument)

    def _other(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in ("POP", "POP_MARK", "DUP"):
            acts: dict[str, Callable[[], Any]] = {
                "POP": stack.pop,
                "POP_MARK": self._to_mark,
                "DUP": lambda: stack.append(stack[-1]),
            }
            acts[code]()
        elif code == "GLOBAL":
            stack.append(_Value(_WORD, name=str(argument)))
        elif code == "STACK_GLOBAL":
            leaf, module = stack.pop(), stack.pop()
            stack.append(_Value(_WORD, name=f"{module.name} {leaf.name}"))
        elif code in ("BINPERSID", "PROTO", "FRAME", "STOP"):
            pass  # a storage takes the place of its name
        elif isinstance(argument, str | bytes | bytearray):
            text = argument[:80] if isinstance(argument, str) else ""
            stack.append(_Value(max(len(argument), _WORD), name=text))
        else:
            stack.append(_PLAIN)

    def _to_mark(self) -> list[_Value]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _call(self, function: _Value, arguments: _Value) -> None:
        if _MAKERS.fullmatch(function.name):
            raise ValueError(
                f"it calls {function.name.replace(' ', '.')}, which weights never need"
            )
        size = arguments.inner
        self._spend(size)
        self.stack.append(_Value(size))

    def _spend(self, size: int) -> None:
        self.total += size
        if self.total > self.most:
            raise ValueError(f"its copies of values have {beyond('copies', self.total)}, or more")


def check_costs(file: BinaryIO, size: int, pickles: int = 1) -> None:
    """ValueError for a pickle that asks for far more bytes than the file has; damage is no error.

    pickles: how many follow each other in the file.
    """
    costs = _Costs(_TIMES * size + bound("copies"))
    for _ in range(pickles):
        for code, argument in _codes(file):
            try:
                costs.step(code, argument)
            except IndexError:  # a stack that is too short: whoever reads it says so
                return
        costs.stack.clear()
        costs.memo.clear()


def _codes(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    codes = pickletools.genops(file)
    while True:
        try:
            code, argument, _ = next(codes)
        except StopIteration:
            return
        except Exception:  # damaged: whoever reads it says what is wrong
            return
        yield code.name, argument
