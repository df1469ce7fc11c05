"""What a client says and hears until it has an export, as bytes and values, without I/O; protocol.py has the tables.

Everything decoded here comes from a server that may be anything: a length is checked before it is waited for, and what
is not valid is a ProtocolError, which says what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import HandshakeFlag, Info, Option, ProtocolError, Reply, TransmissionFlag
from mirrortool.wording import byte_count

OLDSTYLE_MAGIC = bytes.fromhex("00420281861253")
REPLY_BYTES_MAX = 64 << 10
"""Of the data of a reply to an option; the texts in it have at most NAME_BYTES_MAX."""
SIZE_MAX = (1 << 63) - 1
"""Of an export: what an offset of this host can be."""
BLOCK_BYTES_MAX = 1 << 30
PAYLOAD_BYTES_MAX = 32 << 20
"""Of a WRITE or READ, where the server names no limit, and where it names a larger one."""
_NO_FLAGS = TransmissionFlag(0)


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """An export, as its server describes it.

    Attributes:
        name: as the server calls it; as the client asked for it where the server does not say.
        description: a line for people, or nothing.
        size: bytes.
        block_min: every offset and length is a multiple of it; a power of two.
        payload_max: bytes of a READ or WRITE.
    """

    name: str
    size: int = -1
    flags: TransmissionFlag = _NO_FLAGS
    description: str = ""
    block_min: int = 1
    payload_max: int = PAYLOAD_BYTES_MAX

    def can(self, flag: TransmissionFlag) -> bool:
        """Whether the server offers that; nothing, where it did not mean its flags."""
        return bool(self.flags & TransmissionFlag.HAS_FLAGS) and bool(self.flags & flag)


def decode_greeting(data: bytes) -> HandshakeFlag:
    """What a server says first.

    Raises:
        ProtocolError: it is not an NBD server, or one of before 2012.
    """
    magic, option_magic, flags = nbd.GREETING.unpack(data)
    if magic != nbd.MAGIC:
        raise ProtocolError("it is not an NBD server")
    if option_magic != nbd.OPTION_MAGIC or not flags & HandshakeFlag.FIXED_NEWSTYLE:
        raise ProtocolError("it speaks an old form of NBD, not the fixed newstyle")
    return HandshakeFlag(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))


def encode_option(option: Option, data: bytes = b"") -> bytes:
    """An option."""
    return nbd.OPTION.pack(nbd.OPTION_MAGIC, option, len(data)) + data


def encode_info_request(name: str, wanted: Sequence[Info]) -> bytes:
    """The data of INFO and GO."""
    encoded = name.encode("utf-8")
    return struct.pack(f">I{len(encoded)}sH{len(wanted)}H", len(encoded), encoded, len(wanted), *wanted)


def encode_context_request(name: str, context: str) -> bytes:
    """The data of SET_META_CONTEXT with one query."""
    export, query = name.encode("utf-8"), context.encode("utf-8")
    return struct.pack(f">I{len(export)}sII{len(query)}s", len(export), export, 1, len(query), query)


def decode_option_reply(data: bytes, option: Option) -> tuple[int, int]:
    """The header of a reply to this option: its type, known or not, and the length of its data.

    Raises:
        ProtocolError: it is not one.
    """
    magic, answered, reply, length = nbd.OPTION_REPLY.unpack(data)
    if magic != nbd.OPTION_REPLY_MAGIC or answered != option:
        raise ProtocolError(f"it does not answer the option {option.name}")
    if length > REPLY_BYTES_MAX:
        raise ProtocolError(f"it answers the option {option.name} with {byte_count(length)}")
    return reply, length


def is_refusal(reply: int) -> bool:
    """Whether a reply says that the option is not granted."""
    return bool(reply & 1 << 31)


def decode_text(data: bytes) -> str:
    """A text for people: what is not UTF-8 in it is replaced, and what is too long left out."""
    return data[: nbd.NAME_BYTES_MAX].decode("utf-8", "replace")


def decode_info(facts: ExportFacts, data: bytes) -> ExportFacts:
    """What is known of an export with one reply INFO more; unknown ones say nothing.

    Raises:
        ProtocolError: it is cut short, or says what cannot be.
    """
    if len(data) < 2:
        raise ProtocolError("it describes the export by nothing")
    kind = int.from_bytes(data[:2], "big")
    if kind == Info.EXPORT:
        _, size, flags = _exactly(">HQH", data, "the size")
        if size > SIZE_MAX:
            raise ProtocolError(f"it says that the export has {byte_count(size)}")
        return replace(facts, size=size, flags=TransmissionFlag(flags & sum(TransmissionFlag)))
    if kind == Info.NAME:
        return replace(facts, name=decode_text(data[2:]))
    if kind == Info.DESCRIPTION:
        return replace(facts, description=decode_text(data[2:]))
    if kind == Info.BLOCK_SIZE:
        return _with_block_sizes(facts, data)
    return facts


def _with_block_sizes(facts: ExportFacts, data: bytes) -> ExportFacts:
    _, least, preferred, most = _exactly(">HIII", data, "block sizes")
    if not 0 < least <= BLOCK_BYTES_MAX or least & (least - 1) or preferred < least or most < least:
        raise ProtocolError(f"it names impossible block sizes: {least}, {preferred} and {most}")
    payload = min(most, PAYLOAD_BYTES_MAX) // least * least
    return replace(facts, block_min=least, payload_max=payload or least)


def decode_context(data: bytes, context: str) -> int:
    """The number that stands for the context in replies to BLOCK_STATUS.

    Raises:
        ProtocolError: it is of another one than was asked for.
    """
    if len(data) < 4 or data[4:] != context.encode("utf-8"):
        raise ProtocolError("it answers with a context that was not asked for")
    return int.from_bytes(data[:4], "big")


def name_of_refusal(reply: int) -> str:
    """What a reply that refuses is called, for people."""
    try:
        return Reply(reply).name
    except ValueError:
        return f"error {reply & ~(1 << 31)}"


def _exactly(layout: str, data: bytes, what: str) -> tuple[int, ...]:
    if len(data) != struct.calcsize(layout):
        raise ProtocolError(f"it says {what} in {byte_count(len(data))}")
    return struct.unpack(layout, data)
