"""How far a mirror is behind while its primary is written to, both on this machine.

pytest -m bench -s tests/bench/test_lag.py
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from mirrortool.journal.newest import Head, HeadWatch
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.mirrorlag import behind
from mirrortool.record.createjournal import NewVolume, init
from tests.bench.fio import LOADS, SECONDS, rate, sparse
from tests.bench.workloads import PAGE
from tests.fakes.follower import Follower
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fast_directory

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

LAG_SECONDS_MAX = 2.0


def lags(journal: Path, follower: Follower, ending: threading.Event) -> list[float]:
    """The age of the mirror's state, twenty times a second, where it is behind."""
    found = []
    with HeadWatch(Journal(str(journal))) as watch:
        while not ending.wait(0.05):
            checkpoint, head = follower.checkpoint(), watch.look()
            if checkpoint:
                found.append(seconds_behind(checkpoint, head))
    return found


def test_lag_at_half_of_the_full_rate() -> None:
    """4-KiB random writes, depth 32, in memory: first as fast as they go, then half of that with a follower."""
    load = LOADS["4k depth 32"]
    with fast_directory() as place:
        path = Path(place)
        init(str(path / "J"), [NewVolume("disk", str(sparse(path / "disk.img")))], PAGE)
        with LiveRecorder(path / "J") as recorder:
            recorder.wait_for_base()
            full = rate(recorder.uri(), load)
            with Follower(path / "J", path / "mirror") as follower:
                follower.wait_until(lambda: (path / "mirror" / "mirror.json").exists())
                follower.wait_until(lambda: lag_now(path / "J", follower) == 0)
                ending = threading.Event()
                seen: list[float] = []
                thread = threading.Thread(target=lambda: seen.extend(lags(path / "J", follower, ending)))
                thread.start()
                half = rate(recorder.uri(), [*load, f"--rate_iops={int(full / 2)}", f"--runtime={5 * SECONDS}"])
                ending.set()
                thread.join()
    seen.sort()
    print(f"\nfull rate {full:.0f}/s; at {half:.0f}/s lag {seen[len(seen) // 2]:.2f} s, at most {seen[-1]:.2f} s")
    assert half > 0.4 * full
    assert seen[-1] < LAG_SECONDS_MAX


def lag_now(journal: Path, follower: Follower) -> float:
    checkpoint = follower.checkpoint()
    with HeadWatch(Journal(str(journal))) as watch:
        head = watch.look()
    return LAG_SECONDS_MAX if checkpoint is None else seconds_behind(checkpoint, head)


def seconds_behind(checkpoint: Checkpoint, head: Head) -> float:
    at, now = checkpoint.position.lsn, time.time_ns()
    return behind(at, checkpoint.time_ns, head.commit_lsn, head.commit_time_ns, now)[1]
