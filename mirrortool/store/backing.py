"""One backing of a spanned mirror, open: a file or block device with a header, a table of records, and cells.

Rule: a free cell is durably zero. One that may hold anything has a record that says claimed, or the extent's, durably,
before the first byte gets there. So after a crash what must be zeroed is known, and it is little.
Rule: what is read of the table comes from the device, not from the cache, which after a sync that failed may hold for
written what the device never got.

Format: backingformat.py. Not here: which extent gets which cell (allocation.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from mirrortool import hostinfo
from mirrortool.address import adjacent_runs
from mirrortool.errors import HostError
from mirrortool.files import File
from mirrortool.store.backingformat import (
    FREE,
    HEADER_BYTES,
    RECORD_BYTES,
    TABLE_OFFSET,
    BackingHeader,
    RecordCodec,
    parse_header,
)
from mirrortool.store.syncgate import SyncGate

_PIECE_CELLS = 1 << 15
_PIECE_BYTES = _PIECE_CELLS * RECORD_BYTES
_ZEROS = bytes(_PIECE_BYTES)


class Backing:
    """A backing; safe to use from several threads for different cells.

    Attributes:
        file: owned by the backing; closed with it.
        is_device: a block device, which has no holes.
    """

    def __init__(self, file: File, header: BackingHeader, gate: SyncGate | None = None) -> None:
        """Take over an open file.

        Args:
            gate: told of a sync that failed; by default one of its own.
        """
        self.file = file
        self.header = header
        self.is_device = file.facts().identity.is_device
        self.records = RecordCodec(header)
        self.gate = gate or SyncGate()
        # Held for an fdatasync and what becomes of its error: of two at once only one would hear of it. The last lock.
        self._syncing = threading.Lock()
        self._is_table_dirty = False  # whether records were written since the last sync began; under no lock, as
        # only close() asks, when nothing else runs

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def cells(self) -> int:
        """How many extents it can hold."""
        return self.header.cells

    def offset_of(self, cell: int) -> int:
        """Where a cell begins in the file, in bytes."""
        return self.header.data_offset + cell * self.header.extent_bytes

    def entries(self) -> Iterator[tuple[int, int | None, int]]:
        """The cells that are not free, ascending: (cell, address, sequence), as RecordCodec.parse gives them."""
        for cell, data in self._table():
            yield from self.records.parse(data, cell)

    def _table(self) -> Iterator[tuple[int, bytes]]:
        """The table, in pieces that are not all zeros: the first cell's number, and the bytes."""
        end = TABLE_OFFSET + self.cells * RECORD_BYTES
        done = TABLE_OFFSET
        for start, stop in self.file.data_extents(TABLE_OFFSET, end):
            start = max(done, start - (start - TABLE_OFFSET) % RECORD_BYTES)
            stop = min(end, stop + -(stop - TABLE_OFFSET) % RECORD_BYTES)
            for offset in range(start, stop, _PIECE_BYTES):
                wanted = min(_PIECE_BYTES, stop - offset)
                data = self.file.pread(wanted, offset).ljust(wanted, b"\0")
                if data != _ZEROS[:wanted]:
                    yield (offset - TABLE_OFFSET) // RECORD_BYTES, data
            done = max(done, stop)

    def write_records(self, records: Mapping[int, bytes]) -> None:
        """Replace the records of these cells; durable with the next sync."""
        self._is_table_dirty = True
        for cell, count in adjacent_runs(sorted(records)):
            data = b"".join(records[each] for each in range(cell, cell + count))
            self.file.pwrite(data, TABLE_OFFSET + cell * RECORD_BYTES)

    def free_records(self, cell: int, count: int) -> None:
        """Say of cells that they are free, that is durably zero; durable with the next sync."""
        self._is_table_dirty = True
        for each in range(cell, cell + count, _PIECE_CELLS):
            number = min(_PIECE_CELLS, cell + count - each)
            self.file.pwrite(FREE * number, TABLE_OFFSET + each * RECORD_BYTES)

    def zero(self, cell: int, count: int = 1) -> None:
        """Let cells read as zeros, and give their space back where that can be done."""
        self.file.punch(self.offset_of(cell), count * self.header.extent_bytes)

    def sync(self) -> None:
        """Make everything durable that was written.

        Raises:
            HostError: that failed, or had before; then nothing of the store's succeeds any more.
        """
        with self._syncing:
            self.gate.check()
            self._is_table_dirty = False
            try:
                self.file.fdatasync()
            except HostError as error:
                self.gate.fail(error)
                raise

    def sync_table(self) -> None:
        """Make records durable, if any were written since the last sync."""
        if self._is_table_dirty:
            self.sync()

    def drop_cache(self) -> None:
        """Let the next reads come from the device."""
        if self.is_device:
            hostinfo.flush_device_cache(self.file)
        self.file.drop_cache()

    def close(self) -> None:
        self.file.close()


def read_header(file: File) -> BackingHeader | None:
    """The header of a file or device; None if it is no backing.

    Raises:
        UnusableVolumeError, NewerMirrorError: it is one that cannot be used.
    """
    return parse_header(file.pread(HEADER_BYTES, 0), file.path)


def make_backing(file: File, header: BackingHeader) -> None:
    """Make a backing of a file or device that reads as zeros, durably; a file gets its size.

    The header comes last, when the size is durable: what is not whole is no backing.
    """
    if not file.facts().identity.is_device:
        file.truncate(header.size)
    file.fdatasync()
    file.pwrite(header.to_bytes(), 0)
    file.fdatasync()


def unmake_backing(file: File) -> None:
    """Remove the header, durably: the file or device belongs to no mirror any more."""
    file.pwrite(bytes(HEADER_BYTES), 0)
    file.fdatasync()
