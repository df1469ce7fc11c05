"""Detaches the volumes from a full journal (`--when-full detach`), and notes which of their segments changed meanwhile.

The recorder keeps serving. A segment is noted here, durably, before the first byte of it changes on its volume; when
there is room again, what differs in it from the sums is journaled as captured. Commits in between do not exist. How it
is noted: missingsegments.py.

    JOURNAL/reserve   allocated, so that there is room for that; freed when the journal is full

Rule: a segment is noted only when the recorder's checkpoint covers everything that the journal has of it. So recovery
never writes an older page over a newer one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from enum import StrEnum

from mirrortool import files
from mirrortool.address import pages_per_segment, split_at
from mirrortool.errors import NoSpaceError
from mirrortool.journal import format as layout
from mirrortool.journal.directory import Journal
from mirrortool.operation import CommitKind
from mirrortool.record.capture import Capture
from mirrortool.record.journalside import JournalSide
from mirrortool.record.missingsegments import NotedSegments
from mirrortool.record.volumeside import VolumeSide
from mirrortool.record.writeback import Generation
from mirrortool.store.parallelread import PieceReader

RESERVE_BYTES_DEFAULT = 16 << 20


class WhenFull(StrEnum):
    """What the recorder does with changes when the journal has no room."""

    STOP = "stop"
    DETACH = "detach"


class Detachment:
    """Whether the volumes change without the journal, and how far it has caught up.

    Everything but `detach`, `attach` and the properties is used under the journal's lock.
    """

    def __init__(
        self, path: Journal, journal: JournalSide, volumes: VolumeSide, capture: Capture, *, reserve: int | None
    ) -> None:
        """Begin as the recorder before left it.

        Args:
            reserve: bytes to keep allocated; None if volumes are never detached, unless they are already.
        """
        self._path, self._journal, self._volumes, self._capture = path, journal, volumes, capture
        self._may = reserve is not None
        self._reserve = RESERVE_BYTES_DEFAULT if reserve is None else reserve
        self._step = pages_per_segment(path.page_size)
        self._noted = NotedSegments(path) if files.exists(path.detached_path) else None
        self._is_ending = False  # whether there is room again, so that changes elsewhere are journaled
        journal.may_commit = self._noted is None
        if self._may and not self._noted:
            _keep_reserve(path, self._reserve)

    @property
    def segment_count(self) -> int:
        """How many segments the journal lacks; -1 if it is not detached. From any thread."""
        noted = self._noted  # once: the journal may catch up meanwhile
        return len(noted.segments) if noted else -1

    @property
    def is_allowed(self) -> bool:
        """Whether `detach` may be called: asked for, or begun by an earlier recorder."""
        return self._may or self._noted is not None

    def leaves_out(self, pages: Collection[int]) -> bool:
        """Whether a change of these pages is made without the journal.

        Where some must and others must not, the journal first catches up with the former.

        Raises:
            NoSpaceError: it has no room for that.
        """
        if self._noted is None or not self._is_ending:
            return self._noted is not None
        segments = _segments_of(pages, self._step)
        lacking = segments & self._noted.segments
        if len(lacking) == len(segments):
            return True
        for segment in lacking:
            self._capture_segment(segment)
        return False

    def note(self, pages: range) -> None:
        """Note what `change` is about to change in several steps: the list is written once, not at each."""
        assert self._noted
        self._noted.add(_segments_of(pages, self._step))

    def change(self, content: Generation) -> None:
        """Change pages of the volumes that are left out of the journal."""
        assert self._noted
        self._noted.add(_segments_of(content, self._step))
        self._capture.touch(content)
        self._volumes.write_now(content)

    def sync(self) -> None:
        """A flush, for what changed without the journal."""
        if self._noted:
            self._volumes.sync()

    def detach(self) -> None:
        """From now on changes are made without the journal.

        Raises:
            HostError: there is not even room to note that, or a volume fails.
        """
        files.remove(_reserve_path(self._path))
        with self._volumes.drained():
            self._noted = self._noted or NotedSegments(self._path)
            self._is_ending = self._journal.may_commit = False

    def attach(self) -> bool:
        """Journal what the noted segments have, if there is room by now; whether nothing is left to journal.

        Raises:
            HostError: the journal or a volume fails.
        """
        if not self._noted:
            return True
        if files.free_bytes(self._path.path) < 2 * self._reserve + layout.FILE_BYTES_TARGET:
            return False
        with self._journal.lock:
            self._is_ending = True
            waiting = sorted(self._noted.segments)
        try:
            self._catch_up(waiting)
        except NoSpaceError:
            self.detach()
            return False
        return self._end()

    def _catch_up(self, segments: Iterable[int]) -> None:
        for segment in segments:
            if self._volumes.waiting.is_due:  # this may be the thread that others wait for to write back
                self._volumes.write_back()
            with self._journal.lock:
                self._volumes.require_serving()
                self._capture_segment(segment)

    def _capture_segment(self, segment: int) -> None:
        """Journal what differs in a segment; its changes are journaled from then on. Under the journal's lock."""
        assert self._noted
        if segment not in self._noted.segments:
            return
        reader = PieceReader(self._volumes.store, self._path.page_size)
        volumes = self._volumes.store.volumes
        volume = volumes.find(segment * self._step)
        # What is captured is never redone, so a power cut must not remove from the volume what the journal has of it.
        self._volumes.sync()
        if volume:
            end = min((segment + 1) * self._step, volumes.first_page(volume) + volumes.page_count(volume))
            for page, count in split_at(segment * self._step, end - segment * self._step, len(reader.views)):
                reader.read(page, count)
                data = bytes(reader.buffer[: count * self._path.page_size])
                self._capture.capture(page, data, reader.sums(count))
            self._journal.sync()
        self._noted.remove(segment)

    def _end(self) -> bool:
        with self._journal.lock:
            if self._noted is None or self._noted.segments or not self._is_ending:
                return False
            noted, self._noted = self._noted, None
            self._journal.may_commit = True
            self._journal.try_commit(CommitKind.INTERVAL)
        self._volumes.write_back(checkpoint=True)
        with self._journal.lock:
            if self._noted is None:  # else a client found no room again, and its segments are noted there
                noted.end()
        if self._may:
            _keep_reserve(self._path, self._reserve)
        return True


def _segments_of(pages: Iterable[int], step: int) -> set[int]:
    """The segments, of `step` pages each, that pages lie in; a range may be long."""
    if isinstance(pages, range):
        return set(range(pages.start // step, (pages.stop - 1) // step + 1))
    return {page // step for page in pages}


def _keep_reserve(journal: Journal, length: int) -> None:
    """Allocate the reserve, as far as there is room."""
    with suppress(NoSpaceError), files.open_file(_reserve_path(journal), write=True, create=True) as file:
        file.truncate(length)
        file.reserve(0, length)


def _reserve_path(journal: Journal) -> str:
    return files.join(journal.path, "reserve")
