"""What a follower tells, when it tells it, and what it outlives."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.cli import replayfollow as module
from mirrortool.cli.main import main
from mirrortool.cli.progressdisplay import PLAIN_SECONDS, Display
from mirrortool.cli.replayfollow import BEHIND_SECONDS, Following, FollowWatch, describe_lag, waited_for
from mirrortool.cli.workthread import Runner
from mirrortool.errors import CorruptJournalError, InputOutputError, JournalError, NoSpaceError, PrunedJournalError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.replaylag import ReplayLag
from mirrortool.replay.session import Replay
from tests.conftest import FakeClock
from tests.fakes.journals import ONE_TASK, PAGE, Commit, Write, make_journal

Capture = pytest.CaptureFixture[str]
IN_SYNC = ReplayLag(0, 0, 0.0, 0.0, 9, 9, None)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    frames = [[Write("a", n, bytes([n + 1]) * PAGE), Commit(f"m{n}")] for n in range(4)]
    return make_journal(tmp_path / "J", {"a": 10 * PAGE}, frames)


def opened(journal: Journal) -> Replay:
    return Replay(journal.path, "M", plan=ONE_TASK)


@pytest.mark.parametrize(
    ("lag", "text"),
    [
        (ReplayLag(0, 0, 0.0, 0.0, 9, 9, None), "up to date"),
        (ReplayLag(5, 2048, 1.5, None, 9, 9, None), "5 operations, 2.0 KiB and 1.5 s behind"),
        (ReplayLag(5, 2048, 1.5, 90.0, 9, 9, None), "5 operations, 2.0 KiB and 1.5 s behind, 1 min 30 s left"),
    ],
)
def test_the_lag_in_words(lag: ReplayLag, text: str) -> None:
    assert describe_lag(lag) == text


def test_a_follower_waits_while_its_disk_is_full(journal: Journal, capsys: Capture) -> None:
    """It is told once, and lets go of the mirror meanwhile, so that somebody can look at it."""
    runs = 0

    def open_replay() -> Replay:
        Mirror("M").lock(exclusive=True).close()
        return opened(journal)

    def once(replay: Replay) -> int:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise NoSpaceError("cannot write: no space left", where="M/volumes/a.img", remedy="free some")
        assert replay.run().is_consistent
        return 0

    opened(journal).__exit__()
    with Following(open_replay) as following:
        following.run(once)
        assert following.replay.mirror.checkpoint.position.lsn == 8
    assert runs == 4
    assert capsys.readouterr().err.count("blocked: ") == 1


def test_a_signal_in_the_moment_of_a_full_disk_ends_a_follower(journal: Journal) -> None:
    """It was told to stop, and failed before it did: nothing may start it again."""

    def once(_replay: Replay) -> int:
        def work() -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            raise NoSpaceError("cannot write: no space left", where="M")

        return Runner(work, lambda: None, lambda: None).run(lambda: None)

    with Following(lambda: opened(journal)) as following:
        following.run(once)
    assert not following.is_again


def test_what_a_fresh_start_does_not_mend_ends_a_follower(journal: Journal) -> None:
    def once(_replay: Replay) -> int:
        raise InputOutputError("cannot write: bad device", where="M")

    with Following(lambda: opened(journal)) as following, pytest.raises(InputOutputError):
        following.run(once)


def failing_first(error: JournalError | NoSpaceError, times: int, journal: Journal) -> Callable[[], Replay]:
    """Opens a replay; all but the first and the last time that fails."""
    left = [None, *[error] * times]

    def open_replay() -> Replay:
        found = left.pop(0) if left else None
        if found:
            raise found
        return opened(journal)

    return open_replay


def blocked_once() -> Callable[[Replay], int]:
    """What a run is whose disk is full the first time."""
    errors = [NoSpaceError("cannot write: no space left", where="M")]

    def once(replay: Replay) -> int:
        if errors:
            raise errors.pop()
        assert replay.run().is_consistent
        return 0

    return once


def test_a_disk_that_is_full_for_the_start_too_is_waited_for(journal: Journal) -> None:
    opening = failing_first(NoSpaceError("cannot write: no space left", where="M"), 3, journal)
    with Following(opening) as following:
        assert not following.is_again
        following.run(blocked_once())
        assert following.is_again
        assert following.replay.mirror.checkpoint.position.lsn == 8


def test_a_journal_is_waited_for_while_somebody_appends_to_it(journal: Journal) -> None:
    """A receiver may be between the base and the files that follow it."""
    opening = failing_first(CorruptJournalError("has no files", where="J"), 3, journal)
    with journal.lock(), Following(opening) as following:
        following.run(blocked_once())
        assert following.replay.mirror.checkpoint.position.lsn == 8


def test_a_journal_that_nobody_appends_to_ends_a_follower(journal: Journal) -> None:
    opening = failing_first(CorruptJournalError("has no files", where="J"), 1, journal)
    with Following(opening) as following, pytest.raises(CorruptJournalError):
        following.run(blocked_once())


def test_who_appends_is_not_waited_for_for_ever(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REOPEN_SECONDS", -1.0)
    opening = failing_first(CorruptJournalError("has no files", where="J"), 1, journal)
    with journal.lock(), Following(opening) as following, pytest.raises(CorruptJournalError):
        following.run(blocked_once())


def test_files_that_went_are_told_and_started_over_from(journal: Journal, capsys: Capture) -> None:
    errors = [PrunedJournalError("LSN 3 is gone", where="J")]

    def once(_replay: Replay) -> int:
        if errors:
            raise errors.pop()
        return 0

    with Following(lambda: opened(journal)) as following:
        following.run(once)
    assert capsys.readouterr().err == "mirrortool: LSN 3 is gone; starting over from a base\n"


def test_a_mirror_in_place_of_a_journal_is_not_waited_for(journal: Journal) -> None:
    opened(journal).__exit__()
    assert waited_for("M", quiet=True)
    assert waited_for("J", quiet=True)


class Watched:
    """A watch in a pipe, and what it told since it was asked last."""

    def __init__(self, journal: Journal, capsys: Capture, *, is_again: bool = False) -> None:
        self._capsys = capsys
        with opened(journal) as replay:
            self._now = replay.statistics()
            self._watch = FollowWatch(Display("replay", quiet=False), replay, is_again=is_again)

    def told(self) -> list[str]:
        return self._capsys.readouterr().err.splitlines()

    def tick(self, lag: ReplayLag = IN_SYNC, *, waits_for: str = "", is_polling: bool = False) -> list[str]:
        self._watch.tick(replace(self._now, lag=lag, waits_for=waits_for, is_polling=is_polling))
        return self.told()


@pytest.mark.parametrize("is_again", [True, False])
def test_what_is_followed_is_told_once(journal: Journal, capsys: Capture, is_again: bool) -> None:
    watched = Watched(journal, capsys, is_again=is_again)
    assert [line.startswith(f"following {journal.path}; ") for line in watched.told()] == ([] if is_again else [True])
    assert watched.tick() == []


class OnTerminal(Display):
    """A display on a terminal, and the lines that it shows now."""

    is_live = True
    width = 60
    lines: Sequence[str] = ()

    def show_lines(self, lines: Sequence[str]) -> None:
        self.lines = lines


@pytest.mark.parametrize("verbose", [False, True])
def test_what_the_engine_does_is_shown_only_if_asked_for(journal: Journal, verbose: bool) -> None:
    display = OnTerminal("replay", quiet=False)
    with opened(journal) as replay:
        replay.run()
        now = replay.statistics()
        FollowWatch(display, replay, is_again=False, verbose=verbose).tick(replace(now, waits_for="a clock"))
    lines = ["the mirror is at LSN 8", "up to date", "8 operations, 2.0 KiB replayed", "a clock"]
    engine = ["given to the tasks up to LSN 8", "group", "0"]
    shown = [line.split("  ")[0] for line in display.lines]
    assert shown == [*lines, *engine] if verbose else shown == lines


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("verbose", [False, True])
def test_how_the_work_was_divided_is_told_only_if_asked_for(capsys: Capture, verbose: bool) -> None:
    plan = ["--groups", "1", "--tasks", "1", "--unit", "op", "--io", "buffered"]
    assert main(["replay", "J", "M", *plan, *["-v"] * verbose]) == 0
    text = capsys.readouterr()
    assert ("1 group x 1 task" in text.err) == verbose
    assert "group" not in text.out


class Screen(io.StringIO):
    """What is drawn on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("how", [[], ["--follow", "--until", "m2"]])
