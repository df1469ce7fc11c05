"""Appends frames to a journal, and begins its files; how the bytes get there is appender.py.

Rule: a file holds frames of one epoch. Rule: where bytes were cut off, a new file is begun, as a reader may have made
the old bytes durable and then read others in their place.

Appended to by one thread at a time, under the journal's lock; made durable by any thread, meanwhile too. Not here:
which operations, and when to sync.
"""

from __future__ import annotations

from contextlib import ExitStack

from mirrortool import clock, files
from mirrortool.errors import HostError, InputOutputError
from mirrortool.journal import format as layout
from mirrortool.journal.appender import Appender, Remedies
from mirrortool.journal.codec import FileHeader, Stored, compress, encode_file_header, encode_frame
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch

_REMEDIES = Remedies(
    replaced=(
        "it was deleted or replaced while it is recorded to, so that nothing more can be kept",
        "bring back what was there, then start again; without it, make a new journal",
    ),
    dead=(
        "an earlier failure to make the journal durable cannot be undone",
        "check the device, then start again: recovery finds what is durable",
    ),
    another="let one recorder use it, and by one path: a mount such as bindfs or sshfs may share no locks",
)


class JournalWriter:
    """The end of a journal.

    Attributes:
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
        self.state_sum, self.time_ns = end.state_sum, end.time_ns
        self._end = Appender(journal.path, end.position, _REMEDIES)
        self._file_bytes = file_bytes
        self._file_time_ns = end.file_time_ns
        self._is_over = was_cut or not end.is_in_current_epoch  # whether the file takes no more frames
        self._is_closed = False
        with ExitStack() as opening:
            self._directory = opening.enter_context(files.open_file(journal.files_path))
            journal.save_clean_end(None)
            self._remove_begun_successor()
            if end.file_first_lsn:
                self._end.stand(journal.file_path(end.file_first_lsn), end.file_first_lsn, end.offset)
            opening.pop_all()

    @property
    def position(self) -> Position:
        """After the newest frame appended."""
        return self._end.position

    @property
    def durable(self) -> Position:
        """After the newest frame that survives a power cut."""
        return self._end.durable

    @property
    def is_dead(self) -> bool:
        """Whether nothing can be appended or made durable any more."""
        return self._end.is_dead

    @property
    def file_first_lsn(self) -> Lsn:
        """Of the newest file; 0 before the first."""
        return self._end.file_first_lsn

    @property
    def offset(self) -> int:
        """Where the next frame would begin in that file."""
        return self._end.offset

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
        self._require_file_for(length + len(batch.name or ""), time_ns)
        seed = layout.frame_seed(self.journal.uuid, self.file_first_lsn, self.offset)
        buffers, position = encode_frame(
            batch,
            stored,
            after=self.position,
            time_ns=time_ns,
            state_sum=state_sum,
            captured=captured,
            seed=seed,
        )
        try:
            self._end.append(buffers, position)
        except HostError:
            self._is_over = self._file_time_ns is not None  # else it is begun anew as it is
            raise
        if self._file_time_ns is None:
            self._file_time_ns = time_ns
        self.state_sum, self.time_ns = state_sum, time_ns
        return position

    def sync(self) -> Position:
        """Make everything that was appended before the call durable; returns the position that is.

        Raises:
            HostError: it is not, or in no journal any more: the file was deleted or replaced. The writer is dead.
        """
        self._require_open()
        return self._end.sync()

    def close(self) -> None:
        """Stop cleanly: what was appended is durable, and journal.json says where it ends."""
        if not self._end.has_file:
            self.abandon()
            return
        try:
            self.sync()
            self.journal.save_clean_end(FrameEnd(self.position, self.file_first_lsn, self.offset))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go without a clean end, as a crash would; nothing can be appended any more."""
        self._is_closed = True
        self._end.close()
        self._directory.close()

    def _remove_begun_successor(self) -> None:
        """What a crash left of a file that was only begun: the next frame may still fit into the file before it."""
        path = self.journal.file_path(self.position.next_lsn)
        begun = files.find_facts(path)
        if begun and begun.size < layout.FILE_HEADER.size:
            files.remove_durably(path)

    def _require_file_for(self, length: int, time_ns: int) -> None:
        """Have a file that takes a frame of `length` bytes at this time: the current one, or its successor."""
        self._require_open()
        self._end.require_alive()
        has_frames = self._file_time_ns is not None
        is_old = self._file_time_ns is not None and time_ns - self._file_time_ns > layout.FILE_AGE_NS_MAX
        is_full = self.offset + length > self._file_bytes
        if not self._end.has_file or self._is_over or (has_frames and (is_full or is_old)):
            self._begin_file()

    def _begin_file(self) -> None:
        self._end.sync()  # before the directory is looked at: a file that was replaced says more
        self._end.require_in_place(self._directory)
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
        self._end.begin(path, header.first_lsn, encode_file_header(header), self.position)
        self._file_time_ns, self._is_over = None, False

    def _require_open(self) -> None:
        if self._is_closed:  # and the lock given back: another process may append by now
            raise InputOutputError("the recorder has stopped", where=self.journal.path)
