"""A server over real sockets: every option, command, flag and error; batches; order; limits; its end."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrortool.change import Change
from mirrortool.errors import InputOutputError, LockedError, NoSpaceError, UsageError
from mirrortool.nbd.protocol import (
    NAME_BYTES_MAX,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    Info,
    Option,
    Reply,
    TransmissionFlag,
)
from mirrortool.nbd.server import Server
from tests.fakes.memory_export import MemoryExport
from tests.fakes.waiting import wait_until
from tests.nbd.wire import (
    TIMEOUT_SECONDS,
    Client,
    encode_info_request,
    encode_meta_request,
    encode_option,
    encode_request,
    serving,
    write,
)

SIZE = 1 << 20
MIB = 1 << 20
FUA = CommandFlag.FUA


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(SIZE)


@pytest.fixture
def server(tmp_path: Path, export: MemoryExport) -> Iterator[Server]:
    with serving(tmp_path, export) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.addresses[0]) as client:
        yield client


class Gate:
    """Holds the export's next call of a kind until it is opened."""

    def __init__(self, export: MemoryExport, name: str) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._name = name
        export.before = self._wait

    def _wait(self, name: str) -> None:
        if name == self._name and not self.reached.is_set():
            self.reached.set()
            assert self._opened.wait(TIMEOUT_SECONDS)

    def wait_reached(self) -> None:
        assert self.reached.wait(TIMEOUT_SECONDS)

    def open(self) -> None:
        self._opened.set()


def failing(name: str, error: Exception) -> Callable[[str], None]:
    def fail(called: str) -> None:
        if called == name:
            raise error

    return fail


def names(export: MemoryExport) -> list[str]:
    return [name for name, _ in export.calls]


# Options


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


# Commands


@pytest.mark.parametrize("structured", [False, True])
def test_what_is_written_is_read(client: Client, export: MemoryExport, structured: bool) -> None:
    client.go(structured=structured)
    assert client.do(Command.WRITE, 5, 7, data=b"written") == (7, 0, None, True, b"")
    answer = client.do(Command.READ, 4, 9)
    data = answer.payload[8:] if structured else client.receive(9)
    assert data == b"\0written\0"
    assert answer.kind == (ChunkType.OFFSET_DATA if structured else None)
    assert export.data[4:13] == data


