"""Drops the frames after a commit that becomes the end of an epoch: they go to `forked/`, and none is deleted.

Rule: bytes are durable in `forked/` before they are cut off. So each step can be repeated after a crash: a file that is
still longer than what stays is copied again, and a later file that is still there is moved.
Rule: what a call that was killed had done, it may not have made durable; so each step is made durable, done or not.

A file in `forked/` has the name of the journal file, `-`, and the epoch in which it was dropped. It holds the header of
that file, and the dropped bytes where they were: what stayed in the journal is a hole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import JournalError, TornJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.bases.listing import base_lsns, base_path, bases_path
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a journal has after a position.

    Attributes:
        frames, operations: that are whole; after damage, none is counted.
        size: of everything there, in bytes.
        problem: what ends the count early, a torn tail or damage; None if nothing does.
    """

    frames: int
    operations: int
    size: int
    problem: str | None = None


def frame_end_at(journal: Journal, position: Position) -> FrameEnd:
    """Where the frames up to a position that was found in the journal end.

    Raises:
        JournalError: the file that holds it is damaged before it.
    """
    holding = journal.file_holding(position.lsn)
    with JournalReader(journal, first_lsn=holding) as reader:
        assert reader.read_to(position.lsn) == position, "it was found in this file"
        return FrameEnd(position, reader.file_first_lsn, reader.offset)


def count_after(journal: Journal, end: FrameEnd, *, check: bool) -> Dropped:
    """What would be dropped; a torn tail is no error, as nothing of it was ever durable.

    Args:
        check: whether nothing may hide a commit there.
    Raises:
        JournalError: `check`, and there is damage.
    """
    frames = operations = 0
    problem: JournalError | None = None
    try:
        with JournalReader(journal, end.position) as reader:
            while header := reader.next_header():
                frames, operations = frames + 1, operations + header.operations
                if check and header.is_commit:
                    reader.batch(payload=False)
    except JournalError as error:
        if check and not isinstance(error, TornJournalError):
            raise
        problem = error
    return Dropped(frames, operations, _size_after(journal, end), problem.what if problem else None)


def fork(journal: Journal, end: FrameEnd, epoch: int) -> None:
    """Move what lies after `end` to `forked/`, bases of it too; whole if it was interrupted before.

    Args:
        epoch: in which it is dropped.
    """
    files.make_directory(journal.forked_path, exist_ok=True)
    for lsn in [lsn for lsn in base_lsns(journal) if lsn > end.position.lsn]:
        path = base_path(journal, lsn)
        files.rename(path, files.join(journal.forked_path, f"{files.base_name(path)}-{epoch}"))
    _cut(journal, end, epoch)
    for first_lsn in _later_files(journal, end):
        files.rename(journal.file_path(Lsn(first_lsn)), _forked_path(journal, Lsn(first_lsn), epoch))
    files.sync_directories(journal.forked_path, bases_path(journal), journal.files_path)


def _cut(journal: Journal, end: FrameEnd, epoch: int) -> None:
    with files.open_file(journal.file_path(end.file_first_lsn), write=True, follow=False) as file:
        size = file.size()
        if size <= end.offset:
            file.fdatasync()
            return
        path = _forked_path(journal, end.file_first_lsn, epoch)
        with files.make_file(path) as copy:
            copy.pwrite(file.pread(layout.FILE_HEADER.size, 0), 0)
            files.copy_range(file, copy, end.offset, size)
            copy.truncate(size)
            copy.fdatasync()
        files.sync_directory(journal.forked_path)
        file.truncate(end.offset)
        file.fdatasync()


def _later_files(journal: Journal, end: FrameEnd) -> Iterator[int]:
    return (first_lsn for first_lsn in journal.file_starts() if first_lsn > end.file_first_lsn)


def _size_after(journal: Journal, end: FrameEnd) -> int:
    sizes = {first_lsn: files.find_facts(journal.file_path(first_lsn)) for first_lsn in journal.file_starts()}
    last = sizes.get(end.file_first_lsn)
    cut = max(0, last.size - end.offset) if last else 0
    return cut + sum(facts.size for first_lsn, facts in sizes.items() if facts and first_lsn > end.file_first_lsn)


def _forked_path(journal: Journal, first_lsn: Lsn, epoch: int) -> str:
    return files.join(journal.forked_path, f"{layout.file_name(first_lsn)}-{epoch}")
