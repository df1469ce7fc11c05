"""Clients that lie, dawdle and die: the server neither fails nor leaks, and serves the others.

The quick versions run in the ordinary suite, the numbers of the promise with `-m soak`.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import Command, Option
from mirrortool.nbd.server import Server
from tests.fakes.memory_export import MemoryExport
from tests.fakes.waiting import wait_until
from tests.nbd.conversations import converse, some_conversation
from tests.nbd.wire import (
    SIZE,
    Client,
    encode_option,
    serving,
    write,
)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def unharmed(tmp_path: Path, events: list[str], **options: float) -> Iterator[tuple[Server, MemoryExport]]:
    """A server under attack: afterwards it serves, nothing is left over, and nothing unexpected happened."""
    before = threading.active_count(), descriptors()
    export = MemoryExport(SIZE)
    with serving(tmp_path, export, events=events, **options) as server:
        yield server, export
        with Client(server.addresses[0]) as client:
            client.go()
            assert client.do(Command.WRITE, 0, 4, data=b"fine").error == 0
            assert client.do(Command.READ, 0, 4).error == 0 and client.receive(4) == b"fine"
    assert (threading.active_count(), descriptors()) == before
    assert all(line.isprintable() for line in events)


def fuzz(tmp_path: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    events: list[str] = []
    with unharmed(tmp_path, events) as (server, export):
        early = 0
        for number in range(count):
            converse(f"{tmp_path}/s", some_conversation(rng))
            export.calls.clear()
            if number == count // 3:
                early = resident_bytes()
        assert resident_bytes() < early + (64 << 20)
        assert server.statistics().connections_total == count


@pytest.fixture
def no_traceback(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("no_traceback")
def test_fuzzed_conversations(tmp_path: Path) -> None:
    fuzz(tmp_path, 3000, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("no_traceback")
@pytest.mark.parametrize("seed", range(10))
def test_hundred_thousand_fuzzed_conversations(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, 10_000, 100 + seed)


def connect_often(tmp_path: Path, count: int) -> None:
    with unharmed(tmp_path, []) as (server, _):
        for number in range(count):
            with contextlib.suppress(ConnectionError), Client(server.addresses[0], greet=bool(number % 2)):
                pass


@pytest.mark.usefixtures("no_traceback")
def test_many_connects(tmp_path: Path) -> None:
    connect_often(tmp_path, 500)


@pytest.mark.soak
@pytest.mark.usefixtures("no_traceback")
def test_ten_thousand_connects(tmp_path: Path) -> None:
    connect_often(tmp_path, 10_000)


def test_slow_senders_are_ended_and_harm_nobody(tmp_path: Path) -> None:
    """A byte now and then does not stretch the handshake."""
    events: list[str] = []
    with unharmed(tmp_path, events, handshake_seconds=0.3) as (server, _), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Client(server.addresses[0])) for _ in range(20)]
        for client in slow:
            client.send(nbd.OPTION.pack(nbd.OPTION_MAGIC, Option.LIST, nbd.OPTION_BYTES_MAX))

        def are_gone() -> bool:
            for client in slow:
                with contextlib.suppress(ConnectionError):
                    client.send(b"x")
            return server.statistics().connections == 0

        wait_until(are_gone)
    assert any("handshake" in line for line in events)


def test_half_requests_are_never_done(tmp_path: Path) -> None:
    events: list[str] = []
    whole = write(1, 0, b"x" * 200_000)
    with unharmed(tmp_path, events) as (server, export):
        for length in (1, 27, 28, 29, 4000, 70_000, len(whole) - 1):
            with Client(server.addresses[0]) as client:
                client.go()
                client.send(whole[:length])
                client.socket.shutdown(socket.SHUT_WR)
                assert client.is_closed()
        assert export.calls == []
    assert "middle of a request" in events[0]


KILLED = """
import sys
from tests.nbd.wire import Client, write
from mirrortool.sockets.addresses import UnixAddress
client = Client(UnixAddress(sys.argv[1]))
client.go()
print("ready", flush=True)
while True:
    client.send(write(1, 0, bytes(100_000)))
    client.answer()
"""


def test_killed_clients_leave_nothing(tmp_path: Path) -> None:
    with unharmed(tmp_path, []) as (server, _):
        for _ in range(3):
            command = [sys.executable, "-c", KILLED, f"{tmp_path}/s"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
                assert killed.stdout and killed.stdout.readline() == b"ready\n"
                killed.kill()
        wait_until(lambda: server.statistics().connections == 0)


def test_names_of_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    events: list[str] = []
    with unharmed(tmp_path, events) as (server, _), Client(server.addresses[0]) as client:
        client.send(encode_option(Option.EXPORT_NAME, b"\x1b[2J\nroot"))
        assert client.is_closed()
    assert len(events) == 1 and "\\x1b[2J" in events[0]
