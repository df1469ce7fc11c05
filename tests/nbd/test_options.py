"""Each option of the negotiation gets its answer, and a bad one its error, after which the next is answered."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mirrortool.nbd.protocol import (
    Command,
    Error,
    Info,
    Option,
    Reply,
    TransmissionFlag,
)
from mirrortool.nbd.server import Server
from tests.fakes.memory_export import MemoryExport
from tests.nbd.wire import (
    SIZE,
    Client,
    encode_info_request,
    encode_meta_request,
    encode_option,
    serving,
)


def test_go_tells_size_and_what_the_export_can_do(client: Client) -> None:
    size, flags = client.go("disk", structured=True)
    assert size == SIZE
    can = TransmissionFlag
    assert flags == (
        can.HAS_FLAGS | can.SEND_FLUSH | can.SEND_FUA | can.SEND_TRIM | can.SEND_WRITE_ZEROES | can.SEND_DF
        | can.CAN_MULTI_CONN | can.SEND_CACHE | can.SEND_FAST_ZERO
    )  # fmt: skip


def test_info_tells_what_was_asked_and_leaves_the_choice(client: Client) -> None:
    replies = client.ask(Option.INFO, encode_info_request("", [1, 2, 3, 999]))
    told = {struct.unpack(">H", data[:2])[0]: data[2:] for reply, data in replies if reply == Reply.INFO}
    assert told.keys() == {0, 1, 2, 3}
    assert (told[Info.NAME], told[Info.DESCRIPTION]) == (b"disk", b"in memory")
    assert struct.unpack(">III", told[Info.BLOCK_SIZE]) == (1, 4096, 32 << 20)
    assert client.go()[0] == SIZE


def test_list_names_every_export_and_none_is_the_default(tmp_path: Path) -> None:
    with (
        serving(tmp_path, MemoryExport(name="a"), MemoryExport(name="b\n")) as server,
        Client(server.addresses[0]) as client,
    ):
        replies = client.ask(Option.LIST)
        assert [data[4:] for _, data in replies] == [b"ain memory", b"b\nin memory", b""]
        assert client.ask(Option.LIST, b"x")[0][0] == Reply.ERR_INVALID
        assert client.ask(Option.GO, encode_info_request("", []))[0][0] == Reply.ERR_UNKNOWN
        client.go("b\n")


@pytest.mark.parametrize(
    ("option", "data", "reply"),
    [
        (4, b"", Reply.ERR_UNSUP),
        (11, b"", Reply.ERR_UNSUP),
        (0xFFFFFFFF, b"data", Reply.ERR_UNSUP),
        (Option.GO, b"\0\0", Reply.ERR_INVALID),
        (Option.GO, encode_info_request("disk", [1])[:-1], Reply.ERR_INVALID),
        (Option.GO, encode_info_request("no\nsuch", []), Reply.ERR_UNKNOWN),
        (Option.INFO, encode_info_request("n" * 4097, []), Reply.ERR_TOO_BIG),
        (Option.LIST, bytes((64 << 10) + 1), Reply.ERR_TOO_BIG),
        (Option.STRUCTURED_REPLY, b"x", Reply.ERR_INVALID),
        (Option.STARTTLS, b"", Reply.ERR_POLICY),
        (Option.SET_META_CONTEXT, encode_meta_request("disk", ["base:allocation"]), Reply.ERR_INVALID),
    ],
)
def test_bad_option_gets_its_error_and_the_next_is_answered(
    client: Client, option: int, data: bytes, reply: Reply
) -> None:
    for _ in range(3):
        assert client.ask(option, data)[-1][0] == reply
    client.go()


def test_contexts_are_listed_and_selected(client: Client) -> None:
    client.ask(Option.STRUCTURED_REPLY)
    named = struct.pack(">I", 0) + b"base:allocation"
    for queries, found in [([], True), (["base:"], True), (["base:allocation"], True), (["qemu:x", "base:y"], False)]:
        replies = client.ask(Option.LIST_META_CONTEXT, encode_meta_request("", queries))
        assert [data for _, data in replies] == ([named, b""] if found else [b""])
    for queries in ([], ["base:"], ["qemu:x"]):
        assert len(client.ask(Option.SET_META_CONTEXT, encode_meta_request("", queries))) == 1
    assert client.ask(Option.SET_META_CONTEXT, encode_meta_request("other", []))[0][0] == Reply.ERR_UNKNOWN


def test_failed_selection_forgets_the_one_before(client: Client) -> None:
    client.ask(Option.STRUCTURED_REPLY)
    client.ask(Option.SET_META_CONTEXT, encode_meta_request("", ["base:allocation"]))
    client.ask(Option.SET_META_CONTEXT, b"")
    client.go()
    assert client.do(Command.BLOCK_STATUS, 0, 10).error == Error.EINVAL


@pytest.mark.parametrize("flags", [1, 3])
def test_export_name_enters_transmission_at_once(server: Server, flags: int) -> None:
    with Client(server.addresses[0], greet=False) as client:
        client.receive(18)
        client.send(struct.pack(">I", flags) + encode_option(Option.EXPORT_NAME, b"disk"))
        size, _ = struct.unpack(">QH", client.receive(10))
        assert size == SIZE
        assert flags == 3 or client.receive(124) == bytes(124)
        assert client.do(Command.WRITE, 0, 3, data=b"abc").error == 0


def test_unknown_name_or_client_flag_ends_the_connection(server: Server) -> None:
    with Client(server.addresses[0]) as client:
        client.send(encode_option(Option.EXPORT_NAME, b"other"))
        assert client.is_closed()
    with Client(server.addresses[0], greet=False) as client:
        client.receive(18)
        client.send(struct.pack(">I", 7))
        assert client.is_closed()


def test_abort_is_acknowledged(client: Client) -> None:
    assert client.ask(Option.ABORT, b"why") == [(Reply.ACK, b"")]
    assert client.is_closed()
