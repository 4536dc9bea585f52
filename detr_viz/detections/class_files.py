"""Files that name classes: which kind a text is, and its names in the order of the class ids.

names, kind = names_in('{"0": "cat", "1": "dog"}', ".json")     # ("cat", "dog"), "id2label"

Kinds: COCO or LVIS annotations, id2label and label2id (alone or in a config.json), a JSON list, the
data.yaml of YOLO, lines `id,name`, plain lines. A text that begins as one of the first kinds is
never taken for plain lines: if it is damaged, a ValueError says where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from detr_viz.common.yaml_names import looks_like_yaml, names_of_yaml

LINES = "lines"  # the kind of a plain file, one name a line
HOLE = "N/A"  # an id that no class has
_MOST_IDS = 100_000
_KINDS = "COCO categories, id2label, label2id or a list of names"
_HEADER = re.compile(
    r"(?:id|index|class_?id|category_?id|label_?id)[,;\t]"
    r"(?:name|class|label|class_?name|category_?name|label_?name|display_?name)",
    re.IGNORECASE,
)
_ID_LINE = re.compile(r"(\d+)(?:\s*[,;\t]\s*|\s*:\s+)(\S.*)")
_COUNTED = re.compile(r"(?P<id>\d+)\s+(?P<name>\S.*)")
_COUNTED_AFTER = re.compile(r"(?P<name>.*[^\s,;])\s*[,;\t]\s*(?P<id>\d+)")  # "class 1" is a name
_QUOTED = re.compile(r"""(?:-\s+)?(?P<quote>["'])(?P<name>.*)(?P=quote),?""")
_BULLET = re.compile(r"-\s+(?P<name>\S.*)")
_ONE_COLUMN = {"name", "names", "class", "classes", "label", "labels", "class_name", "category"}
_NOT_NAMES = (  # how a text begins -> what it is, and the way out
    (r"version https://git-lfs", "a git-lfs pointer, not the names: run git lfs pull"),
    (r"<!doctype|<html", "a web page saved under this name: download the file itself"),
    (r"<", "XML: give a text file, one name a line"),
    (r"item\s*:?\s*\{", "a label map of TensorFlow (.pbtxt): write one `id,name` on each line"),
)


def names_in(text: str, suffix: str) -> tuple[tuple[str, ...], str]:
    """(names by class id, the kind). ValueError: the rest of a line that says what is wrong."""
    start = text.lstrip()
    for pattern, title in _NOT_NAMES:
        if re.match(pattern, start, re.IGNORECASE):
            raise ValueError(f"is {title}")
    suffix = suffix.lower()
    if suffix == ".json" or start.startswith(("{", "[")):
        return _from_json(text)
    if suffix in (".yaml", ".yml") or looks_like_yaml(text):
        ids = names_of_yaml(text)
        return _by_id(ids.items()), "names of a data.yaml"
    return _from_lines(text, suffix)


# ---- JSON -------------------------------------------------------------------------------------

_DROPPED = {"category_id", "segments_info", "file_name", "caption", "coco_url"}
_WANTED = {"categories", "name", "id2label", "label2id", "names", "classes"}


def _from_json(text: str) -> tuple[tuple[str, ...], str]:
    def once(pairs: list[tuple[str, Any]]) -> Any:
        """An object without its annotations, which are most of a file; no key twice."""
        found = dict(pairs)
        if found.keys() & _DROPPED and not found.keys() & _WANTED:
            return 0
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"begins like JSON and is not ({why}): correct it") from None
    if isinstance(value, list):
        return _from_list(value)
    if not isinstance(value, dict):
        raise ValueError(f"is JSON without names of classes: give {_KINDS}")
    if "categories" in value:
        return _categories(value["categories"])
    for key in ("id2label", "label2id", "names", "classes"):
        if isinstance(value.get(key), dict | list):
            inner = value[key]
            names, kind = _from_list(inner) if isinstance(inner, list) else _from_mapping(inner)
            return names, kind if key in ("id2label", "label2id") else f'"{key}" of a JSON file'
    return _from_mapping(value)


def _from_list(value: list[Any]) -> tuple[tuple[str, ...], str]:
    if value and all(isinstance(one, dict) for one in value):
        return _categories(value)
    if not value or not all(one is None or isinstance(one, str) for one in value):
        raise ValueError(f"is a JSON list, but not of names: give {_KINDS}")
    return tuple(HOLE if one is None else clean(one) for one in value), "a JSON list"


