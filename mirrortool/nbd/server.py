"""The NBD server: serves exports to clients, on sockets in the file system and on TCP.

A thread for each address accepts, a thread for each client serves it: a client that is slow, silent or dead blocks
only its own. At most `max_connections` have an export, and share `max_memory` (memorybudget.py); a client that has
shown its certificate and asks for an export counts as one of them. A client that is still in the handshake keeps no
other out: of `max_handshakes` the oldest is closed when a further one comes; it had more time than all others. The hot
path is in transmission.py, the rules of the protocol in protocol.py and negotiation.py.

Stopping: no more clients are accepted; each request that has arrived whole is done and answered; a client that then
still hangs, in a send or in the handshake, is cut off. Every thread is joined, in bounded time.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mirrortool import accounts, clock
from mirrortool.errors import UsageError
from mirrortool.nbd.channel import Channel, EndOfStreamError
from mirrortool.nbd.connection import Connection
from mirrortool.nbd.export import Export
from mirrortool.nbd.memorybudget import Budget, Share, default_bytes
from mirrortool.nbd.negotiation import ExportTable, Security
from mirrortool.nbd.protocol import NAME_BYTES_MAX
from mirrortool.nbd.serverevents import Events
from mirrortool.nbd.statistics import Counters, ServerStatistics, summed
from mirrortool.sockets.addresses import Address, UnixAddress, parse_address
from mirrortool.sockets.listener import Listener, SocketAccess
from mirrortool.wording import counted

CONNECTIONS_MAX_DEFAULT = 64
HANDSHAKES_MAX_DEFAULT = 64
HANDSHAKE_SECONDS_DEFAULT = 10.0
GRACE_SECONDS_DEFAULT = 5.0
_ABORT_SECONDS = 5.0
_EVICTION_SECONDS = 1.0
_PAUSE_SECONDS = 0.2


def check_endpoints(addresses: Iterable[str | Address], *, has_tls: bool, insecure: bool) -> list[Address]:
    """The addresses, where a server with or without TLS may listen at them.

    Raises:
        UsageError: one is not valid, or would be TCP without TLS.
    """
    parsed = [parse_address(each) if isinstance(each, str) else each for each in addresses]
    if not has_tls and not insecure and not all(isinstance(each, UnixAddress) for each in parsed):
        raise UsageError(
            "TCP without TLS can be read and written by anybody", remedy="give --tls-certificates, or --insecure"
        )
    return parsed


class Server:
    """A server of exports; a context manager that listens inside its block."""

    def __init__(
        self,
        exports: Sequence[Export],
        addresses: Sequence[str | Address],
        *,
        tls: ssl.SSLContext | None = None,
        insecure: bool = False,
        max_connections: int = CONNECTIONS_MAX_DEFAULT,
        max_memory: int | None = None,
        max_handshakes: int = HANDSHAKES_MAX_DEFAULT,
        handshake_seconds: float = HANDSHAKE_SECONDS_DEFAULT,
        socket_mode: int = 0o600,
        socket_group: str | None = None,
        on_event: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            addresses: `unix:PATH` or `tcp:HOST:PORT`, or what parse_address made of them.
            tls: what tls.server_context gives. TCP then requires TLS; a local socket offers it.
            insecure: serve TCP without TLS, to anybody.
            max_connections: clients that have an export at a time; a further one gets an error when it asks for one.
            max_memory: bytes that they use together; see memorybudget.default_bytes.
            max_handshakes: clients at a time that have none yet.
            handshake_seconds: the limit for all of a client's handshake.
            socket_mode, socket_group: the access to a socket in the file system; the group by name or number.
            on_event: told, on any thread, a line for people that says what went wrong; at most one of a kind in 10 s.
        Raises:
            UsageError: an address is not valid, there is no such group, TCP would be without TLS, exports have bad or
                equal names, or the memory is too small for the connections.
        """
        self._addresses = check_endpoints(addresses, has_tls=bool(tls), insecure=insecure)
        _check_names(exports)
        self._exports = ExportTable(exports)
        self._tls = tls
        self._max_connections = max_connections
        self._budget = Budget(default_bytes(max_connections) if max_memory is None else max_memory, max_connections)
        self._max_handshakes = max_handshakes
        self._handshake_seconds = handshake_seconds
        group = None if socket_group is None else accounts.group_number(socket_group)
        self._access = SocketAccess(socket_mode, group)
        self._events = Events(on_event)
        self._listeners: list[Listener] = []
        self._accepting: list[threading.Thread] = []
        # Set once, by stop; every thread checks it.
        self._stopping = threading.Event()
        # Protects what follows; held for a few statements, and only the budget's lock is acquired under it.
        self._lock = threading.Lock()
        # Each client's thread. An accepting thread adds it, it removes itself; at most max_connections,
        # max_handshakes, and one more of each accepting thread. Once the accepting threads are joined nothing is
        # added, so stop sees all that remain.
        self._connections: dict[Connection, threading.Thread] = {}
        # Those that have no export yet, the oldest first. Each adds itself when its thread has begun, and removes
        # itself when it enters; one that was removed by another must end.
        self._greeted: dict[Connection, threading.Thread] = {}
        self._ended = {export.name: Counters() for export in exports}
        self._total = 0
        self._refused = 0

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the port that the system chose."""
        return tuple(listener.address for listener in self._listeners)

    def start(self) -> None:
        """Listen at every address, or at none.

        Raises:
            LockedError: another server answers at an address.
            UsageError, HostError: the server cannot listen there.
        """
        try:
            for address in self._addresses:
                self._listeners.append(Listener(address, self._access))
        except BaseException:
            self._close_listeners()
            raise
        for listener in self._listeners:
            thread = threading.Thread(
                target=self._accept, args=(listener,), name=f"nbd {listener.address}", daemon=True
            )
            self._accepting.append(thread)
            thread.start()

    def stop(self, grace_seconds: float = GRACE_SECONDS_DEFAULT) -> None:
        """Let requests that have arrived finish and be answered, then close everything. May be called again.

        Args:
            grace_seconds: how long that may take before connections are cut off.
        """
        self._stopping.set()
        self._close_listeners()
        with self._lock:
            left = dict(self._connections)
        for connection in left:
            connection.finish_reading()
        _join(left.values(), grace_seconds)
        for connection in left:
            connection.abort()
        _join(left.values(), _ABORT_SECONDS)
        stuck = sum(thread.is_alive() for thread in left.values())
        if stuck:
            self._events.tell("stuck", f"{counted(stuck, 'client')} could not be ended: their exports do not return")

    def statistics(self) -> ServerStatistics:
        """What was done since the start."""
        with self._lock:
            connections = list(self._connections)
            greeted = len(self._greeted)
            ended = {name: replace(counters) for name, counters in self._ended.items()}
            total, refused = self._total, self._refused
        rows = []
        for export in self._exports:
            serving = [each.counters for each in connections if each.export is export]
            rows.append(summed(export.name, len(serving), [ended[export.name], *serving]))
        memory = self._budget.use()
        return ServerStatistics(
            len(connections), total, refused, tuple(rows), greeted, memory.bytes_used, memory.bytes_max,
            memory.refused_loans,
        )  # fmt: skip

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.stop()
        for thread in self._accepting:
            thread.join()
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: Listener) -> None:
        """Accept clients until the listener stops."""
        security = Security(self._tls, is_required=self._tls is not None and not listener.is_local)
        while not self._stopping.is_set():
            try:
                accepted = listener.accept()
            except OSError as error:  # such as no descriptors: other clients may free some
                self._events.tell("accept", f"cannot accept a client: {error}")
                self._stopping.wait(_PAUSE_SECONDS)
                continue
            if accepted is None:
                return
            try:
                self._admit(*accepted, security)
            except Exception as error:  # such as no threads; the client is closed, the next one may be served
                self._events.tell("accept", f"cannot serve a client: {error}")

    def _admit(self, connected: socket.socket, peer: str, security: Security) -> None:
        """Give a client its thread."""
        try:
            self._make_room()
            channel = Channel(connected, self._handshake_seconds)
            connection = Connection(channel, peer, self._events, self._enter)
            thread = threading.Thread(target=self._serve, args=(connection, security), name=f"nbd {peer}", daemon=True)
            with self._lock:
                self._total += 1
                self._connections[connection] = thread
            try:
                thread.start()
            except BaseException:
                self._forget(connection)
                raise
        except BaseException:
            connected.close()
            raise

    def _make_room(self) -> None:
        """If `max_handshakes` clients are in the handshake, end the oldest."""
        with self._lock:
            if len(self._greeted) < self._max_handshakes:
                return
            oldest = next(iter(self._greeted))
            thread = self._greeted.pop(oldest)
            self._refused += 1
        oldest.abort()
        thread.join(_EVICTION_SECONDS)
        self._events.tell(
            "handshakes",
            f"client {oldest.peer} was closed: of {self._max_handshakes} that asked for no export it was the oldest",
        )

    def _serve(self, connection: Connection, security: Security) -> None:
        with self._lock:
            self._greeted[connection] = threading.current_thread()
        try:
            connection.run(self._exports, security, self._stopping.is_set)
        finally:
            self._forget(connection)

    def _enter(self, connection: Connection) -> Share | None:
        """A client asks for an export: gives it a share of the memory, unless `max_connections` clients have one.

        Raises:
            EndOfStreamError: it was ended to make room for another.
        """
        with self._lock:
            if connection not in self._greeted:
                raise EndOfStreamError
            share = self._budget.share()
            if share:
                del self._greeted[connection]
                return share
            self._refused += 1
        self._events.tell(
            "full", f"client {connection.peer} was refused: {self._max_connections} are connected already"
        )
        return None

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            del self._connections[connection]
            self._greeted.pop(connection, None)
            if connection.export:
                self._ended[connection.export.name].add(connection.counters)


def _check_names(exports: Sequence[Export]) -> None:
    names = [export.name for export in exports]
    if len(set(names)) != len(names):
        raise UsageError("two exports have the same name")
    if any("\0" in name or len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX for name in names):
        raise UsageError(f"an export's name has at most {NAME_BYTES_MAX} bytes, none of them 0")


def _join(threads: Iterable[threading.Thread], seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
