"""The end of a journal's newest file: appends bytes, makes them durable, begins the file's successor.

Rule: a file is made durable before its successor is created, and the directory after, so only the last file can have a
torn tail. Rule: a failed append is cut off before the next. Rule: a failed fdatasync is never tried again, because the
kernel may have dropped the pages that it could not write; the appender is dead then.
Rule: the journal is this file at this path, and no other process appends. At each sync the path must still lead to the
file, and before each append the file must end where the appender stands: else what is made durable is in no journal any
more, or another process, which came by a mount that shares no locks, has bytes there that the next ones would
overwrite. The appender is dead then, too, and changes nothing more.

Appended to by one thread at a time, under the journal's lock; made durable by any thread, meanwhile too: that is what
lets one fdatasync serve every waiting thread. Not here: what the bytes are.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import HostError, InputOutputError
from mirrortool.files import Buffer, File
from mirrortool.journal import format as layout
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.wording import byte_count


@dataclass(frozen=True, slots=True)
class Remedies:
    """What the errors of one appender say that those of another do not.

    Attributes:
        replaced: what it means that the file was deleted or replaced, and the remedy.
        dead: what could not be made durable, and the remedy.
        another: the remedy where another process appended.
    """

    replaced: tuple[str, str]
    dead: tuple[str, str]
    another: str


class Appender:
    """Stands at the end of one journal.

    Attributes:
        position: after the newest frame appended.
        durable: after the newest frame that survives a power cut.
        file_first_lsn: of the newest file; 0 before the first.
        offset: where the next frame would begin in that file.
        is_dead: whether nothing can be appended or made durable any more.
    """

    def __init__(self, where: str, position: Position, remedies: Remedies, *, cuts_unsynced: bool = False) -> None:
        """Stand before the first file.

        Args:
            where: the journal, for messages.
            position: up to here everything is durable.
            cuts_unsynced: after a failed fdatasync, cut off what may not be durable.
        """
        self._where, self._remedies, self._cuts_unsynced = where, remedies, cuts_unsynced
        self.position = self.durable = position
        self.file_first_lsn, self.offset, self._synced_offset = NO_LSN, 0, 0
        self.is_dead = False
        self._file: File | None = None
        # Held for an fdatasync, and while a file gives way to its successor: so none is closed under an fdatasync, and
        # `durable` never goes back. A thread that waits for it finds, mostly, that it was served.
        self._syncing = threading.Lock()

    @property
    def has_file(self) -> bool:
        return self._file is not None

    def stand(self, path: str, file_first_lsn: Lsn, offset: int) -> None:
        """Continue a file at its end; all of it is durable.

        But perhaps not its name, where the process that began it was killed before it had made that durable.
        """
        self._file = files.open_file(path, write=True, follow=False)
        files.sync_name(path)
        self.file_first_lsn, self.offset, self._synced_offset = file_first_lsn, offset, offset

    def append(self, buffers: Sequence[Buffer], position: Position) -> None:
        """Append frames to the file, which end at this position; they are not durable until `sync`.

        Raises:
            NoSpaceError, InputOutputError: nothing was appended, and a later call may succeed, unless `is_dead`.
        """
        file = self._file
        assert file is not None
        if (length := file.length()) != self.offset:
            raise self._died(self._appended_by_another(file.path, length, self.offset))
        try:
            file.pwritev(buffers, self.offset)
        except HostError:
            self._cut_failed_append(file)
            raise
        self.offset += sum(map(len, buffers))
        self.position = position

    def begin(self, path: str, file_first_lsn: Lsn, data: Buffer, position: Position) -> None:
        """Make the successor of the file, with its header and perhaps frames, which end at this position.

        Raises:
            HostError: there is none, and the file is what it was.
        """
        self.sync()
        # An earlier attempt may have left something here: it held no frame, so it is begun anew.
        file = files.open_file(path, write=True, create=True)
        if (length := file.length()) > layout.FILE_HEADER.size:
            file.close()
            raise self._died(self._appended_by_another(path, length, 0))
        try:
            file.truncate(0)
            file.pwrite(data, 0)
            files.sync_name(path)
        except HostError:
            file.close()
            files.remove(path)
            raise
        with self._syncing:
            self.close()
            self._file, self.file_first_lsn = file, file_first_lsn
            self.offset, self._synced_offset = len(data), 0
        self.position = position

    def sync(self) -> Position:
        """Make everything that was appended before the call durable; returns the position that is.

        Raises:
            HostError: it is not, or in no journal any more: the file was deleted or replaced. The appender is dead.
        """
        wanted = self.position
        with self._syncing:
            self.require_alive()
            if self.durable.lsn < wanted.lsn:
                self._sync_file()
            elif self._file:
                self.require_in_place(self._file)
            return self.durable

    def require_in_place(self, file: File) -> None:
        """Raise InputOutputError unless the file, or directory, is still what has its path; dead then."""
        if not file.is_in_place():
            what, remedy = self._remedies.replaced
            raise self._died(InputOutputError(what, where=file.path, remedy=remedy))

    def require_alive(self) -> None:
        """Raise InputOutputError if it is dead."""
        if self.is_dead:
            what, remedy = self._remedies.dead
            raise InputOutputError(what, where=self._where, remedy=remedy)

    def kill(self) -> None:
        """Let go of the file; nothing can be appended or made durable any more."""
        self.is_dead = True
        self.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        file, self._file = self._file, None
        if file:
            file.close()

    def _sync_file(self) -> None:
        # In this order: an older file than the position's is durable.
        reached, offset, file = self.position, self.offset, self._file
        assert file is not None
        try:
            file.fdatasync()
        except BaseException:
            self.is_dead = True
            self._cut_unsynced(file)
            raise
        self.require_in_place(file)
        self.durable, self._synced_offset = reached, offset

    def _cut_failed_append(self, file: File) -> None:
        with self._syncing:  # of two fdatasyncs at a time only one would hear of a failure
            try:
                file.truncate(self.offset)
                file.fdatasync()  # else a power cut could bring it back, before a file that is begun next
            except HostError:
                self.is_dead = True
                self._cut_unsynced(file)

    def _cut_unsynced(self, file: File) -> None:
        """After a failed fdatasync: a later one could call durable what the kernel has dropped."""
        if self._cuts_unsynced:
            with suppress(HostError):
                file.truncate(self._synced_offset)

    def _died(self, error: HostError) -> HostError:
        self.is_dead = True
        return error

    def _appended_by_another(self, path: str, length: int, offset: int) -> InputOutputError:
        return InputOutputError(
            f"somebody else wrote to it: it has {byte_count(length)}, not {byte_count(offset)}",
            where=path,
            remedy=self._remedies.another,
        )