def _from_mapping(value: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    if value and all(isinstance(name, str) for name in value.values()):
        if all(_is_id(key) for key in value):
            return _by_id((int(key), name) for key, name in value.items()), "id2label"
        if all(_is_id(number) for number in value.values()):
            return _by_id((int(number), name) for name, number in value.items()), "label2id"
    if value and all(type(number) is int for number in value.values()):
        return _by_id((number, name) for name, number in value.items()), "label2id"
    raise ValueError(f"is JSON without names of classes: give {_KINDS}")


def _categories(value: Any) -> tuple[tuple[str, ...], str]:
    if not isinstance(value, list) or not value:
        raise ValueError('has no list of "categories": give the whole annotation file')
    pairs = []
    for i, one in enumerate(value):
        number = one.get("id") if isinstance(one, dict) else None
        name = one.get("name") if isinstance(one, dict) else None
        if not (type(number) is int or _is_id(number)) or not isinstance(name, str):
            raise ValueError(f"has categories[{i}] without an id (a number) and a name: correct it")
        pairs.append((int(number), name))
    lvis = any("synset" in one for one in value)
    return _by_id(pairs), "LVIS categories" if lvis else "COCO categories"


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) is not None


# ---- lines ------------------------------------------------------------------------------------


def _from_lines(text: str, suffix: str) -> tuple[tuple[str, ...], str]:
    lines = [line for line in text.rstrip().split("\n") if not re.match(r"\s*#(?:\s|$)", line)]
    filled = [line.strip() for line in lines if line.strip()]
    header = filled and _HEADER.fullmatch(re.sub(r'[\s"](?=[,;]|\w|$)', "", filled[0]))
    body = [_ID_LINE.fullmatch(line) for line in (filled[1:] if header else filled)]
    if body and all(body):
        pairs = ((int(found[1][:10]), found[2].strip().strip('"')) for found in body if found)
        return _by_id(pairs), "lines of ids and names"
    if found := _counted(filled):
        return _by_id(found), "lines of ids and names"
    if header or (suffix == ".csv" and any("," in line for line in filled)):
        raise ValueError("is a table, but not of lines `id,name`: write these, or one name a line")
    if suffix == ".csv" and filled[0].strip('"').casefold() in _ONE_COLUMN:
        return tuple(clean(line.strip('"')) for line in filled[1:]), "a column of names"
    for pattern, kind in ((_QUOTED, "lines in quotes"), (_BULLET, "a list of lines")):
        inside = [pattern.fullmatch(line) for line in filled]
        if inside and all(inside):
            return tuple(clean(found["name"]) for found in inside if found), kind
    if len(filled) > 1 and all(re.match(r"\d+[.)]\s", line) for line in filled):
        raise ValueError("is a numbered list: write one name a line, class 0 first, or `id,name`")
    return tuple(clean(line) or HOLE for line in lines), LINES


def _counted(lines: list[str]) -> list[tuple[int, str]]:
    """(id, name) of lines `0 cat` or `cat,0` whose ids count from 0 or 1; else none."""
    for pattern in (_COUNTED, _COUNTED_AFTER):
        found = [match for line in lines if (match := pattern.fullmatch(line))]
        ids = [int(match["id"][:10]) for match in found]
        if not 1 < len(lines) == len(ids) or ids[0] > 1:
            continue
        if ids == list(range(ids[0], ids[0] + len(ids))):
            return [(int(match["id"]), match["name"].strip('"')) for match in found]
    return []


def clean(name: str) -> str:
    """A name with single spaces."""
    return " ".join(name.split())


def _by_id(pairs: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Names in the order of their ids, with holes where an id is not used."""
    names: dict[int, str] = {}
    for number, name in pairs:
        name = clean(name)
        if not 0 <= number < _MOST_IDS:
            raise ValueError(f"has the class id {number}: ids go from 0 to {_MOST_IDS - 1}")
        if names.setdefault(number, name) != name:
            raise ValueError(
                f"has two names for the id {number} ({names[number][:40]!r}, {name[:40]!r}): "
                "correct it"
            )
    return tuple(names.get(number) or HOLE for number in range(max(names) + 1))
