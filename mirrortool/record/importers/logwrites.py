"""Logs of dm-log-writes, and of QEMU's blklogwrites, which writes the same.

A log is a super block, then entries, each followed by its data; all of them fill whole sectors.

Super block, the first sector, little-endian

    offset size field        meaning
    0      8    magic        6a736677736872h
    8      8    version      1
    16     8    entries      how many there are
    24     4    sector_size  bytes; a power of two from 32 to 8 MiB

Entry, one sector

    offset size field        meaning
    0      8    sector       where it writes, in sectors of the log's size
    8      8    sectors      how many
    16     8    flags        1 FLUSH, 2 FUA, 4 DISCARD, 8 MARK, 16 METADATA
    24     8    data_length  of a MARK, the length of its text, which follows here
    32          text         of a MARK

A DISCARD has no data. A FLUSH makes durable what came before it, not its own data; FUA makes its own data durable, and
the kernel logs it only when it is. METADATA is a hint of the file system's.

Rule: no more entries than the super block counts when the log is opened. The kernel rewrites it at a FUA or a MARK,
QEMU at a FLUSH and every `log-super-update-interval` writes; what follows may be half written.
Rule: nothing is believed. Whatever does not fit into the file or the address space is a BadLogError.

Sources: the kernel's admin-guide/device-mapper/log-writes.rst and dm-log-writes.c; QEMU's block/blklogwrites.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

from mirrortool.address import ADDRESS_LIMIT
from mirrortool.errors import BadLogError
from mirrortool.files import File
from mirrortool.record.importers.logstep import PIECE_BYTES, Action, Piece, Step
from mirrortool.record.importers.readwindow import HEADER_BYTES, Window
from mirrortool.wording import byte_count, counted

MAGIC = 0x6A736677736872
VERSION = 1
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
SECTOR_SIZE_MIN = ENTRY.size
SECTOR_SIZE_MAX = 8 << 20
TEXT_BYTES_MAX = 4096
"""A longer mark is cut; the kernel's sectors hold no more."""
_REMEDY = "check that the log was copied whole"
assert (SUPER.size, ENTRY.size) == (28, 32)
assert ENTRY.size + TEXT_BYTES_MAX <= HEADER_BYTES


class Flag(IntFlag):
    """What an entry is."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


_FLAGS = int(Flag.FLUSH | Flag.FUA | Flag.DISCARD | Flag.MARK | Flag.METADATA)


class SuperBlock(NamedTuple):
    """What the super block says."""

    sector_size: int
    entry_count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry.

    Attributes:
        number: the first is 0, as replay-log counts.
        at: where in the log it begins.
        offset, length: what it writes or discards; bytes.
        data_at: where in the log its data begins.
        text: of a MARK.
    """

    number: int
    at: int
    offset: int
    length: int
    flags: int
    data_at: int
    text: bytes = b""


