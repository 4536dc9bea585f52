"""--help fits one screen; --help-all has every flag."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from detr_viz import cli
from detr_viz.cli.short_help import SHORT


def printed(capsys, *argv: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([*argv])
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    return out.splitlines()


@pytest.mark.parametrize("command", ["", *cli.SUBCOMMANDS])
def test_help_fits_a_screen_and_the_rest_is_in_help_all(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["detr-viz"])
    words = [command] if command else []
    short = printed(capsys, *words, "--help")
    assert len(short) <= 50 and max(map(len, short)) <= 80
    assert any("--help-all" in line for line in short) and any("examples" in x for x in short)
    full = " ".join(printed(capsys, *words, "--help-all"))
    module = import_module(cli.SUBCOMMANDS[command or cli.DEFAULT_COMMAND])
    actions = cli.build_parser(module, "detr-viz")._actions
    for action in actions:
        assert not action.option_strings or action.option_strings[-1] in full
        if not action.option_strings:
            assert any(action.metavar in line for line in short)
    flags = {flag for action in actions for flag in action.option_strings}
    shown = {*re.findall(r"--[a-z-]+", " ".join(short))}
    assert shown <= flags | {"--help", "--list-models"}
    if "--type" in flags:
        assert flags & {*SHORT} <= shown


def test_each_line_of_the_short_help_is_of_a_flag_of_some_command():
    flags = {
        flag
        for name in cli.SUBCOMMANDS.values()
        for action in cli.build_parser(import_module(name), "x")._actions
        for flag in action.option_strings
    }
    assert {*SHORT} <= flags
