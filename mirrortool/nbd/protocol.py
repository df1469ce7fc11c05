"""The NBD protocol: its tables, and the bytes of a server, without I/O; clientcodec.py has those of a client.

Source: doc/proto.md of the NBD project (github NetworkBlockDevice/nbd); its names are kept, without the prefix NBD_.
All numbers are big-endian.

Greeting, from the server                             Answer, from the client
    offset size field                                     offset size field
    0      8    4E 42 44 4D 41 47 49 43, "NBDMAGIC"       0      4    client flags: 1 fixed newstyle, 2 no zeroes
    8      8    49 48 41 56 45 4F 50 54, "IHAVEOPT"
    16     2    handshake flags: 1 fixed newstyle, 2 no zeroes

Option, from the client                               Reply to an option, from the server
    0      8    "IHAVEOPT"                                0      8    00 03 E8 89 04 55 65 A9
    8      4    option                                    8      4    option
    12     4    length of the data                        12     4    reply type; errors have bit 31 set
    16          data                                      16     4    length of the data
                                                          20          data; of an error, a text for people
Request, from the client                              Simple reply, from the server
    0      4    25 60 95 13                               0      4    67 44 66 98
    4      2    command flags                             4      4    error; 0 is success
    6      2    command                                   8      8    cookie
    8      8    cookie, returned as it came               16          data of a READ that succeeded
    16     8    offset, bytes
    24     4    length, bytes                         Chunk of a structured reply, from the server
    28          data of a WRITE                           0      4    66 8E 33 EF
                                                          4      2    flags: 1 the last chunk of this reply
                                                          6      2    chunk type; errors have bit 15 set
                                                          8      8    cookie
                                                          16     4    length of the payload
                                                          20          payload
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

GREETING = struct.Struct(">8s8sH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHH8sQI")
SIMPLE_REPLY = struct.Struct(">II8s")
CHUNK = struct.Struct(">IHH8sI")
DATA_CHUNK = struct.Struct(">IHH8sIQ")
assert (GREETING.size, OPTION.size, OPTION_REPLY.size) == (18, 16, 20)
assert (REQUEST.size, SIMPLE_REPLY.size, CHUNK.size, DATA_CHUNK.size) == (28, 16, 20, 28)

# Limits, checked before anything is allocated.
NAME_BYTES_MAX = 4096
"""Of any string; the protocol's own limit."""
OPTION_BYTES_MAX = 64 << 10
PAYLOAD_BYTES_MAX = 64 << 20
"""Of a WRITE or READ. TRIM, WRITE_ZEROES, CACHE and BLOCK_STATUS carry no payload and may name up to 2^32-1 bytes."""
PAYLOAD_BYTES_ADVISED = 32 << 20
"""Told to a client that asks: every server accepts this, and it leaves memory for others. Some clients do not ask."""
BLOCK_BYTES_PREFERRED_MIN = 4096
EXTENTS_MAX = 4096
"""Descriptors in a reply to BLOCK_STATUS; a client asks again for what follows."""


class HandshakeFlag(IntFlag):
    """Both of the greeting and of the client's answer."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    """What a client may ask for before it reads or writes."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    """What a server may reply to an option."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_TOO_BIG = 0x80000009


