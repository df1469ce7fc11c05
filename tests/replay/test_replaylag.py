"""A lag is what a mirror lacks, and when it will lack nothing is only said where that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.journal.format import FILE_HEADER
from mirrortool.journal.overdue import SILENT_SECONDS
from mirrortool.journal.position import Position
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import empty_checkpoint
from mirrortool.mirror.mirrorlag import behind
from mirrortool.replay.replaylag import LOOK_SECONDS, LagMeter
from tests.conftest import FakeClock
from tests.fakes.journals import FRAME_NS, PAGE, START_NS, Commit, JournalMaker, Write

SECOND = 10**9


@pytest.fixture
def maker(tmp_path: Path, fake_clock: FakeClock) -> Iterator[JournalMaker]:
    fake_clock.ns = START_NS + SECOND
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    for number in range(4):
        made.frame(Write("a", number, bytes([number + 1]) * PAGE), Commit())
    yield made
    made.abandon()


@pytest.fixture
def meter(maker: JournalMaker) -> Iterator[LagMeter]:
    with LagMeter(maker.journal, 1, FILE_HEADER.size) as made:
        yield made


def at(maker: JournalMaker, lsn: int) -> Checkpoint:
    """A mirror's checkpoint at this LSN, each frame having two."""
    time_ns = START_NS + lsn // 2 * FRAME_NS if lsn else 0
    return replace(empty_checkpoint(maker.journal), position=Position(lsn, 0), time_ns=time_ns)


@pytest.mark.parametrize(
    ("lsn", "time_ns", "now_ns", "lag"),
    [
        (9, 5 * SECOND, 90 * SECOND, (0, 0.0)),  # in sync, however old the commit is
        (12, 5 * SECOND, 90 * SECOND, (0, 0.0)),
        (4, 5 * SECOND, 9 * SECOND, (5, 4.0)),
        (0, 0, 9 * SECOND, (9, 2.0)),  # it holds nothing: as old as what it lacks
        (4, 5 * SECOND, 3 * SECOND, (5, 0.0)),  # the clock was stepped back
    ],
)
def test_behind_is_the_age_of_what_the_mirror_holds(
    lsn: int, time_ns: int, now_ns: int, lag: tuple[int, float]
) -> None:
    assert behind(lsn, time_ns, 9, 7 * SECOND, now_ns) == lag


def test_what_follows_the_newest_commit_is_no_lag(maker: JournalMaker, meter: LagMeter) -> None:
    maker.frame(Write("a", 0, bytes(range(256)) * 2))
    found = meter.measure(at(maker, 8), 0)
    assert (found.operations, found.bytes, found.seconds, found.eta_seconds) == (0, 0, 0.0, 0.0)
    assert found.head_lsn == 9


def test_when_it_has_caught_up_follows_from_the_last_seconds(
    maker: JournalMaker, meter: LagMeter, fake_clock: FakeClock
) -> None:
    whole = meter.measure(at(maker, 2), 0).bytes
    assert whole == Path(maker.journal.file_path(1)).stat().st_size - FILE_HEADER.size
    fake_clock.elapsed += LOOK_SECONDS
    assert meter.measure(at(maker, 2), whole // 4).eta_seconds is None, "one second tells little"
    fake_clock.elapsed += 3 * LOOK_SECONDS
    assert meter.measure(at(maker, 2), whole // 2).eta_seconds == pytest.approx(4.0, rel=0.1)


def test_a_mirror_that_does_not_come_nearer_has_no_time_left(
    maker: JournalMaker, meter: LagMeter, fake_clock: FakeClock
) -> None:
    for _ in range(4):
        assert meter.measure(at(maker, 2), 0).eta_seconds is None
        fake_clock.elapsed += LOOK_SECONDS


def test_a_primary_is_silent_since_the_newest_frame_that_anybody_has_seen(
    tmp_path: Path, maker: JournalMaker, fake_clock: FakeClock
) -> None:
    """Of a journal whose files went, the mirror knows more."""
    empty = JournalMaker(tmp_path / "empty", {"a": 40 * PAGE})
    with LagMeter(empty.journal, 0, 0) as meter:
        heard_ns = at(maker, 8).time_ns
        fake_clock.ns = heard_ns + int(SILENT_SECONDS * SECOND)
        assert meter.measure(at(maker, 8), 0).silent_seconds is None
        fake_clock.ns += SECOND
        found = meter.measure(at(maker, 8), 0)
        assert (found.head_lsn, found.head_time_ns) == (8, heard_ns)
        assert found.silent_seconds == pytest.approx(SILENT_SECONDS + 1)
    empty.abandon()
