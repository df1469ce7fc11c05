"""What is missing or misspelt is told with the right name: the name of a mark, and environment variables."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from mirrortool.cli.main import COMMANDS, cli, main
from mirrortool.cli.services import SERVICES
from mirrortool.cli.startupsignals import is_long_running
from mirrortool.cli.variables import OTHERS
from tests.docs.manual import items, page


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "J", "disk=disk.img:1M", "-q"]) == main(["record", "J", "-q"]) == 0
    capsys.readouterr()


def test_mark_without_a_name_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mark", "some journal"]) == 2
    assert capsys.readouterr().err == (
        "mirrortool: the name of the mark is missing; mirrortool mark 'some journal' NAME makes one, "
        "mirrortool log 'some journal' lists them\n"
    )
    assert main(["mark"]) == 2
    assert "JOURNAL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MIRRORTOOL_LOG_FLUSHONLY", "near: MIRRORTOOL_LOG_FLUSH_ONLY"),
        ("MIRRORTOOL_LOGG_ALL", "near: MIRRORTOOL_LOG_ALL"),
        ("MIRRORTOOL_REPLY_FOLLOW", "near: MIRRORTOOL_REPLAY_FOLLOW"),
        ("MIRRORTOOL_DEBG", "near: MIRRORTOOL_DEBUG"),
        ("MIRRORTOOL_LOG_XYZZY", "see mirrortool-environment(7)"),
        ("MIRRORTOOL_", "see mirrortool-environment(7)"),
    ],
)
def test_a_misspelt_variable_is_told(
    name: str, near: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "1")
    assert main(["log", "J"]) == 0
    assert capsys.readouterr().err == f"mirrortool: {name}: there is no such option; {near}\n"


@pytest.mark.parametrize(
    "name",
    [
        *OTHERS - {"MIRRORTOOL_STATE_DIRECTORY"},
        "MIRRORTOOL_LOG_ALL",
        "MIRRORTOOL_LOG_N",
        "MIRRORTOOL_REPLAY_FOLOW",  # told where replay runs
        "OTHER_LOG_FOLOW",
    ],
)
def test_other_variables_are_not(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MIRRORTOOL_LOG_FOLOW", "")
    assert main(["log", "J"]) == 0
    assert capsys.readouterr().err == ""


def test_a_command_of_a_command_has_variables_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRRORTOOL_SLOT_LIST_JSON", "1")
    monkeypatch.setenv("MIRRORTOOL_SLOT_LIST_JSN", "1")
    assert main(["slot", "list", "J"]) == 0
    told = capsys.readouterr().err
    assert told == "mirrortool: MIRRORTOOL_SLOT_LIST_JSN: there is no such option; near: MIRRORTOOL_SLOT_LIST_JSON\n"


def test_the_variables_that_are_no_options_are_those_of_the_page() -> None:
    heads = {head for head, _ in items(page("mirrortool-environment", 7).sub_part("Others"))}
    assert {head.removeprefix("Ev ") for head in heads if head.startswith("Ev MIRRORTOOL_")} == OTHERS


@pytest.mark.parametrize("name", COMMANDS)
def test_one_list_says_which_options_make_a_command_a_service(name: str) -> None:
    """No command that has such an option is left out."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for each in command.params for option in each.opts}
    if name in SERVICES:
        rules = SERVICES[name]
        assert (set(rules.options) <= known and len(rules.options) == 1) or not rules.is_added
        assert all(is_long_running([name, "J", option]) for option in rules.options)
    else:
        assert not known & {option for rules in SERVICES.values() for option in rules.options}
