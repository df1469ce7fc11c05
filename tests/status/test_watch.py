"""Status says where journal and mirror are, and how far apart; never that they agree where they cannot be compared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirrortool import clock, files
from mirrortool.cli.main import main
from mirrortool.cli.statustext import lines_of
from mirrortool.errors import CorruptJournalError, DamagedSlotError, LagError, NotAJournalError, TornJournalError
from mirrortool.journal.commits import Commit, Until, newest_commits
from mirrortool.journal.format import FILE_HEADER
from mirrortool.journal.position import Position
from mirrortool.journal.slots import Slot, SlotKeeper, locked, save
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.operation import CommitKind
from mirrortool.record.mark import mark
from mirrortool.record.scan import Scan
from mirrortool.status import (
    JournalStatus,
    MirrorStatus,
    Watch,
    journal_status,
    lag,
    lags_of,
    mirror_status,
    problems_of,
    status_of,
)
from tests.fakes.descriptors import open_descriptors
from tests.fakes.volumes import (
    PAGE,
    Primary,
    fast_directory,
    make_primary,
    pattern,
    read_bytes,
    small_journal_files,
)

SECOND = 10**9
NOW = 1_700_000_000 * SECOND

# The mirror's LSN and the time of the state it holds; the newest commit's LSN and time; now: the lag.
LAGS = [
    ("in sync", 10, NOW - 5 * SECOND, 10, NOW - 5 * SECOND, NOW, (0, 0.0)),
    ("in sync, long ago", 10, NOW - 86_400 * SECOND, 10, NOW - 86_400 * SECOND, NOW, (0, 0.0)),
    ("behind by one", 9, NOW - 7 * SECOND, 10, NOW - SECOND, NOW, (1, 7.0)),
    ("as old as what it holds", 1, NOW - 3600 * SECOND, 10, NOW - SECOND, NOW, (9, 3600.0)),
    ("fractions", 9, NOW - 1_500_000_000, 10, NOW, NOW, (1, 1.5)),
    ("clock stepped back", 9, NOW + 5 * SECOND, 10, NOW + 6 * SECOND, NOW, (1, 0.0)),
    ("clock stepped back, in sync", 10, NOW + 5 * SECOND, 10, NOW + 5 * SECOND, NOW, (0, 0.0)),
    ("nothing replayed yet", 0, 0, 10, NOW - 20 * SECOND, NOW, (10, 20.0)),
    ("past the commit", 12, NOW, 10, NOW - SECOND, NOW, (0, 0.0)),
]


@pytest.mark.parametrize(("lsn", "time_ns", "newest_lsn", "newest_ns", "now_ns", "expected"),
                         [case[1:] for case in LAGS], ids=[case[0] for case in LAGS])  # fmt: skip
def test_lag_is_the_age_of_what_would_be_lost(
    lsn: int, time_ns: int, newest_lsn: int, newest_ns: int, now_ns: int, expected: tuple[int, float]
) -> None:
    checkpoint = Checkpoint(Position(lsn, 0), 0, time_ns, True, lsn, lsn, {})
    newest = Commit(Position(newest_lsn, 0), newest_ns, CommitKind.SCAN, 0)
    assert lag(checkpoint, newest, now_ns) == expected


@pytest.fixture
def primary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Primary]:
    small_journal_files(monkeypatch, 4000)
    with fast_directory() as path:
        yield make_primary(path, {"a": pattern(1, 10 * PAGE + 3), "b": b""})


def set_clock(monkeypatch: pytest.MonkeyPatch, now_ns: int) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: now_ns)


def test_a_new_journal_is_empty(primary: Primary) -> None:
    status = status_of(primary.journal_path)
    assert isinstance(status, JournalStatus)
    assert (status.head, status.commit, status.damage) == (primary.journal.start, None, None)
    assert (status.file_count, status.size, status.time_ns) == (0, 0, 0)


def test_a_journals_head_commit_and_sizes_are_told(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOW)
    result = primary.scan()
    status = journal_status(primary.journal_path)
    assert status.head == result.commit
    assert status.commit is not None
    assert status.commit.position == result.commit
    assert status.time_ns == NOW
    assert status.damage is None
    paths = [primary.journal.file_path(start) for start in primary.journal.file_starts()]
    assert (status.file_count, status.size) == (len(paths), sum(map(os.path.getsize, paths)))
    primary.resize("b", 700)
    primary.scan()
    mark(primary.journal_path, "here")
    status = journal_status(primary.journal_path)
    assert status.volumes["b"].size == 700
    assert status.commit is not None
    assert status.commit.name == "here"


def test_a_copy_of_a_journal_has_a_status(primary: Primary) -> None:
    primary.scan()
    for name in ("recorder.json", "local.json"):
        os.unlink(f"{primary.journal_path}/{name}")
    assert journal_status(primary.journal_path).head.lsn == primary.journal.clean_end.position.lsn


def test_a_mirror_in_sync_has_no_lag_however_old(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOW)
    primary.scan()
    mirror = primary.mirror()
    set_clock(monkeypatch, NOW + 86_400 * SECOND)
    status = status_of(mirror.path)
    assert isinstance(status, MirrorStatus)
    assert (status.lag_operations, status.lag_seconds) == (0, 0.0)
    assert status.checkpoint == mirror.checkpoint
    assert status.journal is not None
    assert status.journal.head == mirror.checkpoint.position


def test_a_mirror_behind_is_as_old_as_what_it_holds(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOW)
    first = primary.scan()
    primary.mirror()
    set_clock(monkeypatch, NOW + 60 * SECOND)
    primary.write("a", 0, b"new")
    second = primary.scan()
    set_clock(monkeypatch, NOW + 90 * SECOND)
    status = mirror_status(f"{primary.directory}/mirror")
    assert status.lag_operations == second.commit.lsn - first.commit.lsn
    assert status.lag_seconds == 90.0
    set_clock(monkeypatch, NOW - SECOND)
    assert mirror_status(f"{primary.directory}/mirror").lag_seconds == 0.0
    primary.mirror()
    assert mirror_status(f"{primary.directory}/mirror").lag_operations == 0


def test_a_journal_whose_times_are_ahead_says_so_and_no_lag_is_trusted(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clock that was set forward, and back, must not make a mirror that is stuck look as if it kept up."""
    set_clock(monkeypatch, NOW)
    primary.scan()
    mirror = primary.mirror().path
    set_clock(monkeypatch, NOW + 59 * SECOND)
    primary.write("a", 0, b"new")
    primary.scan()
    set_clock(monkeypatch, NOW)
    assert journal_status(primary.journal.path).ahead_seconds is None
    assert lags_of(mirror_status(mirror)) == [(mirror, 0.0)]
    set_clock(monkeypatch, NOW - 2 * SECOND)
    status = journal_status(primary.journal.path)
    assert status.ahead_seconds == 61.0
    assert lags_of(mirror_status(mirror)) == [(mirror, None)]
    assert main(["status", mirror, primary.journal.path, "--max-lag", "1h"]) == LagError.exit_code
    assert capsys.readouterr().out.count("ahead of this host's clock by") == 2
    primary.mirror()
    assert lags_of(mirror_status(mirror)) == [(mirror, 0.0)]


