"""Messages are the same on both sides, however they are cut; what is none is refused cheaply."""

from __future__ import annotations

import random
import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import LinkError
from mirrortool.ship import protocol
from mirrortool.ship.protocol import HEADER, Decoder, Message, MessageKind, NoReceiverError, encode, object_bytes_max
from tests.docs.manual import page, table

VALUES = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(0, 1 << 64) | st.text(max_size=20) | st.lists(st.integers(), max_size=3),
    max_size=4,
)
SMALL = st.builds(Message, st.sampled_from([kind for kind in MessageKind if kind != MessageKind.DATA]), VALUES)
DATA = st.builds(Message, st.just(MessageKind.DATA), VALUES, st.binary(max_size=300))


def decoded(pieces: list[bytes]) -> list[Message]:
    """What a decoder makes of bytes that come in these pieces."""
    decoder, found = Decoder(), []
    for piece in pieces:
        while piece:
            room = decoder.room()
            count = min(len(room), len(piece))
            room[:count] = piece[:count]
            piece = piece[count:]
            if message := decoder.received(count):
                found.append(Message(message.kind, message.values, bytes(message.data)))
    return found


@settings(max_examples=30)
@given(st.lists(SMALL | DATA, min_size=1, max_size=5), st.data())
def test_messages_survive_any_cut(messages: list[Message], data: st.DataObject) -> None:
    sent = b"".join(bytes(part) for each in messages for part in encode(each))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    pieces = [sent[one:other] for one, other in pairwise([0, *cuts, len(sent)])]
    assert decoded(pieces) == messages


def test_a_decoder_knows_whether_it_is_between_messages() -> None:
    decoder, sent = Decoder(), b"".join(map(bytes, encode(Message(MessageKind.DONE, {}))))
    for at, byte in enumerate(sent):
        assert decoder.is_between == (at == 0)
        decoder.room()[:1] = bytes([byte])
        decoder.received(1)
    assert decoder.is_between


def test_two_thousand_mutated_streams_end_in_a_link_error_or_in_messages() -> None:
    chance = random.Random(7)
    messages = [
        Message(MessageKind.HELLO, {"version": 1, "journal": {"uuid": "00" * 16}}),
        Message(MessageKind.DATA, {"file": 1, "offset": 0}, b"frames" * 50),
        Message(MessageKind.ACK, {"position": {"lsn": 3, "chain": "00" * 8}}),
        Message(MessageKind.SLOTS, {"slots": [{"name": "m"}]}),
    ]
    sent = b"".join(bytes(part) for each in messages for part in encode(each))
    tracemalloc.start()
    shown: list[str] = []
    for _ in range(2000):
        mutated = bytearray(sent)
        for _ in range(chance.randint(1, 4)):
            match chance.randrange(3):
                case 0:
                    mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
                case 1:
                    del mutated[chance.randrange(len(mutated)) :]
                    mutated = mutated or bytearray(b"x")
                case 2:
                    at = chance.randrange(len(mutated))
                    mutated[at:at] = chance.randbytes(chance.randint(1, 30))
        try:
            decoded([bytes(mutated)])
        except LinkError as error:
            shown.append(str(error))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shown) > 1000
    assert all(len(each) < 300 and "\n" not in each for each in shown)
    assert peak < 8 << 20


@pytest.mark.parametrize("kind", list(MessageKind))
def test_lengths_beyond_the_limits_are_refused_before_anything_is_allocated(kind: MessageKind) -> None:
    for object_bytes, data_bytes in ((object_bytes_max(kind) + 1, 0), (0, 0), (2, protocol.DATA_BYTES_MAX + 1)):
        head = HEADER.pack(protocol.MAGIC, kind, object_bytes, data_bytes, 0)
        with pytest.raises(LinkError, match="which no message has"):
            decoded([head])


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (b"[]", "not a JSON object"),
        (b"{]", "not a JSON object"),
        (b"[" * 5000, "not a JSON object"),
        (b"\xff{", "not a JSON object"),
    ],
)
def test_an_object_that_is_none_is_refused(encoded: bytes, what: str) -> None:
    head = HEADER.pack(protocol.MAGIC, MessageKind.ACK, len(encoded), 0, 0)[:16]
    with pytest.raises(LinkError, match=what):
        decoded([head + protocol._checksum(head, encoded) + encoded])


def test_what_a_shell_prints_is_shown() -> None:
    with pytest.raises(LinkError, match="Welcome to mirror"):
        decoded([b"Welcome to mirror.example! Have a nice day"])


def test_what_comes_before_the_first_message_is_no_receivers_and_what_comes_later_is_a_broken_link() -> None:
    """The first is named, as far as it is text; the second may be mended by a new connection."""
    message = b"".join(bytes(part) for part in encode(Message(MessageKind.DONE, {})))
    with pytest.raises(NoReceiverError, match="message: 'Hi', as a login script"):
        decoded([b"Hi\n" + message])
    with pytest.raises(NoReceiverError, match="Willkommen sch"):
        decoded(["\x1b[32mWillkommen schönen guten Tag".encode("latin-1")])
    with pytest.raises(NoReceiverError) as caught:
        decoded([bytes(range(128, 160))])
    assert "login" not in str(caught.value)
    with pytest.raises(LinkError, match="what arrives is not a message") as later:
        decoded([message + b"Hi\n" + message])
    assert not isinstance(later.value, NoReceiverError)


def test_a_large_buffer_is_not_kept() -> None:
    decoder = Decoder()
    for length in (5 << 20, 100):
        for part in encode(Message(MessageKind.DATA, {}, bytes(length))):
            view = memoryview(part)
            while view:
                room = decoder.room()
                count = min(len(room), len(view))
                room[:count] = view[:count]
                view = view[count:]
                decoder.received(count)
    assert len(decoder._data) == 100


def rows_of(heading: str) -> list[tuple[str, ...]]:
    """The rows of a table in protocol.py's docstring."""
    lines = (protocol.__doc__ or "").split(f"\n{heading}\n")[1].split("\n\n")[0].splitlines()
    pattern = r" {4}(\d+) +(\d+) +(\w+) +(.+)" if heading == "Header" else r" {4}(\d+) +([A-Z]+) +(\w+) *(.*)"
    return [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]


def test_the_header_is_that_of_the_table() -> None:
    end = 0
    for offset, size, *_ in rows_of("Header"):
        assert int(offset) == end
        end += int(size)
    assert end == HEADER.size
    assert table(page("mirrortool-ship", 5).sub_part("Header")) == rows_of("Header")


def test_the_messages_are_those_of_the_table() -> None:
    assert [(int(number), name) for number, name, *_ in rows_of("Messages")] == [
        (kind, kind.name) for kind in MessageKind
    ]
    documented = table(page("mirrortool-ship", 5).sub_part("Messages"))
    assert documented == [(*row[:3], row[3] or "none") for row in rows_of("Messages")]
