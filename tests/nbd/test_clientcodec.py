"""The handshake's bytes: what the client says our server reads, what our server says the client reads, and nothing else
passes.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.nbd import clientcodec as codec
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.clientcodec import ExportFacts
from mirrortool.nbd.protocol import Info, Option, OptionError, ProtocolError, Reply, TransmissionFlag

NAMES = st.text(st.characters(codec="utf-8"), max_size=40)
NOTHING = ExportFacts("asked")


@given(NAMES, st.lists(st.sampled_from(Info), max_size=5))
def test_what_the_client_asks_the_server_reads(name: str, wanted: list[Info]) -> None:
    assert nbd.decode_info_request(codec.encode_info_request(name, wanted)) == (name, frozenset(wanted))
    assert nbd.decode_meta_request(codec.encode_context_request(name, "base:allocation")) == (name, ["base:allocation"])
    data = codec.encode_option(Option.GO, b"data")
    assert nbd.decode_option(data[:16]) == (Option.GO, 4) and data[16:] == b"data"


@given(st.integers(0, codec.SIZE_MAX), st.lists(st.sampled_from(TransmissionFlag)), NAMES, NAMES)
def test_what_our_server_tells_the_client_reads(
    size: int, given_flags: list[TransmissionFlag], name: str, text: str
) -> None:
    flags = TransmissionFlag(0)
    for each in given_flags:
        flags |= each
    facts = codec.decode_info(NOTHING, nbd.encode_info_export(size, flags))
    facts = codec.decode_info(facts, nbd.encode_info_text(Info.NAME, name))
    facts = codec.decode_info(facts, nbd.encode_info_text(Info.DESCRIPTION, text))
    facts = codec.decode_info(facts, nbd.encode_info_block_size(4096))
    assert facts == ExportFacts(name, size, flags, text, 1, codec.PAYLOAD_BYTES_MAX)


def test_what_is_not_known_says_nothing_and_what_is_not_told_limits_nothing() -> None:
    assert codec.decode_info(NOTHING, b"\0\x63?") == NOTHING
    assert (NOTHING.size, NOTHING.block_min, NOTHING.payload_max) == (-1, 1, 32 << 20)
    largest = (1 << 63) - 1
    assert codec.decode_info(NOTHING, nbd.encode_info_export(largest, TransmissionFlag(0))).size == largest


def test_flags_that_the_server_did_not_mean_are_none() -> None:
    facts = codec.decode_info(NOTHING, struct.pack(">HQH", 0, 5, TransmissionFlag.SEND_FLUSH))
    assert not facts.can(TransmissionFlag.SEND_FLUSH)
    facts = codec.decode_info(NOTHING, struct.pack(">HQH", 0, 5, 0xFFFF))
    assert facts.can(TransmissionFlag.SEND_FLUSH) and facts.can(TransmissionFlag.READ_ONLY)


@pytest.mark.parametrize(
    ("data", "block_min", "payload_max"),
    [
        ((1, 4096, 1 << 25), 1, 1 << 25),
        ((512, 4096, 0xFFFFFFFF), 512, 32 << 20),
        ((4096, 4096, 10_000), 4096, 8192),
        ((1 << 26, 1 << 26, 1 << 26), 1 << 26, 1 << 26),
    ],
)
def test_block_sizes_limit_requests(data: tuple[int, int, int], block_min: int, payload_max: int) -> None:
    facts = codec.decode_info(NOTHING, struct.pack(">HIII", Info.BLOCK_SIZE, *data))
    assert (facts.block_min, facts.payload_max) == (block_min, payload_max)


@pytest.mark.parametrize("data", [(0, 1, 1), (3, 4, 4), (512, 1, 4096), (4096, 4096, 1), (1 << 31, 1 << 31, 1 << 31)])
def test_impossible_block_sizes_end_the_connection(data: tuple[int, int, int]) -> None:
    with pytest.raises(ProtocolError, match="block sizes"):
        codec.decode_info(NOTHING, struct.pack(">HIII", Info.BLOCK_SIZE, *data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        struct.pack(">HQ", 0, 1),
        struct.pack(">HQHB", 0, 1, 1, 0),
        struct.pack(">HQH", 0, 1 << 63, 1),
        b"\0\3xx",
    ],
)
def test_a_description_that_cannot_be_ends_the_connection(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_info(NOTHING, data)


@given(st.binary(max_size=40))
def test_garbage_is_a_protocol_error_or_decodes(data: bytes) -> None:
    for decode in (
        lambda: codec.decode_info(NOTHING, data),
        lambda: codec.decode_context(data, "base:allocation"),
        lambda: codec.decode_text(data),
    ):
        try:
            decode()
        except ProtocolError:
            pass


@given(st.binary(min_size=18, max_size=18))
def test_only_an_nbd_server_is_greeted(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_greeting(data)


def test_greetings() -> None:
    assert codec.decode_greeting(nbd.encode_greeting()) == 3
    assert codec.decode_greeting(nbd.GREETING.pack(nbd.MAGIC, nbd.OPTION_MAGIC, 0xFFFD)) == 1
    for old in (
        nbd.GREETING.pack(nbd.MAGIC, codec.OLDSTYLE_MAGIC, 3),
        nbd.GREETING.pack(nbd.MAGIC, nbd.OPTION_MAGIC, 2),
    ):
        with pytest.raises(ProtocolError, match="old form"):
            codec.decode_greeting(old)


def test_replies_to_options() -> None:
    reply = nbd.encode_option_error(Option.GO, OptionError(Reply.ERR_UNKNOWN, "no such"))
    assert codec.decode_option_reply(reply[:20], Option.GO) == (Reply.ERR_UNKNOWN, 7)
    assert codec.is_refusal(Reply.ERR_UNKNOWN) and not codec.is_refusal(Reply.ACK)
    assert codec.decode_text(reply[20:]) == "no such"
    assert codec.name_of_refusal(Reply.ERR_POLICY) == "ERR_POLICY"
    assert codec.name_of_refusal(0x80000042) == "error 66"
    longest = nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, Option.GO, Reply.INFO, codec.REPLY_BYTES_MAX)
    assert codec.decode_option_reply(longest, Option.GO) == (Reply.INFO, codec.REPLY_BYTES_MAX)
    for wrong in (
        nbd.OPTION_REPLY.pack(1, Option.GO, Reply.ACK, 0),
        nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, Option.LIST, Reply.ACK, 0),
        nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, Option.GO, Reply.ACK, codec.REPLY_BYTES_MAX + 1),
    ):
        with pytest.raises(ProtocolError):
            codec.decode_option_reply(wrong, Option.GO)


def test_contexts() -> None:
    assert codec.decode_context(nbd.encode_meta_context(9, "base:allocation"), "base:allocation") == 9
    with pytest.raises(ProtocolError):
        codec.decode_context(nbd.encode_meta_context(9, "qemu:x"), "base:allocation")
