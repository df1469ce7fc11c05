"""The protocol between a sender and a receiver, as bytes. mirrortool-ship(5) has the same tables. No I/O.

Each message is a header, a JSON object, and, of DATA and PART, bytes of a journal file or a base. Numbers are
little-endian.

Header
    offset size field    meaning
    0      4    magic    4D 4A 53 31, "MJS1"
    4      1    kind     of the message
    5      3    reserved 0
    8      4    object   bytes of the JSON object
    12     4    data     bytes that follow it
    16     8    checksum xxh3-64 of bytes 0-15 and of the object

Messages
    1  HELLO    sender    version, journal, end, is_one_way, follows, copy, slot, where
    2  WELCOME  receiver  version, id, position, file, offset, is_ahead
    3  DATA     sender    file, offset
    4  ACK      receiver  position
    5  END      sender    position, file, offset, next_scan
    6  DONE     sender
    7  ALIVE    both
    8  SLOTS    receiver  slots
    9  STATE    receiver  problem
    10 REFUSED  receiver  exit_code, what
    11 FINISHED receiver
    12 BASE     sender    position, size, checksum, file
    13 PLACE    receiver  offset
    14 PART     sender    offset

The data have no checksum here: the frames in them, and the headers of files, have their own, and are checked before
they are stored. Every length has a limit, checked before anything is allocated; before memory for data
is, the checksum is checked, too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import xxhash

from mirrortool.errors import LinkError
from mirrortool.files import Buffer
from mirrortool.journal import format as layout
from mirrortool.journal.rawframes import Run
from mirrortool.jsonfile import Fields, to_local, to_portable
from mirrortool.wording import byte_count

VERSION = 1
MAGIC = b"MJS1"
HEADER = struct.Struct("<4sB3xIIQ")
assert HEADER.size == 24
_COVERED = HEADER.size - 8
_NAME_BYTES_MAX = (1 << 16) - 1
_SUMS_BYTES_MAX = layout.PAYLOAD_BYTES_MAX // 512 * 8

OBJECT_BYTES_MAX = 1 << 20
FRAME_BYTES_MAX = (
    layout.FRAME_HEADER.size
    + layout.OPERATIONS_MAX * layout.COLUMN_BYTES
    + _NAME_BYTES_MAX
    + _SUMS_BYTES_MAX
    + layout.PAYLOAD_BYTES_MAX
)
"""No frame is longer, whatever the page size."""
DATA_BYTES_MAX = layout.FILE_HEADER.size + FRAME_BYTES_MAX
RUN_BYTES = 1 << 20
"""A sender puts at most this many bytes of frames into one message, unless one frame alone is longer."""
TEXT_CHARACTERS_MAX = 2000
_BUFFER_KEPT_BYTES = 4 << 20
_SHOWN_CHARACTERS_MAX = 200


class MessageKind(IntEnum):
    """What a message says; see the table above."""

    HELLO = 1
    WELCOME = 2
    DATA = 3
    ACK = 4
    END = 5
    DONE = 6
    ALIVE = 7
    SLOTS = 8
    STATE = 9
    REFUSED = 10
    FINISHED = 11
    BASE = 12
    PLACE = 13
    PART = 14


SMALL_OBJECT_BYTES_MAX = 32 << 10
_LARGE = (MessageKind.HELLO, MessageKind.SLOTS)
_WITH_DATA = {MessageKind.DATA: DATA_BYTES_MAX, MessageKind.PART: RUN_BYTES}


class NoReceiverError(LinkError):
    """The program that answers is not a receiver, and never was one: waiting does not help."""


class ForeignBytesError(NoReceiverError):
    """Something else came in place of the first message.

    Attributes:
        data: the first bytes of it.
    """

    def __init__(self, data: bytes) -> None:
        text = data.partition(MAGIC)[0].decode("utf-8", "replace").strip()
        told = " ".join(text.split())[:_SHOWN_CHARACTERS_MAX] if _is_text(text) else ""
        super().__init__(
            f"what arrives is not a message: {told!r}, as a login script on the other side may print it"
            if told
            else f"what arrives is not a message: {data[: HEADER.size]!r}",
            remedy="let login scripts there print at a terminal only" if told else None,
        )
        self.data = data


def _is_text(text: str) -> bool:
    """Whether it is a text for people; a login script may also print colours, or in another encoding."""
    strange = sum(c == "\ufffd" or not (c.isprintable() or c.isspace()) for c in text)
    return bool(text) and 4 * strange <= len(text)


@dataclass(frozen=True, slots=True)
class Message:
    """A message.

    Attributes:
        values: of its JSON object.
        data: of DATA and PART; in one that was received, valid until the next is received.
        run: the data of DATA as a run, for a receiver in the same process; never sent.
    """

    kind: MessageKind
    values: Mapping[str, Any]
    data: Buffer = b""
    run: Run | None = None

    def fields(self) -> Fields:
        """The object, read field by field; a field that is not valid raises LinkError."""
        return Fields(self.values, f"message {self.kind.name}", LinkError)


def encode(message: Message) -> list[Buffer]:
    """Buffers to be sent one after another."""
    encoded = json.dumps(to_portable(message.values), separators=(",", ":")).encode()
    assert len(encoded) <= object_bytes_max(message.kind) and len(message.data) <= data_bytes_max(message.kind)
    head = HEADER.pack(MAGIC, message.kind, len(encoded), len(message.data), 0)[:_COVERED]
    start = head + _checksum(head, encoded) + encoded
    return [start, message.data] if message.data else [start]


def object_bytes_max(kind: MessageKind) -> int:
    """The limit of a message's JSON object."""
    return OBJECT_BYTES_MAX if kind in _LARGE else SMALL_OBJECT_BYTES_MAX


