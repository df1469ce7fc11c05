"""Clients that lie, dawdle and die: the server neither fails nor leaks, and serves the others.

The quick versions run in the ordinary suite, the numbers of the promise with `-m soak`.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
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
EXTREMES = [0, 1, 2, 28, 511, 4096, SIZE - 1, SIZE, SIZE + 1, 1 << 31, (1 << 32) - 1]


def extreme(rng: random.Random, bits: int) -> int:
    return rng.choice([rng.choice(EXTREMES), rng.getrandbits(bits), (1 << bits) - 1]) & ((1 << bits) - 1)


def some_option(rng: random.Random) -> bytes:
    """An option, sound or nearly so."""
    option = rng.choice([*Option, *Option, rng.getrandbits(32)])
    name = rng.choice(["", "disk", "other", "a\nb", "n" * 5000])
    queries = [rng.choice(["base:", "base:allocation", "x"]) for _ in range(rng.randrange(3))]
    data = rng.choice(
        [
            b"",
            rng.randbytes(rng.randrange(40)),
            encode_info_request(name, [rng.getrandbits(16) for _ in range(rng.randrange(100))]),
            encode_meta_request(name, queries),
        ]
    )
    if rng.random() < 0.05:
        return nbd.OPTION.pack(nbd.OPTION_MAGIC, option, extreme(rng, 32)) + data
    return encode_option(option, data)


def some_request(rng: random.Random) -> bytes:
    """A request, sound or nearly so; a WRITE mostly with its data."""
    command = rng.choice([*Command, *Command, Command.WRITE, rng.getrandbits(16)])
    length = rng.choice([rng.randrange(10_000), extreme(rng, 32)])
    offset = rng.choice([rng.randrange(SIZE), extreme(rng, 64)])
    flags = rng.choice([0, 0, 0, rng.getrandbits(5), rng.getrandbits(16)])
    data = rng.randbytes(min(length, 10_000)) if command == Command.WRITE else b""
    return encode_request(command, rng.getrandbits(64), offset, length, flags=flags, data=data)


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Sometimes cut, sometimes with a changed byte."""
    if data and rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    if data and rng.random() < 0.2:
        changed = bytearray(data)
        changed[rng.randrange(len(changed))] = rng.getrandbits(8)
        return bytes(changed)
    return data


def some_conversation(rng: random.Random) -> bytes:
    """All that a client says, without listening."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(200))
    options = b"".join(some_option(rng) for _ in range(rng.randrange(4)))
    structured = encode_option(Option.STRUCTURED_REPLY) if rng.random() < 0.5 else b""
    context = encode_option(Option.SET_META_CONTEXT, encode_meta_request("", ["base:allocation"]))
    go = encode_option(Option.GO, encode_info_request("", [3]))
    requests = b"".join(some_request(rng) for _ in range(rng.randrange(8)))
    start = struct.pack(">I", rng.choice([1, 3, 3, 3, rng.getrandbits(32)]))
    if kind < 0.4:
        return spoiled(rng, start + options + go + requests)
    return start + structured + context + go + spoiled(rng, requests)


def converse(path: str, said: bytes) -> None:
    """Say it all, then hear whatever comes until the server ends it."""
    with contextlib.suppress(ConnectionError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect(path)
        listener = threading.Thread(target=hear, args=(client,))
        if len(said) > 20_000:
            listener.start()
        with contextlib.suppress(ConnectionError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
        if listener.ident:
            listener.join(TIMEOUT_SECONDS)
            assert not listener.is_alive()
        else:
            hear(client)


def hear(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 20):
            pass


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
