"""A scout allows what is old enough and not past the point, and says when it is to look again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal.commits import Until, find_commit
from mirrortool.journal.position import Position
from mirrortool.journal.tail import SLOW_SECONDS
from mirrortool.replay.commitlimit import CommitLimit
from tests.conftest import FakeClock
from tests.fakes.journals import FRAME_NS, PAGE, START_NS, Commit, JournalMaker, Write
from tests.fakes.tails import Torn


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    made.frame(Write("a", 0, b"a" * PAGE), Commit())  # LSN 2, a frame's time after the start
    made.frame(Write("a", 1, b"b" * PAGE))
    made.frame(Commit("here"))  # LSN 4, three frames' times after it
    made.frame(Commit("here"))
    yield made
    made.abandon()


def position_of(maker: JournalMaker, lsn: int) -> Position:
    found = find_commit(maker.journal, Until(lsn=lsn))
    assert found and found.lsn == lsn
    return found.position


@pytest.mark.parametrize(
    ("until", "limit_lsn", "is_over"),
    [
        (None, 5, False),
        (Until(lsn=4), 4, True),
        (Until(lsn=3), 2, True),
        (Until(lsn=9), 5, False),
        (Until(mark="here"), 4, True),
        (Until(mark="there"), 5, False),
        (Until(time_ns=START_NS + 2 * FRAME_NS), 2, True),
        (Until(time_ns=START_NS + 3 * FRAME_NS), 4, True),
        (Until(time_ns=START_NS + 99 * FRAME_NS), 5, False),
    ],
)
def test_it_goes_to_the_last_commit_at_or_before_the_point(
    maker: JournalMaker, until: Until | None, limit_lsn: int, is_over: bool
) -> None:
    with CommitLimit(maker.journal, maker.journal.start, until=until) as scout:
        assert (scout.limit_lsn, scout.is_over) == (0, False)
        scout.look()
        assert (scout.limit_lsn, scout.is_over) == (limit_lsn, is_over)
        scout.look()
        assert (scout.limit_lsn, scout.is_over) == (limit_lsn, is_over)


def test_who_begins_at_the_point_is_there(maker: JournalMaker) -> None:
    """Though nothing may ever follow it."""
    for lsn in (4, 5):
        with CommitLimit(maker.journal, position_of(maker, 5), until=Until(lsn=lsn)) as scout:
            assert scout.is_over


def test_a_delay_holds_commits_back_until_they_are_old(maker: JournalMaker, fake_clock: FakeClock) -> None:
    fake_clock.ns = START_NS + 1 * FRAME_NS
    with CommitLimit(maker.journal, maker.journal.start, delay_seconds=2 * FRAME_NS / 1e9) as scout:
        for frames, limit_lsn in [(1, 0), (2, 0), (3, 2), (4, 2), (5, 4), (6, 5)]:
            fake_clock.ns = START_NS + frames * FRAME_NS
            assert scout.is_due() == (frames in (3, 4, 5, 6))
            scout.look()
            assert scout.limit_lsn == limit_lsn
            assert not scout.is_due()


def test_it_looks_again_when_the_next_frame_is_old_enough_but_soon(maker: JournalMaker, fake_clock: FakeClock) -> None:
    """The clock may be set forward meanwhile."""
    fake_clock.ns = START_NS + FRAME_NS
    with CommitLimit(maker.journal, maker.journal.start, delay_seconds=3600.0) as scout:
        assert scout.due_seconds() == SLOW_SECONDS
        scout.look()
        assert scout.due_seconds() == SLOW_SECONDS
        fake_clock.advance(3600 - SLOW_SECONDS / 2)
        assert scout.due_seconds() == pytest.approx(SLOW_SECONDS / 2)
        fake_clock.advance(3600)
        assert (scout.due_seconds(), scout.is_due()) == (0.0, True)


def test_a_torn_tail_is_the_end_for_now(maker: JournalMaker) -> None:
    torn = Torn(maker)
    torn.write(20)
    with CommitLimit(maker.journal, maker.journal.start) as scout:
        scout.look()
        assert scout.limit_lsn == 5
        torn.cut()
        maker.frame(Commit())
        scout.look()
        assert scout.limit_lsn == 6
