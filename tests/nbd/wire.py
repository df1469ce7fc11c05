"""The client's side of the protocol, for tests: encoders of what a client says, decoders of what it hears, a client."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import (
    Command,
    Info,
    Option,
    Reply,
)
from mirrortool.nbd.server import Server
from mirrortool.sockets.addresses import TcpAddress
from tests.fakes.memory_export import MemoryExport

TIMEOUT_SECONDS = 20.0
SIZE = 1 << 20
"""Of the export that most tests here serve."""


def encode_option(option: int, data: bytes = b"") -> bytes:
    return nbd.OPTION.pack(nbd.OPTION_MAGIC, option, len(data)) + data


def encode_info_request(name: str, wanted: Sequence[int]) -> bytes:
    encoded = name.encode()
    return struct.pack(f">I{len(encoded)}sH{len(wanted)}H", len(encoded), encoded, len(wanted), *wanted)


def encode_meta_request(name: str, queries: Sequence[str]) -> bytes:
    parts = [text.encode() for text in (name, *queries)]
    first, *rest = [struct.pack(">I", len(part)) + part for part in parts]
    return first + struct.pack(">I", len(rest)) + b"".join(rest)


def encode_request(
    command: int, cookie: int = 1, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes = b""
) -> bytes:
    return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, struct.pack(">Q", cookie), offset, length) + data


def write(cookie: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return encode_request(Command.WRITE, cookie, offset, len(data), flags=flags, data=data)


class Answer(NamedTuple):
    """A simple reply, or a chunk: `kind` is None, or the chunk's type; `payload` is the chunk's."""

    cookie: int
    error: int
    kind: int | None = None
    is_last: bool = True
    payload: bytes = b""


class Client:
    """Speaks to a server over one connection; every wait is bounded."""

    def __init__(self, address: Any, *, greet: bool = True) -> None:
        if isinstance(address, TcpAddress):
            self.socket = socket.create_connection((address.host, address.port), TIMEOUT_SECONDS)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_SECONDS)
            self.socket.connect(address.path)
        if greet:
            assert self.receive(18) == nbd.encode_greeting()
            self.send(nbd.CLIENT_FLAGS.pack(3))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        data = memoryview(bytearray(length))
        received = 0
        while received < length:
            more = self.socket.recv_into(data[received:])
            if not more:
                raise EOFError
            received += more
        return bytes(data)

    def is_closed(self) -> bool:
        """Whether the server ends the connection, with nothing more to say."""
        with contextlib.suppress(ConnectionError):
            return self.socket.recv(1) == b""
        return True

    def reply(self) -> tuple[int, int, bytes]:
        """Option, reply type, data."""
        magic, option, reply, length = nbd.OPTION_REPLY.unpack(self.receive(20))
        assert magic == nbd.OPTION_REPLY_MAGIC
        return option, reply, self.receive(length)

    def ask(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """All replies to an option, as (reply type, data); the last is ACK or an error."""
        self.send(encode_option(option, data))
        replies = []
        while True:
            answered, reply, payload = self.reply()
            assert answered == option
            replies.append((reply, payload))
            if reply == Reply.ACK or reply & 1 << 31:
                return replies

    def go(self, name: str = "", *, structured: bool = False, contexts: bool = False) -> tuple[int, int]:
        """Enter transmission; size and transmission flags."""
        if structured:
            assert self.ask(Option.STRUCTURED_REPLY) == [(Reply.ACK, b"")]
        if contexts:
            replies = self.ask(Option.SET_META_CONTEXT, encode_meta_request(name, ["base:allocation"]))
            assert [reply for reply, _ in replies] == [Reply.META_CONTEXT, Reply.ACK]
        replies = self.ask(Option.GO, encode_info_request(name, []))
        assert replies[-1][0] == Reply.ACK, replies
        kind, size, flags = struct.unpack(">HQH", replies[0][1])
        assert kind == Info.EXPORT
        return size, flags

    def answer(self) -> Answer:
        """The next simple reply, without the data of a READ, or chunk."""
        (magic,) = struct.unpack(">I", self.receive(4))
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", self.receive(12))
            return Answer(cookie, error)
        assert magic == nbd.CHUNK_MAGIC
        flags, kind, cookie, length = struct.unpack(">HHQI", self.receive(16))
        payload = self.receive(length)
        error = struct.unpack(">I", payload[:4])[0] if kind & 1 << 15 else 0
        return Answer(cookie, error, kind, bool(flags & nbd.CHUNK_DONE), payload)

    def do(self, command: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b"") -> Answer:
        """One request, and the first answer to it."""
        self.send(encode_request(command, 7, offset, length, flags=flags, data=data))
        answer = self.answer()
        assert answer.cookie == 7
        return answer


@contextlib.contextmanager
def serving(path: Any, *exports: MemoryExport, events: list[str] | None = None, **options: Any) -> Iterator[Server]:
    """A server of these exports at a socket in the directory."""
    told = [] if events is None else events
    with Server(exports or [MemoryExport()], [f"unix:{path}/s"], on_event=told.append, **options) as server:
        yield server
    bugs = [line for line in told if "unexpected" in line or "could not be ended" in line]
    assert not bugs, bugs