def data_bytes_max(kind: MessageKind) -> int:
    """The limit of the bytes that follow the object."""
    return _WITH_DATA.get(kind, 0)


class Decoder:
    """Decodes messages from bytes that arrive in pieces of any size.

    `room` is where the next bytes go, `received` is told how many came. One buffer serves all data, so that
    none is allocated for each message.
    """

    def __init__(self) -> None:
        self._header = bytearray(HEADER.size)
        self._data = bytearray()
        self._kind = MessageKind.ALIVE
        self._values: Mapping[str, Any] = {}
        self._data_bytes = 0
        self._is_first = True
        self._begin()

    @property
    def is_between(self) -> bool:
        """Whether no message has begun to arrive."""
        return self._part == "header" and self._got == 0

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._wanted[self._got :]

    def received(self, count: int) -> Message | None:
        """`count` bytes are at the start of `room` now; returns the message that they complete.

        Raises:
            ForeignBytesError: they are not a message, and no message came before.
            LinkError: they are not a message, or were damaged. Nothing after them can be decoded.
        """
        self._got += count
        if self._got < len(self._wanted):
            return None
        if self._part == "data":
            return self._complete(self._wanted)
        if self._part == "object":
            return self._read_object()
        self._read_header()
        return None

    def _begin(self) -> None:
        self._expect("header", memoryview(self._header))

    def _expect(self, part: str, wanted: memoryview) -> None:
        self._part, self._wanted, self._got = part, wanted, 0

    def _read_header(self) -> None:
        magic, kind, object_bytes, data_bytes, _ = HEADER.unpack(self._header)
        if magic != MAGIC and self._is_first:
            raise ForeignBytesError(bytes(self._header))
        if magic != MAGIC:
            raise LinkError(f"what arrives is not a message: {bytes(self._header)!r}")
        try:
            self._kind = MessageKind(kind)
        except ValueError:
            raise LinkError(f"a message of kind {kind}, which this version does not know") from None
        if object_bytes > object_bytes_max(self._kind) or object_bytes < 2:
            raise LinkError(f"a message {self._kind.name} of {byte_count(object_bytes)}, which no message has")
        if data_bytes > data_bytes_max(self._kind):
            raise LinkError(f"a message {self._kind.name} with {byte_count(data_bytes)} of data, which no message has")
        self._data_bytes = data_bytes
        self._expect("object", memoryview(bytearray(object_bytes)))

    def _read_object(self) -> Message | None:
        encoded = self._wanted
        head = bytes(self._header[:_COVERED])
        if _checksum(head, encoded) != self._header[_COVERED:]:
            raise LinkError("a message fails its checksum: it was damaged on the way")
        try:
            values = json.loads(bytes(encoded))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise LinkError(f"a message {self._kind.name} that is not a JSON object")
        self._values = to_local(values)
        if not self._data_bytes:
            return self._complete(b"")
        self._expect("data", self._room_for_data(self._data_bytes))
        return None

    def _room_for_data(self, length: int) -> memoryview:
        kept = _BUFFER_KEPT_BYTES if length <= _BUFFER_KEPT_BYTES else length
        if len(self._data) < length or len(self._data) > kept:  # a large one is not kept
            self._data = bytearray(length)
        return memoryview(self._data)[:length]

    def _complete(self, data: Buffer) -> Message:
        self._is_first = False
        self._begin()
        return Message(self._kind, self._values, data)


def _checksum(head: bytes, encoded: Buffer) -> bytes:
    digest = xxhash.xxh3_64(head)
    digest.update(encoded)
    return digest.intdigest().to_bytes(8, "little")
