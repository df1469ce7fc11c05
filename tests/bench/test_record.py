"""Live recording beside the C programs that serve the same image, in the same run: rates of fio through NBD.

    python -m pytest -m bench -s tests/bench/test_record.py

`blklogwrites` is qemu-nbd with the driver of that name, which journals every write, too; `qemu-nbd` keeps no journal.
MIRRORTOOL_BENCH_DIR names the directory (by default /dev/shm), MIRRORTOOL_BENCH_SECONDS how long each load lasts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool.record.createjournal import NewVolume, init
from tests.bench.fio import LOADS, rate, sparse
from tests.bench.workloads import PAGE, half_compressible
from tests.fakes.live import LiveRecorder
from tests.fakes.waiting import wait_until

RUNS = 5

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

SYNCED = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=1"]


@pytest.fixture
def place() -> Iterator[Path]:
    parent = os.environ.get("MIRRORTOOL_BENCH_DIR", "/dev/shm")
    with tempfile.TemporaryDirectory(dir=parent, prefix="mirrortool-bench-") as directory:
        yield Path(directory)


@contextmanager
def ours(place: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=place) as directory:
        journal = Path(directory, "J")
        init(str(journal), [NewVolume("disk", str(sparse(Path(directory, "disk.img"))))], PAGE)
        with LiveRecorder(journal) as recorder:
            yield recorder.uri()


@contextmanager
def qemu(place: Path, *, logs: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=place) as directory:
        image, log, socket = sparse(Path(directory, "disk.img")), Path(directory, "log"), Path(directory, "s")
        log.touch()
        driver = f"driver=blklogwrites,file.driver=file,file.filename={image},log.driver=file,log.filename={log}"
        source = ["--image-opts", driver] if logs else ["-f", "raw", str(image)]
        server = subprocess.Popen(["qemu-nbd", "-k", str(socket), "-t", *source])
        try:
            wait_until(socket.exists)
            yield f"nbd+unix:///?socket={socket}"
        finally:
            server.terminate()
            server.wait()


PEERS = {"blklogwrites": True, "qemu-nbd": False}


def measure(place: Path, load: list[str], logs: bool) -> str:
    """The median of the ratios of interleaved pairs, and of the rates."""
    pairs = []
    for _ in range(RUNS):
        with ours(place) as uri:
            mine = rate(uri, load)
        with qemu(place, logs=logs) as uri:
            pairs.append((mine, rate(uri, load)))
    ratio = statistics.median(mine / peer for mine, peer in pairs)
    rates = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return f"{ratio:.2f} x  (ours {rates[0]:.0f}/s, peer {rates[1]:.0f}/s, median of {RUNS})"


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("load", LOADS)
def test_rate_of_writes(place: Path, load: str, peer: str) -> None:
    print(f"\n{load} to {peer}: {measure(place, LOADS[load], PEERS[peer])}")


def test_rate_of_synced_writes() -> None:
    """On a disk: every write is followed by a flush."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MIRRORTOOL_BENCH_DISK", "/var/tmp")) as directory:
        print(f"\n4k depth 32 with fsync=1 on a disk, to blklogwrites: {measure(Path(directory), SYNCED, True)}")


def test_cost_of_a_initial_scan(place: Path) -> None:
    """A client's rate while a volume of 4 GiB is read into the journal for the first time, to its rate afterwards."""
    image = place / "disk.img"
    block = half_compressible(64 << 20)
    with image.open("wb") as file:
        for _ in range(64):
            file.write(block)
    init(str(place / "J"), [NewVolume("disk", str(image))], PAGE)
    with LiveRecorder(place / "J") as recorder:
        during = rate(recorder.uri(), LOADS["4k depth 32"])
        was_scanning = not any("the initial scan is complete" in line for line in recorder.lines)
        recorder.wait_for("the initial scan is complete")
        after = rate(recorder.uri(), LOADS["4k depth 32"])
    print(f"\nduring the initial scan {during / after:.2f} x of the rate after it ({during:.0f}/s, {after:.0f}/s)")
    assert was_scanning, "the scan ended before the load did: give a larger volume or fewer MIRRORTOOL_BENCH_SECONDS"
