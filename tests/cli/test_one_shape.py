"""--json has one shape for each command and each time as a number and as text; an old name of an option still works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mirrortool
from mirrortool.cli.jsonoutput import TIMES, with_texts
from mirrortool.cli.main import main
from mirrortool.times import format_time
from tests.docs.manual import items, page, pages

TIME_NS = 1_700_000_000_123_000_000


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "J", "disk=disk.img:1M", "-q"]) == main(["record", "J", "-q"]) == 0
    assert main(["mark", "J", "first", "-q"]) == main(["mark", "J", "second", "-q"]) == 0
    capsys.readouterr()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The object that a command prints; it prints nothing else."""
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_a_time_is_there_as_a_number_and_as_text() -> None:
    value = {"time_ns": TIME_NS, "worker": {"since_ns": TIME_NS}, "slots": [{"updated_ns": 0}], "next_scan_ns": None}
    text = format_time(TIME_NS)
    assert with_texts(value) == {
        "time_ns": TIME_NS,
        "time": text,
        "worker": {"since_ns": TIME_NS, "since": text},
        "slots": [{"updated_ns": 0, "updated": None}],
        "next_scan_ns": None,
        "next_scan": None,
    }


def test_a_field_that_has_the_name_of_a_volume_is_no_time() -> None:
    value = {"changed": {"time_ns": 7}}
    assert with_texts(value) == value


def test_the_number_of_log_keeps_its_old_name() -> None:
    value = {"time_ns": TIME_NS, "time": TIME_NS}
    assert with_texts(value) == value


def test_pages_have_both_of_each_time() -> None:
    found = set()
    for manual in pages():
        if manual.section != "1":
            continue
        heads = [head for head, _ in items(manual.part("OUTPUT")) if head.startswith("Va ")]
        names = {name for head in heads for name in head[3:].split(" , ")}
        times = names & TIMES
        assert {name.removesuffix("_ns") for name in times} <= names, manual.name
        found |= times
    assert found == TIMES


def test_only_one_module_prints_json() -> None:
    directory = Path(mirrortool.__path__[0]) / "cli"
    found = {path.name for path in directory.glob("*.py") if "json.dumps" in path.read_text()}
    assert found == {"jsonoutput.py"}, "print it with jsonoutput.print_json"


def test_status_prints_a_list_of_paths_also_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    one = printed(capsys, "status", "J", "--json")
    (path,) = one.pop("paths")
    assert path["path"] == "J" and one == path
    two = printed(capsys, "status", "J", "J", "--json")
    assert list(two) == ["paths"] and [each["path"] for each in two["paths"]] == ["J", "J"]


def test_old_name_of_newest_works_silently(capsys: pytest.CaptureFixture[str]) -> None:
    new = printed(capsys, "log", "J", "--newest", "1", "--json")
    assert [each["mark"] for each in new["commits"]] == ["second"]
    assert printed(capsys, "log", "J", "-n", "1", "--json") == new
    assert main(["log", "J", "-n", "1", "--newest", "1"]) == 2


def test_old_name_of_until_works_silently(capsys: pytest.CaptureFixture[str]) -> None:
    new = printed(capsys, "base", "J", "--until", "first", "--json", "-q")
    assert printed(capsys, "base", "J", "--at", "first", "--json", "-q") == {**new, "is_new": False}
    assert main(["base", "J", "--at", "first", "--until", "first"]) == 2


@pytest.mark.parametrize(("command", "old"), [("log", "-n"), ("base", "--at")])
def test_old_names_are_not_in_the_help(command: str, old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"{old} " not in capsys.readouterr().out
    assert f"Fl {old[1:]} " not in "\n".join(page(f"mirrortool-{command}").lines)