class Info(IntEnum):
    """What a client may want to know of an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Command(IntEnum):
    """What a client may ask of an export."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """How it is to be done."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ChunkType(IntEnum):
    """What a chunk of a structured reply holds."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001


class Error(IntEnum):
    """The only error numbers that the protocol knows, whatever the operating system calls them."""

    EPERM = 1
    EIO = 5
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


FLAGS_OF_COMMAND: dict[int, int] = {
    Command.READ: int(CommandFlag.FUA | CommandFlag.DF),
    Command.WRITE: int(CommandFlag.FUA),
    Command.FLUSH: int(CommandFlag.FUA),
    Command.TRIM: int(CommandFlag.FUA),
    Command.CACHE: int(CommandFlag.FUA),
    Command.WRITE_ZEROES: int(CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO),
    Command.BLOCK_STATUS: int(CommandFlag.FUA | CommandFlag.REQ_ONE),
}
"""FUA is allowed with every command, and has a meaning with those that change. Plain numbers: ~ of an IntFlag has
no bit that the flag does not name, so unknown ones would pass."""

CHUNK_DONE = 1
ALLOCATION_CONTEXT = "base:allocation"
ALLOCATION_CONTEXT_ID = 1
STATE_HOLE = 1
STATE_ZERO = 2

SUCCESS = SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, b"")[:8]
"""A simple reply without its cookie: what a reply to every change begins with."""


class ProtocolError(Exception):
    """The other side broke a rule in a way that cannot be answered. The connection ends; the text says why."""


class OptionError(Exception):
    """An option whose reply is an error.

    Attributes:
        reply: which one. The text is for people.
    """

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


class OptionHeader(NamedTuple):
    """What comes before the data of an option.

    Attributes:
        option: known or not.
        length: of the data, in bytes.
    """

    option: int
    length: int


def encode_greeting() -> bytes:
    """What a server says first."""
    return GREETING.pack(MAGIC, OPTION_MAGIC, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


def decode_client_flags(data: bytes) -> HandshakeFlag:
    """The client's answer to the greeting.

    Raises:
        ProtocolError: a flag that was not offered.
    """
    (flags,) = CLIENT_FLAGS.unpack(data)
    if flags & ~int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES):
        raise ProtocolError(f"client flags {flags:#x} were not offered")
    return HandshakeFlag(flags)


def decode_option(data: bytes) -> OptionHeader:
    """The header of an option.

    Raises:
        ProtocolError: it is not one.
    """
    magic, option, length = OPTION.unpack(data)
    if magic != OPTION_MAGIC:
        raise ProtocolError("not an NBD option")
    return OptionHeader(option, length)


def encode_option_reply(option: int, reply: Reply, data: bytes = b"") -> bytes:
    """A reply, which for some options is one of several."""
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def encode_option_error(option: int, error: OptionError) -> bytes:
    """The reply to an option that cannot be granted."""
    return encode_option_reply(option, error.reply, _text(str(error)))


def decode_name(data: bytes) -> str:
    """The name of an export.

    Raises:
        OptionError: it is too long, or not UTF-8.
    """
    if len(data) > NAME_BYTES_MAX:
        raise OptionError(Reply.ERR_TOO_BIG, f"a name has at most {NAME_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise OptionError(Reply.ERR_INVALID, "a name is UTF-8") from None


def decode_info_request(data: bytes) -> tuple[str, frozenset[int]]:
    """The data of INFO and GO: the name of an export, and what the client wants to know of it.

    Data: 4 bytes length of the name, the name, 2 bytes count, 2 bytes for each Info.

    Raises:
        OptionError: the data is not valid.
    """
    name, at = _counted(data, 0)
    (count,) = _unpack(">H", data, at)
    if len(data) != at + 2 + 2 * count:
        raise OptionError(Reply.ERR_INVALID, "the information requests do not add up")
    return decode_name(name), frozenset(_unpack(f">{count}H", data, at + 2))


def decode_meta_request(data: bytes) -> tuple[str, list[str]]:
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT: the name of an export, and queries.

    Data: 4 bytes length of the name, the name, 4 bytes count, and for each query 4 bytes length and the query.

    Raises:
        OptionError: the data is not valid.
    """
    name, at = _counted(data, 0)
    (count,) = _unpack(">I", data, at)
    at += 4
    queries = []
    for _ in range(count):  # ends with the data, whatever the count says
        query, at = _counted(data, at)
        queries.append(decode_name(query))
    if at != len(data):
        raise OptionError(Reply.ERR_INVALID, "the queries do not add up")
    return decode_name(name), queries


