"""`diff` as a person meets it: lines of ranges, both commits on standard error, one line for what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.operation import CommitKind
from tests.fakes.journals import PAGE, Commit, Resize, Write, Zero, make_journal
from tests.fakes.volumes import inside_fast_directory

SIZE = 64 * PAGE - 7
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def _here() -> Iterator[str]:
    with inside_fast_directory() as directory:
        frames = [
            [Write("disk", 0, b"o" * 64 * PAGE), Commit("old")],
            [Write("disk", 2, b"n" * 3 * PAGE), Zero("disk", 5, 2), Write("disk", 9, b"o" * PAGE), Commit("new")],
            [Resize("disk", 3 * PAGE), Commit("small")],
        ]
        make_journal("J", {"disk": SIZE}, frames)
        make_journal("fuzzy", {"disk": SIZE}, [[Write("disk", 0, b"f" * PAGE), Commit(kind=CommitKind.FUZZY)]])
        yield directory


@pytest.fixture(autouse=True)
def here(_here: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals; one has a commit that is fuzzy."""
    monkeypatch.chdir(_here)
    return Path(_here)


def lines(text: str) -> list[tuple[int, int, str]]:
    return [(int(offset) // PAGE, int(length), kind) for offset, length, kind in map(str.split, text.splitlines())]


CHANGED = [(2, 3 * PAGE, "data"), (5, 2 * PAGE, "zero")]


@pytest.mark.parametrize(
    ("arguments", "expected", "told"),
    [
        ("old new", CHANGED, "2 ranges, 1.5 KiB of data and 1.0 KiB of zeros"),
        ("old new --touched", [*CHANGED, (9, PAGE, "data")], "3 ranges, 2.0 KiB of data and 1.0 KiB of zeros"),
        ("new old", [(2, 5 * PAGE, "data")], "1 range, 2.5 KiB of data and 0 B of zeros"),
        ("new new", [], "0 ranges, 0 B of data and 0 B of zeros"),
        ("old small", [(2, PAGE, "data")], "1 range, 512 B of data and 0 B of zeros"),
        ("small old", [(2, 62 * PAGE - 7, "data")], "1 range, 31.0 KiB of data and 0 B of zeros"),
    ],
)
def test_ranges_are_printed(arguments: str, expected: list[object], told: str, capsys: Capture) -> None:
    assert main(["diff", "J", "disk", *arguments.split()]) == 0
    printed = capsys.readouterr()
    assert lines(printed.out) == expected
    assert told in printed.err
    assert ("the size of the volume is" in printed.err) == ("small" in arguments)


def test_quiet_prints_the_ranges_alone(capsys: Capture) -> None:
    assert main(["diff", "-q", "J", "disk", "old", "new"]) == 0
    printed = capsys.readouterr()
    assert lines(printed.out) == CHANGED
    assert printed.err == ""


def test_json_has_both_commits(capsys: Capture) -> None:
    assert main(["diff", "J", "disk", "old", "small", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["from_lsn"], value["from_size"], value["to_size"]) == (2, SIZE, 3 * PAGE)
    assert value["ranges"] == [{"offset": 2 * PAGE, "length": PAGE, "is_zero": False}]


@pytest.mark.parametrize(
    ("code", "line", "phrase"),
    [
        (2, "diff J nothing old new", "its volumes: disk"),
        (2, "diff J disk old nowhere", "no mark nowhere"),
        (2, "diff J disk 99 new", "LSN 99 is above the newest"),
        (2, "diff J disk 1 new", "the oldest is 2 of"),
        (14, "diff missing disk old new", "does not exist"),
        (25, "diff fuzzy disk newest newest", "--allow-fuzzy"),
    ],
)
def test_refused(code: int, line: str, phrase: str, capsys: Capture) -> None:
    assert main(line.split()) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("mirrortool: ") and phrase in told[0], told


def test_a_fuzzy_commit_is_compared_with_a_warning(capsys: Capture) -> None:
    assert main(["diff", "fuzzy", "disk", "newest", "newest", "--allow-fuzzy"]) == 0
    assert "FUZZY" in capsys.readouterr().err
