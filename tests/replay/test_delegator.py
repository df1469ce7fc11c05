"""Replay gives the bytes of serial replay at every commit, however it is divided, framed, windowed and interrupted."""

import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool import clock
from mirrortool.errors import CorruptJournalError, InputOutputError
from mirrortool.journal.commits import Until
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import BatchBuilder
from mirrortool.replay import coalesce, delegator, ranges
from mirrortool.replay.engine import Plan
from mirrortool.replay.ranges import RANGES
from mirrortool.replay.session import Replay
from mirrortool.store import pagesums
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    assert_is_commit,
    assert_verifies,
    commits_of,
    images_of,
    make_journal,
    memory_directory,
    replay_all,
    shrink_pieces,
)
from tests.fakes.serial import volumes_at
from tests.fakes.waiting import PATIENCE_SECONDS

SIZE_MAX = 24 * PAGE


@st.composite
def histories(draw):
    """Sizes of volumes, and frames of operations that fit them at that point; the last one is a commit."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    sizes = {name: draw(st.integers(1, SIZE_MAX)) for name in names}
    first_sizes, frames, frame = dict(sizes), [], []
    for number in range(draw(st.integers(1, 30))):
        operation = draw(operations(names, sizes, number))
        if operation:
            frame.append(operation)
        if draw(st.integers(0, 2)) == 0:
            is_commit = draw(st.booleans())
            mark = f"m{number}" if draw(st.booleans()) else None
            frames.append([*frame, Commit(mark)] if is_commit else frame)
            frame = []
    frames.append([*frame, Commit()])
    return first_sizes, [frame for frame in frames if frame]


@st.composite
def operations(draw, names, sizes, number):
    name = draw(st.sampled_from(names))
    pages = -(-sizes[name] // PAGE)
    kind = draw(st.sampled_from(["write", "write", "zero", "resize"]))
    if kind == "resize":
        sizes[name] = draw(st.one_of(st.integers(0, SIZE_MAX), st.integers(0, SIZE_MAX // PAGE).map(PAGE.__mul__)))
        return Resize(name, sizes[name])
    if not pages:
        return None
    page = draw(st.integers(0, pages - 1))
    count = draw(st.integers(1, pages - page))
    if kind == "zero":
        return Zero(name, page, count)
    # A page of zeros that is written is as good as one that is zeroed.
    fill = [bytes([draw(st.sampled_from([0, number + 1]))]) for _ in range(count)]
    return Write(name, page, b"".join(byte * PAGE for byte in fill))


PLANS = st.builds(
    Plan,
    ranges=st.sampled_from(RANGES),
    groups=st.integers(1, 4),
    tasks=st.integers(1, 3),
    unit=st.sampled_from(["batch", "op"]),
    in_flight_bytes=st.sampled_from([1, 4096, 64 << 20]),
)


@pytest.fixture
def small_scale(monkeypatch):
    """Stripes, segments and the limit for zeros inside a unit, all small enough to be met by few pages."""
    monkeypatch.setattr(ranges, "pages_per_segment", lambda _: 3)
    monkeypatch.setattr(pagesums, "pages_per_segment", lambda _: 4)
    monkeypatch.setattr(coalesce, "INLINE_ZERO_BYTES", 5 * PAGE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=histories(),
    plan=PLANS,
    window_bytes=st.sampled_from([1, 700, 3000, 32 << 20]),
    file_bytes=st.sampled_from([1, 1500, 64 << 20]),
    stops=st.sets(st.integers(0, 30)),
    checkpoint_pages=st.sampled_from([1, 10, 1 << 17]),
    forget_pages=st.sampled_from([1, 5, 1 << 12]),
    stretch_pages=st.sampled_from([1, 5, 1 << 16]),
)
@pytest.mark.usefixtures("small_scale")
def test_every_commit_is_that_of_serial_replay(
    history, plan, window_bytes, file_bytes, stops, checkpoint_pages, forget_pages, stretch_pages
):
    """In several steps, each to a commit, and in one: the same bytes, the same state sum, and verify agrees."""
    sizes, frames = history
    with pytest.MonkeyPatch.context() as patch, memory_directory() as path:
        shrink_pieces(patch)
        patch.setattr(delegator, "CHECKPOINT_PAGES", checkpoint_pages)
        patch.setattr(delegator, "FORGET_PAGES", forget_pages)
        patch.setattr(coalesce, "STRETCH_PAGES", stretch_pages)
        journal = make_journal(path / "journal", sizes, frames, file_bytes=file_bytes)
        lsns = commits_of(journal)
        sums = state_sums(journal)
        for lsn in [*(lsn for number, lsn in enumerate(lsns) if number in stops), lsns[-1]]:
            checkpoint = replay_all(journal, path / "steps", plan=plan, window_bytes=window_bytes, until=Until(lsn=lsn))
            assert checkpoint.position.lsn == lsn
            assert checkpoint.state_sum == sums[lsn]
            assert images_of(path / "steps") == volumes_at(journal, lsn)
        assert_verifies(path / "steps")
        replay_all(journal, path / "once", plan=plan, window_bytes=window_bytes)
        assert images_of(path / "once") == images_of(path / "steps")
        assert_verifies(path / "once")


def state_sums(journal):
    """The primary's, by LSN."""
    with JournalReader(journal, journal.start) as reader:
        return {header.position.lsn: header.state_sum for header in iter(reader.next_header, None)}


