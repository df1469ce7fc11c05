"""Ratios to what a bare loop, or the system's own tool, does with the same bytes in the same run.

    python -m pytest -m bench -s tests/bench

prints them; nothing here asserts a time. MIRRORTOOL_BENCH_DIR names the directory to work in (by default /dev/shm, so
that a disk's noise stays out), MIRRORTOOL_BENCH_SCALE divides the sizes. The readers of a figure want to know both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.scan import Scan
from mirrortool.replay.session import Replay
from mirrortool.verify import Verify
from tests.bench.workloads import (
    PAGE,
    Ratio,
    compare,
    copy_and_sync,
    decoded_writes,
    hash_loop,
    make_image,
    pwrite_loop,
    random_write_journal,
)

SCALE = int(os.environ.get("MIRRORTOOL_BENCH_SCALE", "1"))
GIB = (1 << 30) // SCALE

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]


@pytest.fixture
def place() -> Iterator[Path]:
    parent = os.environ.get("MIRRORTOOL_BENCH_DIR", "/dev/shm")
    with tempfile.TemporaryDirectory(dir=parent, prefix="mirrortool-bench-") as directory:
        yield Path(directory)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def scan(journal: Path) -> None:
    with Scan(str(journal)) as opened:
        opened.run()


def replay(place: Path, *, read_back: bool) -> float:
    """Into a new mirror; the seconds include making it."""
    shutil.rmtree(place / "M", ignore_errors=True)

    def work() -> None:
        with Replay(str(place / "J"), str(place / "M"), read_back=read_back) as opened:
            opened.run()

    return seconds(work)


def verify(mirror: Path) -> None:
    with Verify(str(mirror), cached=True) as opened:
        assert opened.run().is_right


def report(title: str, ratio: Ratio) -> None:
    print(f"\n{title}: {ratio}")


@pytest.mark.parametrize("read_back", [True, False], ids=["checked", "no-check"])
def test_replay_of_a_sequential_volume(place: Path, read_back: bool) -> None:
    make_image(place / "disk.img", GIB)
    init(str(place / "J"), [NewVolume("disk", str(place / "disk.img"))], PAGE)
    scan(place / "J")
    ratio = compare(
        lambda: replay(place, read_back=read_back), lambda: copy_and_sync(place / "disk.img", place / "floor.img")
    )
    report(f"replay of {GIB >> 20} MiB sequential, {'read back' if read_back else '--no-check'}, to cp and sync", ratio)


@pytest.mark.parametrize("read_back", [True, False], ids=["checked", "no-check"])
def test_replay_of_random_writes(place: Path, read_back: bool) -> None:
    writes = 200_000 // SCALE
    writes_decoded = decoded_writes(random_write_journal(place, writes=writes, space=GIB))
    ratio = compare(
        lambda: replay(place, read_back=read_back), lambda: pwrite_loop(place / "floor.img", GIB, writes_decoded)
    )
    how = "read back" if read_back else "--no-check"
    report(f"replay of {writes} random pages over {GIB >> 20} MiB, {how}, to a bare pwrite loop", ratio)


def test_scan_and_verify_of_an_unchanged_volume(place: Path) -> None:
    image = place / "disk.img"
    make_image(image, 4 * GIB)
    init(str(place / "J"), [NewVolume("disk", str(image))], PAGE)
    scan(place / "J")
    ratio = compare(lambda: seconds(lambda: scan(place / "J")), lambda: hash_loop(image))
    report(f"scan of {4 * GIB >> 20} MiB unchanged, to a bare pread and xxh3 loop in two threads", ratio)
    replay(place, read_back=False)
    ratio = compare(lambda: seconds(lambda: verify(place / "M")), lambda: hash_loop(image))
    report(f"verify --cached of {4 * GIB >> 20} MiB, to a bare pread and xxh3 loop in two threads", ratio)
