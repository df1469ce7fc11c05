"""Makes a base: replays a journal up to a commit into a temporary mirror, and writes the pages of that.

Rule: never from a live volume: from an older base, if there is one, and the journal files after it.
Rule: every page is compared with its sum on the way, and all of them with the state sum of the commit.
Rule: what a crash leaves, in `bases/work`, is removed by the next call; it holds nothing back, and nothing reads it.

`bases/lock` is held meanwhile, so that nothing is pruned that is being read.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby

from mirrortool import files, pathowner
from mirrortool.address import split_at
from mirrortool.checksum import SUM_BYTES
from mirrortool.errors import AccessError, CorruptJournalError, NoSpaceError
from mirrortool.journal.bases.basefile import BaseHeader
from mirrortool.journal.bases.basewriter import BaseWriter
from mirrortool.journal.bases.listing import (
    base_lsns,
    base_path,
    link_elsewhere,
    lock_bases,
    open_base,
    place_elsewhere,
    remove_unfinished,
    work_path,
)
from mirrortool.journal.commits import is_state
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import require_commit
from mirrortool.lifecycle import Opened
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.directory import Mirror, empty_checkpoint
from mirrortool.mirror.openvolumes import open_store
from mirrortool.replay.forecast import pages_held, pages_to_write
from mirrortool.replay.replayoptions import MAX_BYTES, ReplayOptions
from mirrortool.replay.session import Replay
from mirrortool.replay.startposition import choose_start
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.store.parallelread import PieceReader
from mirrortool.wording import exact_bytes

_SPARE_BYTES = 64 << 20


class BaseCancelled(Exception):
    """The making of a base was told to stop."""


@dataclass(frozen=True, slots=True)
class BaseProgress:
    """How far it is.

    Attributes:
        lsn: replayed up to here; then the pages are written.
        pages: written to the base.
        pages_total: to be written, at most; 0 until that begins.
        replayed_bytes: of pages, for the mirror from which it is made.
    """

    lsn: Lsn
    pages: int
    pages_total: int = 0
    replayed_bytes: int = 0


class MakeBase:
    """The making of one base; `with` removes what was needed only for that.

    Attributes:
        commit: what the base is of.
        exists: whether it has a base already; then nothing is made.
    """

    def __init__(
        self, path: str, until: Until | None = None, *, max_bytes: int = MAX_BYTES, to: str | None = None
    ) -> None:
        """Open everything, and check that there is room.

        Args:
            until: the last commit at or before it that is a state of the primary; by default the newest.
            max_bytes: the volumes may not be larger together.
            to: the directory for the base, which may be in another file system; the journal keeps a link.
                By default it is in the journal.
        Raises:
            AccessError: `to` is not a directory, or that of a journal, copy or mirror.
            LockedError: another base is being made, or the journal is being pruned.
            NotComparableError: there is no such commit.
            NoSpaceError: there may not be room for it; nothing was written.
        """
        self.journal = open_finished(path)
        self.commit = require_commit(self.journal, until, is_state)
        self._max_bytes, self._to = max_bytes, to
        if to is not None:
            _check_directory(to)
        self._progress = BaseProgress(NO_LSN, 0)
        self._is_cancelled = False
        self._replay: Replay | None = None
        with ExitStack() as opening:
            opening.enter_context(lock_bases(self.journal))
            remove_unfinished(self.journal)
            self.exists = self.commit.lsn in base_lsns(self.journal)
            if not self.exists:
                self._check_room()
                opening.callback(remove_unfinished, self.journal)
                self._work = self._make_work()
                options = ReplayOptions(
                    until=Until(lsn=self.commit.lsn), read_back=False, max_bytes=max_bytes, is_scratch=True
                )
                self._replay = Replay(path, self._work, options)
                opening.push(self._replay)
            self._opened = Opened(opening.pop_all(), "making of a base", path)

    def __enter__(self) -> MakeBase:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def run(self) -> int:
        """Make it; returns the bytes of its file.

        Raises:
            BaseCancelled: after `cancel`.
            JournalError: the journal is damaged before the commit.
            HostError: it could not be written; there is no base then.
        """
        self._opened.require()
        if self._replay is None:
            with open_base(self.journal, self.commit.lsn) as base:
                return base.size
        checkpoint = self._replay.run()
        if checkpoint.position != self.commit.position:
            raise BaseCancelled
        mirror = self._replay.mirror
        self._replay.__exit__()  # the locks of its volumes with it
        with closing(open_store(mirror, write=False)) as store, closing(mirror.open_sums(write=False)) as sums:
            return self._write(mirror, store, sums)

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True
        if self._replay:
            self._replay.cancel()

    def statistics(self) -> BaseProgress:
        """How far it is; from any thread."""
        if self._replay is None:
            return replace(self._progress, lsn=self.commit.lsn)
        replayed = self._replay.statistics().progress
        return replace(self._progress, lsn=replayed.lsn, replayed_bytes=replayed.payload_bytes)

    def _write(self, mirror: Mirror, store: Store, sums: PageSums) -> int:
        header = BaseHeader(
            self.journal.page_size,
            self.journal.uuid,
            self.journal.lineage,
            self.journal.epoch,
            self.commit.position,
            self.commit.time_ns,
            self.commit.state_sum,
            self.commit.kind,
            tuple(mirror.volumes),
        )
        reader = PieceReader(store, self.journal.page_size)
        spans = [(mirror.volumes.first_page(volume), mirror.volumes.page_count(volume)) for volume in mirror.volumes]
        total = sum(length for span in spans for _, length in sums.nonzero_runs(*span))
        self._progress = replace(self._progress, pages_total=total)
        place, lsn = base_path(self.journal, self.commit.lsn), self.commit.lsn
        elsewhere = None if self._to is None else place_elsewhere(self.journal, self._to, lsn)
        with BaseWriter(self.journal, place, header, elsewhere=elsewhere) as writer:
            for span in spans:
                for run, length in sums.nonzero_runs(*span):
                    for piece in split_at(run, length, len(reader.views)):
                        self._write_piece(writer, reader, sums, *piece)
            return writer.finish()

    def _write_piece(self, writer: BaseWriter, reader: PieceReader, sums: PageSums, page: int, count: int) -> None:
        if self._is_cancelled:
            raise BaseCancelled
        reader.read(page, count)
        known = sums.read(page, count)
        if reader.sums(count) != known:
            raise CorruptJournalError(
                f"the work for a base has another page than the journal at {page:#x} to {page + count - 1:#x}",
                where=self._work,
                remedy="check the device and the memory, then run the command again",
            )
        size, zero = self.journal.page_size, bytes(SUM_BYTES)
        places = groupby(range(count), lambda place: known[place * SUM_BYTES : (place + 1) * SUM_BYTES] != zero)
        for is_written, members in places:
            run = list(members)
            if is_written:
                first, end = run[0], run[-1] + 1
                data = bytes(reader.buffer[first * size : end * size])
                writer.add(page + first, data, known[first * SUM_BYTES : end * SUM_BYTES])
                self._progress = replace(self._progress, pages=self._progress.pages + end - first)

    def _make_work(self) -> str:
        """Where the temporary mirror is made; in `to`, once a link in the journal names it."""
        if self._to is None:
            return work_path(self.journal)
        work = place_elsewhere(self.journal, self._to, None)
        link_elsewhere(work, work_path(self.journal))
        return work

    def _check_room(self) -> None:
        """There is room for the mirror, for the base, and some more: the journal may be recorded meanwhile."""
        start = choose_start(self.journal, empty_checkpoint(self.journal), self.commit.lsn)
        where = self._to or self.journal.path
        free = files.free_bytes(where) - _SPARE_BYTES
        lsn, twice = self.commit.lsn, 2 * self.journal.page_size
        if twice * pages_to_write(self.journal, start, lsn) <= free:
            return
        needed = twice * pages_held(self.journal, lsn)  # reads more, and may find that less will do
        if needed > free:
            raise NoSpaceError(
                f"a base of LSN {self.commit.lsn} needs {exact_bytes(needed + _SPARE_BYTES)} meanwhile",
                where=where,
                remedy="make room, or give --to a directory in another file system",
            )


def _check_directory(path: str) -> None:
    """A base can be made in this directory.

    Raises:
        AccessError: it is not a directory, or that of a journal, copy or mirror.
    """
    if not files.is_directory(path):
        raise AccessError("no directory here", where=path, remedy="check the path, and whether it is mounted")
    pathowner.check_free(files.join(path, "base"))