def page_of(number):
    return bytes([number % 255 + 1]) * PAGE


def many_commits(path, count=20):
    return make_journal(path, {"a": 40 * PAGE}, [[Write("a", n, page_of(n)), Commit()] for n in range(count)])


def test_a_window_ends_at_a_commit(tmp_path):
    """Frames after the last commit of a window wait for their own, so that a stop between windows leaves a commit."""
    frames = []
    for number in range(12):
        frames += [[Write("a", number, page_of(number))], [Write("a", number + 12, page_of(number))], [Commit()]]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, frames)
    seen = []
    with Replay(journal.path, str(tmp_path / "mirror"), window_bytes=4 * PAGE) as replay:
        add = replay._delegator._add

        def watch(header, batch):
            add(header, batch)
            seen.append(replay.statistics().handed_out_lsn)

        replay._delegator._add = watch
        replay.run()
    assert len(set(seen)) > 4, "there were several windows"
    assert set(seen) <= {0, *commits_of(journal)}


def test_a_commit_larger_than_the_window_rolls_forward_in_parts(tmp_path):
    frames = [[Write("a", n, page_of(n))] for n in range(30)]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, [*frames, [Commit()]])
    lsns = []
    with Replay(journal.path, str(tmp_path / "mirror"), window_bytes=4 * PAGE) as replay:
        note = replay._delegator._note_handed_out
        replay._delegator._note_handed_out = lambda done: (note(done), lsns.append(done[-1][0].position.lsn))
        replay.run()
    assert len(lsns) > 5
    assert_is_commit(journal, tmp_path / "mirror")


def test_what_the_store_may_reach_is_raised_before_the_store_is_written(tmp_path, monkeypatch):
    journal = many_commits(tmp_path / "journal")
    mirror = str(tmp_path / "mirror")
    with Replay(journal.path, mirror, window_bytes=1) as replay:
        delegate = replay._engine.delegate

        def check(pieces, lsn):
            assert Mirror(mirror).checkpoint.reached_lsn >= lsn
            delegate(pieces, lsn)

        monkeypatch.setattr(replay._engine, "delegate", check)
        replay.run()
    assert_is_commit(journal, mirror)


class WithPause:
    """The frames of a journal, with a pause after the first of them."""

    def __init__(self, journal):
        self._journal = journal

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def __iter__(self):
        with JournalReader(self._journal, self._journal.start) as reader:
            yield reader.next_header(), reader.batch()
            yield None
            while header := reader.next_header():
                yield header, reader.batch()


def test_what_is_written_while_a_checkpoint_is_made_stays_in_its_reached_lsn(tmp_path, monkeypatch):
    """Else a power cut after that checkpoint would leave a mirror that says it is a commit, and holds more.

    The first window allowed the store to go to the goal, so that the second has nothing to raise. Frames pause so with
    --bwlimit, and while following.
    """
    journal, mirror = many_commits(tmp_path / "journal", 2), str(tmp_path / "mirror")
    written, claimed, has_written = [], [], threading.Event()
    with Replay(journal.path, mirror) as replay:
        delegate, save = replay._engine.delegate, replay.mirror.save_checkpoint

        def delegated(stretch, lsn):
            written.append(lsn)
            delegate(stretch, lsn)
            if lsn == 4:
                has_written.set()

        def saved(checkpoint):
            save(checkpoint)
            claimed.append((checkpoint.position.lsn, checkpoint.reached_lsn, written[-1] if written else 0))

        replay._delegator._frames = WithPause(journal)
        monkeypatch.setattr(replay._engine, "delegate", delegated)
        monkeypatch.setattr(replay._delegator._store, "sync", lambda: has_written.wait(PATIENCE_SECONDS))
        monkeypatch.setattr(replay.mirror, "save_checkpoint", saved)
        replay.run()
    assert claimed == [(0, 4, 0), (2, 4, 4), (4, 4, 4)]
    assert_is_commit(journal, mirror)


