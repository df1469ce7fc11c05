"""What a group of two tasks costs: the preset for a page cache, and two groups of two, against two groups of one task.

    python -m pytest -m bench -s tests/bench/test_preset.py

Rounds of replays of one journal in memory (tmpfs); medians of the ratios in each round, of time and processor time.
"""

from __future__ import annotations

import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.scan import Scan
from mirrortool.replay.engine import Plan
from mirrortool.replay.planner import Wanted
from mirrortool.replay.session import Replay
from tests.bench.workloads import PAGE, half_compressible, make_image, random_write_journal

MEMORY = "/dev/shm"
ROUNDS = 15
BYTES = 128 << 20

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]


def single_pages(directory: Path) -> None:
    """40,000 pages at random places."""
    random_write_journal(directory, writes=40_000, space=BYTES)


def sequential(directory: Path) -> None:
    """A whole volume."""
    make_image(directory / "disk.img", BYTES)
    init(str(directory / "J"), [NewVolume("disk", str(directory / "disk.img"))], PAGE)
    with Scan(str(directory / "J")) as scan:
        scan.run()


def overlapping(directory: Path) -> None:
    """5000 writes of 1 to 32 pages, over a fifth of the pages that they have."""
    init(str(directory / "J"), [NewVolume("disk", str(directory / "disk.img"), 64 << 20)], PAGE)
    source, data, builder = random.Random(3), half_compressible(1 << 20), BatchBuilder(PAGE)
    with OpenJournal(str(directory / "J")) as opened:
        writer, sums = opened.writer, opened.sums
        for number in range(5000):
            count = source.randint(1, 32)
            at = source.randrange(len(data) // PAGE - count) * PAGE
            builder.write(source.randrange((64 << 20) // PAGE - count), data[at : at + count * PAGE])
            if number % 64 == 63 or number == 4999:
                batch = builder.build()
                sums.apply_batch(batch)
                writer.append(batch, captured=True, state_sum=sums.state_sum)
        builder.commit(CommitKind.SCAN, writer.durable.lsn)
        writer.append(builder.build(), captured=True, state_sum=sums.state_sum)
        writer.sync()
        opened.save_checkpoint({})


def replay(journal: Path, mirror: Path, plan: Plan) -> tuple[float, float, int]:
    """Seconds, seconds on a processor, and how many units were delegated (1150)."""
    shutil.rmtree(mirror, ignore_errors=True)
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with Replay(str(journal), str(mirror), plan=plan) as running:
        running.run()
    took, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    delegated = sum(group.delegated for group in running.statistics().groups)
    return took, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, delegated


@pytest.mark.parametrize("make", [single_pages, sequential, overlapping])
def test_preset_against_single_tasks(make: Callable[[Path], None]) -> None:
    plans = [Plan(groups=2, tasks=1), Wanted().few("buffered"), Plan(groups=2, tasks=2)]
    rounds = []
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="mirrortool-bench-") as name:
        directory = Path(name)
        make(directory)
        for number in range(ROUNDS + 1):
            order = plans if number % 2 else plans[::-1]
            found = {plan: replay(directory / "J", directory / "M", plan) for plan in order}
            rounds.append([found[plan] for plan in plans])
    for number, plan in enumerate(plans[1:], 1):
        times, processor = (statistics.median(each[number][i] / each[0][i] for each in rounds[1:]) for i in (0, 1))
        delegated = statistics.median(each[number][2] for each in rounds)
        print(
            f"\n{make.__name__}, {plan.groups} x {plan.tasks} to 2 x 1: time {times:.3f}, processor {processor:.3f}, "
            f"delegated {delegated:.0f}",
            end="",
        )
