"""A client of an NBD server: reads and writes one export over a few connections, many requests in flight on each.

Rule: more than one connection only where the server says that they see each other's writes and flushes (MULTI_CONN);
and even then a flush goes out on each.
Rule: a connection that is lost fails every call from then on, and nothing is sent again: what the server has of it is
not known. A new client begins at what is known to be durable.
Rule: a client that may write begins only when every connection of one before, of this process, is over
(clientconnection.py): the server has answered or ended it. Of another process that is not known.
Rule: zeros without data where the server takes them, else written; never TRIM, which may leave anything. Only what the
server says reads as zeros may be skipped; a hole alone may hold anything.
Bound: CONNECTIONS of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from mirrortool import clock
from mirrortool.errors import (
    AccessError,
    ChangedOutsideError,
    HostError,
    InputOutputError,
    MirrortoolError,
    NoSpaceError,
    ServerError,
)
from mirrortool.files import Buffer
from mirrortool.nbd.channel import EndOfStreamError
from mirrortool.nbd.clientchannel import ClientChannel
from mirrortool.nbd.clientcodec import ExportFacts
from mirrortool.nbd.clientconnection import OVER_SECONDS, Call, ClientConnection, each_at_most, why_lost
from mirrortool.nbd.clienthandshake import ClientHandshake
from mirrortool.nbd.clientreplies import NbdRequest
from mirrortool.nbd.protocol import Command, Error, ProtocolError, TransmissionFlag
from mirrortool.nbd.tls import client_context
from mirrortool.nbd.uri import NbdUri
from mirrortool.wording import byte_count

CONNECTIONS = 4
CONNECT_SECONDS = 30.0
"""For connecting and the handshake."""
FURTHER_SECONDS = 5.0
"""For those of each connection after the first, which are a help only: a server may allow fewer."""
REQUEST_BYTES_MAX = 1 << 20
ZERO_BYTES_MAX = 32 << 20
"""Of one WRITE_ZEROES: a server that has to write them is done before it is taken for dead."""
STATUS_BYTES_MAX = 1 << 30
_ZEROS = memoryview(bytes(REQUEST_BYTES_MAX))

# Connections that were given up before they were over, by where they lead; _left_lock protects it, and is held for one
# look at it. An entry goes when its connection is over, at the latest with the process.
_left: dict[object, list[ClientConnection]] = {}
_left_lock = threading.Lock()

WriteRun = tuple[int, Sequence[Buffer], int]
"""Offset, buffers, and their length together, in bytes."""


class NbdClient:
    """An export that is open. Every method may be called from several threads at once; `close` from one.

    Attributes:
        uri: where it is.
        facts: of the export.
    """

    def __init__(self, uri: NbdUri, *, write: bool, connections: int = CONNECTIONS) -> None:
        """Connect.

        Args:
            write: whether it is to change the export, so that no connection before it may be open any more.
            connections: this many at most.
        Raises:
            ServerError: nothing answers there, or no NBD server does, or it has not ended a connection before this one.
            UnusableVolumeError: there is no such export.
        """
        self.uri = uri
        self._context = (
            client_context(uri.certificates, checks_hostname=uri.hostname is not None) if uri.is_tls else None
        )
        if write:
            _wait_until_over(uri)
        first = self._connect(CONNECT_SECONDS)
        self._connections = [first]
        self.facts: ExportFacts = first.agreed.facts
        try:
            if self.facts.can(TransmissionFlag.CAN_MULTI_CONN):
                self._connect_more(connections)
        except BaseException:
            self.close()
            raise

    @property
    def tells_zeros(self) -> bool:
        """Whether the server says what reads as zeros."""
        return self._connections[0].agreed.context_id is not None

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers with what follows `offset`, all of it inside the export.

        Raises:
            HostError: it cannot be read.
        """
        pieces = list(self._pieces_to_read(offset, buffers))
        call = Call(len(pieces))
        self._do(call, [NbdRequest(Command.READ, at, len(part), call.answered, buffer=part) for at, part in pieces])

    def write(self, runs: Iterable[WriteRun]) -> None:
        """Write runs of bytes; returns when the server has answered for all of them.

        Raises:
            HostError: some of it may be written.
        """
        pieces = [piece for offset, buffers, _ in runs for piece in self._pieces_to_write(offset, buffers)]
        call = Call(len(pieces))
        requests = [NbdRequest(Command.WRITE, at, length, call.answered, data=parts) for at, parts, length in pieces]
        self._do(call, requests)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros; as `write`."""
        if not self.facts.can(TransmissionFlag.SEND_WRITE_ZEROES):
            self._write_zeros(offset, length)
            return
        most = ZERO_BYTES_MAX // self.facts.block_min * self.facts.block_min
        ranges = list(each_at_most(offset, length, most))
        call = Call(len(ranges))
        self._do(call, [NbdRequest(Command.WRITE_ZEROES, at, size, call.answered) for at, size in ranges])

    def flush(self) -> None:
        """Make durable what `write` and `zero` have returned for; nothing where the server has no flush.

        Raises:
            HostError: it may not be durable, nor may it ever be.
        """
        if not self.facts.can(TransmissionFlag.SEND_FLUSH):
            return
        begun = []
        for connection in self._connections:
            call = Call(1)
            connection.begin([NbdRequest(Command.FLUSH, 0, 0, call.answered)], call)
            begun.append((connection, call))
        for connection, call in begun:
            connection.finish(call)
            self._check(call)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """Runs that cover the range in order: (bytes, whether the server says that they read as zeros)."""
        end = offset + length
        while offset < end:
            found = self._status(offset, min(STATUS_BYTES_MAX, end - offset))
            for size, is_zero in found:
                yield size, is_zero
                offset += size

    def close(self) -> None:
        """End the connections. Those that are not over yet stay, so that the next client waits for them."""
        until = clock.monotonic() + OVER_SECONDS
        for connection in self._connections:
            if not connection.close(until):
                with _left_lock:
                    _left.setdefault(self.uri.place, []).append(connection)
        self._connections = []

    def _connect_more(self, most: int) -> None:
        while len(self._connections) < most:
            try:
                connection = self._connect(FURTHER_SECONDS)
            except HostError:
                return  # it allows fewer
            self._connections.append(connection)
            if connection.agreed != self._connections[0].agreed:
                raise ChangedOutsideError(
                    "the server describes the export to each connection differently",
                    where=self.uri,
                    remedy="see what was restarted there, and run the command again",
                )

    def _connect(self, seconds: float) -> ClientConnection:
        channel = None
        try:
            channel = ClientChannel(self.uri.address, seconds)
            agreed = ClientHandshake(channel, self.uri, self._context).run()
            connection = ClientConnection(channel, agreed, self.uri)
            connection.start()
            return connection
        except (OSError, EndOfStreamError, ProtocolError) as error:
            if channel:
                channel.close()
            raise self._why_unreachable(error, is_reached=channel is not None) from error
        except BaseException:
            if channel:
                channel.close()
            raise

    def _why_unreachable(self, error: BaseException, *, is_reached: bool) -> ServerError:
        what, remedy = why_lost(error)
        if not is_reached:
            reason = (
                "nothing answers" if isinstance(error, TimeoutError) else what.removeprefix("the connection failed: ")
            )
            what, remedy = f"the NBD server cannot be reached: {reason}", "check that it runs, and the URI"
        return ServerError(what, where=self.uri, remedy=remedy)

    def _pieces_to_read(self, offset: int, buffers: Sequence[memoryview]) -> Iterator[tuple[int, memoryview]]:
        most = self._payload_max
        for buffer in buffers:
            for start in range(0, len(buffer), most):
                yield offset + start, buffer[start : start + most]
            offset += len(buffer)

    def _pieces_to_write(self, offset: int, buffers: Sequence[Buffer]) -> Iterator[tuple[int, list[memoryview], int]]:
        """What follows `offset` in pieces that a request may have: offset, buffers, and their length together."""
        most, parts, waiting = self._payload_max, list[memoryview](), 0
        for buffer in buffers:
            view = memoryview(buffer)
            while len(view):
                part = view[: most - waiting]
                parts.append(part)
                waiting += len(part)
                view = view[len(part) :]
                if waiting == most:
                    yield offset, parts, waiting
                    offset, parts, waiting = offset + waiting, [], 0
        if waiting:
            yield offset, parts, waiting

    @property
    def _payload_max(self) -> int:
        return min(
            REQUEST_BYTES_MAX // self.facts.block_min * self.facts.block_min or self.facts.block_min,
            self.facts.payload_max,
        )

    def _write_zeros(self, offset: int, length: int) -> None:
        most = min(self._payload_max, len(_ZEROS))
        ranges = list(each_at_most(offset, length, most))
        call = Call(len(ranges))
        self._do(
            call, [NbdRequest(Command.WRITE, at, size, call.answered, data=[_ZEROS[:size]]) for at, size in ranges]
        )

    def _status(self, offset: int, length: int) -> list[tuple[int, bool]]:
        if not self.tells_zeros:
            return [(length, False)]
        call = Call(1)
        request = NbdRequest(Command.BLOCK_STATUS, offset, length, call.answered)
        self._do(call, [request])
        return request.extents

    def _do(self, call: Call, requests: Sequence[NbdRequest]) -> None:
        if requests:
            min(self._connections, key=lambda each: each.unanswered).call(requests, call)
            self._check(call)

    def _check(self, call: Call) -> None:
        if call.failed:
            raise self._why_refused(call.failed)

    def _why_refused(self, request: NbdRequest) -> MirrortoolError:
        what = f"the server refuses {request.command.name} of {byte_count(request.length)} at offset {request.offset}"
        said = f": {request.text}" if request.text else ""
        if request.error == Error.ENOSPC:
            return NoSpaceError(f"the server has no space left{said}", where=self.uri, remedy="free some space there")
        if request.error == Error.EPERM:
            return AccessError(f"{what}: not permitted{said}", where=self.uri, remedy="see the server's own log")
        if request.error == Error.ESHUTDOWN:
            return ServerError("the server is shutting down", where=self.uri, remedy="run the command again later")
        number = f" (error {request.error})"
        return InputOutputError(f"{what}{said}{number}", where=self.uri, remedy="see the server's own log")


def _wait_until_over(uri: NbdUri) -> None:
    """Wait until each connection before to this export is over.

    Raises:
        ServerError: one is not.
    """
    until = clock.monotonic() + OVER_SECONDS
    while True:
        with _left_lock:
            left = [each for each in _left.get(uri.place, []) if not each.is_over]
            over = [each for each in _left.pop(uri.place, []) if each not in left]
            if left:
                _left[uri.place] = left
        for each in over:
            each.abandon()
        if not left:
            return
        if clock.monotonic() > until:
            unanswered = sum(each.unanswered for each in left)
            raise ServerError(
                f"the server has neither answered nor ended a connection that was lost: it may still carry out "
                f"{unanswered} of its requests",
                where=uri,
                remedy="end that connection at the server, or restart it; then run the command again",
            )
        left[0].close(until)