@pytest.mark.parametrize("size", [1, 64 << 10, (64 << 10) + 1, (256 << 10) - 28, 256 << 10, 300_000, 5 * MIB, 64 * MIB])
def test_requests_of_every_size_survive(tmp_path: Path, size: int) -> None:
    export = MemoryExport(size + 10)
    data = os.urandom(min(size, 1 << 16)) * (size // (1 << 16) + 1)
    with serving(tmp_path, export) as server, Client(server.addresses[0]) as client:
        client.go()
        client.send(write(1, 3, data[:size]) + write(2, 0, b"abc") + encode_request(Command.READ, 3, 0, size))
        assert [client.answer()[:2] for _ in range(3)] == [(1, 0), (2, 0), (3, 0)]
        assert client.receive(size) == b"abc" + data[: size - 3] if size > 3 else b"abc"[:size]
    assert export.data[3 : 3 + size] == data[:size]


@pytest.mark.parametrize("flags", [0, CommandFlag.DF])
def test_large_structured_read_comes_in_order_and_whole_with_df(tmp_path: Path, flags: int) -> None:
    export = MemoryExport(5 * MIB)
    export.data[:] = os.urandom(5 * MIB)
    with serving(tmp_path, export) as server, Client(server.addresses[0]) as client:
        client.go(structured=True)
        chunks = [client.do(Command.READ, 100, 3 * MIB, flags)]
        while not chunks[-1].is_last:
            chunks.append(client.answer())
        assert len(chunks) == (1 if flags else 3)
        assert b"".join(chunk.payload[8:] for chunk in chunks) == export.data[100 : 100 + 3 * MIB]
        offsets = [struct.unpack(">Q", chunk.payload[:8])[0] for chunk in chunks]
        assert offsets == [100, 100 + MIB, 100 + 2 * MIB][: len(chunks)]


def test_zeros_and_trims_reach_the_export(client: Client, export: MemoryExport) -> None:
    client.go()
    for command, flags in [
        (Command.WRITE_ZEROES, 0), (Command.WRITE_ZEROES, CommandFlag.NO_HOLE), (Command.WRITE_ZEROES, 16),
        (Command.TRIM, 0),
    ]:  # fmt: skip
        assert client.do(command, 1, 20, flags).error == 0
    changes = [change for _, batch in export.calls for change in batch]
    assert changes == [Change(1, 20, None, keep) for keep in (False, True, False, False)]


def test_fast_zero_is_refused_where_it_is_not_fast(client: Client, export: MemoryExport) -> None:
    client.go()
    fast = CommandFlag.FAST_ZERO
    assert client.do(Command.WRITE_ZEROES, 0, 20, fast | CommandFlag.NO_HOLE).error == Error.ENOTSUP
    export.zeroes_fast = False
    assert client.do(Command.WRITE_ZEROES, 0, 20, fast).error == Error.ENOTSUP
    assert export.calls == []


def test_cache_reaches_the_export(client: Client, export: MemoryExport) -> None:
    client.go()
    assert client.do(Command.CACHE, 3, 20).error == 0
    assert export.calls == [("cache", (3, 20))]


@pytest.mark.parametrize(("flags", "extents"), [(0, [(4000, 3), (4096, 0), (904, 3)]), (8, [(4000, 3)])])
def test_block_status_tells_data_from_holes(client: Client, flags: int, extents: list[tuple[int, int]]) -> None:
    client.go(structured=True, contexts=True)
    client.do(Command.WRITE, 5000, 1, data=b"x")
    answer = client.do(Command.BLOCK_STATUS, 96, 9000, flags)
    assert (answer.kind, answer.payload[:4]) == (ChunkType.BLOCK_STATUS, struct.pack(">I", 1))
    assert list(struct.Struct(">II").iter_unpack(answer.payload[4:])) == extents


READ, WRITE, TRIM, FLUSH = Command.READ, Command.WRITE, Command.TRIM, Command.FLUSH
ZEROES, CACHE, STATUS = Command.WRITE_ZEROES, Command.CACHE, Command.BLOCK_STATUS


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (READ, SIZE, 1, 0, Error.EINVAL),
        (READ, SIZE + 1, 0, 0, Error.EINVAL),
        (READ, (1 << 64) - 1, 1, 0, Error.EINVAL),
        (READ, 0, 1, 2, Error.EINVAL),
        (READ, 0, 1, 1 << 15, Error.EINVAL),
        (WRITE, SIZE - 3, 4, 0, Error.ENOSPC),
        (WRITE, (1 << 64) - 1, 100_000, 0, Error.ENOSPC),
        (WRITE, 0, 4, 2, Error.EINVAL),
        (WRITE, 0, 100_000, 1 << 8, Error.EINVAL),
        (ZEROES, SIZE - 3, 4, 0, Error.ENOSPC),
        (ZEROES, 0, (1 << 32) - 1, 0, Error.ENOSPC),
        (ZEROES, 0, 1, 4, Error.EINVAL),
        (TRIM, SIZE - 3, 4, 0, Error.EINVAL),
        (TRIM, 0, 4, 16, Error.EINVAL),
        (FLUSH, 1, 0, 0, Error.EINVAL),
        (FLUSH, 0, 1, 0, Error.EINVAL),
        (CACHE, 1, SIZE, 0, Error.EINVAL),
        (STATUS, 0, 1, 0, Error.EINVAL),
        (8, 0, 0, 0, Error.EINVAL),
        (0xFFFF, 0, 0, 0, Error.EINVAL),
    ],
)
def test_bad_request_gets_its_error_and_the_next_is_answered(
    client: Client,
    export: MemoryExport,
    structured: bool,
    command: int,
    offset: int,
    length: int,
    flags: int,
    error: int,
) -> None:
    client.go(structured=structured)
    data = bytes(length) if command == WRITE else b""
    answer = client.do(command, offset, length, flags, data)
    assert (answer.error, answer.kind) == (error, ChunkType.ERROR if structured else None)
    assert client.do(FLUSH).error == 0
    assert names(export) == ["flush"]


