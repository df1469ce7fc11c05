"""Pruning: what the plan says goes, oldest first, beside a recorder and readers, and a crash leaves no gap."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import JournalError, LockedError, MissingFileError, NoSpaceError, PrunedJournalError
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.basefile import BaseHeader
from mirrortool.journal.bases.basewriter import BaseWriter
from mirrortool.journal.bases.listing import base_lsns, base_path, lock_bases, work_path
from mirrortool.journal.commits import Commit as JournalCommit
from mirrortool.journal.commits import Until, commits, find_commit, is_flush_or_mark, newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint
from mirrortool.journal.retention.prune import Keep, held_bytes, prune
from mirrortool.journal.slots import Slot, SlotKeeper, find_slot
from mirrortool.operation import CommitKind
from tests.conftest import FakeClock
from tests.fakes.journals import FRAME_NS, PAGE, START_NS, Commit, JournalMaker, Write, memory_directory

END = 60


@pytest.fixture
def maker() -> Iterator[JournalMaker]:
    """Sixty commits of one page, in files of four or so; as a copy, without a recorder."""
    with memory_directory() as path:
        draw = random.Random(1)
        maker = JournalMaker(path / "j", {"a": 8 * PAGE}, file_bytes=2700)
        for number in range(END):
            maker.frame(Write("a", number % 8, draw.randbytes(PAGE)), Commit())
        (path / "j" / "recorder.json").unlink()
        yield maker


def add_base(journal: Journal, lsn: int) -> None:
    """A base of that commit by its header; what it holds does not matter to prune."""
    commit = find_commit(journal, Until(lsn=lsn))
    assert commit and commit.lsn == lsn
    lock_bases(journal).close()
    header = BaseHeader(
        PAGE, journal.uuid, journal.lineage, 0, commit.position, commit.time_ns, journal.first_state_sum,
        CommitKind.FLUSH, tuple(journal.volumes),
    )  # fmt: skip
    with BaseWriter(journal, base_path(journal, lsn), header) as writer:
        writer.finish()


def slot(journal: Journal, name: str, lsn: int) -> Slot:
    commit = find_commit(journal, Until(lsn=lsn))
    assert commit
    return Slot(name, "aa" * 16, "mirror", "/m", commit.position, commit.time_ns, 0)


def left(journal: Journal) -> list[int]:
    with JournalReader(journal) as reader:
        return [header.position.lsn for header in iter(reader.next_header, None)]


def test_a_time_that_is_kept_stays_restorable(maker: JournalMaker, fake_clock: FakeClock) -> None:
    journal = maker.journal
    for lsn in (20, 60, 100):
        add_base(journal, lsn)
    fake_clock.ns = START_NS + 40 * FRAME_NS  # of commit 80
    pruned = prune(journal.path, Keep(seconds=10 * FRAME_NS / 1e9))  # up to commit 60
    assert pruned.plan.bases == (20,)
    assert pruned.plan.holds[0].lsn == 60
    assert left(journal)[0] <= 60 < left(journal)[0] + 16
    assert [commit.lsn for commit in newest_commits(journal, 30)][-1] == 2 * END
    later = prune(journal.path, Keep(seconds=10 * FRAME_NS / 1e9))
    assert (later.plan.files, later.plan.bases, later.size) == ((), (), 0)


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_that_is_set_wrong_makes_nothing_old(maker: JournalMaker, fake_clock: FakeClock, years: int) -> None:
    """Set forward here; or on the primary, whose times stand still then: either way what was just recorded stays."""
    journal = maker.journal
    for lsn in (20, 60, 100):
        add_base(journal, lsn)
    fake_clock.ns = START_NS + 50 * FRAME_NS + years * 365 * 86_400 * 10**9
    pruned = prune(journal.path, Keep(seconds=20 * FRAME_NS / 1e9))
    assert left(journal)[0] <= 60 and pruned.plan.holds[0].lsn <= 60
    assert (pruned.ahead_seconds is None) == (years > 0)


def test_a_dry_run_removes_nothing_and_writes_nothing(maker: JournalMaker) -> None:
    add_base(maker.journal, 100)
    before = sorted(Path(maker.journal.path).rglob("*"))
    planned = prune(maker.journal.path, Keep(size=0), dry_run=True)
    assert planned.plan.files
    assert sorted(Path(maker.journal.path).rglob("*")) == before
    done = prune(maker.journal.path, Keep(size=0))
    assert (done.plan, done.size, done.kept) == (planned.plan, planned.size, planned.kept)
    assert len(maker.journal.file_starts()) == done.kept


def test_what_the_recorder_would_redo_stays(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 100)
    at = find_commit(journal, Until(lsn=50))
    assert at
    journal.save_recorder_checkpoint(RecorderCheckpoint(at.position, 0, 0, "", {}))
    assert prune(journal.path, Keep(size=0)).plan.holds[0].why == "the recorder would redo it"
    assert left(journal)[0] <= 51
    JournalReader(journal, at.position).close()


def test_a_slot_that_lags_too_far_is_lost_before_its_files_go(
    maker: JournalMaker, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = maker.journal
    add_base(journal, 100)
    slow, idle = slot(journal, "slow", 40), slot(journal, "idle", 120)
    SlotKeeper(journal, slow)
    SlotKeeper(journal, idle)
    fake_clock.ns = START_NS + END * FRAME_NS + 7200 * 10**9
    assert prune(journal.path, Keep(size=0, slot_seconds=3 * 3600)).plan.lost == ()
    assert held_bytes(journal, slow) > held_bytes(journal, idle) > 0
    remove = files.remove

    def check(path: str) -> None:
        found = find_slot(journal, "slow")
        assert (found and found.is_lost) or not path.startswith(journal.files_path)
        remove(path)

    monkeypatch.setattr(files, "remove", check)
    pruned = prune(journal.path, Keep(size=0, slot_seconds=3600))
    assert [each.name for each in pruned.plan.lost] == ["slow"]
    found = find_slot(journal, "idle")
    assert found and not found.is_lost, "it lacks nothing, however long nothing was written"
    assert left(journal)[0] > 41


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_slot_is_as_far_behind_as_the_first_frame_that_it_lacks_is_old(
    tmp_path: Path, fake_clock: FakeClock, is_lost: bool
) -> None:
    maker = JournalMaker(tmp_path / "j", {"a": PAGE}, file_bytes=1000)
    for _ in range(40):
        maker.frame(Commit())  # an LSN each
    (tmp_path / "j" / "recorder.json").unlink()
    add_base(maker.journal, 40)
    SlotKeeper(maker.journal, slot(maker.journal, "slow", 10))
    (lacking,) = (commit.time_ns for commit in commits(maker.journal) if commit.lsn == 11)
    fake_clock.ns = lacking + 100 * FRAME_NS
    limit_ns = 100 * FRAME_NS + (-FRAME_NS if is_lost else FRAME_NS) // 2
    found = prune(maker.journal.path, Keep(size=0, slot_seconds=limit_ns / 1e9))
    assert [each.name for each in found.plan.lost] == (["slow"] if is_lost else [])


def test_who_advanced_meanwhile_is_lost_until_he_is_where_the_journal_begins(
    maker: JournalMaker, fake_clock: FakeClock
) -> None:
    journal = maker.journal
    add_base(journal, 100)
    keeper = SlotKeeper(journal, slot(journal, "slow", 40))
    there = {lsn: slot(journal, "x", lsn).position for lsn in (44, 120)}
    prune(journal.path, Keep(size=0, slot_size=1))
    assert left(journal)[0] > 45
    for lsn, position in there.items():
        fake_clock.advance(2.0)
        keeper.advance(position, 0)
        assert keeper.slot.is_lost == (lsn == 44)


def test_on_a_full_disk_a_slot_is_dropped_where_it_cannot_be_marked(
    maker: JournalMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing files is the way out: it must not need room."""
    journal = maker.journal
    add_base(journal, 100)
    slow = slot(journal, "slow", 40)
    SlotKeeper(journal, slow)

    def full(*_: object) -> None:
        raise NoSpaceError("cannot write: no space left", where="slots")

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace_small", full)
        prune(journal.path, Keep(size=0, slot_size=1))
    assert find_slot(journal, "slow") is None
    assert left(journal)[0] > 41
    assert SlotKeeper(journal, slow).was_lost


