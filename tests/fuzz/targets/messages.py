"""Bytes from the other side of a link, as messages: protocol.py, and what it says of bytes that are none.

The first byte says in what pieces they come.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mirrortool.errors import LinkError
from mirrortool.journal.copies.basetransfer import Announced
from mirrortool.journal.description import NextScan
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.slots import Slot
from mirrortool.ship import protocol, remoteslots
from mirrortool.ship.protocol import Decoder, Message, MessageKind
from tests.fuzz import jsontexts, sealing

MODULES = ("mirrortool.ship.protocol", "mirrortool.ship.remoteslots")
BYTES_MAX = 3000
TOKENS = (protocol.MAGIC, b"{}", b'{"a":', b"[[[[[[[[[[[[[[[[", b"1e999", b"Last login: ")
POSITION = Position(12, 7).to_json()
SLOTS = (
    Slot("m", "11" * 16, "mirror", "M", Position(12, 7), 10**18, 10**18),
    Slot("c.n", "22" * 16, "ship", "C", Position(9, 7), 10**18, 10**18, via="c"),
)
EXAMPLES = (
    Message(MessageKind.ACK, {"position": POSITION}),
    Message(MessageKind.END, {**FrameEnd(Position(12, 7), 1, 128).to_json(), "next_scan": NextScan(5, 6).to_json()}),
    Message(MessageKind.DATA, {"file": 1, "offset": 0}, b"some bytes"),
    Message(MessageKind.BASE, Announced(Position(12, 7), 500, 9, 1).to_json()),
    Message(MessageKind.PART, {"offset": 5}, b"more"),
    Message(MessageKind.REFUSED, {"exit_code": 11, "what": "damaged"}),
    Message(MessageKind.SLOTS, {"slots": [{"name": each.name, **each.to_json()} for each in SLOTS]}),
    Message(MessageKind.ALIVE, {}),
)


def fuzz_one(data: bytes) -> None:
    if data:
        for message in decoded(data[1:], (1 << 16, 1, 5, 100)[data[0] & 3]):
            _use(message)


def decoded(data: bytes, piece: int) -> Iterator[Message]:
    """The messages in bytes that come in pieces.

    Raises:
        LinkError: something is not a message.
    """
    decoder, at = Decoder(), 0
    while at < len(data):
        room = decoder.room()
        assert len(room)
        part = data[at : at + min(len(room), piece)]
        room[: len(part)] = part
        at += len(part)
        if message := decoder.received(len(part)):
            assert decoder.is_between
            yield message


def _use(message: Message) -> None:
    """What a message says can be sent on, and its fields can be read."""
    assert len(message.data) <= protocol.data_bytes_max(message.kind)
    fields = message.fields()
    try:
        match message.kind:
            case MessageKind.ACK:
                Position.from_json(fields.object("position"))
            case MessageKind.END:
                FrameEnd.from_json(fields)
                NextScan.from_json(fields.object("next_scan"))
            case MessageKind.BASE:
                Announced.from_json(fields)
            case MessageKind.SLOTS:
                remoteslots.parse(fields)
            case MessageKind.REFUSED:
                fields.integer("exit_code")
                fields.text("what")
            case _:
                fields.integer("offset")
    except LinkError as error:
        if not error.where:
            raise AssertionError("an error of a field does not say of which message") from error


def encoded(*messages: Message) -> bytes:
    """What a stream sends."""
    return b"".join(bytes(part) for message in messages for part in protocol.encode(message))


def seeds() -> Iterator[bytes]:
    for way in range(4):
        yield bytes([way]) + encoded(*EXAMPLES)
    for message in EXAMPLES:
        yield b"\0" + encoded(message)
    yield b"\0Last login: Mon from 10.0.0.1\n" + encoded(EXAMPLES[0])
    yield b"\1\xff\xfe\x00" * 9


Mend = Callable[[int, bytes, bytes], tuple[bytes, bytes]]


def mutate_messages(data: bytes, chance: random.Random, mend: Mend = lambda _, values, data: (values, data)) -> bytes:
    """Messages in another order, a few with other values or of other kinds, each with the checksum that it needs.

    `mend` is given the kind, the object and the data of each, and may change both.
    """
    head, *parts = data.split(protocol.MAGIC)
    parts = sealing.shuffled([protocol.MAGIC + part for part in parts], chance)
    changed = {chance.randrange(len(parts) or 1) for _ in range(chance.choice((0, 1, 1, 1, 2)))}
    sealed = [_sealed(part, chance, mend, is_changed=at in changed) for at, part in enumerate(parts)]
    return (head if sealing.is_left_wrong(chance) else b"") + b"".join(sealed)


def _sealed(part: bytes, chance: random.Random, mend: Mend, *, is_changed: bool) -> bytes:
    size = protocol.HEADER.size
    if len(part) < size or (is_changed and sealing.is_left_wrong(chance)):
        return part
    magic, kind, object_bytes, _, _ = protocol.HEADER.unpack_from(part)
    body = part[size:]
    values = body[: min(object_bytes, len(body))]
    rest = body[len(values) :]
    if not is_changed or chance.randrange(8):
        values, rest = mend(kind, values, rest)
    if is_changed:
        values = jsontexts.mutate(values, chance) if chance.randrange(64) else jsontexts.nested(chance)
        if chance.randrange(8) == 0:
            kind = chance.randrange(16)
    if kind not in (MessageKind.DATA, MessageKind.PART) and chance.randrange(64):
        rest = b""
    return sealed(magic, kind, values, rest)


def sealed(magic: bytes, kind: int, values: bytes, data: bytes) -> bytes:
    """A message of these parts, whatever they are, with its checksum."""
    head = protocol.HEADER.pack(magic, kind & 0xFF, len(values), len(data), 0)[:-8]
    return head + sealing.digest(head + values) + values + data


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    mutated = bytes(libfuzzer(data, bytes_max))
    return mutated[:1] + mutate_messages(mutated[1:], chance)
