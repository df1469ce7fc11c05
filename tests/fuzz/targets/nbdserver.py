"""What a client of the NBD server sends: handshake and transmission, over a socket that is not one.

The first byte says how the server is set up, and in what pieces the bytes come. Buffers are small here, so that short
inputs fill them. Every reply is parsed.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator

from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.nbd import buffers, transmission
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.channel import Channel
from mirrortool.nbd.connection import Connection
from mirrortool.nbd.memorybudget import Budget, Share
from mirrortool.nbd.negotiation import ExportTable, Security
from mirrortool.nbd.protocol import Command, CommandFlag, Option
from tests.fakes.memory_export import MemoryExport
from tests.fuzz import sealing
from tests.nbd.wire import encode_info_request, encode_meta_request, encode_option, encode_request, write

MODULES = (
    "mirrortool.nbd.protocol", "mirrortool.nbd.negotiation", "mirrortool.nbd.transmission", "mirrortool.nbd.buffers",
    "mirrortool.nbd.connection",
)  # fmt: skip
SIZE = 24 << 10
BYTES_MAX = 2400
_SLOW_BYTES, _QUICK_BYTES = 60, 400
"""So many bytes come in small pieces, so that a long input does not take long."""
TOKENS = (
    nbd.OPTION_MAGIC, struct.pack(">I", nbd.REQUEST_MAGIC), b"base:allocation", b"base:", b"disk",
    struct.pack(">I", 3), struct.pack(">HH", 0, 1),
)  # fmt: skip
GREETING = nbd.CLIENT_FLAGS.pack(3)


class BugError(Exception):
    """The server told of a bug of its own."""


class NotASocket:
    """Gives what a client sent, in pieces, and keeps what the server answers."""

    family = socket.AF_UNIX

    def __init__(self, data: bytes, piece: int) -> None:
        self._data, self._at, self._piece = memoryview(data), 0, piece
        self.sent: list[bytes] = []

    def recv_into(self, view: memoryview, _length: int = 0, flags: int = 0) -> int:
        piece = self._piece if self._at < _SLOW_BYTES else _QUICK_BYTES
        wanted = len(view) if flags & socket.MSG_WAITALL else min(len(view), piece)
        data = self._data[self._at : self._at + wanted]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def settimeout(self, _seconds: float | None) -> None:
        return

    def close(self) -> None:
        return


class LimitedExport(MemoryExport):
    """Checks that the server asks for nothing outside; some places of it fail."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset >= 0 and offset + len(buffer) <= self.size
        if offset == 0x1111:
            raise InputOutputError("broken")
        super().read_into(offset, buffer)

    def change(self, changes: object) -> None:
        self.calls.clear()
        if any(each.offset == 0x1111 for each in changes):  # type: ignore[attr-defined]
            raise NoSpaceError("full")
        super().change(changes)  # type: ignore[arg-type]


class SmallShare(Share):
    """Borrows for one large request in two."""

    def borrow(self, length: int) -> bool:
        return length % 2 == 0


def _shrink() -> None:
    """Buffers and pieces that a short input fills."""
    buffers.INBOX_BYTES = 2048
    buffers.WAITED_BYTES_MAX = transmission.WAITED_BYTES_MAX = 512
    buffers.OUTBOX_BYTES = 4096
    buffers.OUTBOX_BYTES_KEPT_MAX = 8192
    transmission.READ_PIECE_BYTES, transmission.WRITE_PIECE_BYTES = 2048, 1024


_SIZES = (
    buffers.INBOX_BYTES, buffers.WAITED_BYTES_MAX, buffers.OUTBOX_BYTES, buffers.OUTBOX_BYTES_KEPT_MAX,
    transmission.READ_PIECE_BYTES, transmission.WRITE_PIECE_BYTES,
)  # fmt: skip


def _restore() -> None:
    (
        buffers.INBOX_BYTES, buffers.WAITED_BYTES_MAX, buffers.OUTBOX_BYTES, buffers.OUTBOX_BYTES_KEPT_MAX,
        transmission.READ_PIECE_BYTES, transmission.WRITE_PIECE_BYTES,
    ) = _SIZES  # fmt: skip
    transmission.WAITED_BYTES_MAX = buffers.WAITED_BYTES_MAX


class Told:
    """Events of the server; one of a bug is a finding."""

    def __init__(self) -> None:
        self.bug = ""

    def tell(self, kind: str, text: str) -> None:
        if kind == "bug":
            self.bug = text


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    way = data[0]
    exports = [LimitedExport(SIZE, read_only=bool(way & 1), zeroes_fast=not way & 2)]
    if way & 4:
        exports.append(LimitedExport(100, "other"))
    piece = (1 << 16, 1, 7, 300)[way >> 3 & 3]
    wire, told = NotASocket(data[1:], piece), Told()
    budget = Budget(1 << 30, 1)
    _shrink()
    try:
        share = SmallShare(budget)
        served = Connection(Channel(wire, 60.0), "client", told, lambda _: share)  # type: ignore[arg-type]
        served.run(ExportTable(exports), Security(None, bool(way & 32)), lambda: False)
    finally:
        _restore()
    if told.bug:
        raise BugError(told.bug)
    _parse(b"".join(wire.sent), served)


