"""Clients that lie, dawdle and die at a live recorder, beside a client that verifies all it writes and notices nothing.

The long run: pytest -m soak tests/interop/test_live_hostile.py
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.nbd.protocol import Command
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import require_tools
from tests.fakes.volumes import fast_directory
from tests.interop.tool import Site
from tests.nbd.conversations import converse, some_conversation
from tests.nbd.wire import Client, encode_request, write

MIB = 1 << 20
MEMORY_GROWTH_MAX = 64 * MIB


@pytest.fixture
def site() -> Iterator[Site]:
    """`fuzz`, the default export, is everybody's; `work` is fio's."""
    require_tools("fio", "cmp")
    with fast_directory() as path:
        made = Site(Path(path))
        made.init(f"fuzz={path}/fuzz.img:1M", f"work={path}/work.img:32M")
        yield made


@contextlib.contextmanager
def verifying_client(live: LiveRecorder) -> Iterator[None]:
    """fio, round and round until the block ends; it must have seen no error."""
    command = [
        "fio", "--name=v", "--ioengine=nbd", f"--uri={live.uri('work')}", "--rw=randwrite", "--bs=4k", "--size=4m",
        "--offset_increment=4m", "--numjobs=2", "--iodepth=8", "--verify=crc32c", "--verify_fatal=1",
        "--verify_state_save=0", "--do_verify=1",
        "--group_reporting", "--rate_iops=1500",
    ]  # fmt: skip
    stop = threading.Event()
    failures: list[str] = []
    rounds = [0]

    def work() -> None:
        while not stop.is_set() and not failures:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            rounds[0] += 1
            if done.returncode or "err= 0" not in done.stdout:
                failures.append(done.stdout + done.stderr)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures[0]
    assert rounds[0]


QUIET_THREADS = 6
"""Main, work, write-back, control, base and accepting; a client has one more."""


def wait_quiet(live: LiveRecorder) -> None:
    """Until those that left are forgotten."""
    live.wait_until(lambda: live.threads <= QUIET_THREADS)


def attack(live: LiveRecorder, conversations: int, connects: int, seed: int) -> None:
    chance = random.Random(seed)
    address = UnixAddress(str(live.socket))
    for _ in range(conversations):
        converse(str(live.socket), some_conversation(chance))
    for number in range(connects):
        with contextlib.suppress(ConnectionError), Client(address, greet=bool(number % 2)) as client:
            if number % 10 == 0:
                client.go("fuzz")
                client.send(write(1, 0, bytes(100_000))[: chance.randrange(100_000)])
            if number % 10 == 5:
                client.go("fuzz")
                for _ in range(50):  # and never listen
                    client.send(encode_request(Command.READ, 1, 0, MIB))


def check(site: Site, conversations: int, connects: int) -> None:
    with LiveRecorder(site.journal, "--max-connections", 16) as live:
        attack(live, conversations // 10, connects // 10, 1)
        wait_quiet(live)
        descriptors, threads, resident = live.descriptors, live.threads, live.resident_bytes
        with verifying_client(live):
            attack(live, conversations, connects, 2)
        wait_quiet(live)
        assert live.descriptors <= descriptors + 1, "descriptors leak"
        assert live.threads <= threads
        assert live.resident_bytes < resident + MEMORY_GROWTH_MAX
        assert len(live.lines) < 200, "the log is flooded"
        assert all(line.isprintable() for line in live.lines)
        assert not any("unexpected" in line or "could not be ended" in line for line in live.lines), live.lines
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("fuzz")
            assert client.do(Command.WRITE, 0, 4, data=b"fine").error == 0
    site.prove()


def test_hostile_clients_beside_one_that_verifies(site: Site) -> None:
    check(site, 500, 1000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_hostile_clients_for_long(site: Site) -> None:
    check(site, 20_000, 10_000)