@pytest.mark.parametrize("structured", [False, True])
def test_requests_of_no_bytes_succeed_without_the_export(
    client: Client, export: MemoryExport, structured: bool
) -> None:
    client.go(structured=structured)
    for command in (WRITE, ZEROES, TRIM, CACHE, READ):
        assert client.do(command, 5, 0).error == 0
    assert export.calls == []
    assert client.do(WRITE, 5, 0, FUA).error == 0
    assert names(export) == ["flush"]


def test_read_only_export_is_not_changed(tmp_path: Path) -> None:
    export = MemoryExport(SIZE, read_only=True)
    with serving(tmp_path, export) as server, Client(server.addresses[0]) as client:
        _, flags = client.go()
        assert flags & TransmissionFlag.READ_ONLY and not flags & TransmissionFlag.SEND_TRIM
        for command in (WRITE, ZEROES, TRIM):
            assert client.do(command, 0, 4, data=b"data" if command == WRITE else b"").error == Error.EPERM
        assert client.do(FLUSH).error == 0
    assert names(export) == ["flush"]


def test_too_large_requests_keep_the_stream_in_step(tmp_path: Path) -> None:
    with serving(tmp_path, MemoryExport(80 * MIB)) as server, Client(server.addresses[0]) as client:
        client.go(structured=True)
        assert client.do(WRITE, 0, 65 * MIB, data=bytes(65 * MIB)).error == Error.EINVAL
        assert client.do(READ, 0, 65 * MIB).error == Error.EOVERFLOW
        assert client.do(ZEROES, 0, 80 * MIB).error == 0
        client.send(encode_request(WRITE, 1, 0, 129 * MIB))
        assert client.is_closed()


@pytest.mark.parametrize(("error", "number"), [(NoSpaceError("full"), 28), (InputOutputError("bad\x1b"), 5)])
@pytest.mark.parametrize("structured", [False, True])
def test_what_the_export_raises_is_an_error_number_and_one_event(
    tmp_path: Path, error: Exception, number: int, structured: bool
) -> None:
    events: list[str] = []
    export = MemoryExport(SIZE)
    with serving(tmp_path, export, events=events) as server, Client(server.addresses[0]) as client:
        client.go(structured=structured, contexts=structured)
        calls = [("change", WRITE), ("change", ZEROES), ("change", TRIM), ("flush", FLUSH), ("cache", CACHE)]
        for name, command in [*calls, ("read", READ), *([("extents", STATUS)] if structured else [])]:
            export.before = failing(name, error)
            size = 0 if command == FLUSH else 4
            assert client.do(command, 0, size, data=b"data" if command == WRITE else b"").error == number
            export.before = failing("nothing", error)
            assert client.do(FLUSH).error == 0
        export.before = failing("flush", error)
        assert client.do(WRITE, 0, 4, FUA, b"data").error == number
    assert export.data[:4] == b"data"
    assert len(events) == 1 and events[0].isprintable()


def test_what_is_no_error_of_ours_ends_the_connection_and_is_told(tmp_path: Path) -> None:
    events: list[str] = []
    export = MemoryExport(SIZE)
    with Server([export], [f"unix:{tmp_path}/s"], on_event=events.append) as server:
        export.before = failing("change", ZeroDivisionError("a\nbug"))
        with Client(server.addresses[0]) as client:
            client.go()
            client.send(write(1, 0, b"x"))
            assert client.is_closed()
        export.before = failing("nothing", ValueError())
        with Client(server.addresses[0]) as client:
            client.go()
            assert client.do(WRITE, 0, 1, data=b"x").error == 0
    assert len(events) == 1 and "ZeroDivisionError" in events[0] and events[0].isprintable()


# Batches and order


def after_gate(client: Client, gate: Gate, *requests: bytes) -> None:
    """Have one receive bring all of these: they are sent while the server is busy with another."""
    client.send(write(99, SIZE - 1, b"!"))
    gate.wait_reached()
    client.send(b"".join(requests))
    gate.open()
    assert client.answer().cookie == 99


def test_one_send_is_one_change(client: Client, export: MemoryExport) -> None:
    client.go()
    requests = [write(n, n * 4096, bytes([n]) * 4096) for n in range(20)]
    requests += [encode_request(ZEROES, 20, 0, 4096), encode_request(TRIM, 21, 4096, 4096)]
    after_gate(client, Gate(export, "change"), *requests)
    assert [client.answer().cookie for _ in range(22)] == list(range(22))
    assert [len(batch) for _, batch in export.calls] == [1, 22]
    assert export.data[: 3 * 4096] == bytes(2 * 4096) + b"\2" * 4096


