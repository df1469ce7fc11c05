"""An import does what the log says, with a commit at each flush; or changes nothing and says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.change import Change
from mirrortool.errors import BadLogError, MirrortoolError, NoSpaceError, UnusableVolumeError
from mirrortool.files import open_file
from mirrortool.operation import MARK_NAME
from mirrortool.record.importers import importloop
from mirrortool.record.importers.fiolog import FileMap, FioLog
from mirrortool.record.importers.importloop import Import, ImportCancelled, ImportResult, mark_name
from mirrortool.record.importers.logwrites import LogWrites
from tests.record.importers.logs import (
    DISCARD,
    FLUSH,
    FUA,
    MARK,
    Logged,
    Remembered,
    State,
    fio_data,
    log_bytes,
    remembered,
    states_of,
    without_repeats,
    written,
)

SIZE = 64 * 512
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def feed_log(target: Remembered, path: str) -> ImportResult:
    with open_file(path) as file:
        work = Import(target, LogWrites(file, "disk"))
        work.check()
        return work.run()


def entry_inside(sector: int, sectors: int, flags: int, seed: int) -> Logged:
    if not sectors and not flags:
        flags = FLUSH
    data = b"" if flags & DISCARD else bytes([seed + 1]) * (sectors * 512)
    return Logged(sector, sectors, flags, data, b"m%d" % seed if flags & MARK else b"")


ENTRIES = st.builds(
    entry_inside,
    st.integers(0, 48),
    st.integers(0, 16),
    st.sampled_from([0, 0, 0, FLUSH, FUA, FLUSH | FUA, DISCARD, DISCARD, MARK, DISCARD | FLUSH]),
    st.integers(0, 99),
)


@FAST
@given(st.lists(ENTRIES, max_size=30), st.sampled_from([(512, 2), (4096, 3), (1 << 20, 256)]))
def test_import_is_serial_replay(tmp_path: Path, entries: list[Logged], bounds: tuple[int, int]) -> None:
    """Whatever a batch holds: each commit is the state that the log had there, and the end is the log's."""
    target = remembered(disk=SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importloop, "BATCH_BYTES", bounds[0])
        patch.setattr(importloop, "BATCH_CHANGES", bounds[1])
        result = feed_log(target, written(tmp_path / "log", log_bytes(entries)))
    states, end = states_of(entries, SIZE)
    assert bytes(target.images["disk"]) == end
    assert without_repeats(target.commits) == without_repeats([*states, State((end,))])
    done = result.statistics
    assert result.entries == len(entries)
    assert done.writes == sum(1 for entry in entries if entry.data)
    assert done.bytes == sum(len(entry.data) for entry in entries)
    assert done.zeros == sum(1 for entry in entries if entry.flags & DISCARD and entry.sectors)
    assert done.marks == sum(1 for entry in entries if entry.flags & MARK)
    assert done.commits + done.marks == len(target.commits)
    assert result.commit.lsn == target.lsn and target.flushes == 1


def test_flush_commits_what_came_before_it_and_not_its_own_data(tmp_path: Path) -> None:
    entries = [Logged(0, 1, 0, b"a" * 512), Logged(1, 1, FLUSH, b"b" * 512), Logged(2, 1, FUA, b"c" * 512)]
    target = remembered(disk=SIZE)
    feed_log(target, written(tmp_path / "log", log_bytes(entries)))
    held = [state.images[0][:1536].rstrip(b"\0") for state in target.commits]
    assert held == [b"a" * 512, b"a" * 512 + b"b" * 512 + b"c" * 512]


def test_flushes_without_writes_between_are_one_commit(tmp_path: Path) -> None:
    entries = [Logged(0, 1, 0, b"a" * 512), Logged(flags=FLUSH), Logged(flags=FLUSH)]
    result = feed_log(remembered(disk=SIZE), written(tmp_path / "log", log_bytes(entries)))
    assert result.statistics.commits == 1


@pytest.mark.parametrize("entries", [[], [Logged(flags=FLUSH)], [Logged(0, 1, 0, b"a" * 512)]])
def test_end_is_a_commit(tmp_path: Path, entries: list[Logged]) -> None:
    target = remembered(disk=SIZE)
    result = feed_log(target, written(tmp_path / "log", log_bytes(entries)))
    assert len(target.commits) == 1 == result.statistics.commits and target.flushes == 1


def test_batches_are_as_large_as_they_may_be(tmp_path: Path) -> None:
    small = [Logged(number, 1, 0, b"a" * 512) for number in range(64)] * 16
    large = [Logged(0, 4096, 0, b"b" * (2 << 20)), Logged(0, 1, 0, b"c" * 512)]
    target = remembered(disk=4 << 20)
    feed_log(target, written(tmp_path / "log", log_bytes(small + large)))
    counts = [len(changes) for _, changes in target.frames]
    assert counts == [256, 256, 256, 256, 1, 1, 1]


def test_batches_are_of_one_volume(tmp_path: Path) -> None:
    lines = b"fio version 2 iolog\n" + b"a write 0 512\nb write 0 512\nb trim 512 512\na write 512 512\n"
    target = remembered(a=SIZE, b=SIZE)
    with open_file(written(tmp_path / "log", lines)) as file:
        work = Import(target, FioLog(file, FileMap(target.volumes, {}), 5))
        work.check()
        result = work.run()
    assert [(volume, len(changes)) for volume, changes in target.frames] == [("a", 1), ("b", 2), ("a", 1)]
    assert target.images["a"][:1024] == fio_data(5, 2, 0, 512) + fio_data(5, 5, 512, 512)
    assert target.images["b"][:1024] == fio_data(5, 3, 0, 512) + bytes(512)
    assert (result.entries, result.statistics.writes, result.statistics.zeros) == (5, 3, 1)


