"""Capture: journals what volumes have and the journal lacks, while clients keep changing them.

A reader of a volume that does not hold the lock first asks for a watch: pages that change until the capture, or that
waited to be written when it began, are left out, as the journal has them.
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
class _WatchedPages:
    """Pages that are being read, and which of them changed."""

    page: int
    end: int
    touched: set[int]


class Capture:
    """Captures pages of a recorder's volumes, for one reader at a time."""

    def __init__(self, journal: JournalSide, volumes: VolumeSide) -> None:
        self._journal, self._volumes = journal, volumes
        self._page_size = volumes.store.page_size
        self._watch: _WatchedPages | None = None  # under the journal's lock

    def watch(self, page: int, count: int) -> None:
        """Watch these pages from now on."""
        with self._journal.lock:
            waiting = waiting_pages(self._volumes.waiting.generations, page, count)
            self._watch = _WatchedPages(page, page + count, set(waiting))

    def unwatch(self) -> None:
        """End the watch without a capture."""
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

    def capture_watched(self, page: int, data: Buffer, packed: bytes) -> None:
        """Journal the watched pages that differ from the sums, without those that changed since.

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
            self.capture(page, data, packed, touched)

    def capture(self, page: int, data: Buffer, packed: bytes, touched: Collection[int] = ()) -> None:
        """Journal the pages that differ from the sums, without those touched; under the journal's lock."""
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