def _counted(data: bytes, at: int) -> tuple[bytes, int]:
    """A string after its length in 4 bytes, and where it ends."""
    (length,) = _unpack(">I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise OptionError(Reply.ERR_INVALID, "a string is longer than the option")
    return data[at + 4 : end], end


def _unpack(layout: str, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, data, at)
    except struct.error:
        raise OptionError(Reply.ERR_INVALID, "the option is cut short") from None


def encode_server(name: str, description: str) -> bytes:
    """The data of a reply SERVER, which is an entry of a list."""
    encoded = name.encode("utf-8")
    return struct.pack(">I", len(encoded)) + encoded + _text(description)


def encode_info_export(size: int, flags: TransmissionFlag) -> bytes:
    """The data of a reply INFO that every client gets: bytes of the export, and what it can do."""
    return struct.pack(">HQH", Info.EXPORT, size, flags)


def encode_info_text(info: Info, text: str) -> bytes:
    """The data of a reply INFO with the name or the description."""
    return struct.pack(">H", info) + _text(text)


def encode_info_block_size(page_size: int) -> bytes:
    """The data of a reply INFO with the least, the preferred and the largest length of a request, in bytes."""
    preferred = max(BLOCK_BYTES_PREFERRED_MIN, page_size)
    return struct.pack(">HIII", Info.BLOCK_SIZE, 1, preferred, PAYLOAD_BYTES_ADVISED)


def encode_meta_context(identifier: int, name: str) -> bytes:
    """The data of a reply META_CONTEXT."""
    return struct.pack(">I", identifier) + name.encode("utf-8")


def encode_export_name_reply(size: int, flags: TransmissionFlag, *, zeroes: bool) -> bytes:
    """The reply to EXPORT_NAME, which has no header.

    Args:
        zeroes: whether the client did not agree to NO_ZEROES.
    """
    return struct.pack(">QH", size, flags) + (bytes(124) if zeroes else b"")


def encode_successes(cookies: Sequence[bytes]) -> bytes:
    """Simple replies to requests that return no data, one for each cookie."""
    return SUCCESS + SUCCESS.join(cookies)


def encode_failure(cookie: bytes, error: Error, text: str, *, structured: bool) -> bytes:
    """The reply to a request that failed; only a structured one has room for the text."""
    if not structured:
        return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)
    message = _text(text)
    payload = struct.pack(">IH", error, len(message)) + message
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, ChunkType.ERROR, cookie, len(payload)) + payload


def encode_empty_chunk(cookie: bytes) -> bytes:
    """The structured reply that means success and nothing else."""
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, ChunkType.NONE, cookie, 0)


def encode_data_header(space: memoryview, cookie: bytes, offset: int, length: int, *, last: bool) -> None:
    """Put what goes before `length` bytes of a structured READ into the first 28 bytes of `space`."""
    flags = CHUNK_DONE if last else 0
    DATA_CHUNK.pack_into(space, 0, CHUNK_MAGIC, flags, ChunkType.OFFSET_DATA, cookie, 8 + length, offset)


def encode_block_status(cookie: bytes, extents: Sequence[tuple[int, bool]]) -> bytes:
    """The reply to BLOCK_STATUS: (bytes, whether it is a hole) one after another."""
    numbers: list[int] = []
    for length, is_hole in extents:
        numbers += (length, STATE_HOLE | STATE_ZERO if is_hole else 0)
    payload = struct.pack(f">{1 + len(numbers)}I", ALLOCATION_CONTEXT_ID, *numbers)
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, ChunkType.BLOCK_STATUS, cookie, len(payload)) + payload


def _text(text: str) -> bytes:
    """UTF-8 within the limit of a string; a character that the limit would cut is left out."""
    return text.encode("utf-8", "replace")[:NAME_BYTES_MAX].decode("utf-8", "ignore").encode("utf-8")