def test_run_is_cut_where_somebody_must_see_it(client: Client, export: MemoryExport) -> None:
    client.go()
    after_gate(
        client, Gate(export, "change"),
        write(1, 0, b"aa"), write(2, 1, b"b"), encode_request(READ, 3, 0, 2), write(4, 0, b"c"),
        encode_request(FLUSH, 5), encode_request(FLUSH, 6), write(7, 0, b"d"), encode_request(READ, 8, 0, 2),
    )  # fmt: skip
    answers = []
    for _ in range(8):
        answer = client.answer()
        answers.append((answer.cookie, client.receive(2) if answer.cookie in (3, 8) else b""))
    assert sorted(answers) == [(1, b""), (2, b""), (3, b"ab"), (4, b""), (5, b""), (6, b""), (7, b""), (8, b"db")]
    assert names(export) == ["change", "change", "change", "flush", "change"]
    assert [len(batch) for name, batch in export.calls if name == "change"] == [1, 2, 1, 1]


def test_one_flush_serves_all_of_a_run_and_only_they_wait(client: Client, export: MemoryExport) -> None:
    client.go()
    gate = Gate(export, "change")
    client.send(write(99, 0, b"!"))
    gate.wait_reached()
    client.send(write(1, 0, b"a") + write(2, 0, b"b", FUA) + write(3, 0, b"c") + encode_request(FLUSH, 4))
    flushing = Gate(export, "flush")
    gate.open()
    assert [client.answer().cookie for _ in range(3)] == [99, 1, 3]
    flushing.wait_reached()
    client.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(TIMEOUT_SECONDS)
    flushing.open()
    assert [client.answer().cookie for _ in range(2)] == [2, 4]
    assert names(export) == ["change", "change", "flush"]


def test_failed_batch_fails_each_of_its_requests_but_not_the_flush(client: Client, export: MemoryExport) -> None:
    client.go()
    gate = Gate(export, "change")
    client.send(write(99, 0, b"!"))
    gate.wait_reached()
    client.send(write(1, 0, b"a") + write(2, 0, b"b", FUA) + encode_request(FLUSH, 3))
    export.before = failing("change", NoSpaceError("full"))
    gate.open()
    assert [client.answer()[:2] for _ in range(4)] == [(99, 0), (1, 28), (2, 28), (3, 0)]
    assert export.data[:1] == b"!"


def test_what_the_export_keeps_is_never_written_again(client: Client, export: MemoryExport) -> None:
    client.go()
    for n in range(50):
        client.do(WRITE, 0, 10_000 * (n % 9 + 1), data=bytes([n]) * 10_000 * (n % 9 + 1))
    kept = [change.data for _, batch in export.calls for change in batch]
    for n, data in enumerate(kept):
        assert bytes(data or b"") == bytes([n]) * 10_000 * (n % 9 + 1)
        assert not isinstance(data, memoryview), "a page would pin the memory of a whole receive"


def test_connections_see_each_other_and_a_flush_of_one_covers_all(server: Server, export: MemoryExport) -> None:
    with Client(server.addresses[0]) as one, Client(server.addresses[0]) as two:
        one.go()
        two.go()
        assert one.do(WRITE, 0, 3, data=b"one").error == 0
        assert two.do(READ, 0, 3).error == 0 and two.receive(3) == b"one"
        assert two.do(FLUSH).error == 0
    assert names(export) == ["change", "flush"]


def test_client_stuck_in_the_export_delays_no_other(server: Server, export: MemoryExport) -> None:
    gate = Gate(export, "change")
    with Client(server.addresses[0]) as stuck, Client(server.addresses[0]) as other:
        stuck.go()
        other.go()
        stuck.send(write(1, 0, b"x"))
        gate.wait_reached()
        assert other.do(WRITE, 1, 1, data=b"y").error == 0
        gate.open()
        assert stuck.answer().error == 0


def test_disconnect_does_what_came_before_it(client: Client, export: MemoryExport) -> None:
    client.go()
    client.send(write(1, 0, b"last") + encode_request(Command.DISC) + write(2, 0, b"late"))
    assert client.answer()[:2] == (1, 0)
    assert client.is_closed()
    assert export.data[:4] == b"last"