# What is refused leaves everything as it was.


TOO_LARGE = [
    (Logged(64, 1, 0, b"a" * 512), "entry 1 at byte 1536 reaches to byte 33280, and volume disk has 32768"),
    (Logged(60, 5, DISCARD), "entry 1 at byte 1536 reaches to byte 33280"),
    (Logged(1 << 52, 1, DISCARD), "entry 1 at byte 1536 reaches to byte 2305843009213694464"),
]


@pytest.mark.parametrize(("entry", "phrase"), TOO_LARGE)
def test_log_that_does_not_fit_changes_nothing(tmp_path: Path, entry: Logged, phrase: str) -> None:
    target = remembered(disk=SIZE)
    path = written(tmp_path / "log", log_bytes([Logged(0, 1, 0, b"a" * 512), entry]))
    with pytest.raises(UnusableVolumeError) as caught:
        feed_log(target, path)
    assert str(caught.value).startswith(f"{path}: {phrase}")
    assert not target.lsn and not target.flushes


def test_damage_at_the_end_changes_nothing(tmp_path: Path) -> None:
    target = remembered(disk=SIZE)
    whole = log_bytes([Logged(0, 1, 0, b"a" * 512), Logged(flags=FLUSH), Logged(1, 1, 0, b"b" * 512)])
    with pytest.raises(BadLogError):
        feed_log(target, written(tmp_path / "log", whole[:-1]))
    assert not target.lsn


# Stopping, and failing.


class Stubborn(Remembered):
    """Does something at a change."""

    def change(self, volume: str, changes: Sequence[Change]) -> None:
        super().change(volume, changes)
        self.at_change()

    def at_change(self) -> None:
        raise NoSpaceError("full")


def test_import_that_is_cancelled_stops_after_a_whole_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Logged(0, 1, 0, b"a" * 512), Logged(flags=FLUSH)] * 10
    target = Stubborn(remembered(disk=SIZE).volumes)
    with open_file(written(tmp_path / "log", log_bytes(entries))) as file:
        work = Import(target, LogWrites(file, "disk"))
        work.check()
        monkeypatch.setattr(target, "at_change", work.cancel)
        with pytest.raises(ImportCancelled):
            work.run()
    now = work.statistics()
    assert len(target.frames) == len(target.commits) == 1
    assert (now.number, now.writes, now.commits) == (1, 1, 1)
    assert now.position is not None and now.position.lsn == target.lsn
    assert 0 < now.log_bytes_done < now.log_bytes


def test_import_that_is_cancelled_while_it_checks_changes_nothing(tmp_path: Path) -> None:
    target = remembered(disk=SIZE)
    with open_file(written(tmp_path / "log", log_bytes([Logged(flags=FLUSH)]))) as file:
        work = Import(target, LogWrites(file, "disk"))
        work.cancel()
        with pytest.raises(ImportCancelled):
            work.check()
    assert work.statistics().number == -1 and not target.lsn


def test_errors_of_the_recorder_end_the_import(tmp_path: Path) -> None:
    entries = [Logged(0, 1, 0, b"a" * 512), Logged(flags=FLUSH)]
    with pytest.raises(MirrortoolError, match="full"):
        feed_log(Stubborn(remembered(disk=SIZE).volumes), written(tmp_path / "log", log_bytes(entries)))


# Marks.


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mkfs", "mkfs"),
        ("dm-log-writes-end", "dm-log-writes-end"),
        ("a.b_c-1", "a.b_c-1"),
        ("before fsync", "before-fsync"),
        ("1st", "mark-1st"),
        ("-x", "mark--x"),
        ("", "mark"),
        (" ", "mark"),
        ("é", "mark"),
        ("état", "mark--tat"),
        ("x" * 65, "x" * 64),
        ("1" * 64, "mark-" + "1" * 59),
        ("\udcff/../\n", "mark---.."),
    ],
)
def test_mark_gets_a_name(text: str, name: str) -> None:
    assert mark_name(text) == name


@given(st.text(max_size=100))
def test_every_mark_gets_a_name(text: str) -> None:
    name = mark_name(text)
    assert MARK_NAME.fullmatch(name)
    assert not MARK_NAME.fullmatch(text) or name == text


def test_renamed_marks_are_told_and_bounded(tmp_path: Path) -> None:
    entries = [Logged(flags=MARK, text=b"step %d" % number) for number in range(150)]
    entries += [Logged(flags=MARK, text=b"right")]
    target = remembered(disk=SIZE)
    result = feed_log(target, written(tmp_path / "log", log_bytes(entries)))
    assert [state.name for state in target.commits] == [*(f"step-{number}" for number in range(150)), "right"]
    assert result.statistics.marks == 151 and result.statistics.marks_renamed == 150
    assert [(mark.text, mark.name) for mark in result.renamed[:2]] == [("step 0", "step-0"), ("step 1", "step-1")]
    assert len(result.renamed) == importloop.RENAMED_MAX
