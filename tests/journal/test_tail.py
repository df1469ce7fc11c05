"""Tail: a follower of a journal is woken by what is appended, and misses nothing that no event told of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.events import FileSystemEventHandler

from mirrortool.errors import ExhaustedError, NotAJournalError
from mirrortool.journal import tail as tails
from mirrortool.journal.directory import Journal
from mirrortool.journal.tail import Tail, wait_for_journal
from tests.fakes.journals import Commit, JournalMaker, Write
from tests.fakes.waiting import in_thread, join

LONG = 20.0


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "j", {"disk": 8192})
    made.frame(Commit())
    yield made
    made.abandon()


def waiting(
    tail: Tail, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch, *, grows: bool = True
) -> tuple[bool, float]:
    """What a wait says that is on when `act` is done, and how long it took; no slow look helps it.

    Args:
        grows: what is done makes the journal grow; before that, an event of earlier growth may end a wait.
    """
    monkeypatch.setattr(tails, "SLOW_SECONDS", LONG)
    seen = tail.look()
    started = time.monotonic()
    acting = in_thread(act)
    while not (said := tail.wait(seen, LONG)) and grows and time.monotonic() - started < LONG:
        pass
    join(acting)
    return said, time.monotonic() - started


@pytest.mark.parametrize("observer", ["auto", "inotify", "polling"])
def test_what_is_appended_ends_the_wait(maker: JournalMaker, observer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tail(maker.journal, observer) as tail:
        for _ in range(3):
            said, took = waiting(tail, lambda: maker.frame(Write("disk", 0, bytes(512))), monkeypatch)
            assert said
            assert took < LONG / 2
        assert tail.is_polling == (observer == "polling")


@pytest.mark.parametrize("observer", ["inotify", "polling"])
def test_a_new_file_ends_the_wait(maker: JournalMaker, observer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tail(maker.journal, observer) as tail:
        path = Path(maker.journal.file_path(1 << 40))
        said, _ = waiting(tail, lambda: path.write_bytes(b""), monkeypatch)
        assert said


@pytest.mark.parametrize("observer", ["inotify", "polling"])
def test_what_is_appended_to_a_later_file_ends_the_wait(
    maker: JournalMaker, observer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tail(maker.journal, observer) as tail:
        tail.look()
        later = Path(maker.journal.file_path(1 << 40))
        later.write_bytes(b"")
        said, took = waiting(tail, lambda: later.write_bytes(b"more"), monkeypatch)
        assert said
        assert took < LONG / 2


def test_no_wait_is_longer_than_a_slow_look(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "SLOW_SECONDS", 0.01)
    with Tail(maker.journal, "inotify") as tail:
        started = time.monotonic()
        assert not tail.wait(tail.look(), LONG)
        assert time.monotonic() - started < LONG / 2


def test_what_was_appended_since_the_look_needs_no_event(maker: JournalMaker) -> None:
    with Tail(maker.journal, "inotify") as tail:
        seen = tail.look()
        maker.frame(Commit())
        assert tail.wait(seen, 0.0)


def test_a_slow_look_covers_lost_events(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a single event, as over NFS or after an overflow."""
    monkeypatch.setattr(tails, "_waker", lambda _: FileSystemEventHandler())
    monkeypatch.setattr(tails, "SLOW_SECONDS", 0.1)
    with Tail(maker.journal, "inotify") as tail:
        seen = tail.look()
        appending = in_thread(lambda: maker.frame(Commit()))
        ends = time.monotonic() + LONG
        while not (said := tail.wait(seen)) and time.monotonic() < ends:
            pass
        join(appending)
        assert said


def test_wake_ends_the_wait(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    for observer in ("inotify", "polling"):
        with Tail(maker.journal, observer) as tail:
            said, took = waiting(tail, tail.wake, monkeypatch, grows=False)
            assert not said
            assert took < LONG / 2


def test_nothing_is_watched_while_nobody_waits(maker: JournalMaker) -> None:
    with Tail(maker.journal, "inotify") as tail:
        tail.wait(tail.look(), 0.0)
        assert tail._observer is not None
        assert not tail._observer.emitters


def refuse(*_args: object, **_kwargs: object) -> None:
    raise OSError(28, "inotify watch limit reached")


def refuse_thread(*_: object, **__: object) -> None:
    raise RuntimeError("no thread left")


def test_without_watches_left_it_polls(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
    with Tail(maker.journal) as tail:
        said, _ = waiting(tail, lambda: maker.frame(Commit()), monkeypatch)
        assert said
        assert tail.is_polling


def test_without_watches_left_inotify_says_what_to_raise(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse)
    with Tail(maker.journal, "inotify") as tail, pytest.raises(ExhaustedError) as failed:
        tail.wait(tail.look(), 0.0)
    assert "max_user_watches" in str(failed.value)
    monkeypatch.setattr("watchdog.observers.api.BaseObserver.schedule", refuse_thread)
    with Tail(maker.journal, "inotify") as tail, pytest.raises(ExhaustedError, match="cannot watch: no thread left"):
        tail.wait(tail.look(), 0.0)


def test_a_torn_tail_that_is_cut_and_written_again_is_seen(maker: JournalMaker) -> None:
    """The size may be the same again; the time is not."""
    path = Path(maker.journal.file_path(1))
    with Tail(maker.journal, "polling") as tail:
        before, written_ns = path.read_bytes(), path.stat().st_mtime_ns
        seen = tail.look()
        path.write_bytes(before[:-8])
        path.write_bytes(before)
        while path.stat().st_mtime_ns == written_ns:  # a file's time has the grain of the kernel's tick
            path.write_bytes(before)
        assert tail.look().size == seen.size
        assert tail.wait(seen, 0.0)


def test_a_journal_is_awaited(tmp_path: Path) -> None:
    ending = threading.Event()
    found: list[Journal | None] = []
    waiter = in_thread(lambda: found.append(wait_for_journal(str(tmp_path / "j"), ending)))
    journal = JournalMaker(tmp_path / "j", {"disk": 8192}).close()
    join(waiter)
    assert found[0] is not None
    assert found[0].uuid == journal.uuid


def test_waiting_for_a_journal_can_be_ended(tmp_path: Path) -> None:
    ending = threading.Event()
    ending.set()
    assert wait_for_journal(str(tmp_path / "none"), ending) is None


def test_what_is_no_journal_is_not_awaited(tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_text("{}")
    with pytest.raises(NotAJournalError):
        wait_for_journal(str(tmp_path), threading.Event())