def test_garbage_ends_the_connection_after_what_came_before_it(client: Client, export: MemoryExport) -> None:
    client.go()
    after_gate(client, Gate(export, "change"), write(1, 0, b"good"), b"garbage" * 10)
    assert client.answer()[:2] == (1, 0)
    assert client.is_closed()
    assert export.data[:4] == b"good"


# Addresses and sockets


@pytest.mark.parametrize("umask", [0, 0o077])
def test_socket_is_private_unless_said_otherwise_and_gone_afterwards(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for mode in (0o600, 0o660):
            group = str(os.getgid())
            with serving(tmp_path, socket_mode=mode, socket_group=group):
                found = os.stat(tmp_path / "s")
                assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
            assert not (tmp_path / "s").exists()
    finally:
        os.umask(before)


def test_stale_socket_is_replaced_and_a_live_one_refused(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{tmp_path}/s")
    stale.close()
    with serving(tmp_path) as server:
        with pytest.raises(LockedError), serving(tmp_path):
            pass
        with Client(server.addresses[0]) as client:
            client.go()


def test_socket_of_another_is_left_to_it(tmp_path: Path) -> None:
    with serving(tmp_path):
        os.rename(tmp_path / "s", tmp_path / "moved")
        (tmp_path / "s").write_bytes(b"")
    assert (tmp_path / "s").exists()


def test_what_is_no_socket_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"precious")
    with pytest.raises(UsageError), serving(tmp_path):
        pass
    assert (tmp_path / "s").read_bytes() == b"precious"


@pytest.mark.parametrize("group", ["no such group", "x\n"])
def test_unknown_group_is_refused_before_anything_is_begun(tmp_path: Path, group: str) -> None:
    with pytest.raises(UsageError, match="no group"):
        Server([MemoryExport()], [f"unix:{tmp_path}/s"], socket_group=group, on_event=lambda _: None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "x" * (NAME_BYTES_MAX + 1), "é" * (NAME_BYTES_MAX // 2 + 1)])
def test_a_name_that_no_client_could_ask_for_is_refused(tmp_path: Path, name: str) -> None:
    export = MemoryExport(name=name)
    with pytest.raises(UsageError, match=f"at most {NAME_BYTES_MAX} bytes, none of them 0"):
        Server([export], [f"unix:{tmp_path}/s"], on_event=lambda _: None)
    assert os.listdir(tmp_path) == []


def test_tcp_without_tls_must_be_asked_for() -> None:
    with pytest.raises(UsageError):
        Server([MemoryExport()], ["tcp:127.0.0.1:0"], on_event=print)
    with Server([MemoryExport()], ["tcp:127.0.0.1:0"], insecure=True, on_event=print) as server:
        with Client(server.addresses[0]) as client:
            client.go()
            assert client.do(WRITE, 0, 3, data=b"tcp").error == 0
        with pytest.raises(LockedError):
            Server([], [server.addresses[0]], insecure=True, on_event=print).start()


def test_one_bad_address_opens_none(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/a", "tcp:no.such.host.invalid:1"]
    with pytest.raises(UsageError):
        Server([MemoryExport()], addresses, insecure=True, on_event=print).start()
    assert os.listdir(tmp_path) == []


def test_exports_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError):
        Server([MemoryExport(), MemoryExport()], [], on_event=print)


# Limits, statistics, the end


def test_more_clients_than_allowed_are_closed_and_told_once(tmp_path: Path) -> None:
    events: list[str] = []
    with serving(tmp_path, events=events, max_connections=2) as server:
        with Client(server.addresses[0]) as one, Client(server.addresses[0]) as two:
            one.go()
            two.go()
            for _ in range(5):
                with Client(server.addresses[0]) as third:
                    ((reply, why),) = third.ask(Option.GO, encode_info_request("", []))
                    assert (reply, b"connected already" in why) == (Reply.ERR_POLICY, True)
                    third.send(encode_option(Option.EXPORT_NAME, b"disk"))
                    assert third.is_closed()
            assert one.do(FLUSH).error == two.do(FLUSH).error == 0
            assert server.statistics().connections_refused == 10
        wait_until(lambda: server.statistics().connections == 0)
        with Client(server.addresses[0]) as client:
            client.go()
    assert len(events) == 1 and "2 are connected already" in events[0]


def test_who_says_nothing_keeps_nobody_out(tmp_path: Path) -> None:
    """The oldest in the handshake makes room, with nobody's time used up, and no client that has an export does."""
    events: list[str] = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            serving(tmp_path, events=events, max_connections=1, max_handshakes=3, handshake_seconds=TIMEOUT_SECONDS)
        )
        served = stack.enter_context(Client(server.addresses[0]))
        served.go()
        silent = []
        for count in range(1, 4):
            silent.append(stack.enter_context(Client(server.addresses[0], greet=False)))
            silent[-1].receive(18)
            assert server.statistics().handshakes == count
        for number in range(5):
            silent.append(stack.enter_context(Client(server.addresses[0], greet=False)))
            assert silent[-1].receive(18)
            assert silent[number].is_closed()
            assert server.statistics().handshakes == 3
        assert served.do(FLUSH).error == 0
        assert server.statistics().connections == 4
    assert len(events) == 1 and "it was the oldest" in events[0]


def test_statistics_count_what_was_done(tmp_path: Path) -> None:
    with serving(tmp_path, MemoryExport(name="a"), MemoryExport(name="b")) as server:
        with Client(server.addresses[0]) as client:
            client.go("a")
            client.do(WRITE, 0, 10, data=bytes(10))
            client.do(ZEROES, 0, 10)
            client.do(READ, 0, 4)
            client.receive(4)
            client.do(FLUSH)
            client.do(99)
            now = server.statistics()
            row = now.exports[0]
            assert (now.connections, now.connections_total, row.name, row.clients) == (1, 1, "a", 1)
            assert (row.reads, row.writes, row.bytes_read, row.bytes_written, row.flushes) == (1, 2, 4, 10, 1)
            assert row.errors == 1
            client.send(encode_request(Command.DISC))
            assert client.is_closed()
        server.stop()
        after = server.statistics()
        assert (after.connections, after.exports[0].writes, after.exports[1].writes) == (0, 2, 0)


def threads() -> int:
    return threading.active_count()


def stopping(server: Server, **options: Any) -> threading.Thread:
    thread = threading.Thread(target=server.stop, kwargs=options)
    thread.start()
    return thread


def test_stop_lets_a_request_finish_and_be_answered(tmp_path: Path, export: MemoryExport) -> None:
    before = threads()
    with serving(tmp_path, export) as server, Client(server.addresses[0]) as client:
        client.go()
        gate = Gate(export, "change")
        client.send(write(1, 0, b"last"))
        gate.wait_reached()
        thread = stopping(server, grace_seconds=TIMEOUT_SECONDS)
        gate.open()
        assert client.answer()[:2] == (1, 0)
        thread.join(TIMEOUT_SECONDS)
        assert client.is_closed()
    assert threads() == before


@pytest.mark.parametrize(
    "last_words",
    [
        b"",
        write(1, 0, bytes(32 * MIB))[: 5 * MIB],
        encode_request(WRITE, 1, 0, 70 * MIB) + bytes(MIB),
        b"".join(encode_request(READ, n, 0, 32 * MIB) for n in range(20)),
        b"half",
    ],
    ids=["idle", "mid-write", "mid-skip", "reads nothing", "half a request"],
)
def test_stop_ends_whoever_hangs(tmp_path: Path, last_words: bytes) -> None:
    before = threads()
    export = MemoryExport(32 * MIB)
    with serving(tmp_path, export) as server, Client(server.addresses[0]) as client, Client(server.addresses[0]):
        client.go()
        client.send(last_words)
        server.stop(grace_seconds=0.1)
        assert server.statistics().connections == 0
    assert threads() == before
    assert export.calls == []


def test_silent_client_is_ended(tmp_path: Path) -> None:
    events: list[str] = []
    with serving(tmp_path, events=events, handshake_seconds=0.05) as server, Client(server.addresses[0]) as client:
        assert client.is_closed()
    assert "handshake" in events[0]


def test_endless_negotiation_is_ended(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Client(server.addresses[0]) as client:
        for _ in range(1000):
            client.ask(Option.INFO, encode_info_request("disk", range(100)))
        assert client.is_closed()
