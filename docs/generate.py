"""The generated parts of the pages: flags in cli.md, the reference in library.md.

python docs/generate.py           # writes them; tests/test_docs.py holds them
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import detr_viz  # noqa: E402
from detr_viz import cli  # noqa: E402

BEGIN = "<!-- begin: made by python docs/generate.py -->"
END = "<!-- end -->"


# ---- flags ---------------------------------------------------------------------------------------


def flags() -> str:
    """A table of flags for each group of each command; a group that commands share stands once."""
    known: dict[tuple[str, ...], str] = {}
    parts = []
    for command, home in cli.SUBCOMMANDS.items():
        shown = "" if command == cli.DEFAULT_COMMAND else command
        parser = cli.build_parser(import_module(home), "", shown)
        title = f"`{command}`" if shown else "Drawing, without a command"
        words = " ".join(parser.description.split())
        parts.append(f"### {title}\n\n{words}")
        for group in parser._action_groups:
            rows = tuple(_row(parser, action) for action in group._group_actions)
            rows = tuple(row for row in rows if not row.startswith("| `-h,"))
            if not rows:
                continue
            name = _group_name(group.title)
            if rows in known:
                parts.append(f"**{name}**: as under {known[rows]}.")
                continue
            known[rows] = f'"{name}" of {title if shown else "drawing"}'
            parts.append("\n".join([f"**{name}**", "", "| flag | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _group_name(title: str | None) -> str:
    name = (title or "").strip()
    return {"options": "Options", "positional arguments": "Files"}.get(name, name.capitalize())


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """One flag: how it is written, and what its help says."""
    places = action.metavar or action.dest
    if not action.option_strings:
        flag = str(places if isinstance(places, str) else " ".join(places))
    else:
        flag = ", ".join(action.option_strings)
        if action.nargs != 0:
            values = parser._get_formatter()._format_args(action, str(action.dest).upper())
            flag = f"{flag} {values}"
    formatter = parser._get_formatter()
    text = formatter._expand_help(action) if action.help else ""
    cells = [f"`{_cell(flag)}`", _cell(text)]
    return f"| {cells[0]} | {cells[1]} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# ---- the public surface --------------------------------------------------------------------------


def reference() -> str:
    """Every name of detr_viz.__all__ with its signature and its docstring."""
    source = (HERE.parent / "detr_viz/__init__.py").read_text(encoding="utf-8")
    body = source.partition("_HOMES = {")[2].partition("\n}")[0]
    parts = []
    for line in body.splitlines():
        if title := re.match(r"\s+# (.*)", line):
            parts.append(f"### {title[1][:1].upper()}{title[1][1:]}")
        elif name := re.match(r'\s+"(\w+)"', line):
            parts.append(f"#### {name[1]}\n\n```text\n{entry(name[1])}\n```")
    return "\n\n".join(parts)


def entry(name: str) -> str:
    """One name as text: signature, docstring, and of a class its fields and methods."""
    thing = getattr(detr_viz, name)
    if not inspect.isclass(thing):
        return f"{_signature(name, thing)}\n\n{inspect.getdoc(thing)}"
    bases = [b.__name__ for b in thing.__bases__ if b.__name__ in ("ValueError", "UserError")]
    lines = [f"class {name}{f'({bases[0]})' if bases else ''}", "", inspect.getdoc(thing) or ""]
    own = [c for c in thing.__mro__ if c.__module__.startswith("detr_viz.")]
    for base in own[1:]:
        if base.__doc__ and "__dataclass_fields__" in vars(base):
            lines += ["", inspect.getdoc(base) or ""]
    fields = [line for c in own[::-1] for line in _fields(c)]
    if fields:
        lines += ["", "Fields", *dict.fromkeys(f"    {line}" for line in fields)]
    for method, function in _methods(own):
        text = inspect.getdoc(function) if function else ""
        lines += ["", method, *(f"    {line}".rstrip() for line in text.splitlines())]
    return "\n".join(line.rstrip() for line in lines)


def _fields(c: type) -> Iterator[str]:
    """Lines `name: type  # (shape)` of a class, as they stand in its source."""
    lines = inspect.getsource(c).splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if found := re.match(r"    ([a-z]\w*): (.*)", line):
            if found[1] not in c.__annotations__:
                continue
            text = re.sub(r" = field\([^#]*|, field\(", "  ", found[2]).rstrip(" (")
            above = before.strip() if before.strip().startswith("# (") else ""
            text = " ".join(text.split()).replace(" # ", "  # ")
            yield f"{found[1]}: {text}{'  ' + above if above else ''}"


def _methods(own: list[type]) -> Iterator[tuple[str, object]]:
    """(signature or name, function) of the public methods and properties, in their order."""
    seen: set[str] = set()
    for c in own[::-1]:
        for name, member in vars(c).items():
            if name.startswith("_") or name in seen:
                continue
            found = next(vars(k)[name] for k in own if name in vars(k))  # the most derived
            written = (vars(k)[name] for k in own if name in vars(k) and vars(k)[name].__doc__)
            doc = next(written, None)
            if inspect.isfunction(found):
                yield _signature(f".{name}", found), doc
            elif isinstance(member, classmethod):
                yield _signature(f".{name}", found.__func__), doc
            elif isinstance(member, property) or type(member).__name__ == "cached_property":
                yield f".{name}", getattr(doc, "fget", None) or getattr(doc, "func", None)
            else:
                continue
            seen.add(name)


def _signature(name: str, function: object) -> str:
    """`name(a, b=1) -> T` on lines of at most 96 letters, without self and types of arguments."""
    signature = inspect.signature(function)
    parts, star = [], False
    for p in signature.parameters.values():
        if p.name in ("self", "cls"):
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        word = {p.VAR_POSITIONAL: f"*{p.name}", p.VAR_KEYWORD: f"**{p.name}"}.get(p.kind, p.name)
        default = "" if p.default is p.empty else f"={_default(p.default)}"
        parts.append(word + default)
    back = signature.return_annotation
    end = "" if back is signature.empty else f" -> {str(back).strip(chr(39))}"
    text, line = "", f"{name}("
    for i, part in enumerate(parts):
        piece = part + (", " if i < len(parts) - 1 else "")
        if len(line) + len(piece) > 94:
            text, line = f"{text}{line.rstrip()}\n", " " * (len(name) + 1)
        line += piece
    return f"{text}{line}){end}"


def _default(value: object) -> str:
    if inspect.isclass(value) or inspect.isfunction(value) or callable(value):
        return getattr(value, "__name__", repr(value))
    text = repr(value)
    return text if len(text) < 40 else f"{type(value).__name__}(...)"


# ---- pages ---------------------------------------------------------------------------------------

PARTS = {"cli.md": flags, "library.md": reference}


def page(name: str) -> str:
    """A page with its generated part made again."""
    text = (HERE / name).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{name} has no place for its generated part"
    return f"{before}{BEGIN}\n\n{PARTS[name]()}\n\n{END}{after}"


if __name__ == "__main__":
    for name in PARTS:
        (HERE / name).write_text(page(name), encoding="utf-8")
        print(f"docs/{name}")
