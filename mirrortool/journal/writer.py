"""Appends frames to a journal.

Rule: a file is made durable before its successor is created, and the directory after, so only the last file can have a
torn tail. Rule: a file holds frames of one epoch. Rule: a failed append is cut off before the next; and where bytes
were cut off, a new file is begun, as a reader may have made the old bytes durable and then read others in their place.
Rule: a failed fdatasync is never tried again, because the kernel may have dropped the pages that it could not write;
the writer is dead then.
Rule: the journal is this file at this path, and no other process appends. At each sync the path must still lead to the
file, and before each append the file must end where the writer stands: else what is made durable is in no journal any
more, or another recorder, which came by a mount that shares no locks, has commits there that the next frame would
overwrite. The writer is dead then, too, and changes nothing more.

Appended to by one thread at a time, under the journal's lock; made durable by any thread, meanwhile too: that is what
lets one fdatasync serve every waiting thread. Not here: which operations, and when to sync.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack

from mirrortool import clock, files
from mirrortool.errors import HostError, InputOutputError
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.codec import FileHeader, Stored, compress, encode_file_header, encode_frame
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import Batch
from mirrortool.wording import byte_count


class JournalWriter:
    """The end of a journal.

    Attributes:
        position: after the newest frame appended.
        durable: after the newest frame that survives a power cut.
        state_sum: of the journal at `position`.
        time_ns: of the newest frame.
    """

    def __init__(
        self, journal: Journal, end: JournalReader, *, was_cut: bool = False, file_bytes: int = layout.FILE_BYTES_TARGET
    ) -> None:
        """Continue where `end`, a reader that has read everything, stands; the torn tail is gone by then.

        Args:
            was_cut: whether there was a torn tail.
            file_bytes: begin a new file before this is exceeded.
        """
        self.journal = journal
        self.position = self.durable = end.position
        self.state_sum, self.time_ns = end.state_sum, end.time_ns
        self._file_bytes = file_bytes
        self._file: File | None = None
        self._file_first_lsn, self._offset = end.file_first_lsn, end.offset
        self._file_time_ns = end.file_time_ns
        self._is_over = was_cut or not end.is_in_current_epoch  # whether the file takes no more frames
        self._dead = self._is_closed = False
        # _syncing is held for an fdatasync, and while a file gives way to its successor: so none is closed under an
        # fdatasync, and `durable` never goes back. A thread that waits for it finds, mostly, that it was served.
        self._syncing = threading.Lock()
        with ExitStack() as opening:
            self._directory = opening.enter_context(files.open_file(journal.files_path))
            journal.save_clean_end(None)
            self._remove_begun_successor()
            if self._file_first_lsn:
                self._file = files.open_file(journal.file_path(self._file_first_lsn), write=True, follow=False)
            opening.pop_all()

    def append(
        self, batch: Batch, *, captured: bool, state_sum: int, stored: Stored | None = None, time_ns: int | None = None
    ) -> Position:
        """Append one frame; it is not durable until `sync`.

        Args:
            state_sum: of the journal after the batch.
            stored: the batch's payload, already compressed.
            time_ns: by default now; never less than in the frame before.
        Raises:
            NoSpaceError, InputOutputError: nothing was appended, and a later call may succeed, unless `is_dead`.
        """
        stored = stored or compress(batch.payload)
        time_ns = max(self.time_ns, clock.now_ns() if time_ns is None else time_ns)
        length = layout.FRAME_HEADER.size + len(batch.kinds) * layout.COLUMN_BYTES + len(batch.sums) + len(stored.data)
        file = self._file_for(length + len(batch.name or ""), time_ns)
        seed = layout.frame_seed(self.journal.uuid, self._file_first_lsn, self._offset)
        buffers, position = encode_frame(
            batch,
            stored,
            after=self.position,
            time_ns=time_ns,
            state_sum=state_sum,
            captured=captured,
            seed=seed,
        )
        if (length := file.length()) != self._offset:
            raise self._died(_appended_by_another(file.path, length, self._offset))
        try:
            file.pwritev(buffers, self._offset)
        except HostError:
            self._cut_failed_append(file)
            raise
        if self._file_time_ns is None:
            self._file_time_ns = time_ns
        self._offset += sum(map(len, buffers))
        self.position, self.state_sum, self.time_ns = position, state_sum, time_ns
        return position

    def sync(self) -> Position:
        """Make everything that was appended before the call durable; returns the position that is.

        Raises:
            HostError: it is not, or in no journal any more: the file was deleted or replaced. The writer is dead.
        """
        wanted = self.position
        with self._syncing:
            self._require_alive()
            if self.durable.lsn < wanted.lsn:
                self._sync_file()
            elif self._file:
                self._require_in_place(self._file)
            return self.durable

    def _sync_file(self) -> None:
        reached, file = self.position, self._file  # in this order: an older file than the position's is durable
        assert file is not None
        try:
            file.fdatasync()
        except BaseException:
            self._dead = True
            raise
        self._require_in_place(file)
        self.durable = reached

    def _require_in_place(self, file: File) -> None:
        if not file.is_in_place():
            raise self._died(
                InputOutputError(
                    "it was deleted or replaced while it is recorded to, so that nothing more can be kept",
                    where=file.path,
                    remedy="bring back what was there, then start again; without it, make a new journal",
                )
            )

    def _died(self, error: HostError) -> HostError:
        self._dead = True
        return error

    def close(self) -> None:
        """Stop cleanly: what was appended is durable, and journal.json says where it ends."""
        if self._file is None:
            self.abandon()
            return
        try:
            self.sync()
            self.journal.save_clean_end(FrameEnd(self.position, self._file_first_lsn, self._offset))
        finally:
            self.abandon()

    @property
    def is_dead(self) -> bool:
        """Whether nothing can be appended or made durable any more."""
        return self._dead

    def abandon(self) -> None:
        """Let go without a clean end, as a crash would; nothing can be appended any more."""
        self._is_closed = True
        self._close_file()
        self._directory.close()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def _remove_begun_successor(self) -> None:
        """What a crash left of a file that was only begun: the next frame may still fit into the file before it."""
        path = self.journal.file_path(self.position.next_lsn)
        begun = files.find_facts(path)
        if begun and begun.size < layout.FILE_HEADER.size:
            files.remove(path)
            files.sync_directory(self.journal.files_path)

    def _file_for(self, length: int, time_ns: int) -> File:
        """The file that takes a frame of `length` bytes at this time: the current one, or its successor."""
        self._require_alive()
        has_frames = self._file_time_ns is not None
        is_old = self._file_time_ns is not None and time_ns - self._file_time_ns > layout.FILE_AGE_NS_MAX
        is_full = self._offset + length > self._file_bytes
        if self._file is None or self._is_over or (has_frames and (is_full or is_old)):
            return self._begin_file()
        return self._file

    def _begin_file(self) -> File:
        self.sync()
        self._require_in_place(self._directory)
        header = FileHeader(
            self.journal.page_size,
            self.journal.uuid,
            self.journal.lineage,
            self.journal.epoch,
            self.position.next_lsn,
            self.position.chain,
            self.time_ns,
            self.state_sum,
        )
        path = self.journal.file_path(header.first_lsn)
        # An earlier attempt may have left something here: it held no frame, so it is begun anew.
        file = files.open_file(path, write=True, create=True)
        if (length := file.length()) > layout.FILE_HEADER.size:
            file.close()
            raise self._died(_appended_by_another(path, length, 0))
        try:
            file.truncate(0)
            file.pwrite(encode_file_header(header), 0)
            files.sync_directory(self.journal.files_path)
        except HostError:
            file.close()
            files.remove(path)
            raise
        with self._syncing:
            self._close_file()
            self._file, self._file_first_lsn, self._offset = file, header.first_lsn, layout.FILE_HEADER.size
        self._file_time_ns, self._is_over = None, False
        return file

    def _cut_failed_append(self, file: File) -> None:
        self._is_over = self._file_time_ns is not None  # else it is begun anew as it is
        with self._syncing:  # of two fdatasyncs at a time only one would hear of a failure
            try:
                file.truncate(self._offset)
                file.fdatasync()  # else a power cut could bring it back, before a file that is begun next
            except HostError:
                self._dead = True

    def _require_alive(self) -> None:
        if self._is_closed:  # and the lock given back: another process may append by now
            raise InputOutputError("the recorder has stopped", where=self.journal.path)
        if self._dead:
            raise InputOutputError(
                "an earlier failure to make the journal durable cannot be undone",
                where=self.journal.path,
                remedy="check the device, then start again: recovery finds what is durable",
            )


def _appended_by_another(path: str, length: int, offset: int) -> InputOutputError:
    return InputOutputError(
        f"somebody else wrote to it: it has {byte_count(length)}, not {byte_count(offset)}",
        where=path,
        remedy="let one recorder use it, and by one path: a mount such as bindfs or sshfs may share no locks",
    )
