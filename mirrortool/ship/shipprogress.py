"""The progress of a shipment: written by the thread that ships, read by any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mirrortool import clock
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN, Lsn


class FilePlace(NamedTuple):
    """A place in a journal file: the file by its first LSN, and an offset in bytes; 0, 0 for none."""

    file_first_lsn: Lsn
    offset: int


@dataclass(frozen=True, slots=True)
class ShipStatistics:
    """A shipment at one moment.

    Attributes:
        state: `connecting`, `sending`, `up to date`, `waiting` for the receiver's disk, `away` between two attempts to
            connect, or `ended`.
        problem: what is wrong now; empty if nothing is.
        slot: its name; empty without one.
        acknowledged: the end of what the copy durably has; None while that is not known.
        acknowledged_time_ns: of the frame that ends there; 0 while that is not known.
        acknowledged_at: the place in the journal files where it ends.
        sent_lsn, head_lsn: the newest sent, and the newest that the journal is known to have.
        bytes_sent: of journal files and bases, in this and earlier connections.
        bytes_left: of the journal files that are known.
        rate: bytes a second, in this connection.
        connections: how many were made.
        away_since_ns: when the newest outage began; 0 if there is none.
        retry_seconds: until the next attempt to connect, where that is known.
    """

    destination: str
    state: str
    problem: str
    slot: str
    acknowledged: Position | None
    acknowledged_time_ns: int
    acknowledged_at: FilePlace
    sent_lsn: Lsn
    head_lsn: Lsn
    bytes_sent: int
    bytes_left: int
    rate: float
    connections: int
    away_since_ns: int = 0
    retry_seconds: float | None = None


class ShipProgress:
    """The values of the statistics. Written by one thread; a reader may see one value older than another."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self.on_registered: Callable[[], None] = lambda: None
        self.state = "connecting"
        self.problem = self.slot = ""
        self.acknowledged: Position | None = None
        self.acknowledged_time_ns = 0
        self.acknowledged_at = FilePlace(NO_LSN, 0)
        self.sent_lsn = self.head_lsn = 0
        self.bytes_sent = self.bytes_left = 0
        self.connections = 0
        self.away_since_ns = 0
        self._retry_at: float | None = None
        self._begun_at, self._begun_bytes = clock.monotonic(), 0

    def connected(self) -> None:
        """A connection was made: its rate counts from now on."""
        self.connections += 1
        self.state, self.problem = "sending", ""
        self.away_since_ns, self._retry_at = 0, None
        self._begun_at, self._begun_bytes = clock.monotonic(), self.bytes_sent

    def away(self, problem: str) -> None:
        """The connection is lost, or could not be made."""
        self.state, self.problem = "away", problem
        self.away_since_ns = self.away_since_ns or clock.now_ns()

    def retries_in(self, seconds: float) -> None:
        """The next attempt comes then."""
        self._retry_at = clock.monotonic() + seconds

    def sent(self, lsn: Lsn, length: int) -> None:
        """`length` bytes were sent, up to this LSN."""
        self.sent_lsn = lsn
        self.head_lsn = max(self.head_lsn, lsn)
        self.bytes_sent += length
        self.bytes_left = max(0, self.bytes_left - length)

    def statistics(self) -> ShipStatistics:
        """The statistics now; from any thread."""
        seconds = max(clock.monotonic() - self._begun_at, 0.001)
        retry_at = self._retry_at
        return ShipStatistics(
            self._destination,
            self.state,
            self.problem,
            self.slot,
            self.acknowledged,
            self.acknowledged_time_ns,
            self.acknowledged_at,
            Lsn(self.sent_lsn),
            Lsn(self.head_lsn),
            self.bytes_sent,
            self.bytes_left,
            (self.bytes_sent - self._begun_bytes) / seconds,
            self.connections,
            self.away_since_ns,
            None if retry_at is None else max(0.0, retry_at - clock.monotonic()),
        )
