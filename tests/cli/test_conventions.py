"""What commands have in common: a wrong call says the right one, and a time has one name in all JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirrortool.cli.main import main


def test_slot_without_a_command_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slot", "some journal"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "mirrortool: 'some journal' is not a command of slot; mirrortool slot list 'some journal', or slot drop\n"
    )


@pytest.mark.parametrize("option", ["--all", "--ops"])
def test_log_has_the_time_by_the_name_of_all_commands(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "J", "disk=disk.img:1M", "-q"]) == main(["record", "J", "-q"]) == 0
    capsys.readouterr()
    assert main(["log", "J", option, "--json"]) == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert values and all(each["time_ns"] == each["time"] for each in values)
