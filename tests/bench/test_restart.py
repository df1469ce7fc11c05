"""A recorder that is killed under load: how long until it answers again, which QEMU's reconnect-delay must cover.

    python -m pytest -m bench -s tests/bench/test_restart.py

QEMU 7.2 tries again 0, 1, 3, 7, 15 and 31 s after it lost its server, and every 16 s from then on; at reconnect-delay
the guest gets an error.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from mirrortool.nbd.protocol import Command
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.sockets.addresses import UnixAddress
from tests.bench.workloads import PAGE
from tests.fakes.live import LiveRecorder
from tests.fakes.waiting import nap
from tests.nbd.wire import Client

IMAGE_BYTES = 1 << 30
LOAD_SECONDS = 8.0
RUNS = 3
ANSWER_SECONDS_MAX = 14.0
"""The unit starts it again after 3 s: so it is there long before the retry at 31 s, and also when this host is busy."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]


def test_time_to_the_first_answer_after_a_kill_under_load() -> None:
    found = []
    for _ in range(RUNS):
        parent = os.environ.get("MIRRORTOOL_BENCH_DIR", "/dev/shm")
        with tempfile.TemporaryDirectory(dir=parent, prefix="mirrortool-bench-") as directory:
            found.append(first_answer_seconds(Path(directory)))
    print(
        f"\nfirst answer {statistics.median(found):.2f} s after the start: {', '.join(f'{each:.2f}' for each in found)}"
    )
    assert max(found) < ANSWER_SECONDS_MAX


def first_answer_seconds(path: Path) -> float:
    """From the start of the process to the first READ that it answers; recovery lies between."""
    init(str(path / "J"), [NewVolume("disk", str(path / "disk.img"), IMAGE_BYTES)], PAGE)
    recorder = LiveRecorder(path / "J")
    recorder.start()
    recorder.wait_for_base()
    load = [
        "fio", "--name=load", "--ioengine=nbd", f"--uri={recorder.uri()}", "--rw=randwrite", "--bs=4k", "--iodepth=32",
        f"--size={IMAGE_BYTES}", "--time_based", "--runtime=600", "--refill_buffers",
    ]  # fmt: skip
    with subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as guest:
        nap(LOAD_SECONDS)  # just before a checkpoint is due, when recovery has most to do
        recorder.kill()
        guest.kill()
    began = time.monotonic()
    recorder.start()
    with Client(UnixAddress(str(recorder.socket))) as client:
        client.go("disk")
        assert client.do(Command.READ, 0, PAGE).error == 0
        seconds = time.monotonic() - began
    recorder.finish()
    return seconds