def test_a_crash_between_two_removals_leaves_no_gap(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = maker.journal
    add_base(journal, 20)
    add_base(journal, 110)
    planned = prune(journal.path, Keep(size=0), dry_run=True).plan
    remove = files.remove
    for crash_at in itertools.count(1):
        calls = itertools.count(1)

        def stop(path: str, calls: Iterator[int] = calls) -> None:
            if next(calls) == 2:
                raise KeyboardInterrupt
            remove(path)

        monkeypatch.setattr(files, "remove", stop)
        try:
            prune(journal.path, Keep(size=0))
            break
        except KeyboardInterrupt:
            lsns = left(journal)
            assert lsns == list(range(lsns[0], 2 * END + 1, 2)), crash_at
            assert 110 in base_lsns(journal)
    assert journal.file_starts() == [start for start in journal.file_starts() if start not in planned.files]
    assert base_lsns(journal) == [110]


def test_a_base_in_the_making_and_a_damaged_one_stop_it(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 100)
    with lock_bases(journal), pytest.raises(LockedError):
        prune(journal.path, Keep(size=0))
    Path(base_path(journal, 50)).write_bytes(b"nothing")
    with pytest.raises(JournalError, match="the base is damaged"):
        prune(journal.path, Keep(size=0))
    assert journal.file_starts()[0] == 1


def test_what_a_killed_base_left_goes(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 20)
    work, new = Path(work_path(journal)), Path(base_path(journal, 30) + ".new")
    (work / "volumes").mkdir(parents=True)
    (work / "volumes" / "disk.img").write_bytes(bytes(4096))
    new.write_bytes(b"begun")
    prune(journal.path, Keep(size=1 << 40), dry_run=True)
    assert work.exists() and new.exists()
    with lock_bases(journal), pytest.raises(LockedError):
        prune(journal.path, Keep(size=1 << 40))
    assert work.exists() and new.exists()
    prune(journal.path, Keep(size=1 << 40))
    assert not work.exists() and not new.exists() and base_lsns(journal) == [20]


def test_a_reader_keeps_the_file_that_it_has_open_and_then_is_told(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 100)
    with JournalReader(journal) as reader:
        reader.next_header()
        prune(journal.path, Keep(size=0))
        file = reader.file_first_lsn
        with pytest.raises(PrunedJournalError, match="replay starts over from a base"):
            list(iter(reader.next_header, None))
        assert (file, reader.file_first_lsn, reader.position.lsn > 2) == (1, 1, True), "the rest of its file"


def test_it_works_beside_a_recorder(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 100)
    with journal.lock():
        prune(journal.path, Keep(size=0))
        maker.frame(Write("a", 1, b"x" * PAGE), Commit("after"))
    assert left(journal)[-1] == 2 * END + 2
    assert [commit.name for commit in commits(journal)][-1] == "after"


def test_older_files_that_are_gone_without_a_base_are_damage(maker: JournalMaker) -> None:
    journal = maker.journal
    Path(journal.file_path(1)).unlink()
    with pytest.raises(MissingFileError, match="no base stands"):
        Audit(journal.path).run()


def test_an_audit_begins_where_the_journal_does(maker: JournalMaker) -> None:
    journal = maker.journal
    add_base(journal, 100)
    prune(journal.path, Keep(size=0))
    with pytest.raises(JournalError, match="is not of the state that the journal has"):
        Audit(journal.path).run()  # what add_base writes is an empty one


def test_flush_commits_alone(maker: JournalMaker) -> None:
    maker.frame(Write("a", 0, b"z" * PAGE), Commit(kind=CommitKind.INTERVAL))
    named = maker.frame(Commit("named", kind=CommitKind.SCAN))
    maker.frame(Write("a", 0, b"y" * PAGE), Commit(kind=CommitKind.SCAN))
    maker.writer.sync()

    def lsn(found: JournalCommit | None) -> int | None:
        return found and found.lsn

    assert lsn(find_commit(maker.journal, None)) == named.lsn + 2
    assert lsn(find_commit(maker.journal, None, is_flush_or_mark)) == named.lsn
    assert lsn(find_commit(maker.journal, Until(lsn=named.lsn - 1), is_flush_or_mark)) == 2 * END
    assert [each.lsn for each in newest_commits(maker.journal, 2, accept=is_flush_or_mark)] == [2 * END, named.lsn]
