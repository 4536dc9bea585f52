"""The `names:` of a data.yaml of YOLO, in the forms that people write; nothing else of YAML.

names: [cat, dog]      names:          names:
                         - cat           0: cat
                         - dog           1: dog

A list or a mapping, inline (on several lines too) or as a block, with comments and quotes. What
else YAML allows there (anchors, tags, text blocks) ends in a ValueError that names the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_KEY = re.compile(r"""(?:names|"names"|'names')[ ]*:(?:[ ]+(.*))?$""")
_MARKS = re.compile(r"(?:names|nc)[ ]*:(?:[ ]|$)")
# one name: quoted, or plain up to a comment; what it may not begin with has a meaning in YAML
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'"""
_PLAIN_START = r"""[^\s#\[\]{}&*!|>@`"'%,]"""
_BLOCK = re.compile(rf"({_QUOTED}|{_PLAIN_START}.*?)(?:[ ]+#.*)?[ ]*$")
_FLOW = re.compile(rf"\s*(?:({_QUOTED})|({_PLAIN_START}[^,\[\]{{}}\n]*?))\s*(?=[,\]}}]|$)")
_ENTRY_KEY = re.compile(r"""(?:(["']?)(\d{1,9})\1)\s*:(?:\s+|(?=["']))""")
_WAY_OUT = "write `names:` as a list or as `id: name`"


def looks_like_yaml(text: str) -> bool:
    """Whether a text is a data.yaml whatever its suffix: a line begins with `names:` or `nc:`."""
    lines = text.split("\n")
    return lines[0].rstrip() == "---" or any(_MARKS.match(line) for line in lines)


def names_of_yaml(text: str) -> dict[int, str]:
    """Class id -> name. ValueError: the rest of a line that says what is wrong."""
    lines = text.split("\n")
    starts = [(i, found) for i, line in enumerate(lines) if (found := _KEY.match(line.rstrip()))]
    if len(starts) != 1:
        number = "several" if starts else "no"
        raise ValueError(f"has {number} `names:` at the start of a line: {_WAY_OUT}")
    at, found = starts[0]
    rest = _uncommented(found[1] or "")
    if rest.startswith(("[", "{")):
        names = _inline("\n".join([rest, *map(_uncommented, lines[at + 1 :])]), at + 1)
    elif rest:
        raise ValueError(f"has `names: {rest[:60]}`, which is no list: {_WAY_OUT}")
    else:
        names = _block(lines, at + 1)
    if not names:
        raise ValueError(f"has no name under `names:`: {_WAY_OUT}")
    count = next(
        (m for line in lines if (m := re.match(r"nc[ ]*:[ ]+(\d{1,9})\s*(?:#|$)", line))), 0
    )
    if count and int(count[1]) != len(names):
        raise ValueError(f"says nc: {count[1]}, but has {len(names)} names: correct one of them")
    return names


def _block(lines: list[str], at: int) -> dict[int, str]:
    """The names of an indented block, or of a list that is not indented."""
    names: dict[int, str] = {}
    shape: tuple[int, bool] | None = None  # of the first entry: its depth, whether it is of a list
    for number, line in _content(lines, at):
        text = line.lstrip(" ")
        item, entry = re.match(r"-[ ]+", text), _ENTRY_KEY.match(text)
        if text == line and not text.startswith(("\t", "-")):
            break  # the next key of the file
        found = item or entry
        shape = shape or (len(line) - len(text), item is not None)
        if found is None or shape != (len(line) - len(text), item is not None):
            raise _wrong(number, line)
        key = len(names) if entry is None else int(entry[2])
        if key in names:
            raise ValueError(f"has the id {key} twice (line {number}): correct it")
        names[key] = _value(_BLOCK.fullmatch(text[found.end() :]), number, line)
    return names


def _content(lines: list[str], at: int) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of the lines from index `at`, without comments and blank ones."""
    for number, line in enumerate(lines[at:], start=at + 1):
        stripped = line.strip()
        if stripped in ("---", "..."):
            return
        if stripped and not stripped.startswith("#"):
            yield number, line.rstrip()


def _inline(text: str, number: int) -> dict[int, str]:
    """The names of [a, b] or {0: a, 1: b}, which may end on a later line."""
    names: dict[int, str] = {}
    is_list, at = text[0] == "[", 1
    close = "]" if is_list else "}"

    def line_at(position: int) -> int:
        return number + text.count("\n", 0, position)

    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if text[at : at + 1] == close:
            break
        key = len(names)
        if not is_list:
            entry = _ENTRY_KEY.match(text, at)
            if entry is None:
                raise _wrong(line_at(at), text[at:].split("\n")[0] or "the end of the file")
            key, at = int(entry[2]), entry.end()
        found = _FLOW.match(text, at)
        if found is None or found.end() >= len(text):
            raise _wrong(line_at(at), text[at:].split("\n")[0] or "the end of the file")
        if key in names:
            raise ValueError(f"has the id {key} twice (line {line_at(at)}): correct it")
        names[key] = _unquoted(found[1] or found[2])
        at = found.end()
        if text[at] == ",":
            at += 1
        elif text[at] != close:
            raise _wrong(line_at(at), text[at:].split("\n")[0])
    after = text[at + 1 :].split("\n")
    if after[0].strip() or (
        len(after) > 1 and after[1].startswith((" ", "\t")) and after[1].strip()
    ):
        raise _wrong(line_at(at), text[at:].split("\n")[0])
    return names


def _uncommented(line: str) -> str:
    """A line without its comment; # within quotes is none."""
    found = re.match(rf"(?:{_QUOTED}|(?<!\s)#|[^#\"'])*", line.rstrip())
    kept = found[0] if found else ""
    rest = line.rstrip()[len(kept) :]
    return line.rstrip() if rest and not rest.startswith("#") else kept.rstrip()


def _value(found: re.Match[str] | None, number: int, line: str) -> str:
    if (
        found is None
        or (": " in found[1] and found[1][0] not in "\"'")
        or found[1].startswith("- ")
    ):
        raise _wrong(number, line)
    return _unquoted(found[1])


def _unquoted(text: str) -> str:
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    if text[0] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            raise ValueError(f"has the name {text[:60]}, whose escapes are not read") from None
    return "" if text in ("~", "null") else text


def _wrong(number: int, line: str) -> ValueError:
    return ValueError(f"has a line {number} that is not read ({line.strip()[:60]!r}): {_WAY_OUT}")
