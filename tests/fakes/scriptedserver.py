"""An NBD server that does what a test says, right or wrong: a script is called for each connection.

Everything that it waits for is bounded, and a script's own failure is the test's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import Command, Info, Option, Reply, TransmissionFlag
from tests.fakes.waiting import PATIENCE_SECONDS

SIZE = 1 << 20
CAN = TransmissionFlag
USUAL = CAN.HAS_FLAGS | CAN.SEND_FLUSH | CAN.SEND_WRITE_ZEROES
CONTEXT = 7


class Asked(NamedTuple):
    """A request as it came."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    data: bytes = b""


class Peer:
    """One client, as the script sees it.

    Attributes:
        number: 0 for the first connection.
    """

    def __init__(self, connected: socket.socket, number: int) -> None:
        connected.settimeout(PATIENCE_SECONDS)
        self.socket = connected
        self.number = number

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def option(self) -> tuple[int, bytes]:
        magic, option, length = nbd.OPTION.unpack(self.receive(nbd.OPTION.size))
        assert magic == nbd.OPTION_MAGIC
        return option, self.receive(length)

    def greet(self, greeting: bytes | None = None) -> None:
        self.send(nbd.encode_greeting() if greeting is None else greeting)
        assert self.receive(4) == nbd.CLIENT_FLAGS.pack(3)

    def reply(self, option: int, reply: int = Reply.ACK, data: bytes = b"") -> None:
        self.send(nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, option, reply, len(data)) + data)

    def handshake(
        self,
        size: int = SIZE,
        flags: int = USUAL,
        *,
        structured: bool = True,
        contexts: bool = True,
        infos: tuple[bytes, ...] = (),
    ) -> None:
        """Grant what is asked, up to the export."""
        self.greet()
        while True:
            option, _ = self.option()
            if option == Option.GO:
                self.reply(option, Reply.INFO, struct.pack(">HQH", Info.EXPORT, size, flags))
                for info in infos:
                    self.reply(option, Reply.INFO, info)
                self.reply(option)
                return
            if option == Option.SET_META_CONTEXT and contexts:
                self.reply(option, Reply.META_CONTEXT, struct.pack(">I", CONTEXT) + b"base:allocation")
            is_granted = option != Option.STRUCTURED_REPLY or structured
            self.reply(option, Reply.ACK if is_granted else Reply.ERR_UNSUP)

    def request(self) -> Asked:
        magic, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", self.receive(nbd.REQUEST.size))
        assert magic == nbd.REQUEST_MAGIC
        data = self.receive(length) if command == Command.WRITE else b""
        return Asked(command, flags, cookie, offset, length, data)

    def succeed(self, cookie: int, error: int = 0) -> None:
        """A simple reply."""
        self.send(struct.pack(">IIQ", nbd.SIMPLE_REPLY_MAGIC, error, cookie))

    def chunk(self, cookie: int, kind: int, payload: bytes = b"", *, last: bool = True) -> None:
        self.send(struct.pack(">IHHQI", nbd.CHUNK_MAGIC, last, kind, cookie, len(payload)) + payload)

    def wait_for_end(self) -> None:
        """Until the client has ended the connection."""
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(1 << 16):
                pass


Script = Callable[[Peer], None]


@contextlib.contextmanager
def scripted(directory: Path, script: Script) -> Iterator[str]:
    """The URI of a server whose clients each get the script, in threads of their own."""
    path = str(directory / "scripted")
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)

    def serve(peer: Peer) -> None:
        try:
            with peer.socket:
                script(peer)
        except (EOFError, ConnectionError):
            pass
        except BaseException as error:
            failures.append(error)

    def accept() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            connections.append(connected)
            thread = threading.Thread(target=serve, args=(Peer(connected, len(threads)),), daemon=True)
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"nbd+unix:///disk?socket={path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(PATIENCE_SECONDS)
        listener.close()
        for connected in connections:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        (directory / "scripted").unlink()
    assert failures == []
