"""Opens a journal for appending: after a crash, cuts the torn tail and brings the sums up to what is durable.

Rule: a torn tail is moved to `torn/`, never deleted. It was acknowledged by nobody, but it may be all that is left of a
write that somebody wants to see.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from mirrortool import clock, files
from mirrortool.errors import CorruptJournalError, NotAJournalError, TornJournalError, UsageError
from mirrortool.files import File
from mirrortool.journal.check import check_inside
from mirrortool.journal.directory import Journal, RecorderCheckpoint, VolumeRecord
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet

_COPY_BYTES = 1 << 20


class OpenJournal:
    """A journal with its lock, writer and sums; `with` closes them, cleanly if the checkpoint covers everything.

    Attributes:
        checkpoint: the recorder's, as it was found.
        torn: where a torn tail was moved, None if there was none.
        sums_are_damaged: set by whoever finds that they are.
    """

    def __init__(self, path: str) -> None:
        """Lock, recover and open.

        Raises:
            LockedError: another recorder has it.
            NotAJournalError: this host has only a copy of the journal, not the primary's.
            JournalError: the journal is damaged; no journal file was changed.
        """
        self.journal = Journal(path)
        self.torn: str | None = None
        self.sums_are_damaged = False
        with ExitStack() as opening:
            opening.enter_context(self.journal.lock())
            self.journal = Journal(path)  # as it is under the lock
            self.checkpoint = _require_checkpoint(self.journal)
            self.sums = _open_sums(self.journal, self.checkpoint)
            opening.callback(lambda: self.sums.close())
            self.writer = self._recover()
            opening.callback(self.writer.abandon)
            self._opened = opening.pop_all()

    def __enter__(self) -> OpenJournal:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            # Without a clean end the next start computes the sums anew, and compares them with the journal's.
            if self.writer.position == self.checkpoint.position and not self.sums_are_damaged:
                self.writer.close()
        finally:
            self._opened.close()

    def save_checkpoint(self, records: dict[str, VolumeRecord]) -> None:
        """Note that sums and volumes are as of the journal's durable end; makes the sums durable first."""
        self.sums.sync()
        position = self.writer.durable
        self.checkpoint = RecorderCheckpoint(
            position, self.sums.state_sum, clock.now_ns(), files.boot_id(), {**self.checkpoint.volumes, **records}
        )
        self.journal.save_recorder_checkpoint(self.checkpoint)

    def _recover(self) -> JournalWriter:
        with JournalReader(self.journal, self.checkpoint.position) as reader:
            was_clean = self.journal.clean_end is not None
            try:
                self._redo(reader)
            except TornJournalError as tail:
                self.torn = _move_tail(self.journal, tail.path, tail.offset)
            if not was_clean:
                self.sums.rebuild()
            if self.sums.state_sum != reader.state_sum:
                self._make_sums_anew(reader)
            return JournalWriter(self.journal, reader)

    def _redo(self, reader: JournalReader) -> None:
        """Bring the sums up to the end. Captured frames only: the volume had these pages before the journal did."""
        while self._redo_next(reader):
            pass

    def _redo_next(self, reader: JournalReader) -> bool:
        """Take the next frame into the sums; False at the end of the journal."""
        header = reader.next_header()
        if header:
            batch = reader.batch(payload=False)
            check_inside(header, batch, self.sums.volumes, self.journal.path)
            self.sums.apply_batch(batch)
        return header is not None

    def _make_sums_anew(self, end: JournalReader) -> None:
        """The table of sums is damaged: the journal has what it must be, if it reaches back to LSN 1."""
        self.sums.close()
        for name in files.list_directory(self.journal.sums_path):
            files.remove(files.join(self.journal.sums_path, name))
        self.sums = PageSums(self.journal.sums_path, self.journal.volumes, self.journal.first_state_sum, write=True)
        with JournalReader(self.journal, self.journal.start) as reader:
            while reader.position.lsn < end.position.lsn:
                self._redo_next(reader)
        if self.sums.state_sum != end.state_sum:
            raise CorruptJournalError(
                f"its operations do not give the state sum at LSN {end.position.lsn}",
                where=self.journal.path,
                remedy="make a new journal; this one's commits can still be replayed",
            )


def _require_checkpoint(journal: Journal) -> RecorderCheckpoint:
    checkpoint = journal.recorder_checkpoint()
    if checkpoint is None:
        raise NotAJournalError(
            "this is a copy: the primary's recorder.json is not here",
            where=journal.path,
            remedy="record where the journal was made",
        )
    return checkpoint


def _open_sums(journal: Journal, checkpoint: RecorderCheckpoint) -> PageSums:
    sized = [replace(volume, size=_recorded_size(checkpoint, volume)) for volume in journal.volumes]
    try:
        volumes = VolumeSet(sized, journal.page_size)
    except UsageError as error:
        raise NotAJournalError(f"recorder.json: {error.what}", where=journal.path) from None
    if not files.exists(journal.sums_path):
        files.make_directory(journal.sums_path)  # a table that was lost is made anew from the journal
    return PageSums(journal.sums_path, volumes, checkpoint.state_sum, write=True)


def _recorded_size(checkpoint: RecorderCheckpoint, volume: Volume) -> int:
    record = checkpoint.volumes.get(volume.name)
    return record.size if record else volume.size


def _move_tail(journal: Journal, path: str, offset: int) -> str:
    """Copy a torn tail to `torn/` durably, then cut it off; a file without a whole header goes altogether."""
    name = f"{files.base_name(path)}-{offset}-{clock.now_ns()}"
    target = files.join(journal.torn_path, name)
    if not files.exists(journal.torn_path):
        files.make_directory(journal.torn_path)
    with files.open_file(path, write=True) as source, files.open_file(target, write=True, create=True) as copy:
        _copy(source, copy, offset)
        copy.fdatasync()
        files.sync_directory(journal.torn_path)
        source.truncate(offset)
        source.fdatasync()
    if offset == 0:
        files.remove(path)
        files.sync_directory(journal.files_path)
    return target


def _copy(source: File, target: File, offset: int) -> None:
    written = 0
    while data := source.pread(_COPY_BYTES, offset + written):
        target.pwrite(data, written)
        written += len(data)
