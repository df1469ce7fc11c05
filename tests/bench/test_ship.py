"""Shipping a backlog into a directory beside `cp` and `sync` of the same files, in the same run.

    python -m pytest -m bench -s tests/bench/test_ship.py

MIRRORTOOL_BENCH_DIR names the directory (by default /dev/shm), MIRRORTOOL_BENCH_SHIP the size of the backlog, such as
512M (by default 4G), of which the directory must hold two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.checksum import page_sums
from mirrortool.cli.options import parse_size
from mirrortool.journal.directory import Journal
from mirrortool.operation import BatchBuilder
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import ShipOptions
from tests.bench.workloads import PAGE, compare
from tests.fakes.journals import JournalMaker

SIZE = parse_size(os.environ.get("MIRRORTOOL_BENCH_SHIP", "4G"))
RUNS = 5

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]


@pytest.fixture
def place() -> Iterator[Path]:
    parent = os.environ.get("MIRRORTOOL_BENCH_DIR", "/dev/shm")
    with tempfile.TemporaryDirectory(dir=parent, prefix="mirrortool-bench-") as directory:
        yield Path(directory)


def make_backlog(path: Path, pages_a_frame: int) -> Journal:
    """A number of bytes of frames whose pages do not compress."""
    maker = JournalMaker(path, {"disk": 1 << 40}, page_size=PAGE, sync_commits=False)
    data = os.urandom(pages_a_frame * PAGE)
    sums = page_sums([data[i : i + PAGE] for i in range(0, len(data), PAGE)], PAGE)
    for number in range(SIZE // len(data)):
        builder = BatchBuilder(PAGE)
        builder.write(maker.first_page("disk") + number * pages_a_frame, data, sums)
        maker.append(builder.build(), state_sum=number)
    return maker.close()


@pytest.mark.parametrize("pages_a_frame", [256, 8])
def test_backlog_into_a_directory(place: Path, pages_a_frame: int) -> None:
    journal = make_backlog(place / "J", pages_a_frame)
    subprocess.run(["sync"], check=True)

    def ship() -> float:
        options = ShipOptions(has_slot=False)
        destination = parse_destination(str(place / "C"))
        began = time.perf_counter()
        Shipment(journal.path, destination, options, connector(destination, options)).run()
        took = time.perf_counter() - began
        shutil.rmtree(place / "C")
        return took

    def copy() -> float:
        began = time.perf_counter()
        subprocess.run(f"cp -r {journal.path}/files {place}/X && sync", shell=True, check=True)
        took = time.perf_counter() - began
        shutil.rmtree(place / "X")
        return took

    found = compare(ship, copy, RUNS)
    print(f"\nship of {SIZE >> 20} MiB in frames of {pages_a_frame * PAGE >> 10} KiB to cp && sync: {found}")
    assert found.ratio >= (0.5 if pages_a_frame > 8 else 0.3)
