"""What a replay chooses for itself, against the best of a grid of groups, tasks, unit and I/O given by hand.

    python -m pytest -m bench -s tests/bench/test_grid.py

prints, for each store, the ratio and the grid; nothing here asserts a time. MIRRORTOOL_BENCH_DISK names a directory on
a disk (by default /var/tmp), MIRRORTOOL_BENCH_SCALE divides the sizes. The store with a latency is a double: it sleeps
a millisecond for each write call and keeps its bytes in memory.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.record.scan import Scan
from mirrortool.replay.coalesce import Pieces, Stretch
from mirrortool.replay.engine import Plan, ReplayEngine
from mirrortool.replay.planner import Wanted
from mirrortool.replay.session import Replay
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import WriteRun
from mirrortool.volume import place
from tests.bench.workloads import PAGE, compare, make_image, random_write_journal
from tests.fakes.volumes import adopt

SCALE = int(os.environ.get("MIRRORTOOL_BENCH_SCALE", "1"))
DISK = os.environ.get("MIRRORTOOL_BENCH_DISK", "/var/tmp")
MEMORY = "/dev/shm"
RUNS = 3
WRITES = 60_000 // SCALE
SEQUENTIAL_BYTES = (512 << 20) // SCALE
FAST = [(1, 1), (2, 1), (2, 4), (4, 4)]
SLOW = [(1, 8), (2, 8), (4, 8), (4, 16)]
DIRECT_THREADS = 16

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]


@pytest.fixture(params=["random", "sequential"])
def workload(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_journal(directory: Path, workload: str) -> str:
    """A journal of random pages, or of a whole volume."""
    if workload == "random":
        random_write_journal(directory, writes=WRITES, space=512 << 20)
        return str(directory / "J")
    make_image(directory / "disk.img", SEQUENTIAL_BYTES)
    primary = adopt(directory, {"disk": str(directory / "disk.img")}, PAGE)
    with Scan(primary.journal_path) as scan:
        scan.run()
    return primary.journal_path


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=request.param, prefix="mirrortool-bench-") as path:
        yield Path(path)


def seconds(journal: str, mirror: Path, plan: Plan | Wanted) -> tuple[float, str]:
    """Into a new mirror, read back; and what was chosen."""
    shutil.rmtree(mirror, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    with Replay(journal, str(mirror), plan=plan) as replay:
        replay.run()
    return time.perf_counter() - started, str(replay.statistics().choice)


def measure(title: str, journal: str, mirror: Path, wanted: Wanted, grid: Sequence[Plan]) -> None:
    """The choice and every plan of the grid in turn; medians."""
    ours: list[float] = []
    theirs: dict[Plan, list[float]] = {plan: [] for plan in grid}
    chosen = ""
    for _ in range(RUNS):
        for plan in grid:
            theirs[plan].append(seconds(journal, mirror, plan)[0])
        took, chosen = seconds(journal, mirror, wanted)
        ours.append(took)
    medians = sorted(((statistics.median(each), plan) for plan, each in theirs.items()), key=lambda found: found[0])
    mine, best = statistics.median(ours), medians[0][0]
    print(f"\n{title}: {best / mine:.2f} x the best of {len(grid)}  ({mine:.3f} s; {chosen})")
    for took, plan in medians:
        print(f"    {took:.3f} s  {plan.groups} x {plan.tasks} {plan.unit} {plan.io}")


def grid_of(shapes: Sequence[tuple[int, int]], ways: Sequence[str]) -> list[Plan]:
    return [
        Plan(groups=groups, tasks=tasks, unit=unit, io=io)
        for (groups, tasks), unit, io in itertools.product(shapes, ("batch", "op"), ways)
    ]


@pytest.mark.parametrize(
    ("title", "directory", "wanted", "ways"),
    [
        ("tmpfs", MEMORY, Wanted(), ["buffered"]),
        ("disk, buffered", DISK, Wanted(io="buffered"), ["buffered"]),
        ("disk, direct", DISK, Wanted(io="direct"), ["direct"]),
        ("disk, either way", DISK, Wanted(), ["buffered", "direct"]),
    ],
    indirect=["directory"],
    ids=["tmpfs", "buffered", "direct", "either"],
)
def test_choice_against_the_grid(title: str, directory: Path, wanted: Wanted, ways: list[str], workload: str) -> None:
    journal = make_journal(directory, workload)
    measure(f"{title}, {workload}", journal, directory / "M", wanted, grid_of(FAST, ways))


@pytest.mark.parametrize("directory", [MEMORY], indirect=True)
def test_choice_on_a_store_with_a_millisecond_of_latency(
    directory: Path, workload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[FlatStore, Sequence[WriteRun]], None] = FlatStore.write

    def write(self: FlatStore, runs: Sequence[WriteRun]) -> None:
        for run in runs:
            time.sleep(0.001)
            real(self, [run])

    journal = make_journal(directory, workload)
    monkeypatch.setattr(FlatStore, "write", write)
    measure(f"1 ms a write (a double), {workload}", journal, directory / "M", Wanted(), grid_of(SLOW, ["buffered"]))


@pytest.mark.parametrize("directory", [DISK], indirect=True)
@pytest.mark.parametrize(("pages", "writes"), [(1, 40_000 // SCALE), (16, 8_000 // SCALE)], ids=["4 KiB", "64 KiB"])
def test_direct_writes_against_bare_threads(directory: Path, pages: int, writes: int) -> None:
    """The engine with 16 tasks, and 16 threads that share the same writes and keep no order."""
    size, path = 512 << 20, directory / "volume"
    make_image(path, size)
    draw, data = random.Random(4), random.Random(5).randbytes(8 << 20)
    firsts = [each * pages for each in draw.sample(range(size // PAGE // pages), writes)]
    views = [memoryview(data)[i : i + pages * PAGE] for i in range(0, len(data) - pages * PAGE, PAGE)]
    work = [(first, views[first % len(views)]) for first in firsts]

    def bare() -> float:
        start = threading.Barrier(DIRECT_THREADS + 1)
        with files.open_file(str(path), write=True) as opened:
            direct = opened.reopen_direct()
            assert direct is not None, f"{DISK} does not support O_DIRECT"

            def write(share: Sequence[tuple[int, memoryview]]) -> None:
                room = files.aligned_buffer(pages * PAGE)
                descriptor = direct.fileno()
                start.wait()
                for first, view in share:
                    room[:] = view
                    os.pwrite(descriptor, room, first * PAGE)

            shares = [work[number::DIRECT_THREADS] for number in range(DIRECT_THREADS)]
            threads = [threading.Thread(target=write, args=(share,)) for share in shares]
            for thread in threads:
                thread.start()
            start.wait()
            started = time.perf_counter()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - started
            direct.close()
        return took

    def ours() -> float:
        store = FlatStore(place([("v", size)], PAGE), {"v": files.open_file(str(path), write=True)})
        store.write_direct(True)
        window = 4096 // pages
        parts = [work[i : i + window] for i in range(0, writes, window)]
        stretches = [Stretch(Pieces([f for f, _ in p], [pages] * len(p), [v for _, v in p])) for p in parts]
        with ReplayEngine(store, Plan(groups=2, tasks=DIRECT_THREADS // 2)) as engine:
            started = time.perf_counter()
            for stretch in stretches:
                engine.delegate(stretch, 0)
            engine.wait_drained()
            took = time.perf_counter() - started
        store.close()
        return took

    ratio = compare(ours, bare)
    print(f"\nO_DIRECT on {DISK}, {pages * PAGE >> 10} KiB a write, 16 tasks, to 16 bare threads: {ratio}")
    print(f"    {writes / ratio.floor_s:.0f} writes/s by the bare threads")
