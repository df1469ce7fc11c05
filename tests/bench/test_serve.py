"""A commit of a large journal, served beside qemu-nbd with a plain image of the same: first byte, reads, memory.

    python -m pytest -m bench -s tests/bench/test_serve.py

MIRRORTOOL_BENCH_DISK names the directory (by default /var/tmp), MIRRORTOOL_BENCH_SECONDS how long each load lasts.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.nbd.protocol import Command
from mirrortool.sockets.addresses import UnixAddress
from tests.bench.fio import rate
from tests.bench.workloads import PAGE, random_write_journal
from tests.fakes.served import Served
from tests.fakes.waiting import wait_until
from tests.nbd.wire import Client

RUNS = 5
SPACE = 4 << 30
WRITES = 2_000_000
DEPTHS = {depth: ["--rw=randread", "--bs=4k", f"--iodepth={depth}"] for depth in (1, 32)}
FIRST_BYTE_SECONDS_MAX = 2.0
MEMORY_MAX = 300 << 20

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module", params=[32, 256], ids=["frames-of-32", "frames-of-256"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A journal J of random writes, each frame of as many pages, and the image of its newest commit."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MIRRORTOOL_BENCH_DISK", "/var/tmp")) as directory:
        path = Path(directory)
        random_write_journal(path, writes=WRITES, space=SPACE, frame_pages=request.param)
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["export", str(path / "J"), "disk", str(path / "image"), "-q"]) == 0
        print(f"\nexport with the making of the index: {time.perf_counter() - started:.1f} s")
        yield path


def files_of(place: Path) -> list[Path]:
    return [place / "image", *(each for each in (place / "J").rglob("*") if each.is_file())]


def forget(place: Path) -> None:
    """Out of the page cache."""
    for path in files_of(place):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(place: Path, *uris: str) -> None:
    """What the servers have, and read once through each of them, is in the page cache."""
    for path in files_of(place):
        subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
    for uri in uris:
        subprocess.run(["nbdcopy", uri, "null:"], check=True)


@contextmanager
def qemu(place: Path) -> Iterator[str]:
    socket = place / "qemu"
    server = subprocess.Popen(["qemu-nbd", "-r", "-f", "raw", "-k", socket, "-t", "-e", "8", place / "image"])
    try:
        wait_until(socket.exists)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        server.terminate()
        server.wait()


def test_first_byte(place: Path) -> None:
    """From the start of the process, with an index."""
    for state, prepare in (("warm", warm), ("cold", forget)):
        prepare(place)
        started = time.perf_counter()
        with Served(place / "J", place / "s") as served, Client(UnixAddress(str(served.socket))) as client:
            client.go("disk")
            assert client.do(Command.READ, SPACE // 2, PAGE).error == 0
            client.receive(PAGE)
            took = time.perf_counter() - started
        print(f"\nfirst byte, {state}: {took:.2f} s")
        if state == "warm":
            assert took <= FIRST_BYTE_SECONDS_MAX


@pytest.mark.parametrize("depth", DEPTHS)
def test_random_reads(place: Path, depth: int) -> None:
    """The median of the ratios of interleaved pairs; the memory at its highest."""
    pairs = []
    with Served(place / "J", place / "s") as served, qemu(place) as theirs:
        forget(place)
        cold = rate(served.uri(), DEPTHS[depth], size=SPACE, kind="read")
        warm(place, served.uri(), theirs)
        for _ in range(RUNS):
            mine = rate(served.uri(), DEPTHS[depth], size=SPACE, kind="read")
            pairs.append((mine, rate(theirs, DEPTHS[depth], size=SPACE, kind="read")))
        memory = served.peak_bytes
    ratio = statistics.median(mine / peer for mine, peer in pairs)
    rates = [statistics.median(side) for side in zip(*pairs, strict=True)]
    print(
        f"\nrandom 4-KiB reads, depth {depth}: {ratio:.2f} x  (ours {rates[0]:.0f}/s, qemu-nbd {rates[1]:.0f}/s, "
        f"median of {RUNS}); cold {cold:.0f}/s; {memory >> 20} MiB"
    )
    assert memory <= MEMORY_MAX
