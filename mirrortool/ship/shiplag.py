"""The lag of destinations behind the journal, also while they cannot be reached: in operations, bytes and seconds.

Not here: what a mirror of the copy has applied; that is the mirror's own lag (replay/replaylag.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from mirrortool import clock, files
from mirrortool.errors import HostError
from mirrortool.journal.directory import Journal
from mirrortool.journal.newest import Head, HeadWatch
from mirrortool.journal.overdue import SilenceMeter
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.ship.shipprogress import ShipStatistics

LOOK_SECONDS = 1.0
"""The journal's head is looked at once in this time, at most."""


@dataclass(frozen=True, slots=True)
class ShipLag:
    """How far a destination is behind.

    Attributes:
        operations, bytes: of the journal, that it has not acknowledged; None while what it has is not known.
        seconds: the age of what it has; 0 if it has everything but heartbeats, None while that is not known. At least
            the silence of the primary, where its heartbeats are missing.
    """

    operations: int | None
    bytes: int | None
    seconds: float | None


class _FileSize(NamedTuple):
    """A journal file, by its first LSN, and its size in bytes."""

    first_lsn: Lsn
    size: int


class ShipLags:
    """Measures the lags of a journal's destinations; used by one thread. `with` closes its files."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._watch = HeadWatch(journal)
        self._listener = SilenceMeter(journal)
        self._head = Head(NO_LSN, 0, NO_LSN, 0, 0)
        self._sizes: list[_FileSize] = []
        self._looked_at = -math.inf

    def __enter__(self) -> ShipLags:
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.close()

    @property
    def head_lsn(self) -> Lsn:
        """LSN of the journal's newest frame, as of the newest call of `measure`."""
        return self._head.lsn

    def measure(self, found: Sequence[ShipStatistics]) -> list[ShipLag]:
        """The lags now, in the same order."""
        if clock.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = clock.monotonic()
            with suppress(HostError):  # the shipment itself says what is wrong
                self._look()
        return [self._lag(each) for each in found]

    def _look(self) -> None:
        self._head = self._watch.look()
        facts = [(start, files.find_facts(self._journal.file_path(start))) for start in self._journal.file_starts()]
        self._sizes = [_FileSize(start, found.size) for start, found in facts if found]

    def _lag(self, now: ShipStatistics) -> ShipLag:
        if now.acknowledged is None:
            return ShipLag(None, None, None)
        operations, now_ns = max(0, self._head.lsn - now.acknowledged.lsn), clock.now_ns()
        silence = self._listener.silent_seconds(self._head.heard, now_ns) or 0.0
        if not operations:
            return ShipLag(0, 0, silence)
        first_lsn, offset = now.acknowledged_at
        left = sum(each.size for each in self._sizes if each.first_lsn >= first_lsn) - offset
        since_ns = now.acknowledged_time_ns
        if self._lacks_heartbeats_only(now.acknowledged.lsn):
            return ShipLag(operations, max(0, left), silence)
        seconds = max(0, now_ns - since_ns) / 1e9 if since_ns else None
        return ShipLag(operations, max(0, left), None if seconds is None else max(seconds, silence))

    def _lacks_heartbeats_only(self, lsn: Lsn) -> bool:
        """Whether nothing but heartbeats follows this LSN; they are only appended where everything is committed."""
        return self._head.is_heartbeat and self._head.commit_lsn <= lsn
