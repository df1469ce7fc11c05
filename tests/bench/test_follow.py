"""What following costs: from a commit to the mirror's checkpoint, and the processor time while nothing happens.

pytest -m bench -s tests/bench/test_follow.py
"""

from __future__ import annotations

import os
import statistics
import time
from functools import partial
from pathlib import Path

import pytest

from mirrortool.nbd.protocol import Command
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.follower import Follower
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap
from tests.interop.tool import Site
from tests.nbd.wire import Client

SAMPLES = 60
REST_SECONDS = 0.2
IDLE_SECONDS = 40.0
LATENCY_SECONDS_MAX = 0.1
IDLE_SHARE_MAX = 0.01
PAGE = 4096
SIZE = 64 << 20


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_moved(follower: Follower, lsn: int) -> bool:
    return follower.commit_lsn() != lsn


def measure(path: Path, observer: str) -> tuple[list[float], float, float]:
    """Seconds from each flush's answer to the checkpoint; share of a processor, idle, of follower and recorder."""
    site = Site(path)
    (path / "disk.img").write_bytes(os.urandom(SIZE))
    site.init(f"disk={path}/disk.img")
    live = LiveRecorder(site.journal)
    with live, Follower(site.journal, site.mirror, "--observer", observer) as follower:
        live.wait_for_base()
        took = []
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("disk")
            for number in range(SAMPLES):
                nap(REST_SECONDS)  # the follower waits again, which cannot be seen from outside
                before = follower.commit_lsn()
                assert client.do(Command.WRITE, number * PAGE, PAGE, data=os.urandom(PAGE)).error == 0
                assert client.do(Command.FLUSH).error == 0
                flushed = time.monotonic()
                follower.wait_until(partial(has_moved, follower, before))
                took.append(time.monotonic() - flushed)
        nap(10 * REST_SECONDS)  # what the last commit left to be done is done
        processes = follower.process.pid, live.process.pid
        started = [processor_seconds(each) for each in processes]
        nap(IDLE_SECONDS)  # the measurement
        shares = [(processor_seconds(each) - old) / IDLE_SECONDS for each, old in zip(processes, started, strict=True)]
    return took, shares[0], shares[1]


@pytest.mark.bench
@pytest.mark.parametrize("observer", ["inotify", "polling"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_latency_and_idle_cost(kind: str, observer: str, tmp_path: Path) -> None:
    """The flush is answered when its COMMIT is durable; the disk's time to make the mirror durable is included."""
    if kind == "memory":
        with fast_directory() as fast:
            took, follower, recorder = measure(Path(fast), observer)
    else:
        took, follower, recorder = measure(tmp_path, observer)
    print(
        f"\n{kind}, {observer}: commit to checkpoint {1e3 * statistics.median(took):.1f} ms, at most "
        f"{1e3 * max(took):.1f} ms; idle: follower {100 * follower:.2f} %, recorder {100 * recorder:.2f} %"
    )
    assert statistics.median(took) < LATENCY_SECONDS_MAX
    assert follower < IDLE_SHARE_MAX