def test_operations_after_the_newest_commit_are_no_lag(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are nothing that a mirror could hold."""

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    primary.scan()
    mirror = primary.mirror()
    primary.write("a", 0, b"new")
    with monkeypatch.context() as patched:
        patched.setattr(Scan, "_commit", stop)
        with pytest.raises(Stop):
            primary.scan()
    status = mirror_status(mirror.path)
    assert status.journal is not None
    assert status.journal.head.lsn > mirror.checkpoint.position.lsn
    assert status.lag_operations == 0


def test_without_its_journal_a_mirror_has_no_lag_to_tell(primary: Primary) -> None:
    primary.scan()
    mirror = primary.mirror()
    os.rename(primary.journal_path, f"{primary.directory}/elsewhere")
    status = mirror_status(mirror.path)
    assert (status.journal, status.lag_operations, status.lag_seconds) == (None, None, None)
    assert status.checkpoint == mirror.checkpoint


def test_another_journal_in_its_place_gives_no_lag(primary: Primary) -> None:
    primary.scan()
    mirror = primary.mirror()
    os.rename(primary.journal_path, f"{primary.directory}/elsewhere")
    make_primary(primary.directory, {"a": b"other"}).scan()
    assert mirror_status(mirror.path).lag_operations is None


def test_a_journal_that_went_another_way_is_never_in_sync(primary: Primary) -> None:
    """Restored from a backup and recorded again, it has the mirror's LSN, but not its position."""
    primary.scan()
    before = {name: read_bytes(f"{primary.journal_path}/{name}") for name in ("journal.json", "recorder.json")}
    at = primary.journal.clean_end
    primary.write("a", 0, b"one")
    primary.scan()
    mirror = primary.mirror()
    assert mirror_status(mirror.path).lag_operations == 0
    for name, data in before.items():
        with open(f"{primary.journal_path}/{name}", "wb") as file:
            file.write(data)
    for start in primary.journal.file_starts():
        if start > at.file_first_lsn:
            os.unlink(primary.journal.file_path(start))
    os.truncate(primary.journal.file_path(at.file_first_lsn), at.offset)
    primary.write("a", 0, b"two")
    primary.scan()
    assert primary.journal.clean_end.position.lsn == mirror.checkpoint.position.lsn
    status = mirror_status(mirror.path)
    assert (status.journal, status.lag_operations) == (None, None)


def test_a_mirror_rolling_forward_says_so(primary: Primary) -> None:
    primary.scan()
    mirror = primary.mirror(until=Until(lsn=primary.journal.clean_end.position.lsn))
    mirror.save_checkpoint(mirror.checkpoint.reaching(99))
    assert not mirror_status(mirror.path).checkpoint.is_consistent


def newest_file(primary: Primary) -> str:
    return primary.journal.file_path(primary.journal.file_starts()[-1])


def crash(primary: Primary) -> None:
    """As if the recorder had died: no clean end, and its checkpoint of the beginning."""
    journal = primary.journal
    journal.save_clean_end(None)
    os.unlink(f"{primary.journal_path}/recorder.json")


def test_a_torn_tail_is_told_with_the_head_before_it(primary: Primary) -> None:
    result = primary.scan()
    crash(primary)
    os.truncate(newest_file(primary), os.path.getsize(newest_file(primary)) - 1)
    status = journal_status(primary.journal_path)
    assert isinstance(status.damage, TornJournalError)
    assert 0 < status.head.lsn < result.commit.lsn


def test_a_successor_without_a_header_does_not_hide_the_head(primary: Primary) -> None:
    result = primary.scan()
    crash(primary)
    with open(primary.journal.file_path(result.commit.lsn + 1), "wb") as file:
        file.write(b"\x89MJF")
    status = journal_status(primary.journal_path)
    assert status.head == result.commit
    assert status.commit is not None
    assert status.commit.position == result.commit


def test_damage_is_told(primary: Primary) -> None:
    primary.scan()
    with open(newest_file(primary), "r+b") as file:
        file.seek(FILE_HEADER.size + 8)
        file.write(b"\xff")
    status = journal_status(primary.journal_path)
    assert isinstance(status.damage, CorruptJournalError)
    assert status.head.lsn == primary.journal.file_starts()[-1] - 1


@pytest.mark.parametrize("name", ["nothing", "volume", ""])
def test_what_is_neither_is_refused(primary: Primary, name: str) -> None:
    (open(f"{primary.directory}/volume", "w")).close()
    with pytest.raises(NotAJournalError, match=r"not a journal or a mirror|does not exist|path is empty"):
        status_of(f"{primary.directory}/{name}")


def test_status_knows_what_the_last_replay_did(tmp_path: Path) -> None:
    primary = make_primary(tmp_path, {"disk": pattern(1, 64 << 10)})
    primary.scan()
    mirror = primary.mirror()
    last = mirror_status(mirror.path).last_replay
    assert last is not None
    assert (last.start_lsn, last.applied_lsn) == (0, mirror.checkpoint.position.lsn)
    assert last.units == last.direct + last.mini_queue + last.counter_waits - last.given_back == 1
    assert "last replay: 1 unit, " in "\n".join(lines_of(mirror_status(mirror.path), verbose=True))
    assert "last replay" not in "\n".join(lines_of(mirror_status(mirror.path)))
    Path(mirror.path, "last-replay.json").write_text("{")
    assert mirror_status(mirror.path).last_replay is None


# A watch.


def facts_of(status: JournalStatus | MirrorStatus) -> tuple[object, ...]:
    """What can be compared of two looks."""
    if isinstance(status, JournalStatus):
        return status.head, status.time_ns, status.commit, str(status.damage), status.file_count, status.size
    journal = facts_of(status.journal) if status.journal else None
    return status.checkpoint, status.lag_operations, status.lag_seconds, str(status.damage), journal


def replaced_by_another(primary: Primary) -> None:
    os.rename(primary.journal_path, f"{primary.directory}/elsewhere")
    make_primary(primary.directory, {"a": b"other"}).scan()


def without_its_oldest_file(primary: Primary) -> None:
    os.unlink(primary.journal.file_path(primary.journal.file_starts()[0]))


def with_a_copy_in_the_place_of_its_newest_file(primary: Primary) -> None:
    """As rsync leaves it."""
    shutil.copy(newest_file(primary), f"{primary.directory}/copy")
    os.rename(f"{primary.directory}/copy", newest_file(primary))
    mark(primary.journal_path, "appended")


def cut(primary: Primary) -> None:
    crash(primary)
    os.truncate(newest_file(primary), os.path.getsize(newest_file(primary)) - 1)


STEPS: dict[str, Callable[[Primary], object]] = {
    "nothing": lambda _: None,
    "a scan": lambda primary: primary.scan(),
    "a change": lambda primary: (primary.write("a", 5 * PAGE, os.urandom(3 * PAGE)), primary.scan()),
    "several files": lambda primary: [(primary.write("a", 0, os.urandom(5000)), primary.scan()) for _ in range(3)],
    "a mark": lambda primary: mark(primary.journal_path, "here"),
    "a replay": lambda primary: primary.mirror(),
    "a change and a replay": lambda primary: (primary.write("a", 0, os.urandom(9)), primary.scan(), primary.mirror()),
    "an older file goes": without_its_oldest_file,
    "a copy": with_a_copy_in_the_place_of_its_newest_file,
    "a torn tail": cut,
    "another journal": replaced_by_another,
}
ORDERS = [
    ["nothing", "a change", "several files", "a replay", "nothing", "a mark", "a change and a replay", "a scan"],
    ["several files", "a replay", "an older file goes", "a change", "a change and a replay"],
    ["a mark", "a copy", "a mark", "a copy", "a replay", "a copy"],
    ["a change", "a torn tail", "nothing"],
    ["a change", "a replay", "another journal", "nothing"],
]


@pytest.mark.parametrize("order", ORDERS, ids=[" ".join(order)[:40] for order in ORDERS])
def test_a_watch_sees_what_a_first_look_sees(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    set_clock(monkeypatch, NOW)
    primary.scan()
    mirror = primary.mirror().path
    with Watch() as watch:
        for number, step in enumerate(["nothing", *order]):
            set_clock(monkeypatch, NOW + number * SECOND)
            STEPS[step](primary)
            for path in (primary.journal_path, mirror):
                assert facts_of(watch.look(path)) == facts_of(status_of(path)), step


def test_a_watch_reads_only_what_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    primary = make_primary(tmp_path, {"disk": os.urandom(8 << 20)})
    primary.scan()
    mirror = primary.mirror().path
    read = []
    real = files.File.pread_into

    def counted(file: files.File, buffers: Sequence[memoryview], offset: int) -> int:
        read.append(real(file, buffers, offset))
        return read[-1]

    monkeypatch.setattr(files.File, "pread_into", counted)
    with Watch() as watch:
        watch.look(mirror)
        assert sum(read) > 8 << 20
        read.clear()
        watch.look(mirror)
        assert sum(read) == 0
        primary.write("disk", 0, os.urandom(PAGE))
        primary.scan()
        read.clear()
        looked = watch.look(mirror)
        assert isinstance(looked, MirrorStatus)
        assert mirror_status(mirror).lag_operations == looked.lag_operations == 2
        read.clear()
        watch.look(mirror)
        assert sum(read) == 0
        primary.mirror()
        read.clear()
        watch.look(mirror)
        assert sum(read) < 4 * PAGE


def test_a_watch_keeps_few_files_open(primary: Primary) -> None:
    primary.scan()
    mirror = primary.mirror().path
    before = len(open_descriptors())
    with Watch() as watch:
        for _ in range(5):
            STEPS["several files"](primary)
            watch.look(mirror)
        assert len(open_descriptors()) <= before + 2
    assert len(open_descriptors()) == before


def test_a_journal_tells_how_far_its_readers_are(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, NOW)
    primary.scan()
    first = newest_commits(primary.journal, 1)[0]
    primary.resize("b", 700)
    set_clock(monkeypatch, NOW + 3 * SECOND)
    primary.scan()
    newest = newest_commits(primary.journal, 1)[0]
    set_clock(monkeypatch, NOW + 5 * SECOND)
    at = {"behind": (first, ""), "far": (first, "copy"), "level": (newest, ""), "lost": (first, "")}
    journal = primary.journal
    for name, (commit, via) in at.items():
        SlotKeeper(journal, Slot(name, name, "mirror", "/m", commit.position, commit.time_ns, 0, via=via))
    with locked(journal):
        save(journal, Slot("lost", "lost", "mirror", "/m", first.position, first.time_ns, 0, is_lost=True))
    age = 5.0
    expected = {
        "behind": (newest.lsn - first.lsn, age), "far": (newest.lsn - first.lsn, age), "level": (0, 0.0),
        "lost": (None, None),
    }  # fmt: skip
    status = journal_status(journal.path)
    found = {each.slot.name: (each.lag_operations, each.lag_seconds) for each in status.readers}
    assert found == expected
    assert lags_of(status) == [(f"slot {name}", seconds) for name, (_, seconds) in sorted(expected.items())]


def test_a_slot_that_makes_no_sense_is_damage_that_is_told(primary: Primary) -> None:
    primary.scan()
    slots = Path(primary.journal_path, "slots")
    slots.mkdir(exist_ok=True)
    (slots / "m.json").write_text("{")
    status = journal_status(primary.journal_path)
    assert status.damage is None and [type(each) for each in problems_of(status)] == [DamagedSlotError]
    assert status.commit is not None
