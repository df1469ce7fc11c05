"""Statistics of a server: what it has done since it started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ExportStatistics:
    """Of one export, since the server started.

    Attributes:
        clients: connections that have it now.
        reads, writes, flushes: requests answered without an error; WRITE_ZEROES and TRIM are writes.
        bytes_read, bytes_written: of data that went through the socket, so zeros without data are not counted.
        errors: requests answered with an error.
    """

    name: str
    clients: int
    reads: int
    writes: int
    bytes_read: int
    bytes_written: int
    flushes: int
    errors: int


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Of a server.

    Attributes:
        connections, connections_total: now, and ever accepted.
        connections_refused: because there were too many.
        exports: each of them.
        handshakes: those of the connections that have no export yet.
        memory_bytes, memory_bytes_max: what all clients together have now, and may have.
        requests_in_pieces: large requests for which there was no memory, so that they were done piece by piece.
    """

    connections: int
    connections_total: int
    connections_refused: int
    exports: tuple[ExportStatistics, ...]
    handshakes: int
    memory_bytes: int
    memory_bytes_max: int
    requests_in_pieces: int


@dataclass(slots=True)
class Counters:
    """What one connection has done. Only its thread writes; a reader may see one number older than the next."""

    reads: int = 0
    writes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    flushes: int = 0
    errors: int = 0

    def add(self, other: Counters) -> None:
        """Count what another connection did, too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def summed(name: str, clients: int, counters: Iterable[Counters]) -> ExportStatistics:
    """The statistics of an export from the counters of its connections."""
    total = Counters()
    for each in counters:
        total.add(each)
    return ExportStatistics(
        name, clients, total.reads, total.writes, total.bytes_read, total.bytes_written, total.flushes, total.errors
    )
