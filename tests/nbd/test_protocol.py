"""What one side encodes the other decodes, and nothing else passes for it."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import UsageError
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import ChunkType, Error, Info, OptionError, ProtocolError, Reply, TransmissionFlag
from mirrortool.nbd.serverevents import one_line
from mirrortool.nbd.transmission import merged
from mirrortool.sockets.addresses import TcpAddress, UnixAddress, parse_address
from tests.nbd import wire

NAMES = st.text(st.characters(codec="utf-8"), max_size=40)
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
COOKIES = st.binary(min_size=8, max_size=8)


@given(NAMES, st.lists(U16, max_size=20))
def test_info_request_round_trips(name: str, wanted: list[int]) -> None:
    assert nbd.decode_info_request(wire.encode_info_request(name, wanted)) == (name, frozenset(wanted))


@given(NAMES, st.lists(NAMES, max_size=10))
def test_meta_request_round_trips(name: str, queries: list[str]) -> None:
    assert nbd.decode_meta_request(wire.encode_meta_request(name, queries)) == (name, queries)


@given(NAMES, st.lists(NAMES, max_size=3), st.integers(0, 100))
def test_cut_option_is_invalid(name: str, queries: list[str], cut: int) -> None:
    for data, decode in [
        (wire.encode_info_request(name, [1, 2]), nbd.decode_info_request),
        (wire.encode_meta_request(name, queries), nbd.decode_meta_request),
    ]:
        with pytest.raises(OptionError) as caught:
            decode(data[: min(cut, len(data) - 1)])
        assert caught.value.reply == Reply.ERR_INVALID
        with pytest.raises(OptionError):
            decode(data + b"\0")


@given(st.binary(max_size=100))
def test_garbage_is_an_option_error_or_decodes(data: bytes) -> None:
    for decode in (nbd.decode_info_request, nbd.decode_meta_request, nbd.decode_name):
        try:
            decode(data)
        except OptionError:
            pass


def test_a_count_that_claims_much_costs_nothing() -> None:
    with pytest.raises(OptionError):
        nbd.decode_meta_request(struct.pack(">II", 0, 0xFFFFFFFF))
    with pytest.raises(OptionError):
        nbd.decode_info_request(struct.pack(">I", 0xFFFFFFFF) + b"name")


@given(U32, U32)
def test_option_round_trips(option: int, length: int) -> None:
    assert nbd.decode_option(nbd.OPTION.pack(nbd.OPTION_MAGIC, option, length)) == (option, length)


def test_wrong_magic_or_flags_end_the_connection() -> None:
    with pytest.raises(ProtocolError):
        nbd.decode_option(bytes(16))
    with pytest.raises(ProtocolError):
        nbd.decode_client_flags(struct.pack(">I", 4))
    assert nbd.decode_client_flags(struct.pack(">I", 3)) == 3


def test_name_beyond_the_limit_is_too_big() -> None:
    assert nbd.decode_name(b"n" * 4096) == "n" * 4096
    with pytest.raises(OptionError) as caught:
        nbd.decode_name(b"n" * 4097)
    assert caught.value.reply == Reply.ERR_TOO_BIG


@given(st.lists(COOKIES, min_size=1, max_size=20))
def test_successes_are_simple_replies(cookies: list[bytes]) -> None:
    replies = list(nbd.SIMPLE_REPLY.iter_unpack(nbd.encode_successes(cookies)))
    assert replies == [(nbd.SIMPLE_REPLY_MAGIC, 0, cookie) for cookie in cookies]


@given(COOKIES, st.sampled_from(Error), st.text(max_size=5000))
@settings(max_examples=50)
def test_failure_carries_its_number_and_a_text_within_the_limit(cookie: bytes, error: Error, text: str) -> None:
    simple = nbd.encode_failure(cookie, error, text, structured=False)
    assert nbd.SIMPLE_REPLY.unpack(simple) == (nbd.SIMPLE_REPLY_MAGIC, error, cookie)
    chunk = nbd.encode_failure(cookie, error, text, structured=True)
    header = nbd.CHUNK.unpack_from(chunk)
    assert header == (nbd.CHUNK_MAGIC, nbd.CHUNK_DONE, ChunkType.ERROR, cookie, len(chunk) - 20)
    number, length = struct.unpack_from(">IH", chunk, 20)
    message = chunk[26:]
    assert (number, length) == (error, len(message))
    assert length <= nbd.NAME_BYTES_MAX
    assert text.encode("utf-8", "replace").startswith(message)
    message.decode()


@given(COOKIES, st.lists(st.tuples(st.integers(1, (1 << 32) - 1), st.booleans()), min_size=1, max_size=50))
def test_block_status_lists_extents(cookie: bytes, extents: list[tuple[int, bool]]) -> None:
    chunk = nbd.encode_block_status(cookie, extents)
    _, flags, kind, answered, length = nbd.CHUNK.unpack_from(chunk)
    assert (flags, kind, answered, length) == (1, ChunkType.BLOCK_STATUS, cookie, len(chunk) - 20)
    assert struct.unpack_from(">I", chunk, 20) == (nbd.ALLOCATION_CONTEXT_ID,)
    pairs = list(struct.Struct(">II").iter_unpack(chunk[24:]))
    assert pairs == [(size, 3 if is_hole else 0) for size, is_hole in extents]


@given(COOKIES, U64, st.integers(1, 100), st.booleans())
def test_data_header_is_in_front_of_its_data(cookie: bytes, offset: int, length: int, last: bool) -> None:
    space = bytearray(28 + length)
    nbd.encode_data_header(memoryview(space), cookie, offset, length, last=last)
    assert nbd.DATA_CHUNK.unpack_from(space) == (nbd.CHUNK_MAGIC, int(last), 1, cookie, 8 + length, offset)


@given(U64, NAMES, NAMES)
def test_what_is_told_of_an_export(size: int, name: str, description: str) -> None:
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY
    assert struct.unpack(">HQH", nbd.encode_info_export(size, flags)) == (Info.EXPORT, size, 3)
    assert nbd.encode_export_name_reply(size, flags, zeroes=True) == struct.pack(">QH124x", size, 3)
    assert len(nbd.encode_export_name_reply(size, flags, zeroes=False)) == 10
    assert nbd.encode_info_text(Info.NAME, name) == struct.pack(">H", 1) + name.encode()
    entry = nbd.encode_server(name, description)
    (length,) = struct.unpack_from(">I", entry)
    assert (entry[4 : 4 + length].decode(), entry[4 + length :].decode()) == (name, description)


@pytest.mark.parametrize(("page_size", "preferred"), [(512, 4096), (4096, 4096), (65536, 65536)])
def test_preferred_block_is_a_page_of_at_least_4096(page_size: int, preferred: int) -> None:
    assert struct.unpack(">HIII", nbd.encode_info_block_size(page_size)) == (3, 1, preferred, 32 << 20)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1), st.integers(1, 400), st.integers(1, 10))
def test_merged_extents_are_the_start_of_the_same_map(
    extents: list[tuple[int, bool]], length: int, count_max: int
) -> None:
    found = merged(extents, length, count_max)
    plain = [is_hole for size, is_hole in extents for _ in range(size)][:length]
    told = [is_hole for size, is_hole in found for _ in range(size)]
    assert len(told) > 0 and told == plain[: len(told)]
    assert len(found) <= count_max
    assert len(found) == count_max or len(told) == len(plain)
    assert all(a[1] != b[1] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    "address",
    [UnixAddress("/run/s"), UnixAddress("rel:ative"), TcpAddress("host", 10809), TcpAddress("::1", 0),
     TcpAddress("10.0.0.1", 65535)],
)  # fmt: skip
def test_address_round_trips(address: UnixAddress | TcpAddress) -> None:
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:" + "x" * 108, "unix:a\0b", "tcp:", "tcp:host", "tcp::1", "tcp:host:65536", "tcp:host:-1",
     "tcp:::1:5", "tcp:[::1]", "tcp:[]:5", "tcp:host:٣", "udp:host:5", "/run/s"],
)  # fmt: skip
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


@given(st.text(max_size=1000))
def test_an_event_is_one_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