class SlowToSync:
    """The store of one replay, of which every checkpoint but the last is not durable before more is handed out.

    Attributes:
        seen: of each checkpoint, just before it is durable: the replay's statistics, and the LSN in the mirror's file.
    """

    def __init__(self, replay, mirror, patch):
        self.seen = []
        self._replay, self._mirror = replay, mirror
        self._ahead = threading.Event()
        self._checkpointer = checkpointer = replay._delegator._checkpointer
        self._begin, self._hand_out = checkpointer.begin, replay._delegator._hand_out
        self._save = replay.mirror.save_checkpoint
        patch.setattr(checkpointer, "begin", self._begun)
        patch.setattr(checkpointer._store, "sync", self._sync)
        patch.setattr(replay._delegator, "_hand_out", self._handed_out)
        patch.setattr(replay.mirror, "save_checkpoint", self._saved)

    def _begun(self, new, *values, **how):
        self._checkpointer.finish()  # as `begin` does: the one before may not have looked yet
        self._ahead.clear()
        self._is_last = new.position.lsn == self._replay.goal.lsn
        self._begin(new, *values, **how)

    def _handed_out(self, count):
        self._hand_out(count)
        self._ahead.set()

    def _sync(self):
        assert self._is_last or self._ahead.wait(PATIENCE_SECONDS)

    def _saved(self, checkpoint):
        before = Mirror(self._mirror).checkpoint.position.lsn
        if checkpoint.position.lsn > before:
            self.seen.append((self._replay.statistics(), before))
        self._save(checkpoint)


def test_only_what_is_durable_counts_as_replayed(tmp_path, monkeypatch):
    """A slow store makes one checkpoint durable, while the windows after it are handed out and written."""
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 2)
    journal, mirror = many_commits(tmp_path / "journal"), str(tmp_path / "mirror")
    with Replay(journal.path, mirror, window_bytes=1, plan=Plan(groups=1, tasks=1)) as replay:
        slow = SlowToSync(replay, mirror, monkeypatch)
        replay.run()
        end = replay.statistics()
    assert len(slow.seen) > 5
    for now, durable_lsn in slow.seen:
        assert now.progress.lsn == durable_lsn < now.handed_out_lsn
        assert now.progress.operations == durable_lsn
        assert now.progress.payload_bytes == durable_lsn // 2 * PAGE
        assert now.lag.bytes and now.lag.operations == 40 - durable_lsn
    assert slow.seen[-1][0].handed_out_lsn == 40, "the last checkpoint was waited for with nothing left to write"
    assert (end.progress.lsn, end.progress.operations, end.progress.payload_bytes) == (40, 40, 20 * PAGE)
    assert (end.handed_out_lsn, end.lag.bytes, end.lag.operations) == (40, 0, 0)


def test_a_checkpoint_that_fails_counts_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 2)
    journal, mirror = many_commits(tmp_path / "journal"), str(tmp_path / "mirror")
    with Replay(journal.path, mirror, window_bytes=1, plan=Plan(groups=1, tasks=1)) as replay:
        sums, calls = replay._delegator._sums, []

        def sync():
            calls.append(1)
            if len(calls) > 3:
                raise InputOutputError("cannot make durable")

        monkeypatch.setattr(sums, "sync", sync)
        with pytest.raises(InputOutputError):
            replay.run()
        now = replay.statistics()
    assert now.progress.lsn == now.progress.operations == Mirror(mirror).checkpoint.position.lsn == 12
    assert now.progress.payload_bytes == 6 * PAGE


def checkpoints_of(replay, patch):
    """Positions of the checkpoints that it begins."""
    checkpointer, begun = replay._delegator._checkpointer, []
    begin = checkpointer.begin
    patch.setattr(checkpointer, "begin", lambda new, *a, **b: (begun.append(new.position.lsn), begin(new, *a, **b)))
    return begun


def test_the_goal_is_made_durable_once(tmp_path, monkeypatch):
    """The checkpoint that is due at the last window is the last one; and a replay without a window makes one, too."""
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 1)
    journal, mirror = many_commits(tmp_path / "journal", 5), str(tmp_path / "mirror")
    for expected in ([2, 4, 6, 8, 10], [10]):
        with Replay(journal.path, mirror, window_bytes=1) as replay, monkeypatch.context() as patch:
            begun = checkpoints_of(replay, patch)
            assert replay.run().is_consistent
        assert begun == expected
    assert_is_commit(journal, mirror)


