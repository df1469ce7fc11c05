"""The channel to a client: its socket, and the only code of the NBD front end that sends and receives.

One thread, the connection's, sends and receives; `finish_reading` and `abort` are for the thread that stops the server.
Until `no_deadline`, all calls together last no longer than the handshake may. What fails raises an OSError, which
TimeoutError and ssl.SSLError are kinds of.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from mirrortool import clock
from mirrortool.files import Buffer

_GOODBYE_SECONDS = 1.0
_SKIP_BYTES = 64 << 10
_POLL_SECONDS = 50e-6
# A peer that is gone without closing is found within two minutes; the thread that waits for it is free again.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class EndOfStreamError(Exception):
    """The client is gone, in the middle of a message or between two."""


class Channel:
    """A connection with a client, which may turn into one under TLS."""

    def __init__(self, connected: socket.socket, handshake_seconds: float) -> None:
        self._socket = connected
        self._is_quick = True
        self._deadline: float | None = clock.monotonic() + handshake_seconds
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket)

    def receive_into(self, view: memoryview) -> int:
        """Put what has arrived, or else what comes next, at the start of `view`; 0 when the client is gone."""
        if self._deadline is None and not self.is_encrypted:
            return self._receive_soon(view)
        self._keep_to_deadline()
        return self._socket.recv_into(view)

    def _receive_soon(self, view: memoryview) -> int:
        """Poll for a while before sleeping: a client that waits for each reply answers sooner than a sleeping thread
        wakes. One that was slow the last time is not polled, until it is quick again.
        """
        receive, began = self._socket.recv_into, clock.monotonic()
        if self._is_quick:
            until = began + _POLL_SECONDS
            while clock.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    return receive(view, 0, socket.MSG_DONTWAIT)
        got = receive(view)
        self._is_quick = clock.monotonic() - began < 2 * _POLL_SECONDS
        return got

    def receive_exactly(self, view: memoryview) -> None:
        """Fill `view`.

        Raises:
            EndOfStreamError: the client is gone before that.
        """
        # MSG_WAITALL: one call for 32 MiB where the socket allows it, instead of one for each 200 KiB.
        flags = socket.MSG_WAITALL if self._deadline is None and not self.is_encrypted else 0
        while len(view):
            self._keep_to_deadline()
            got = self._socket.recv_into(view, 0, flags)
            if not got:
                raise EndOfStreamError
            view = view[got:]

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes; that was checked against a limit."""
        data = bytearray(length)
        self.receive_exactly(memoryview(data))
        return bytes(data)

    def skip(self, length: int) -> None:
        """Receive `length` bytes and drop them."""
        view = memoryview(bytearray(min(length, _SKIP_BYTES)))
        while length:
            self.receive_exactly(view[:length])
            length -= min(length, len(view))

    def send(self, data: Buffer) -> None:
        """Send all of it; blocks while the client does not read."""
        self._keep_to_deadline()
        self._socket.sendall(data)

    def no_deadline(self) -> None:
        """The handshake is over: from now on a client may be silent for any time."""
        self._deadline = None
        self._socket.settimeout(None)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Turn into a connection under TLS.

        Nothing is buffered here, so what an attacker sent before in plain text becomes part of the TLS handshake, and
        makes it fail; it is never obeyed.
        """
        wrapped = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = wrapped
        self._keep_to_deadline()
        wrapped.do_handshake()

    def say_goodbye(self) -> None:
        """End TLS as the protocol wants it ended after DISC and ABORT; a client need not wait for that."""
        if isinstance(self._socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._socket.settimeout(_GOODBYE_SECONDS)
                self._socket.unwrap()

    def finish_reading(self) -> None:
        """From any thread: nothing more is received than what has arrived, while replies can still be sent."""
        self._shut(socket.SHUT_RD)

    def abort(self) -> None:
        """From any thread: every call that blocks ends, and every later one fails."""
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _shut(self, how: int) -> None:
        # Not SSLSocket.shutdown: it drops the encryption under the thread that uses it, which would continue in
        # plain text.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, how)

    def _keep_to_deadline(self) -> None:
        if self._deadline is not None:
            remaining = self._deadline - clock.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining)
