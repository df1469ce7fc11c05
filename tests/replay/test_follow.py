"""Following: the mirror becomes each commit as it comes, whatever its recorder is going through, and is never ahead."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import clock
from mirrortool.errors import (
    CorruptJournalError,
    JournalError,
    MissingFileError,
    PastPointError,
    UsageError,
)
from mirrortool.journal.commits import Until, newest_commits
from mirrortool.journal.format import FILE_HEADER
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from mirrortool.replay.checkpointer import Checkpointer
from mirrortool.replay.framesource import FramesUpTo
from mirrortool.replay.readahead import ReadAhead
from mirrortool.replay.session import Replay
from tests.fakes.journals import (
    FRAME_NS,
    PAGE,
    START_NS,
    Commit,
    JournalMaker,
    Write,
    assert_is_commit,
    assert_verifies,
    images_of,
    memory_directory,
    replay_all,
)
from tests.fakes.serial import volumes_at
from tests.fakes.tails import Torn, scripted
from tests.fakes.waiting import PATIENCE_SECONDS, wait_until

SIZES = {"a": 40 * PAGE}


def page_of(number: int) -> bytes:
    return bytes([number % 255 + 1]) * PAGE


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", SIZES, file_bytes=2000)
    made.frame(Write("a", 0, page_of(0)), Commit())
    yield made
    made.abandon()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def checkpoint_of(mirror: object) -> Any:
    return Mirror(str(mirror)).checkpoint


def is_at(mirror: object, lsn: int) -> bool:
    checkpoint = checkpoint_of(mirror)
    return bool(checkpoint.position.lsn == lsn and checkpoint.is_consistent)


def test_each_commit_is_in_the_mirror_while_nothing_follows_it(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over many files, and with what is not committed behind it."""

    def act(number: int) -> None:
        wait_until(lambda: is_at(mirror, maker.commits[-1]))
        maker.frame(Write("a", number % 40, page_of(number)))
        if number % 3:
            maker.frame(Write("a", (7 * number) % 40, page_of(number + 1)), Commit())

    actions = [lambda n=n: act(n) for n in range(30)]
    with scripted(monkeypatch, maker.journal.path, mirror, actions) as replay:
        replay.run()
    assert assert_is_commit(maker.journal, mirror) == maker.commits[-1]
    assert len(maker.journal.file_starts()) > 2
    assert_verifies(mirror)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 90)), max_size=25), st.sampled_from([1, 900, 1 << 20]))
def test_whatever_a_recorder_goes_through_the_mirror_becomes_its_last_commit(
    steps: list[tuple[int, int]], window_bytes: int
) -> None:
    """Frames cut short, torn tails cut off, successors that are only begun, clean stops: at each look another one."""
    with memory_directory() as path, pytest.MonkeyPatch.context() as patch:
        maker = JournalMaker(path / "journal", SIZES, file_bytes=2500)
        mends: list[Callable[[], None]] = []

        def act(kind: int, length: int) -> None:
            for mend in mends:
                mend()
            mends.clear()
            if kind == 0 and maker.writer.file_first_lsn:  # killed while it appends
                torn = Torn(maker)
                torn.write(length)
                mends.append(torn.cut)
            elif kind == 1:  # ... or while it begins a file
                begun = Path(maker.journal.file_path(maker.writer.position.lsn + 1))
                begun.write_bytes(bytes(length))
                mends.append(begun.unlink)
            elif kind < 5:
                maker.frame(Write("a", length % 40, page_of(length)), *([Commit()] if kind > 2 else []))
            else:
                maker.frame(Commit(kind=CommitKind.HEARTBEAT))

        actions = [lambda s=s: act(*s) for s in steps]
        with scripted(
            patch, maker.journal.path, path / "mirror", [*actions, lambda: act(3, 5)], window_bytes=window_bytes
        ) as replay:
            checkpoint = replay.run()
        assert checkpoint.position.lsn == maker.commits[-1]
        assert checkpoint.is_consistent
        assert images_of(path / "mirror") == volumes_at(maker.abandon(), maker.commits[-1])


