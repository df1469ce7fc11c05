"""Every time that a command prints selects the commit of which it was printed, wherever a point is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.text import format_time
from mirrortool.journal.directory import Journal
from mirrortool.replay.session import Replay
from tests.fakes import journals
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory

PRINTED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d{4}")
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The output of a command, with what it says on the side."""

    def call(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(each) for each in arguments]) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return call


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """Commits of LSN 2, 4, 6 and 8, a millisecond apart, of which none is at the beginning of one."""
    monkeypatch.setattr(journals, "START_NS", journals.START_NS + 123_456)
    with memory_directory() as path:
        monkeypatch.chdir(path)
        maker = JournalMaker("J", {"a": 8 * PAGE})
        for number in range(1, 5):
            maker.frame(Write("a", number, bytes([number]) * PAGE), Commit("third" if number == 3 else None))
        yield maker.close()


def times_in(text: str) -> list[str]:
    found = PRINTED.findall(text)
    assert found, text
    return found


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.usefixtures("journal")
def test_what_log_prints_is_taken_by_every_command(run: Run, number: int) -> None:
    lsn = 2 * number + 2
    printed = times_in(run("log", "J"))[number]
    counted = f"@{json.loads(run('log', 'J', '--json'))['commits'][number]['time']}"
    run("replay", "J", "M", "-q", "--no-slot", "--until", 2)
    for point in (printed, counted, lsn):
        assert json.loads(run("replay", "-q", "J", f"M{point}", "--until", point, "--json"))["applied_lsn"] == lsn
        assert json.loads(run("replay", "J", "new", "--dry-run", "--until", point, "--json"))["target_lsn"] == lsn
        assert json.loads(run("base", "-q", "J", "--at", point, "--json"))["lsn"] == lsn
        assert json.loads(run("promote", "M", "--dry-run", "--until", point, "--json"))["lsn"] == lsn
        assert run("log", "J", "--since", point).split()[0] == str(lsn)


@pytest.mark.usefixtures("journal")
def test_what_every_command_prints_of_a_commit_selects_it(run: Run) -> None:
    for lsn in (2, 4, 6):
        run("replay", "J", "M", "-q", "--slot", "m", "--until", lsn)
        told = [
            run("replay", "J", "M", "--until", lsn),
            run("replay", "J", "new", "--dry-run", "--until", lsn),
            run("verify", "M"),
            run("status", "M").partition("behind")[0],
            run("slot", "list", "J"),
            run("base", "J", "--at", lsn),
            run("promote", "M", "--dry-run", "--until", lsn),
            run("log", "J", "--ops").splitlines()[lsn - 1],
        ]
        for printed in {time for text in told for time in times_in(text)[:1]}:
            assert json.loads(run("replay", "J", "new", "--dry-run", "--until", printed, "--json"))["target_lsn"] == lsn
    printed = times_in(run("status", "J"))[0]
    assert json.loads(run("replay", "J", "new", "--dry-run", "--until", printed, "--json"))["target_lsn"] == 8


@pytest.mark.usefixtures("journal")
def test_a_time_that_does_not_exist_is_not_printed_as_one(run: Run) -> None:
    """Of a mirror into which nothing was replayed yet, its slot, and a journal without a frame."""
    JournalMaker("empty", {"a": PAGE}).close()
    with Replay("J", "M", slot="m"):
        pass
    told = [run("status", "empty"), run("status", "M"), run("status", "J"), run("slot", "list", "J")]
    assert "no time" in told[-1]
    assert not any("1970" in text for text in told)
    assert format_time(0) == "no time"


@pytest.mark.usefixtures("journal")
def test_of_what_log_lists_since_a_point_the_newest_are_chosen(run: Run) -> None:
    def lsns(*options: object) -> list[int]:
        return [json.loads(line)["lsn"] for line in run("log", "J", "--json", *options).splitlines()]

    assert lsns("--since", 3) == [4, 6, 8]
    assert lsns("--since", 3, "-n", 2) == [6, 8]
    assert lsns("--since", "third", "-n", 9) == [6, 8]
    assert lsns("--since", 3, "-n", 1, "--flush-only") == [8]
    assert lsns("--since", "newest") == [8]
    assert lsns("--all", "-n", 3) == [4, 6, 8]
    assert lsns("--ops", "-n", 3) == [6, 7, 8]
    assert lsns("--ops", "--since", 4) == [4, 5, 6, 7, 8]
    assert lsns("--ops", "--since", "third", "-n", 1) == [8]


def test_damage_is_told_after_the_newest_before_it_that_were_asked_for(journal: Journal, run: Run) -> None:
    path = Path(journal.file_path(1))
    path.write_bytes(path.read_bytes()[:-5])
    told = run("log", "J", "--since", 1, "-n", 1, code=11)
    assert told.startswith("6  ") and "mirrortool: " in told


@pytest.mark.usefixtures("journal")
def test_newest_is_the_newest_commit_and_no_marks_name(run: Run) -> None:
    assert json.loads(run("replay", "-q", "J", "M", "--until", "newest", "--json"))["slot"] is not None
    told = run("replay", "-q", "J", "N", "--follow", "--until", "newest", "--json").splitlines()
    assert json.loads(told[0])["applied_lsn"] == 8
    assert "not 'newest'" in run("mark", "J", "newest", code=2)


@pytest.mark.usefixtures("journal")
def test_while_no_commit_is_as_old_as_the_delay_it_is_not_time_yet(run: Run) -> None:
    assert "as old as the delay" in run("replay", "J", "M", "--delay", "5000w", code=3)
    assert "as old as the delay" in run("replay", "J", "M", "--delay", "5000w", "--dry-run", code=3)
    assert not Path("M").exists()