def test_a_checkpoint_is_made_each_second(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    journal = many_commits(tmp_path / "journal")
    saved = []
    with Replay(journal.path, str(tmp_path / "mirror"), window_bytes=1) as replay:
        add, save = replay._delegator._add, replay.mirror.save_checkpoint

        def tick(header, batch):
            now[0] += 0.25
            add(header, batch)

        def watch(checkpoint):
            saved.append(checkpoint)
            save(checkpoint)

        replay._delegator._add = tick
        replay.mirror.save_checkpoint = watch
        replay.run()
    positions = sorted({each.position.lsn for each in saved})
    assert 4 <= len(positions) <= 8, positions
    assert all(each.reached_lsn == journal_end(journal) for each in saved), "raised once, as far as the file goes"


def journal_end(journal):
    return commits_of(journal)[-1]


def test_cancel_stops_at_a_commit(tmp_path):
    frames = [[operation] for n in range(20) for operation in (Write("a", n, page_of(n)), Commit())]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, frames)
    mirror = tmp_path / "mirror"
    with Replay(journal.path, str(mirror), window_bytes=1500) as replay:
        add = replay._delegator._add

        def cancel_soon(header, batch):
            add(header, batch)
            if header.position.lsn == 11:  # not a commit
                replay.cancel()

        replay._delegator._add = cancel_soon
        checkpoint = replay.run()
    assert checkpoint.is_consistent
    assert 0 < checkpoint.position.lsn < journal_end(journal)
    assert_is_commit(journal, mirror)
    replay_all(journal, mirror)
    assert assert_is_commit(journal, mirror) == journal_end(journal)


def test_a_cancelled_part_of_a_commit_is_not_handed_out(tmp_path):
    frames = [[Write("a", n, page_of(n))] for n in range(10)]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, [*frames, [Commit()]])
    with Replay(journal.path, str(tmp_path / "mirror")) as replay:
        replay.cancel()
        checkpoint = replay.run()
    assert (checkpoint.position.lsn, checkpoint.is_finished) == (0, True)


def test_damage_leaves_the_commit_before_it(tmp_path):
    """Everything sound is replayed before the damage is reported."""
    journal = many_commits(tmp_path / "journal")
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptJournalError):
        replay_all(journal, tmp_path / "mirror")
    checkpoint = Mirror(str(tmp_path / "mirror")).checkpoint
    assert checkpoint.is_consistent
    assert 10 < checkpoint.position.lsn < 30
    expected = {"a": b"".join(page_of(n) for n in range(checkpoint.position.lsn // 2)).ljust(40 * PAGE, b"\0")}
    assert images_of(tmp_path / "mirror") == expected


def test_a_wrong_state_sum_is_never_checkpointed(tmp_path):
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    maker.frame(Write("a", 1, page_of(1)), Commit())
    builder = BatchBuilder(PAGE)
    builder.write(2, page_of(2))
    builder.commit(1, 0)
    maker.append(builder.build(), state_sum=12345)
    journal = maker.close()
    with pytest.raises(CorruptJournalError, match="state sum"):
        replay_all(journal, tmp_path / "mirror")
    checkpoint = Mirror(str(tmp_path / "mirror")).checkpoint
    assert not checkpoint.is_consistent
    assert checkpoint.position.lsn == 0


def test_wrong_page_sums_are_found_when_pages_are_read_back(tmp_path):
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    builder = BatchBuilder(PAGE)
    builder.write(2, page_of(2), bytes(8))
    builder.commit(1, 0)
    maker.append(builder.build())
    with pytest.raises(InputOutputError, match="read back"):
        replay_all(maker.close(), tmp_path / "mirror")
    assert not Mirror(str(tmp_path / "mirror")).checkpoint.is_consistent


def test_redo_after_a_crash_recomputes_segment_sums(tmp_path, monkeypatch):
    """The segments' sums may be ahead of the pages' after a crash; a ZERO of a whole segment relies on them."""
    monkeypatch.setattr(pagesums, "pages_per_segment", lambda _: 4)
    monkeypatch.setattr(coalesce, "INLINE_ZERO_BYTES", PAGE)
    frames = [[Write("a", n, page_of(n)), Commit()] for n in range(16)]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, [*frames, [Zero("a", 0, 12), Commit()]])
    mirror = tmp_path / "mirror"
    replay_all(journal, mirror, until=Until(lsn=32))
    opened = Mirror(str(mirror))
    opened.save_checkpoint(replace(opened.checkpoint, reached_lsn=34))
    (mirror / "sums" / "a.segments").write_bytes(b"\xff" * 40)
    replay_all(journal, mirror)
    assert_is_commit(journal, mirror)
    assert_verifies(mirror)