def _parse(sent: bytes, served: Connection) -> None:
    """What the server said is a greeting, replies to options, and then replies to requests."""
    assert sent.startswith(nbd.encode_greeting())
    at = nbd.GREETING.size
    while sent[at : at + 8] == struct.pack(">Q", nbd.OPTION_REPLY_MAGIC):
        length = nbd.OPTION_REPLY.unpack_from(sent, at)[3]
        at += nbd.OPTION_REPLY.size + length
    assert at <= len(sent)
    if served.export is None or at == len(sent):
        assert at == len(sent)
        return
    chunk = struct.pack(">I", nbd.CHUNK_MAGIC)
    if chunk in sent[at : at + 4]:  # structured: all of the rest is chunks and simple replies
        while at < len(sent):
            if sent[at : at + 4] == chunk:
                at += nbd.CHUNK.size + nbd.CHUNK.unpack_from(sent, at)[4]
            else:
                assert nbd.SIMPLE_REPLY.unpack_from(sent, at)[0] == nbd.SIMPLE_REPLY_MAGIC
                at += nbd.SIMPLE_REPLY.size
        assert at == len(sent)


def _to_transmission(*options: bytes) -> bytes:
    return GREETING + b"".join(options) + encode_option(Option.GO, encode_info_request("disk", [1, 2, 3]))


def _structured() -> bytes:
    contexts = encode_meta_request("disk", ["base:allocation"])
    return _to_transmission(
        encode_option(Option.STRUCTURED_REPLY), encode_option(Option.LIST_META_CONTEXT, contexts),
        encode_option(Option.SET_META_CONTEXT, contexts),
    )  # fmt: skip


def requests() -> bytes:
    """One of each."""
    return b"".join(
        [
            write(1, 0, b"x" * 300), write(2, 4096, b"y" * 1500, CommandFlag.FUA), write(3, 8192, b"z" * 600),
            encode_request(Command.READ, 4, 0, 600), encode_request(Command.READ, 5, 0, 5000),
            encode_request(Command.READ, 6, 1, 4001, flags=CommandFlag.DF), encode_request(Command.FLUSH, 7),
            encode_request(Command.TRIM, 8, 0, 4096), encode_request(Command.CACHE, 9, 0, 100),
            encode_request(Command.WRITE_ZEROES, 10, 512, 512, flags=CommandFlag.NO_HOLE),
            encode_request(Command.BLOCK_STATUS, 11, 0, SIZE, flags=CommandFlag.REQ_ONE),
            encode_request(Command.READ, 12, 0x1111, 5), write(13, 0x1111, b"a" * 5),
            encode_request(Command.WRITE_ZEROES, 14, 0, 8, flags=CommandFlag.FAST_ZERO),
            encode_request(Command.DISC, 15),
        ]
    )  # fmt: skip


def seeds() -> Iterator[bytes]:
    for way in (0, 3, 8, 24):
        yield bytes([way]) + _to_transmission() + requests()
        yield bytes([way]) + _structured() + requests()
    yield b"\4" + GREETING + encode_option(Option.LIST) + encode_option(Option.INFO, encode_info_request("other", []))
    yield b"\0" + nbd.CLIENT_FLAGS.pack(1) + encode_option(Option.EXPORT_NAME, b"disk") + requests()
    yield b"\x20" + GREETING + encode_option(Option.STARTTLS) + encode_option(Option.ABORT)
    yield b"\0" + GREETING + encode_option(99, b"x" * 70000)[:2000]


def _parts(data: bytes) -> list[bytes]:
    """What a client says, cut where options and requests begin."""
    parts, at = [data[:5]], 5
    while at < len(data):
        ends = [end for magic in TOKENS[:2] if (end := data.find(magic, at + 1)) > 0]
        end = min(ends, default=len(data))
        parts.append(data[at:end])
        at = end
    return parts


def _sealed(part: bytes, chance: random.Random) -> bytes:
    """Lengths that are those of what follows, and ranges that lie inside."""
    if part[:8] == nbd.OPTION_MAGIC and len(part) >= nbd.OPTION.size and not sealing.is_left_wrong(chance):
        option = int.from_bytes(part[8:12], "big")
        data = part[nbd.OPTION.size :]
        return encode_option(option % 12 if chance.randrange(8) else option, data)
    if part[:4] == TOKENS[1] and len(part) >= nbd.REQUEST.size and not sealing.is_left_wrong(chance):
        magic, flags, command, cookie, offset, length = nbd.REQUEST.unpack_from(part)
        data = part[nbd.REQUEST.size :]
        if chance.randrange(8) == 0:
            flags, offset = chance.randrange(32), chance.choice((0, 1, SIZE, offset + 1, chance.randrange(SIZE)))
            length = chance.choice((0, 1, length + 1, SIZE - offset if offset <= SIZE else 1, chance.randrange(SIZE)))
        if chance.randrange(8):
            command, flags = command % 9, flags & 31
        if chance.randrange(8):
            offset %= SIZE + 1
        if command == Command.WRITE and chance.randrange(8):
            length = len(data)
        elif chance.randrange(4):
            length %= SIZE
        return nbd.REQUEST.pack(magic, flags, command, cookie, offset & (1 << 64) - 1, length & (1 << 32) - 1) + data
    return part


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    mutated = bytes(libfuzzer(data, bytes_max))
    first, *others = _parts(mutated)
    if len(first) == 5 and chance.randrange(16):
        first = first[:1] + nbd.CLIENT_FLAGS.pack(first[4] & 3)
    return first + b"".join(_sealed(part, chance) for part in sealing.shuffled(others, chance))
