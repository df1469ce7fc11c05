"""A mirror on an NBD server that takes a millisecond for each write: 32 tasks, against fio with 32 in flight.

    python -m pytest -m bench -s tests/bench/test_exports.py

nbdkit's memory plugin behind its delay filter, the same server for both, in turn; random writes of 4 KiB. With units of
one operation each task has one write in flight, as fio has; with batches it has as many as its unit has runs, over as
many connections as the server takes. The bar is for batches, which is what is chosen; it is printed, not asserted.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.replay.engine import Plan
from mirrortool.replay.planner import Wanted
from mirrortool.replay.session import Replay
from tests.bench.fio import LOADS, rate
from tests.bench.workloads import random_write_journal
from tests.fakes.loop import require_tools
from tests.fakes.nbdservers import nbdkit

MEMORY = "/dev/shm"
ROUNDS = 3
WRITES = 40_000
SPACE = 256 << 20
BAR = 0.85

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def journal() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        random_write_journal(Path(directory), writes=WRITES, space=SPACE)
        yield Path(directory)


def replayed(journal: Path, uri: str, plan: Plan | Wanted) -> float:
    """Operations a second, from the opened mirror to its checkpoint; read back as always."""
    mirror = journal / "M"
    shutil.rmtree(mirror, ignore_errors=True)
    with Replay(str(journal / "J"), str(mirror), plan=plan, targets={"disk": uri}, overwrite=True) as replay:
        started = time.perf_counter()
        replay.run()
        took = time.perf_counter() - started
        print(f"    {replay.statistics().choice}")
    return WRITES / took


PLANS = {
    "32 tasks, batches": Plan(groups=1, tasks=32),
    "4 groups of 8, batches": Plan(groups=4, tasks=8),
    "32 tasks, operations": Plan(groups=1, tasks=32, unit="op"),
    "as it chooses": Wanted(),
}


def test_32_tasks_against_fio_with_32_in_flight(journal: Path) -> None:
    require_tools("fio")
    ours: dict[str, list[float]] = {name: [] for name in PLANS}
    theirs = []
    with nbdkit("--filter=delay", "memory", str(SPACE), "wdelay=1ms") as uri:
        for _ in range(ROUNDS):
            theirs.append(rate(uri, LOADS["4k depth 32"]))
            for name, plan in PLANS.items():
                ours[name].append(replayed(journal, uri, plan))
    print()
    print(f"fio, 32 in flight: {statistics.median(theirs):.0f} writes/s")
    ratios = {}
    for name, rates in ours.items():
        ratios[name] = statistics.median(our / their for our, their in zip(rates, theirs, strict=True))
        print(f"{name}: {statistics.median(rates):.0f} writes/s, {ratios[name]:.2f} x fio")
    verdict = "holds" if ratios["32 tasks, batches"] >= BAR else "DOES NOT HOLD"
    print(f"the bar of {BAR} x fio {verdict} for 32 tasks with batches")
