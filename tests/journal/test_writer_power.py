"""What a writer says is durable is there after a power cut at any call, in a journal without a gap or damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.errors import NoSpaceError, TornJournalError
from mirrortool.journal.appender import Appender, Remedies
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.writer import JournalWriter
from mirrortool.lsn import NO_LSN, Lsn
from tests.fakes.cuts import Killed, kill_at, lose_everywhere
from tests.fakes.disk import Call, Short, faulty, no_fault
from tests.fakes.journals import memory_directory
from tests.journal.sample import append, make_journal, open_writer, read_all, write_batch

FILE_BYTES = 420
"""Some two frames."""


@pytest.fixture
def path() -> Iterator[Path]:
    with memory_directory() as place:
        yield place / "J"


class Writing:
    """A writer that appends and syncs, and what it said was durable."""

    def __init__(self, path: Path) -> None:
        self._path, self.durable = path, 0

    def prepare(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        make_journal(self._path)
        self.durable = 0

    def open(self) -> JournalWriter:
        return open_writer(Journal(str(self._path)), file_bytes=FILE_BYTES)

    def act(self) -> None:
        writer = self.open()
        for number in range(9):
            append(writer, write_batch(number, number))
            if number % 3 == 0:
                self.durable = writer.sync().lsn
        writer.close()
        self.durable = writer.position.lsn

    def check(self, has_ended: bool = True) -> None:
        journal = Journal(str(self._path))
        found = read_all(journal)
        assert found.error is None or isinstance(found.error, TornJournalError)
        lsn = found.frames[-1].position.lsn if found.frames else 0
        assert lsn >= self.durable
        if end := journal.clean_end:
            assert found.error is None and end.position.lsn == lsn
        assert not has_ended or end, "it was not noted that it stopped cleanly"


def test_what_was_synced_is_there_and_whole(path: Path) -> None:
    writing = Writing(path)
    lose_everywhere(writing.prepare, writing.act, writing.check, least=30)


def test_what_the_next_writer_synced_is_there_wherever_the_one_before_was_killed(path: Path) -> None:
    """Also in a file that was only begun, whose name is not durable yet."""
    writing = Writing(path)
    for number in range(1, 40):
        writing.prepare()
        with faulty(kill_at(number)) as system:
            try:
                writing.act()
            except Killed:
                writer = writing.open()
                append(writer, write_batch(1, 1))
                writing.durable = writer.sync().lsn
                writer.abandon()
            system.disk.lose_all()
        writing.check(has_ended=False)


@pytest.mark.parametrize("seed", range(6))
def test_a_failed_append_does_not_come_back_before_a_later_file(path: Path, seed: int) -> None:
    """Else it would be damage, and hide the frames in that file."""
    writing = Writing(path)
    writing.prepare()
    is_full = False

    def fault(call: Call) -> object:
        if not is_full or "write" not in call.name:
            return None
        if call.name == "pwritev" and not begun:
            begun.append(call.number)
            return Short(90)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    begun: list[int] = []
    with faulty(fault) as system:
        writer = writing.open()
        append(writer, write_batch(1, 1))
        writer.sync()
        is_full = True
        with pytest.raises(NoSpaceError):
            append(writer, write_batch(2, 2))
        is_full = False
        append(writer, write_batch(3, 3))
        writing.durable = writer.sync().lsn
        assert begun and len(Journal(str(path)).file_starts()) == 2
        system.disk.cut_power(random.Random(seed))
    assert read_all(Journal(str(path))).error is None
    writing.check(has_ended=False)


def test_a_file_that_was_begun_and_removed_does_not_come_back(path: Path) -> None:
    writing = Writing(path)
    writing.prepare()
    writer = writing.open()
    append(writer, write_batch(1, 1))
    writer.sync()
    writer.abandon()
    Path(writer.journal.file_path(writer.position.next_lsn)).write_bytes(b"MJ")
    with faulty(no_fault) as system:
        writer = writing.open()
        append(writer, write_batch(2, 2))
        writing.durable = writer.sync().lsn
        assert len(Journal(str(path)).file_starts()) == 1
        system.disk.lose_all()
    writing.check(has_ended=False)


def test_a_file_is_durable_before_its_successor_is_made(path: Path) -> None:
    path.mkdir()
    with faulty(no_fault) as system:
        end = Appender(str(path), Position(NO_LSN, 0), Remedies(("", ""), ("", ""), ""))
        end.begin(str(path / "1"), Lsn(1), b"x" * 200, Position(Lsn(1), 1))
        end.append([b"y" * 100], Position(Lsn(2), 2))
        end.begin(str(path / "2"), Lsn(3), b"z" * 200, Position(Lsn(3), 3))
        end.close()
        system.disk.lose_all()
    assert (path / "1").read_bytes() == b"x" * 200 + b"y" * 100