@pytest.mark.parametrize("verbose", [False, True])
def test_a_terminal_shows_each_group_if_asked_for(
    how: list[str], verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["replay", "J", "M", "--groups", "1", *how, *["-v"] * verbose]) == 0
    assert ("group  busy  main" in screen.getvalue()) == verbose
    assert ("given to the tasks up to LSN" in screen.getvalue()) == verbose


def test_a_lag_is_told_now_and_then_while_it_is_large(journal: Journal, capsys: Capture, fake_clock: FakeClock) -> None:
    watched = Watched(journal, capsys)
    watched.told()
    large = ReplayLag(5, 2048, BEHIND_SECONDS, None, 9, 9, None)
    assert watched.tick(large) == []
    fake_clock.elapsed += PLAIN_SECONDS
    assert watched.tick(replace(large, seconds=BEHIND_SECONDS - 0.1)) == []
    assert watched.tick(large) == ["replay: 5 operations, 2.0 KiB and 5.0 s behind"]
    assert watched.tick(large) == []
    fake_clock.elapsed += PLAIN_SECONDS
    assert len(watched.tick(large)) == 1


def test_what_changes_is_told_once(journal: Journal, capsys: Capture) -> None:
    watched = Watched(journal, capsys)
    watched.told()
    assert watched.tick(is_polling=True) == ["the journal's files are polled, not watched"]
    assert watched.tick(is_polling=True) == []
    torn = "the journal ends in a torn tail"
    assert watched.tick(waits_for=torn) == [f"mirrortool: {torn}"]
    assert watched.tick(waits_for=torn) == []
    assert watched.tick() == ["mirrortool: the journal continues"]
    silent = replace(IN_SYNC, silent_seconds=45.0)
    (line,) = watched.tick(silent)
    assert "last word of the primary is of" in line and line.endswith("silent for 45.0 s")
    assert watched.tick(replace(silent, silent_seconds=46.0)) == []
    assert watched.tick() == ["mirrortool: the primary is back"]
