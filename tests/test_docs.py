"""The README and the pages keep their word: links, flags, commands, and what is generated."""

from __future__ import annotations

import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

import detr_viz
from detr_viz import cli, models
from detr_viz.checkpoints import downloads
from detr_viz.cli.arguments import OneLineParser

README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [README, CHINESE, *PAGES]
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "weights/README.md"]
EVERYTHING = "\n".join(path.read_text(encoding="utf-8") for path in [README, *PAGES])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", text)


# ---- links ---------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-"))
    return found


def links(path: Path) -> list[str]:
    text = prose(path.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "`", text))


@pytest.mark.parametrize("path", [*WRITTEN, *OTHERS], ids=names)
def test_every_link_leads_somewhere(path):
    for link in links(path):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        if path in PAGES:  # the site has no other files
            assert (ROOT / "docs") in target.parents, link


def test_there_are_links():
    assert sum(len(links(path)) for path in WRITTEN) > 100


def test_every_page_is_in_the_menu_and_in_the_readme():
    menu = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(menu) == [path.name for path in PAGES]
    linked = {link.partition("#")[0] for path in (README, ROOT / "docs/index.md")
              for link in links(path)}  # fmt: skip
    for path in PAGES:
        assert path.name in linked or f"docs/{path.name}" in linked or path.name == "index.md"


# ---- flags and commands --------------------------------------------------------------------------


def parser_of(command: str):
    return cli.build_parser(import_module(cli.SUBCOMMANDS[command]))


def flags(*commands: str) -> list[str]:
    """Of these commands, or of all."""
    actions = [a for name in commands or cli.SUBCOMMANDS for a in parser_of(name)._actions]
    return list(dict.fromkeys(o for a in actions for o in a.option_strings if o[:2] == "--"))


@pytest.mark.parametrize("flag", flags())
def test_the_pages_name_every_flag(flag):
    assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", EVERYTHING)


def own_words(path: Path) -> str:
    """A page without commands of other programs, and without docstrings."""
    text = path.read_text(encoding="utf-8")
    text = FENCE.sub(lambda block: block[0] if block[1] != "text" else "", text)
    others = r"\b(?:pip|pytest|git|python -m (?!detr_viz )|python docs/)"
    text = re.sub(rf"`[^`\n]*{others}[^`\n]*`", "", text)
    ours = r"attention_scripts|detr-viz"
    return re.sub(rf"^(?!.*(?:{ours})).*{others}.*$", "", text, flags=re.MULTILINE)


OF_OTHERS = {"--pre_norm", "--heatmap-regen", "--heatmap-report"}  # the authors' code, pytest's


@pytest.mark.parametrize("path", WRITTEN, ids=names)
def test_the_pages_name_no_flag_that_is_not_there(path):
    used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", own_words(path))) - OF_OTHERS
    assert used <= set(flags()), used - set(flags())


def commands(path: Path) -> list[str]:
    """Every command of the tool in a block or between backquotes."""
    text = path.read_text(encoding="utf-8")
    lines = "\n".join(blocks(text, "", "yaml")).splitlines()
    lines += re.findall(r"`([^`\n]*)`", prose(text))
    found = []
    for line in lines:
        if match := re.search(
            r"(?:^|&& |run: )(?:python attention_scripts\.py|detr-viz) (.*)", line
        ):
            found.append(match[1].partition("  #")[0])
    return found


def test_there_are_commands():
    assert sum(len(commands(path)) for path in WRITTEN) > 60


@pytest.mark.parametrize("path", WRITTEN, ids=names)
def test_every_command_is_understood(path, monkeypatch):
    """By its own parser: its flags are there, and take these values."""

    def mistake(self, message):
        raise AssertionError(message)

    monkeypatch.setattr(OneLineParser, "error", mistake)
    for line in commands(path):
        words = shlex.split(line)
        name = words.pop(0) if words[0] in cli.SUBCOMMANDS else cli.DEFAULT_COMMAND
        parser_of(name).parse_args(words)


@pytest.mark.parametrize("command", sorted(set(cli.SUBCOMMANDS) - {cli.DEFAULT_COMMAND}))
def test_the_pages_show_every_command(command):
    assert f"python attention_scripts.py {command} " in EVERYTHING


def test_the_pages_name_every_model_and_weight():
    for name in (*models.names(), *downloads.KNOWN):
        assert name in EVERYTHING


# ---- generated parts, and the two READMEs --------------------------------------------------------


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "library.md"])
def test_what_is_generated_is_up_to_date(name):
    made = generator()
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert made.page(name) == text, "run: python docs/generate.py"


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    assert re.findall(r"^#### (\w+)$", text, re.MULTILINE) == list(detr_viz._HOMES)
    for flag in flags():
        assert flag in (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def test_the_readme_is_short():
    for path in (README, CHINESE):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 150 and max(map(len, lines)) <= 140
        (code,) = blocks("\n".join(lines), "python")
        assert len([line for line in code.splitlines() if line]) <= 12


def test_the_readme_in_chinese_has_the_same_parts():
    english, chinese = (path.read_text(encoding="utf-8") for path in (README, CHINESE))

    def shape(text: str) -> list[str]:
        return re.findall(r"^(#+ |```\w*$|\| |- |!\[)", text, re.MULTILINE)

    def plain(code: str) -> list[str]:  # comments are translated
        return [re.sub(r"\s*#.*", "", line) for line in code.splitlines()]

    assert shape(english) == shape(chinese)
    ours, theirs = FENCE.findall(english), FENCE.findall(chinese)
    for (kind, code), (other_kind, other) in zip(ours, theirs, strict=True):
        assert kind == other_kind
        if "detr_viz/common" in code:  # the tree: the same folders
            code, other = (re.sub(r"(?m)(\S)  .*", r"\1", c) for c in (code, other))
        assert plain(code) == plain(other)
    both = {CHINESE.name, README.name}  # each leads to the other
    assert [x for x in links(README) if x not in both] == [
        x for x in links(CHINESE) if x not in both
    ]
    assert CHINESE.name in links(README) and README.name in links(CHINESE)
    of_code = [re.findall(r"`([^`\n]+)`", prose(text)) for text in (english, chinese)]
    assert sorted(of_code[0]) == sorted(of_code[1])
