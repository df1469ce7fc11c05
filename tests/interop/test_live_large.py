"""A large image: memory does not grow with it, and an initial scan leaves clients their share. Ratios are printed.

pytest -m soak -s tests/interop/test_live_large.py
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from pathlib import Path

import pytest

from mirrortool.record.controlsocket import ask
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require_tools
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap
from tests.interop.tool import Site

MIB = 1 << 20
MEMORY_MAX = 300 * MIB

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def fio(live: LiveRecorder, *options: str) -> float:
    """A job of random writes; its bytes a second."""
    job = ["fio", "--name=l", "--output-format=json", "--ioengine=nbd", f"--uri={live.uri()}", "--rw=randwrite"]
    told = call(*job, *options)
    jobs = json.loads(told[told.index("{") :])["jobs"]  # the engine says something first
    assert all(each["error"] == 0 for each in jobs)
    return float(sum(each["write"]["bw_bytes"] for each in jobs))


@pytest.mark.parametrize("load", ["--bs=256k --iodepth=16", "--bs=4k --iodepth=32", "--bs=1m --iodepth=16 --numjobs=4"])
def test_memory_under_load(tmp_path: Path, load: str) -> None:
    """20 s on 4 GiB."""
    require_tools("fio", "cmp")
    site = Site(tmp_path)
    site.init(f"disk={site.path}/disk.img:4G")
    with LiveRecorder(site.journal) as live:
        rate = fio(live, *load.split(), "--size=4g", "--time_based", "--runtime=20")
        peak = live.peak_bytes
        print(f"{load}: {rate / MIB:.0f} MiB/s, peak {peak / MIB:.0f} MiB")
    assert peak < MEMORY_MAX
    site.prove()


@pytest.mark.parametrize("medium", ["memory", "disk"])
def test_initial_scan_leaves_a_client_its_share(tmp_path: Path, medium: str) -> None:
    """2 GiB of data are read while a client writes 4 KiB pages: its rate, and without a scan, in turn."""
    require_tools("fio", "cmp")
    ratios = []
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            path = Path(stack.enter_context(fast_directory())) if medium == "memory" else tmp_path
            ratios.append(share_during_initial_scan(path))
    print(f"{medium}: median ratio {statistics.median(ratios):.2f}")


def share_during_initial_scan(path: Path) -> float:
    site, content = Site(path), os.urandom(64 * MIB)
    with (path / "disk.img").open("wb") as file:
        for part in range(32):
            file.write(part.to_bytes(8, "big") + content[8:])
    site.init(f"disk={path}/disk.img")
    options = ["--bs=4k", "--iodepth=8", "--size=2g", "--time_based", "--runtime=3"]
    with LiveRecorder(site.journal) as live:
        during = fio(live, *options)
        told = ask(str(site.journal), {"request": "status"})
        assert told
        done, total = told["base"]
        live.wait_for_base()
        nap(1)  # until the host is done with what the scan left it to do, which nothing tells
        without = fio(live, *options)
        peak = live.peak_bytes
    print(f"{during / MIB:.1f} MiB/s during the scan, {without / MIB:.1f} without; {done} of {total} pages were read "
          f"meanwhile; peak {peak / MIB:.0f} MiB")  # fmt: skip
    assert peak < MEMORY_MAX
    site.prove()
    call("rm", "-r", site.journal, site.mirror, path / "disk.img")
    return during / without
