"""The channel to a server: its socket, and the only code of the NBD client that sends and receives.

During the handshake one thread uses it, and all calls together last no longer than the handshake may. After that any
thread sends, one at a time, and one receives.

TLS is done in memory, between the socket and the callers: OpenSSL allows one thread at a time in a connection, and a
receiver that waits in it would keep every sender out. What TLS itself wants to say, such as the answer to a change of
keys, goes out before what is sent next.

What fails raises an OSError, which TimeoutError and ssl.SSLError are kinds of.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Sequence

from mirrortool import clock
from mirrortool.nbd.channel import EndOfStreamError
from mirrortool.sockets.addresses import Address, UnixAddress

BUFFERS_MAX = 1000
"""Of one send; the kernel takes 1,024 (IOV_MAX)."""
_TLS_BYTES = 256 << 10
_RECEIVE_BYTES = 256 << 10
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_TIMEVAL = struct.Struct("@ll")


class ClientChannel:
    """A connection with a server, which may turn into one under TLS."""

    def __init__(self, address: Address, seconds: float) -> None:
        """Connect.

        Args:
            seconds: for connecting and the handshake together.
        Raises:
            OSError: nothing answers there.
        """
        self._deadline = clock.monotonic() + seconds
        self._tls: ssl.SSLObject | None = None
        # Protects _tls and its two buffers; held for one operation in memory, and inside the sender's lock.
        self._tls_lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._socket = _connect(address, seconds)

    @property
    def is_encrypted(self) -> bool:
        return self._tls is not None

    def start_tls(self, context: ssl.SSLContext, hostname: str | None) -> None:
        """Turn into a connection under TLS; what is received next must be of its handshake."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        while True:
            self._keep_to_deadline()
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_outgoing()
                if not self._receive_incoming():
                    raise EndOfStreamError from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._send_outgoing()  # the alert, which tells the server why
                raise
            else:
                self._send_outgoing()
                return

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes; that was checked against a limit.

        Raises:
            EndOfStreamError: the server has ended the connection before.
        """
        data = bytearray(length)
        view = memoryview(data)
        while len(view):
            self._keep_to_deadline()
            got = self.receive_into(view)
            if not got:
                raise EndOfStreamError
            view = view[got:]
        return bytes(data)

    def receive_into(self, view: memoryview) -> int:
        """Put what has arrived, or else what comes next, at the start of `view`; 0 when the server has ended.

        Raises:
            TimeoutError: nothing comes.
        """
        if self._tls is None:
            return self._receive_plain(view)
        while True:
            with self._tls_lock:
                try:
                    data = self._tls.read(len(view))
                    view[: len(data)] = data
                    return len(data)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
            self._receive_incoming()

    def send(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send all of them, BUFFERS_MAX at most; blocks while the server does not read.

        Raises:
            TimeoutError: it does not for long.
        """
        if self._tls is not None:
            self._send_encrypted(buffers)
            return
        try:
            sent = self._socket.sendmsg(buffers)
            left = sum(map(len, buffers)) - sent
            if left:
                self._socket.sendall(b"".join(buffers)[-left:])
        except BlockingIOError:
            raise TimeoutError from None

    def no_deadline(self, idle_seconds: float, send_seconds: float) -> None:
        """The handshake is over: from now on `receive_into` raises TimeoutError after `idle_seconds` without a byte."""
        self._socket.settimeout(None)
        for option, seconds in ((socket.SO_RCVTIMEO, idle_seconds), (socket.SO_SNDTIMEO, send_seconds)):
            value = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(send_seconds * 1000))

    def finish_sending(self) -> None:
        """From any thread: the server hears that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """From any thread: every call that blocks ends, and every later one fails."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _send_encrypted(self, buffers: Sequence[bytes | memoryview]) -> None:
        view = memoryview(b"".join(buffers))
        while len(view):
            with self._tls_lock:
                assert self._tls is not None
                self._tls.write(view[:_TLS_BYTES])
            self._send_outgoing()
            view = view[_TLS_BYTES:]

    def _send_outgoing(self) -> None:
        with self._tls_lock:
            data = self._outgoing.read()
        if not data:
            return
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            raise TimeoutError from None

    def _receive_incoming(self) -> bool:
        """Give TLS what has arrived; whether that is anything but the end."""
        data = bytearray(_RECEIVE_BYTES)
        got = self._receive_plain(memoryview(data))
        with self._tls_lock:
            if got:
                self._incoming.write(memoryview(data)[:got])
            else:
                self._incoming.write_eof()
        return got > 0

    def _receive_plain(self, view: memoryview) -> int:
        try:
            return self._socket.recv_into(view)
        except BlockingIOError:
            raise TimeoutError from None

    def _keep_to_deadline(self) -> None:
        remaining = self._deadline - clock.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)


def _connect(address: Address, seconds: float) -> socket.socket:
    if isinstance(address, UnixAddress):
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(seconds)
            connected.connect(address.path)
        except BaseException:
            connected.close()
            raise
        return connected
    connected = socket.create_connection((address.host, address.port), seconds)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected
