"""Journals what volumes have and the journal lacks, while clients go on changing them.

Who reads a volume without the lock asks first for a watch: pages that change until the capture, or that waited to be
written when it began, are left out, as the journal has them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mirrortool.checksum import Buffer, unpack_sums
from mirrortool.journal.codec import compress
from mirrortool.record.journalside import JournalSide
from mirrortool.record.scan import captured_batch
from mirrortool.record.volumeside import VolumeSide
from mirrortool.record.writeback import waiting_pages


@dataclass(frozen=True, slots=True)
class _Watch:
    """Pages that are being read, and which of them changed."""

    page: int
    end: int
    touched: set[int]


class Capture:
    """One reader at a time."""

    def __init__(self, journal: JournalSide, volumes: VolumeSide) -> None:
        self._journal, self._volumes = journal, volumes
        self._page_size = volumes.store.page_size
        self._watch: _Watch | None = None  # under the journal's lock

    def watch(self, page: int, count: int) -> None:
        """Watch these pages from now on."""
        with self._journal.lock:
            waiting = waiting_pages(self._volumes.waiting.generations, page, count)
            self._watch = _Watch(page, page + count, set(waiting))

    def unwatch(self) -> None:
        """Nobody reads any more."""
        with self._journal.lock:
            self._watch = None

    def touch(self, pages: Iterable[int]) -> None:
        """Pages change; under the journal's lock."""
        if watch := self._watch:
            watch.touched.update(page for page in pages if watch.page <= page < watch.end)

    def touch_run(self, page: int, count: int) -> None:
        """A run of pages changes, which may be long; under the journal's lock."""
        if watch := self._watch:
            watch.touched.update(range(max(page, watch.page), min(page + count, watch.end)))

    def take_watched(self, page: int, data: Buffer, packed: bytes) -> None:
        """Journal what of the watched pages differs from the sums, but for those that changed since.

        Args:
            data: the pages as they were read after `watch`, from the first on.
            packed: their sums.
        Raises:
            NoSpaceError: the journal has no room; nothing was journaled.
        """
        with self._journal.lock:
            assert self._watch and self._watch.page == page
            self._volumes.wait_for_room()  # others may change pages meanwhile
            touched, self._watch = self._watch.touched, None
            self.take(page, data, packed, touched)

    def take(self, page: int, data: Buffer, packed: bytes, touched: Collection[int] = ()) -> None:
        """Journal the pages that differ from the sums, but for those touched; under the journal's lock."""
        found = unpack_sums(packed)
        known = self._journal.known_sums(page, len(found))
        both = enumerate(zip(found, known, strict=True))
        places = [place for place, (new, old) in both if new != old and page + place not in touched]
        if not places:
            return
        batch = captured_batch(page, places, data, packed, self._page_size)
        pages, sums = [page + place for place in places], [found[place] for place in places]
        self._journal.append(batch, compress(batch.payload), pages, sums, captured=True)
        self._volumes.hurry()
