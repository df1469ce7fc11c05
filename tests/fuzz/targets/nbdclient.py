"""What an NBD server sends to our client: handshake, and replies to requests that are on their way.

The first byte says what is asked, and in what pieces the bytes come. A handshake that cannot be ends the input; after
one that is whole, what remains are replies to a fixed list of requests.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from mirrortool.errors import ServerError, UnusableVolumeError
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.channel import EndOfStreamError
from mirrortool.nbd.clienthandshake import ClientHandshake
from mirrortool.nbd.clientreplies import NbdRequest, ReplyReader
from mirrortool.nbd.protocol import (
    ChunkType,
    Command,
    Error,
    Info,
    Option,
    OptionError,
    ProtocolError,
    Reply,
    TransmissionFlag,
)
from mirrortool.nbd.uri import parse_uri
from tests.fuzz import sealing

MODULES = ("mirrortool.nbd.clientcodec", "mirrortool.nbd.clienthandshake", "mirrortool.nbd.clientreplies")
BYTES_MAX = 2400
CONTEXT = 1
URI = parse_uri("nbd+unix:///disk?socket=/s")
COMMANDS = (Command.READ, Command.BLOCK_STATUS, Command.WRITE, Command.READ, Command.FLUSH, Command.BLOCK_STATUS)
LENGTH = 64
TOKENS = (
    struct.pack(">Q", nbd.OPTION_REPLY_MAGIC), struct.pack(">I", nbd.SIMPLE_REPLY_MAGIC),
    struct.pack(">I", nbd.CHUNK_MAGIC), b"base:allocation", struct.pack(">HH", 1, ChunkType.OFFSET_DATA),
)  # fmt: skip
_FAILURES = (ProtocolError, ServerError, UnusableVolumeError, EndOfStreamError)


class NotAChannel:
    """Gives what a server sent; nothing of it goes to one."""

    is_encrypted = False

    def __init__(self, data: bytes) -> None:
        self.left = memoryview(data)

    def receive(self, length: int) -> bytes:
        assert length <= 1 << 16, "a length is checked before it is waited for"
        if length > len(self.left):
            raise EndOfStreamError
        found, self.left = bytes(self.left[:length]), self.left[length:]
        return found

    def send(self, buffers: object) -> None:
        return


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    channel = NotAChannel(data[1:])
    is_structured, context_id = bool(data[0] & 1), CONTEXT
    if data[0] & 2:
        try:
            agreed = ClientHandshake(channel, URI, None).run()  # type: ignore[arg-type]
        except _FAILURES:
            return
        assert 0 <= agreed.facts.size < 1 << 63
        assert 0 < agreed.facts.block_min <= agreed.facts.payload_max
        is_structured, context_id = agreed.is_structured, agreed.context_id or CONTEXT
    _read_replies(bytes(channel.left), (1, 7, 100, 1 << 16)[data[0] >> 2 & 3], is_structured, context_id)


def _read_replies(data: bytes, piece: int, is_structured: bool, context_id: int) -> None:
    reader = ReplyReader(is_structured=is_structured, context_id=context_id if is_structured else None)
    done: list[NbdRequest] = []
    for cookie, command in enumerate(COMMANDS, 1):
        buffer = memoryview(bytearray(LENGTH if command == Command.READ else 0))
        reader.unanswered[cookie] = NbdRequest(command, 4096, LENGTH, done.append, buffer=buffer)
    view = memoryview(data)
    try:
        while len(view):
            target = reader.target()
            size = min(len(view), len(target), piece)
            assert size
            target[:size] = view[:size]
            reader.received(size)
            view = view[size:]
    except ProtocolError:
        pass
    assert len(done) + len(reader.unanswered) == len(COMMANDS) and reader.answered == len(done)
    for request in done:
        if request.command == Command.BLOCK_STATUS and not request.error:
            assert 0 < sum(length for length, _ in request.extents) <= LENGTH


def _greeting() -> bytes:
    return nbd.encode_greeting()


def _acks(*options: Option) -> bytes:
    return b"".join(nbd.encode_option_reply(option, Reply.ACK) for option in options)


def _go(size: int = 1 << 20) -> bytes:
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
    infos = [
        nbd.encode_info_export(size, flags), nbd.encode_info_text(Info.NAME, "disk"),
        nbd.encode_info_text(Info.DESCRIPTION, "a disk"), nbd.encode_info_block_size(4096), b"\0\x63?",
    ]  # fmt: skip
    told = b"".join(nbd.encode_option_reply(Option.GO, Reply.INFO, info) for info in infos)
    return told + _acks(Option.GO)


def _contexts() -> bytes:
    told = nbd.encode_option_reply(
        Option.SET_META_CONTEXT, Reply.META_CONTEXT, nbd.encode_meta_context(CONTEXT, nbd.ALLOCATION_CONTEXT)
    )
    return told + _acks(Option.SET_META_CONTEXT)


def _handshake() -> bytes:
    return _greeting() + _acks(Option.STRUCTURED_REPLY) + _contexts() + _go()


def chunk(cookie: int, kind: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    return struct.pack(">IHHQI", nbd.CHUNK_MAGIC, last, kind, cookie, len(payload)) + payload


def structured_replies() -> bytes:
    """One of each kind."""
    first = struct.pack(">Q", 4096) + b"x" * 24
    second = struct.pack(">QI", 4096 + 24, LENGTH - 24)
    extents = struct.pack(">I6I", CONTEXT, 16, 0, 8, nbd.STATE_ZERO, 200, nbd.STATE_ZERO | nbd.STATE_HOLE)
    return b"".join(
        [
            chunk(1, ChunkType.OFFSET_DATA, first, last=False), chunk(3, ChunkType.NONE),
            chunk(1, ChunkType.OFFSET_HOLE, second), nbd.encode_successes([struct.pack(">Q", 5)]),
            nbd.encode_failure(struct.pack(">Q", 6), Error.EIO, "broken", structured=True),
            chunk(2, ChunkType.BLOCK_STATUS, extents),
            chunk(4, 0x8002, struct.pack(">IH", 5, 2) + b"no" + bytes(8), last=False), chunk(4, ChunkType.NONE),
        ]
    )  # fmt: skip


def simple_replies() -> bytes:
    return b"".join(
        [
            nbd.encode_successes([struct.pack(">Q", 3), struct.pack(">Q", 1)]), b"d" * LENGTH,
            nbd.encode_failure(struct.pack(">Q", 4), Error.EINVAL, "", structured=False),
        ]
    )  # fmt: skip


def seeds() -> Iterator[bytes]:
    for pieces in (0, 4, 8, 12):
        yield bytes([3 | pieces]) + _handshake() + structured_replies()
        yield bytes([1 | pieces]) + structured_replies()
        yield bytes([pieces]) + simple_replies()
    refused = nbd.encode_option_error(Option.STRUCTURED_REPLY, OptionError(Reply.ERR_UNSUP, "no"))
    yield b"\2" + _greeting() + refused + _go() + simple_replies()
    for reply in (Reply.ERR_UNKNOWN, Reply.ERR_TLS_REQD, Reply.ERR_POLICY, Reply.ERR_UNSUP, Reply.ERR_SHUTDOWN):
        refused = nbd.encode_option_error(Option.GO, OptionError(reply, "not you"))
        yield b"\2" + _greeting() + _acks(Option.STRUCTURED_REPLY, Option.SET_META_CONTEXT) + refused
    yield b"\2" + nbd.GREETING.pack(nbd.MAGIC, bytes(8), 0)


def _parts(data: bytes) -> list[bytes]:
    """What a server says, cut where replies begin."""
    parts, at = [], 0
    while at < len(data):
        ends = [end for magic in TOKENS[:3] if (end := data.find(magic, at + 1)) > 0]
        end = min(ends, default=len(data))
        parts.append(data[at:end])
        at = end
    return parts or [b"\0"]


def _sealed(part: bytes, chance: random.Random) -> bytes:
    """Lengths that are those of what follows, and cookies of what was asked."""
    if sealing.is_left_wrong(chance):
        return part
    if part[:8] == TOKENS[0] and len(part) >= nbd.OPTION_REPLY.size:
        magic, option, reply, _ = nbd.OPTION_REPLY.unpack_from(part)
        data = part[nbd.OPTION_REPLY.size :]
        return nbd.OPTION_REPLY.pack(magic, option, reply, len(data)) + data
    if part[:4] == TOKENS[2] and len(part) >= nbd.CHUNK.size:
        magic, flags, kind, cookie, _ = struct.unpack_from(">IHHQI", part)
        data = part[nbd.CHUNK.size :]
        if chance.randrange(8) == 0:
            kind = chance.choice((0, 1, 2, 5, 0x8001, 0x8002, kind))
        if chance.randrange(8) == 0 and len(data) >= 8:
            data = struct.pack(">Q", 4096 + chance.randrange(LENGTH)) + data[8:]
        return struct.pack(">IHHQI", magic, flags & 1, kind, cookie % 7, len(data)) + data
    return part


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    first, *others = _parts(bytes(libfuzzer(data, bytes_max)))
    if others and chance.randrange(8) == 0:
        others = sealing.shuffled(others, chance)
    return first + b"".join(_sealed(part, chance) for part in others)