def test_a_torn_tail_that_nobody_mends_is_waited_for_and_told(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = Torn(maker)
    told: list[str] = []

    def mend() -> None:
        wait_until(lambda: bool(replay.statistics().waits_for))
        told.append(replay.statistics().waits_for)
        torn.cut()
        maker.frame(Write("a", 1, page_of(1)), Commit())

    def nothing_happens() -> None:
        tail = replay._tail
        assert tail
        waits = iter([False])
        real, monkey = tail.wait, pytest.MonkeyPatch()

        def wait(seen: Any, seconds: float = 1.0) -> bool:
            if next(waits, None) is None:
                monkey.undo()
                return real(seen, seconds)
            return False

        monkey.setattr(tail, "wait", wait)

    actions = [lambda: torn.write(100), nothing_happens, mend]
    with scripted(monkeypatch, maker.journal.path, mirror, actions) as replay:
        replay.run()
        assert not replay.statistics().waits_for
    assert "torn tail of 100 bytes" in told[0]
    assert told[0].endswith("mirrortool record moves it away")
    assert_is_commit(maker.journal, mirror)


def test_a_journal_that_is_copied_again_and_again_is_followed(
    maker: JournalMaker, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a tool that replaces files whole, such as rsync, and by one that leaves a part of a frame at first."""
    copy = tmp_path / "copy"
    shutil.copytree(maker.journal.path, copy)
    number = 0

    def copy_file(cut: int) -> None:
        nonlocal number
        number += 1
        maker.frame(Write("a", number, page_of(number)), Commit())
        for start in maker.journal.file_starts():
            path = Path(maker.journal.file_path(start))
            part = tmp_path / "part"
            part.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
            part.replace(copy / "files" / path.name)

    actions = [lambda cut=cut: copy_file(cut) for cut in (0, 0, 30, 0, 7, 7, 0)]
    with scripted(monkeypatch, copy, mirror, actions) as replay:
        assert replay.run().position.lsn == maker.commits[-1]
    assert assert_is_commit(maker.journal, mirror) == maker.commits[-1]


def test_damage_ends_it_at_the_commit_before(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lsn = maker.commits[-1]

    def damage() -> None:
        path = Path(maker.journal.file_path(maker.writer.file_first_lsn))
        size = path.stat().st_size
        maker.frame(Write("a", 3, page_of(3)), Commit())
        data = bytearray(path.read_bytes())
        data[size + 20] ^= 1
        path.write_bytes(data)

    with (
        scripted(monkeypatch, maker.journal.path, mirror, [damage]) as replay,
        pytest.raises(CorruptJournalError),
    ):
        replay.run()
    assert is_at(mirror, lsn)


def test_what_is_not_committed_is_not_handed_out_when_it_ends(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(monkeypatch, maker.journal.path, mirror, [lambda: maker.frame(Write("a", 9, page_of(9)))]) as replay:
        assert replay.run().position.lsn == maker.commits[-1]
    assert_is_commit(maker.journal, mirror)


def test_a_journal_without_a_commit_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = JournalMaker(tmp_path / "journal", SIZES)
    actions: list[Callable[[], object]] = [
        lambda: maker.frame(Write("a", 9, page_of(9))),
        lambda: maker.frame(Commit()),
    ]
    with scripted(monkeypatch, maker.journal.path, tmp_path / "m", actions) as replay:
        assert replay.goal is None
        assert replay.run().position.lsn == 2
    maker.abandon()


def test_it_never_claims_more_than_the_journal_has(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a mirror that was killed would be rolling forward until commits come that may never come."""
    claimed: list[tuple[int, int]] = []
    raise_reached = Checkpointer.raise_reached

    def watched(self: Checkpointer, lsn: int) -> None:
        claimed.append((lsn, maker.commits[-1]))
        raise_reached(self, lsn)

    monkeypatch.setattr(Checkpointer, "raise_reached", watched)
    actions = [lambda n=n: maker.frame(Write("a", n, page_of(n)), Commit()) for n in range(20)]
    with scripted(monkeypatch, maker.journal.path, mirror, actions) as replay:
        replay.run()
    assert len(claimed) > 3
    assert all(lsn <= newest for lsn, newest in claimed)


def test_what_is_handed_out_beside_a_complete_checkpoint_is_in_its_reached_lsn(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a rest is still being made when the next window begins."""
    with Replay(maker.journal.path, str(mirror)) as replay:
        checkpointer = replay._delegator._checkpointer
        goal = checkpointer.checkpoint
        may_end = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(checkpointer._store, "sync", lambda: may_end.wait(PATIENCE_SECONDS))
            checkpointer.begin(goal, checkpointer.progress, is_complete=True)
            checkpointer.raise_reached(2)
            may_end.set()
            checkpointer.finish()
        assert checkpointer.checkpoint.reached_lsn == 2
        checkpointer.begin(goal, checkpointer.progress, is_complete=True)
        checkpointer.finish()
        assert checkpointer.checkpoint.is_finished


@pytest.mark.parametrize(
    ("point", "lsn"),
    [(Until(lsn=6), 6), (Until(lsn=7), 6), (Until(mark="here"), 8), (Until(time_ns=START_NS + 3 * FRAME_NS), 6)],
)
def test_until_a_point_that_is_to_come(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch, point: Until, lsn: int
) -> None:
    names = {3: "here", 5: "here"}
    actions = [lambda n=n: maker.frame(Write("a", n, page_of(n)), Commit(names.get(n))) for n in range(1, 20)]
    with scripted(monkeypatch, maker.journal.path, mirror, actions, until=point) as replay:
        assert replay.run().position.lsn == lsn
    assert assert_is_commit(maker.journal, mirror) == lsn


def test_until_a_point_that_the_mirror_is_past(maker: JournalMaker, mirror: Path) -> None:
    maker.frame(Commit("old"))
    maker.frame(Commit())
    replay_all(maker.journal, mirror)
    time_ns = newest_commits(maker.journal, 2)[0].time_ns
    for point in (Until(lsn=3), Until(mark="old"), Until(time_ns=time_ns)):
        with pytest.raises(PastPointError):
            Replay(maker.journal.path, str(mirror), follow=True, until=point)


def test_a_delayed_mirror_is_at_the_newest_commit_that_is_so_old(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of the frame; and there it stays when it ends."""
    for number in range(1, 10):
        maker.frame(Write("a", number, page_of(number)), Commit())
    now = [START_NS + 2 * FRAME_NS]
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])
    seen: list[int] = []

    def later() -> None:
        expected = maker.commits[(now[0] - START_NS) // FRAME_NS - 1 - 1]
        wait_until(lambda: is_at(mirror, expected))
        seen.append(expected)
        now[0] += FRAME_NS

    with scripted(monkeypatch, maker.journal.path, mirror, [later] * 5, delay_seconds=FRAME_NS / 1e9) as replay:
        checkpoint = replay.run()
    assert seen == maker.commits[:5]
    assert checkpoint.position.lsn == maker.commits[5]
    assert_is_commit(maker.journal, mirror)


def test_a_delay_that_a_wrong_clock_makes_long_is_told(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 3600 * 10**9
    now = [START_NS - ahead]
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])
    told: list[str] = []

    def set_right() -> None:
        told.append(replay.statistics().waits_for)
        now[0] += 2 * ahead

    def look() -> None:
        wait_until(lambda: is_at(mirror, maker.commits[0]))
        told.append(replay.statistics().waits_for)

    with scripted(monkeypatch, maker.journal.path, mirror, [set_right, look], delay_seconds=1.0) as replay:
        replay.run()
    assert "ahead of this host" in told[0] and told[1] == ""


def test_a_delay_without_following_goes_to_the_newest_commit_that_is_so_old(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        maker.frame(Commit())
    monkeypatch.setattr(clock, "now_ns", lambda: START_NS + 4 * FRAME_NS)
    with Replay(maker.journal.path, str(mirror), delay_seconds=FRAME_NS / 1e9) as replay:
        assert replay.run().position.lsn == maker.commits[2]
    with pytest.raises(UsageError, match="exclude"):
        Replay(maker.journal.path, str(mirror), delay_seconds=1.0, until=Until(lsn=5))


class CountingPace:
    """Asks for a pause after every hundred bytes, and counts them."""

    def __init__(self) -> None:
        self.taken = 0

    def consume(self, length: int) -> float:
        self.taken += length
        return 0.25 if self.taken < 300 else 0.0


def test_who_may_read_only_so_fast_pauses_and_hands_over_what_it_has(maker: JournalMaker) -> None:
    from mirrortool.journal.reader import JournalReader

    for _ in range(5):
        maker.frame(Commit())
    pace: Any = CountingPace()
    with JournalReader(maker.journal) as reader:
        course = FramesUpTo(reader, maker.commits[-1])
        with ReadAhead(course, pace) as frames:
            found = [frame and frame[0].position.lsn for frame in frames]
    assert [lsn for lsn in found if lsn] == maker.commits
    assert None in found
    assert pace.taken == sum(
        Path(maker.journal.file_path(start)).stat().st_size - FILE_HEADER.size for start in maker.journal.file_starts()
    )


def test_a_start_that_was_pruned_away_is_named(maker: JournalMaker, mirror: Path) -> None:
    replay_all(maker.journal, mirror)
    for number in range(60):
        maker.frame(Write("a", number % 40, random.Random(number).randbytes(PAGE)), Commit())
    for start in maker.journal.file_starts()[:3]:
        os.remove(maker.journal.file_path(start))
    with pytest.raises(MissingFileError):
        replay_all(maker.journal, mirror)
    with pytest.raises(JournalError):
        Replay(maker.journal.path, str(mirror), follow=True)


def test_the_lag_is_what_is_left(maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [START_NS + 100 * FRAME_NS]
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])
    replay_all(maker.journal, mirror)
    size = Path(maker.journal.file_path(1)).stat().st_size
    maker.frame(Write("a", 1, page_of(1)), Commit())
    with Replay(maker.journal.path, str(mirror)) as replay:
        lag = replay.statistics().lag
        assert (lag.operations, lag.bytes) == (2, Path(maker.journal.file_path(1)).stat().st_size - size)
        assert lag.seconds == pytest.approx(99 * FRAME_NS / 1e9)
        assert lag.head_lsn == 4
        replay.run()
        lag = replay.statistics().lag
        assert (lag.operations, lag.bytes, lag.seconds) == (0, 0, 0.0)
        now[0] += 60 * 10**9
        assert replay.statistics().lag.silent_seconds == pytest.approx(60, abs=1)
