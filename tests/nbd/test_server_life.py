"""A server opens its sockets or none, keeps its limits, counts what it does, and ends whatever its clients do."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import LockedError, UsageError
from mirrortool.nbd.protocol import (
    NAME_BYTES_MAX,
    Command,
    Option,
    Reply,
)
from mirrortool.nbd.server import Server
from tests.fakes.memory_export import Gate, MemoryExport
from tests.fakes.waiting import wait_until
from tests.nbd.wire import (
    TIMEOUT_SECONDS,
    Client,
    encode_info_request,
    encode_option,
    encode_request,
    serving,
    write,
)

MIB = 1 << 20


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
            assert client.do(Command.WRITE, 0, 3, data=b"tcp").error == 0
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
            assert one.do(Command.FLUSH).error == two.do(Command.FLUSH).error == 0
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
        assert served.do(Command.FLUSH).error == 0
        assert server.statistics().connections == 4
    assert len(events) == 1 and "it was the oldest" in events[0]


def test_statistics_count_what_was_done(tmp_path: Path) -> None:
    with serving(tmp_path, MemoryExport(name="a"), MemoryExport(name="b")) as server:
        with Client(server.addresses[0]) as client:
            client.go("a")
            client.do(Command.WRITE, 0, 10, data=bytes(10))
            client.do(Command.WRITE_ZEROES, 0, 10)
            client.do(Command.READ, 0, 4)
            client.receive(4)
            client.do(Command.FLUSH)
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
        encode_request(Command.WRITE, 1, 0, 70 * MIB) + bytes(MIB),
        b"".join(encode_request(Command.READ, n, 0, 32 * MIB) for n in range(20)),
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
