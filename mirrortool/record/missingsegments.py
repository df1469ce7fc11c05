"""The segments that are missing in a journal which had no room: a list on disk, written before the first one changes.

    JOURNAL/detached.json   {"segments": [...]}, numbers of 16 MiB segments of the address space; the journal is
                            detached while this file exists
    JOURNAL/detached.log    what was added and removed since, 16 bytes each: twice the number, and one more if it was
                            removed; and its xxh3-64, seeded with the offset

Rule: each change is durable when the call returns. Rule: the list is written anew when the log has as many records as
the list has segments, so that noting one costs the same however many there are.
After a crash records are read up to the first that is not whole: nothing was done yet because of that one. To read
records again that are in the list by now changes nothing, as the last one of each segment counts.

Used under the journal's lock. Not here: what noting means (detach.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import xxhash

from mirrortool import files, jsonfile
from mirrortool.errors import HostError, NotAJournalError
from mirrortool.journal.directory import Journal

RECORDS_MIN = 4096
"""The log may have this many, however short the list is."""
_RECORD = struct.Struct("<QQ")


class LoadedSegments(NamedTuple):
    """What the list and the log say.

    Attributes:
        segments: the numbers.
        record_count: how many records of the log count.
    """

    segments: set[int]
    record_count: int


class NotedSegments:
    """The list and the log.

    Attributes:
        segments: the numbers.
    """

    def __init__(self, journal: Journal) -> None:
        """Load what an earlier recorder noted, or begin without any.

        Raises:
            NotAJournalError: the list cannot be parsed.
            HostError: there is no room to begin one.
        """
        self._journal = journal
        self._path, self._log_path = journal.detached_path, journal.detached_log_path
        self.segments, self._records = load_noted(journal)
        self._cut_log()
        if not files.exists(self._path):
            self._rewrite()

    def add(self, segments: set[int]) -> None:
        """Note, durably, that segments are about to change.

        Raises:
            HostError: they could not be noted.
        """
        new = segments - self.segments
        if new:
            self._append(2 * segment for segment in sorted(new))
            self.segments |= new
            self._compact()

    def remove(self, segment: int) -> None:
        """Forget a segment: what it has is durable in the journal.

        Raises:
            HostError: it is still noted.
        """
        self._append([2 * segment + 1])
        self.segments.discard(segment)
        self._compact()

    def end(self) -> None:
        """Forget all: the journal has everything, durably."""
        forget_noted(self._journal)

    def _append(self, values: Iterable[int]) -> None:
        records, at = bytearray(), self._records * _RECORD.size
        for value in values:
            records += _RECORD.pack(value, _checksum(value, at + len(records)))
        with files.open_file(self._log_path, write=True, follow=False) as log:
            if log.size() > at:  # of an append that failed
                log.truncate(at)
            log.pwrite(records, at)
            log.fdatasync()
        self._records += len(records) // _RECORD.size

    def _compact(self) -> None:
        if self._records > max(RECORDS_MIN, len(self.segments)):
            with suppress(HostError):  # the log says the same
                self._rewrite()

    def _rewrite(self) -> None:
        jsonfile.save(self._path, {"segments": sorted(self.segments)})
        self._records = 0
        self._cut_log()

    def _cut_log(self) -> None:
        """Cut what the log has after the records that count: it could be read after those that are appended next."""
        with files.open_file(self._log_path, write=True, create=True) as log:
            log.truncate(self._records * _RECORD.size)
            log.fdatasync()
        files.sync_name(self._log_path)


def forget_noted(journal: Journal) -> None:
    """Remove list and log, durably: nothing that they note counts any more."""
    for path in (journal.detached_path, journal.detached_log_path):  # the list would count without the log
        files.remove_durably(path)


def load_noted(journal: Journal) -> LoadedSegments:
    """The segments that are noted; none without the list.

    Raises:
        NotAJournalError: the list cannot be parsed.
    """
    fields = jsonfile.load(journal.detached_path, NotAJournalError)
    if fields is None:
        return LoadedSegments(set(), 0)
    segments, records = set(fields.integers("segments")), 0
    for segment, is_removed in _read(journal.detached_log_path):
        (segments.discard if is_removed else segments.add)(segment)
        records += 1
    return LoadedSegments(segments, records)


def _read(path: str) -> Iterator[tuple[int, bool]]:
    """The segments of whole records, in their order, and whether each was removed."""
    if not files.exists(path):
        return
    with files.open_file(path) as log:
        offset = 0
        while len(data := log.pread(_RECORD.size, offset)) == _RECORD.size:
            value, checksum = _RECORD.unpack(data)
            if checksum != _checksum(value, offset):
                return
            yield value // 2, bool(value & 1)
            offset += _RECORD.size


def _checksum(value: int, offset: int) -> int:
    return xxhash.xxh3_64_intdigest(value.to_bytes(8, "little"), seed=offset)