class LogWrites:
    """A log, read from its first entry to the last that is counted.

    Attributes:
        sector_size: bytes.
        entry_count: as the super block has it.
    """

    unit = "entry"

    def __init__(self, file: File, volume: str) -> None:
        """Read the super block.

        Args:
            volume: the name of the one that was logged.
        Raises:
            BadLogError: there is none, or it is not valid.
        """
        self.path = file.path
        self._file = file
        self._volume = volume
        self._window = Window(file)
        self._size = file.size()
        self.sector_size, self.entry_count = self._super_block()

    def count(self) -> int:
        return self.entry_count

    def entries(self) -> Iterator[Entry]:
        """All of them.

        Raises:
            BadLogError: at the first that is not valid.
        """
        at = self.sector_size
        for number in range(self.entry_count):
            entry = self._entry(number, at)
            yield entry
            at = entry.data_at if entry.flags & Flag.DISCARD else entry.data_at + entry.length

    def steps(self) -> Iterator[Step]:
        """What the entries do, flushes before the data of their entry, FUA and marks after it."""
        for entry in self.entries():
            flags = entry.flags
            if flags & Flag.FLUSH:
                yield Step(Action.FLUSH, entry.number, entry.at)
            if entry.length:
                action = Action.ZERO if flags & Flag.DISCARD else Action.WRITE
                yield Step(action, entry.number, entry.at, self._volume, entry.offset, entry.length, entry.data_at)
            if flags & Flag.FUA:
                yield Step(Action.FLUSH, entry.number, entry.at)
            if flags & Flag.MARK:
                yield Step(Action.MARK, entry.number, entry.at, text=entry.text.decode("utf-8", "surrogateescape"))

    def pieces(self, step: Step) -> Iterator[Piece]:
        """The data of a write in pieces; holes of the log, which QEMU makes of zeros, are pieces without data.

        Raises:
            BadLogError: the log has become shorter meanwhile.
        """
        shift = step.offset - step.data_at
        for first, last, is_hole in self._runs(step.data_at, step.data_at + step.length):
            if is_hole:
                yield Piece(first + shift, last - first, None)
                continue
            while first < last:
                # Cut where pages begin, so that no page is widened twice.
                length = min(last - first, PIECE_BYTES - (first + shift) % PIECE_BYTES)
                data = self._window.data(first, length)
                if len(data) < length:
                    raise self._bad("the log ends inside its data", step.number, step.at)
                yield Piece(first + shift, length, data)
                first += length

    def _super_block(self) -> SuperBlock:
        data = self._window.header(0, SUPER.size)
        if len(data) < SUPER.size:
            raise BadLogError("too short for a dm-log-writes log", where=self.path, remedy="check the path")
        magic, version, count, sector_size = SUPER.unpack(data)
        if not any(data):
            raise BadLogError(
                "the super block was never written", where=self.path, remedy="QEMU writes it at the guest's first flush"
            )
        if magic != MAGIC:
            raise BadLogError(
                "not a dm-log-writes log", where=self.path, remedy="check the path; for a log of fio give --format fio"
            )
        if version != VERSION:
            raise BadLogError(f"a dm-log-writes log of version {version}, which is not known", where=self.path)
        if not SECTOR_SIZE_MIN <= sector_size <= SECTOR_SIZE_MAX or sector_size & (sector_size - 1):
            raise BadLogError(f"{sector_size} is not a sector size", where=self.path)
        room = self._size // sector_size - 1
        if count > room:
            raise BadLogError(
                f"it counts {counted(count, 'entry', 'entries')}, and has {byte_count(self._size)}, "
                f"room for {max(room, 0)}",
                where=self.path,
                remedy="the log was cut short: copy it again",
            )
        return SuperBlock(sector_size, count)

    def _entry(self, number: int, at: int) -> Entry:
        if at + self.sector_size > self._size:
            raise self._bad(f"the log ends before it, at byte {self._size}", number, at)
        header = self._window.header(at, ENTRY.size)
        if len(header) < ENTRY.size:
            raise self._bad("the log ends inside it", number, at)
        sector, sectors, flags, text_length = ENTRY.unpack(header)
        if not (sector or sectors or flags or text_length):
            raise self._bad("it was never written: whatever wrote the log stopped before", number, at)
        if flags & ~_FLAGS:
            raise self._bad(f"it has the unknown flags {flags & ~_FLAGS:#x}", number, at)
        offset, length = sector * self.sector_size, sectors * self.sector_size
        if offset + length > ADDRESS_LIMIT:
            raise self._bad(f"it reaches to byte {offset + length}, after the end of any volume", number, at)
        data_at = at + self.sector_size
        if not flags & Flag.DISCARD and data_at + length > self._size:
            raise self._bad(f"it has {byte_count(length)} of data, and the log ends at byte {self._size}", number, at)
        text = self._text(at, text_length) if flags & Flag.MARK else b""
        return Entry(number, at, offset, length, flags, data_at, text)

    def _text(self, at: int, length: int) -> bytes:
        """The text of a mark; it ends at its first zero byte, as replay-log compares it."""
        room = min(length, self.sector_size - ENTRY.size, TEXT_BYTES_MAX)
        return self._window.header(at + ENTRY.size, room).partition(b"\0")[0]

    def _runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Parts of an entry's data: (first byte, byte after the last, whether it is a hole). Small data is one part."""
        at = start
        if end - start > PIECE_BYTES:
            for first, last in self._file.data_extents(start, end):
                if at < first:
                    yield at, first, True
                yield first, last, False
                at = last
            if at < end:
                yield at, end, True
        else:
            yield start, end, False

    def _bad(self, what: str, number: int, at: int) -> BadLogError:
        return BadLogError(f"entry {number} at byte {at}: {what}", where=self.path, remedy=_REMEDY)
