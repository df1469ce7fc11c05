"""What the program needs of a store: pages by address, wherever they are kept.

    PageReader   what is read: a store, or a view of any commit
    PageWriter   what the tasks of a replay write
    Store        both, made durable, and held against others

A driver is a class that keeps these promises; tests/store/test_conformance.py holds each against it.

Identity and a second writer: whoever opens a store proves first that it is the right one, and keeps what a second
writer could come by for as long as the store is open. How, depends on what it is; mirrortool-mirror(5), SECOND WRITERS,
has the table. Where a kind of storage offers nothing to hold, the driver compares what it can, at each connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from mirrortool.files import Buffer
from mirrortool.volume import VolumeSet

WriteRun = tuple[int, Sequence[Buffer], int]
"""First page, buffers of whole pages, and their length in bytes together."""


class PageReader(Protocol):
    """Pages by address, to be read: of a store, or of a journal at one commit.

    `read_into` and `data_runs` may be called from several threads at once. Errors are MirrortoolErrors.
    """

    @property
    def volumes(self) -> VolumeSet:
        """The volumes with their sizes as of now."""

    @property
    def page_size(self) -> int:
        """Bytes."""

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        """Fill buffers of whole pages, all of one volume; what is after the end of the volume reads as zeros."""

    def data_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        """Runs (first page, count), ascending, among these pages of one volume that may not be zeros."""

    def close(self) -> None:
        """Give files, connections and locks back."""


class PageWriter(Protocol):
    """What the tasks of a replay need of a store: a place for pages."""

    @property
    def volumes(self) -> VolumeSet:
        """The volumes with their sizes as of now."""

    def write(self, runs: Sequence[WriteRun]) -> None:
        """Write runs of whole pages, ascending, all of them inside one volume.

        A read that begins after it returns has what was written, before any sync.
        """

    def zero(self, page: int, count: int) -> None:
        """Make pages of one volume read as zeros, and give their space back where the storage can."""

    def resize(self, name: str, size: int) -> None:
        """Give a volume a new size in bytes.

        From the page that holds a smaller end on, and after the old end of a larger one, it reads as zeros.
        """


class Store(PageReader, PageWriter, Protocol):
    """Pages by address: mirrored storage (126, 540).

    Threads: every method may be called from several threads at once for different pages; `resize`, and `zero` of more
    than a unit, only while nothing else runs. `sync` runs beside writes of other threads, and proves nothing of those
    that had not returned when it was called.

    Errors are HostErrors with the path, or the address. A write past a volume's last byte is cut there: only the last
    page of a volume can be partial.

    Identity: a store that is open is the one that the mirror was made on, as far as that can be told, and refuses to be
    opened otherwise.

    Reading: a store that waits long for each read says by an attribute `readers` how many threads are to read it at
    once (parallelread.py).

    Second writer: as long as it is open, no other process has it open for writing, where the storage lets that be kept.

    What a sync proves: every write, zero and resize that had returned when it was called survives a power cut, with
    what must be known to find it again. After one has failed none succeeds (syncgate.py): the storage may have dropped
    what it could not write. A connection that is lost counts as a sync that failed, as nobody can say what the other
    side has.

    Checkpoints: `begin_checkpoint` and `end_checkpoint` say when a checkpoint that is to be saved begins, and that it
    is durable. What was zeroed before `begin_checkpoint` is covered once `end_checkpoint` is called, and not before:
    until then redo may begin at the checkpoint before, and what was there must not be given to others. A sync alone
    covers nothing: it may be in the middle of a window.
    """

    def capacity(self, name: str) -> int | None:
        """How large a volume can become, in bytes; None where only free space limits it."""

    def find_why_not_direct(self) -> str | None:
        """Why the volumes cannot be written past the page cache; None if they can."""

    def write_direct(self, wanted: bool) -> None:
        """Write past the page cache from now on, or no longer; while nothing is being written.

        Raises:
            UnusableVolumeError: they cannot be written so.
        """

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with a volume's bytes from `offset` on, all of them inside the volume."""

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        """Runs (first page, count), ascending, among these pages of one volume that read as zeros, but may not be.

        What they would be kept on is not there. Only a store that is open for reading alone can lack something.
        """

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        """Make sure that writes to these runs, `bytes_most` at most, find space until the next checkpoint begins.

        Also where some of these pages are zeroed in between, and written again.

        Raises:
            NoSpaceError: they do not; every byte is unchanged.
        """

    @property
    def frees_late(self) -> bool:
        """Whether space that is freed becomes usable only with a checkpoint, never at once; always the same."""

    @property
    def frees_wait(self) -> bool:
        """Whether there is space that a checkpoint which begins now would make usable."""

    def begin_checkpoint(self) -> None:
        """A checkpoint that will be saved begins: everything handed out is in the store, and nothing is in flight.

        One at a time, before its sync, while nothing else runs. If it fails no `end_checkpoint` follows, and the next
        begins anew.
        """

    def end_checkpoint(self) -> None:
        """The checkpoint that was begun is durable; called beside writes of other threads."""

    def sync(self) -> None:
        """Make everything that was written durable; see "What a sync proves"."""

    def drop_caches(self) -> None:
        """Let the next reads come from the device, or from as near to it as can be."""
