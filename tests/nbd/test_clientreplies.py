"""Replies: what our server encodes the client reads, in whatever pieces it comes; anything else ends the connection."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.clientreplies import INBOX_BYTES, NbdRequest, ReplyReader
from mirrortool.nbd.protocol import ChunkType, Command, Error, ProtocolError

CONTEXT = 3


@dataclass
class Conversation:
    """Requests with cookies from 1 on, and what came of them."""

    structured: bool = True
    done: list[NbdRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = ReplyReader(is_structured=self.structured, context_id=CONTEXT if self.structured else None)

    def ask(self, command: Command, offset: int = 0, length: int = 0) -> NbdRequest:
        buffer = memoryview(bytearray(length if command == Command.READ else 0))
        request = NbdRequest(command, offset, length, self.done.append, buffer=buffer)
        self.reader.unanswered[len(self.reader.unanswered) + len(self.done) + 1] = request
        return request

    def hear(self, data: bytes, pieces: Sequence[int] = ()) -> None:
        view, sizes = memoryview(data), iter(pieces)
        while len(view):
            target = self.reader.target()
            assert len(target)
            size = min(len(view), len(target), next(sizes, INBOX_BYTES))
            target[:size] = view[:size]
            self.reader.received(size)
            view = view[size:]


def chunk(cookie: int, kind: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    return struct.pack(">IHHQI", nbd.CHUNK_MAGIC, last, kind, cookie, len(payload)) + payload


def data_at(cookie: int, offset: int, data: bytes, *, last: bool = True) -> bytes:
    return chunk(cookie, ChunkType.OFFSET_DATA, struct.pack(">Q", offset) + data, last=last)


def simple(cookie: int, error: int = 0) -> bytes:
    return struct.pack(">IIQ", nbd.SIMPLE_REPLY_MAGIC, error, cookie)


PIECES = st.lists(st.integers(1, 40), max_size=60)


@given(st.data(), PIECES)
def test_replies_in_any_order_and_any_pieces(data: st.DataObject, pieces: list[int]) -> None:
    talk = Conversation(structured=data.draw(st.booleans()))
    answers, wanted = [], {}
    for number in range(1, data.draw(st.integers(1, 12)) + 1):
        command = data.draw(st.sampled_from([Command.READ, Command.WRITE, Command.FLUSH]))
        length = data.draw(st.integers(1, 60)) if command == Command.READ else 0
        request, cookie = talk.ask(command, 100, length), struct.pack(">Q", number)
        if data.draw(st.booleans()):
            answers.append(nbd.encode_failure(cookie, Error.EIO, "broken", structured=talk.structured))
            wanted[number] = (request, Error.EIO, bytes(length))
            continue
        content = data.draw(st.binary(min_size=length, max_size=length))
        wanted[number] = (request, 0, content)
        if command != Command.READ:
            answers.append(nbd.encode_successes([cookie]))
        elif talk.structured:
            cut = data.draw(st.integers(1, length))
            parts = [(0, content[:cut]), (cut, content[cut:])] if cut < length else [(0, content)]
            parts = data.draw(st.permutations(parts))
            answers.append(
                b"".join(
                    data_at(number, 100 + at, part, last=place == len(parts) - 1)
                    for place, (at, part) in enumerate(parts)
                )
            )
        else:
            answers.append(simple(number) + content)
    talk.hear(b"".join(data.draw(st.permutations(answers))), pieces)
    assert not talk.reader.unanswered and talk.reader.answered == len(answers)
    for request, error, content in wanted.values():
        assert (request.error, bytes(request.buffer)) == (error, content)
        assert request.text == ("broken" if error and talk.structured else "")


def test_large_data_is_received_where_it_is_wanted() -> None:
    talk = Conversation(structured=False)
    request = talk.ask(Command.READ, 0, 1 << 20)
    talk.hear(simple(1) + b"x" * 10)
    target = talk.reader.target()
    assert len(target) == (1 << 20) - 10 and target.obj is request.buffer.obj


def test_holes_read_as_zeros() -> None:
    talk = Conversation()
    request = talk.ask(Command.READ, 8, 12)
    request.buffer[:] = b"x" * 12
    talk.hear(
        chunk(1, ChunkType.OFFSET_HOLE, struct.pack(">QI", 12, 8), last=False) + data_at(1, 8, b"data", last=False)
    )
    assert talk.done == []
    talk.hear(chunk(1, ChunkType.NONE))
    assert bytes(request.buffer) == b"data" + bytes(8) and talk.done == [request]


def extents(*pairs: tuple[int, int], context: int = CONTEXT) -> bytes:
    return struct.pack(">I", context) + b"".join(struct.pack(">II", *pair) for pair in pairs)


def test_only_what_reads_as_zeros_counts_and_a_hole_alone_does_not() -> None:
    talk = Conversation()
    request = talk.ask(Command.BLOCK_STATUS, 0, 100)
    pairs = (10, nbd.STATE_HOLE), (20, 0), (30, nbd.STATE_ZERO), (10, nbd.STATE_ZERO | nbd.STATE_HOLE), (900, 0)
    talk.hear(chunk(1, ChunkType.BLOCK_STATUS, extents(*pairs)))
    assert request.extents == [(30, False), (40, True), (30, False)]


READ, STATUS, WRITE = (Command.READ, 0, 8), (Command.BLOCK_STATUS, 0, 8), (Command.WRITE, 0, 8)
WRONG = [
    (True, WRITE, b"\0" * 16),
    (True, WRITE, simple(2)),
    (True, WRITE, simple(1) + simple(1)),
    (True, READ, simple(1) + bytes(8)),
    (True, STATUS, simple(1)),
    (False, WRITE, chunk(1, ChunkType.NONE)),
    (True, WRITE, chunk(9, ChunkType.NONE)),
    (True, WRITE, chunk(1, ChunkType.NONE, b"x")),
    (True, WRITE, chunk(1, ChunkType.NONE, last=False)),
    (True, WRITE, data_at(1, 0, bytes(8))),
    (True, WRITE, chunk(1, 77)),
    (True, STATUS, chunk(1, ChunkType.OFFSET_HOLE, bytes(12))),
    (True, READ, chunk(1, ChunkType.OFFSET_DATA, bytes(8))),
    (True, READ, data_at(1, 0, bytes(9))),
    (True, READ, data_at(1, 1, bytes(8))),
    (True, READ, data_at(1, 1 << 63, bytes(8))),
    (True, READ, data_at(1, 0, bytes(7))),
    (True, READ, data_at(1, 0, bytes(8), last=False) + data_at(1, 0, bytes(8))),
    (True, READ, data_at(1, 0, bytes(4), last=False) + data_at(1, 0, bytes(4))),
    (True, READ, chunk(1, ChunkType.NONE)),
    (True, READ, chunk(1, ChunkType.OFFSET_HOLE, bytes(11))),
    (True, READ, chunk(1, ChunkType.OFFSET_HOLE, struct.pack(">QI", 0, 9))),
    (True, READ, chunk(1, ChunkType.OFFSET_HOLE, struct.pack(">QI", 0, 0xFFFFFFFF))),
    (True, READ, chunk(1, ChunkType.BLOCK_STATUS, extents((8, 0)))),
    (True, STATUS, chunk(1, ChunkType.BLOCK_STATUS, extents())),
    (True, STATUS, chunk(1, ChunkType.BLOCK_STATUS, extents((8, 0)) + b"x")),
    (True, STATUS, chunk(1, ChunkType.BLOCK_STATUS, extents((0, 0)))),
    (True, STATUS, chunk(1, ChunkType.BLOCK_STATUS, extents((8, 0), context=4))),
    (True, STATUS, chunk(1, ChunkType.BLOCK_STATUS, extents((8, 0)), last=False) * 2),
    (True, STATUS, chunk(1, ChunkType.NONE)),
    (True, WRITE, chunk(1, ChunkType.ERROR, b"12345")),
    (True, WRITE, chunk(1, ChunkType.ERROR, bytes(6))),
    (True, WRITE, chunk(1, ChunkType.ERROR, struct.pack(">IH", 5, 9))),
    (True, WRITE, chunk(1, ChunkType.ERROR, struct.pack(">IH", 5, 0) + bytes(5000))),
]


@pytest.mark.parametrize(("structured", "asked", "data"), WRONG)
def test_a_reply_that_cannot_be_ends_the_connection(
    structured: bool, asked: tuple[Command, int, int], data: bytes
) -> None:
    talk = Conversation(structured=structured)
    talk.ask(*asked)
    with pytest.raises(ProtocolError):
        talk.hear(data)


def test_what_claims_to_be_long_is_refused_before_it_is_waited_for() -> None:
    for command, kind in [
        (Command.READ, 1),
        (Command.BLOCK_STATUS, 5),
        (Command.WRITE, 0x8001),
        (Command.WRITE, 0x8002),
    ]:
        talk = Conversation()
        talk.ask(command, 0, 8)
        with pytest.raises(ProtocolError):
            talk.hear(struct.pack(">IHHQI", nbd.CHUNK_MAGIC, 1, kind, 1, 0xFFFFFFFC))


def test_a_read_in_very_many_pieces_is_refused() -> None:
    talk = Conversation()
    talk.ask(Command.READ, 0, 1 << 16)
    for at in range(0, 2 * 4096, 2):
        talk.hear(data_at(1, at, b"x", last=False))
    with pytest.raises(ProtocolError, match="pieces"):
        talk.hear(data_at(1, 2 * 4096, b"x", last=False))


def test_an_error_is_told_also_after_data_and_the_first_one_stays() -> None:
    talk = Conversation()
    request = talk.ask(Command.READ, 0, 8)
    first, second = (struct.pack(">IH", number, 2) + text for number, text in ((5, b"no"), (22, b"xx")))
    talk.hear(data_at(1, 0, b"data", last=False) + chunk(1, 0x8002, first + bytes(8), last=False))
    talk.hear(chunk(1, 0x8001, second))
    assert (request.error, request.text, talk.done) == (5, "no", [request])


@given(st.binary(max_size=200), st.booleans(), PIECES)
def test_garbage_never_does_anything_else_than_end_it(data: bytes, structured: bool, pieces: list[int]) -> None:
    talk = Conversation(structured=structured)
    for asked in (READ, STATUS, WRITE):
        talk.ask(*asked)
    try:
        talk.hear(data, pieces)
    except ProtocolError:
        pass


def test_when_nobody_waits_data_is_dropped_and_answers_are_counted() -> None:
    talk = Conversation()
    one, two = talk.ask(Command.READ, 0, 8), talk.ask(Command.READ, 0, 8)
    talk.reader.discard()
    talk.hear(data_at(1, 0, b"datadata") + chunk(2, ChunkType.OFFSET_HOLE, struct.pack(">QI", 0, 8)))
    assert bytes(one.buffer) == bytes(two.buffer) == bytes(8) and talk.done == [one, two]
