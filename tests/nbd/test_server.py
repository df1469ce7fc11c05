"""A server over real sockets: every command, flag and error of its transmission; batches; order."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from mirrortool.change import Change
from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.nbd.protocol import (
    ChunkType,
    Command,
    CommandFlag,
    Error,
    TransmissionFlag,
)
from mirrortool.nbd.server import Server
from tests.fakes.memory_export import Gate, MemoryExport, failing, names
from tests.nbd.wire import (
    SIZE,
    TIMEOUT_SECONDS,
    Client,
    encode_request,
    serving,
    write,
)

MIB = 1 << 20
FUA = CommandFlag.FUA


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
