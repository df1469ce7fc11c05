"""The head of a journal: its newest frame and commit, and how much there is, found cheaply again and again.

Reads headers only, from where it was; where newer files were begun since, it continues in the newest. Makes nothing
durable: for display, not to act on. A torn tail or damage ends what it sees.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import JournalError
from mirrortool.journal.commits import kind_of, may_rest
from mirrortool.journal.directory import Journal
from mirrortool.journal.format import FILE_HEADER
from mirrortool.journal.overdue import Heard
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import CommitKind

AHEAD_SECONDS = 60.0
"""If a journal's times are further ahead of this host's clock, the primary's clock was wrong, or this host's is."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a journal at one moment.

    Attributes:
        lsn, time_ns: of the newest frame; 0 if there is none.
        commit_lsn, commit_time_ns: of the newest commit that is not a heartbeat, which would only repeat it; 0 if there
            is none.
        frame_bytes: of all frames after the place where the watch began, as they are stored.
        may_rest: see overdue.Heard.
        is_heartbeat: whether the newest frame is one: then everything before it is committed.
    """

    lsn: Lsn
    time_ns: int
    commit_lsn: Lsn
    commit_time_ns: int
    frame_bytes: int
    may_rest: bool = False
    is_heartbeat: bool = False

    @property
    def heard(self) -> Heard:
        """The newest frame, to tell whether another is due."""
        return Heard(self.lsn, self.time_ns, self.may_rest)


class HeadWatch:
    """Watches the head of one journal; `with` closes its reader. Used by one thread at a time."""

    def __init__(self, journal: Journal, first_lsn: Lsn = NO_LSN, offset: int = FILE_HEADER.size) -> None:
        """Look at nothing yet.

        Args:
            first_lsn, offset: the place after which bytes count: a file, and an offset in it. By default all do.
        """
        self._journal = journal
        self._reader: JournalReader | None = None
        self._commit = NO_LSN, 0
        self._may_rest = self._is_heartbeat = False
        self._counted_first_lsn = first_lsn  # the file of which each look counts the bytes anew
        self._counted_from = offset
        self._counted_bytes = 0  # in files before it

    def __enter__(self) -> HeadWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the reader; the next look takes another."""
        if self._reader:
            self._reader.close()
            self._reader = None

    def look(self) -> Head:
        """The head now."""
        starts = self._journal.file_starts()
        with suppress(JournalError):
            self._read(starts)
        reader = self._reader
        lsn, time_ns = (reader.position.lsn, reader.time_ns) if reader else (NO_LSN, 0)
        return Head(lsn, time_ns, *self._commit, self._count(starts), self._may_rest, self._is_heartbeat)

    def _read(self, starts: list[Lsn]) -> None:
        if self._reader is None:
            self._find_commit(starts)
        elif sum(start > self._reader.file_first_lsn for start in starts) > 1:
            self._find_commit([start for start in starts if start >= self._reader.file_first_lsn])
        self._read_on()

    def _find_commit(self, starts: list[Lsn]) -> None:
        """The newest of these files that has a commit not known yet, and then those after it."""
        known = self._commit
        for start in reversed(starts):
            with suppress(JournalError):
                self.close()
                self._open(start)
                self._read_on()
            if self._commit != known:
                return

    def _open(self, first_lsn: Lsn) -> None:
        self._reader = JournalReader(self._journal, first_lsn=first_lsn, headers_only=True)

    def _read_on(self) -> None:
        while self._reader and (header := self._reader.next_header()):
            kind = kind_of(self._reader, header)
            self._may_rest = may_rest(header, kind)
            self._is_heartbeat = kind == CommitKind.HEARTBEAT
            if header.is_commit and not self._is_heartbeat:
                self._commit = header.position.lsn, header.time_ns

    def _count(self, starts: list[Lsn]) -> int:
        """Bytes of frames after the place where the watch began; a file counts for good once there is a later one."""
        following = [start for start in starts if start > self._counted_first_lsn]
        for start in following:
            self._counted_bytes += self._bytes_now()
            self._counted_first_lsn, self._counted_from = start, FILE_HEADER.size
        return self._counted_bytes + self._bytes_now()

    def _bytes_now(self) -> int:
        facts = self._counted_first_lsn and files.find_facts(self._journal.file_path(self._counted_first_lsn))
        return max(0, facts.size - self._counted_from) if facts else 0


def ahead_seconds(heard_ns: int, now_ns: int) -> float | None:
    """How far the times of a journal are ahead of this host's clock; None if no further than clocks may differ.

    They stand still until that is over, as they never run backwards: ages that are taken from them mean nothing.

    Args:
        heard_ns: the time of the newest frame.
    """
    seconds = (heard_ns - now_ns) / 1e9
    return seconds if seconds > AHEAD_SECONDS else None
