"""fio with checksums of its own at a live recorder, read back over NBD and, by `--verify_only`, from the mirror's file.

The long run: pytest -m soak tests/interop/test_live_fio.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require_tools
from tests.fakes.volumes import fast_directory
from tests.interop.tool import Site

MIB = 1 << 20
JOBS = 4

SMALL = ["--rw=randwrite", "--bs=4k"]
CASES = {
    "depth 1": [*SMALL, "--iodepth=1"],
    "depth 32": [*SMALL, "--iodepth=32"],
    "depth 32 with flushes": [*SMALL, "--iodepth=32", "--fsync=64"],
    "half a KiB": ["--rw=randwrite", "--bs=512", "--iodepth=32"],
    "unaligned": ["--rw=randwrite", "--bsrange=512-12k", "--bs_unaligned=1", "--iodepth=16"],
    "reads among writes": ["--rw=randrw", "--bssplit=4k/60:64k/30:512/10", "--iodepth=16"],
    "large": ["--rw=write", "--bs=1m", "--iodepth=8"],
}
"""Four connections each, every one with a quarter of the volume."""


@pytest.fixture
def site() -> Iterator[Site]:
    require_tools("fio", "cmp")
    with fast_directory() as path:
        yield Site(Path(path))


def job(size: int, options: list[str]) -> list[str]:
    """The part of a job that says where what is written: the same for the server and for the mirror's file."""
    places = [f"--size={size}", f"--offset_increment={size}", f"--numjobs={JOBS}", "--randseed=7"]
    return [
        "fio",
        "--name=v",
        "--group_reporting",
        *places,
        "--verify=crc32c",
        "--verify_state_save=0",
        "--verify_fatal=1",
        *options,
    ]


def fio(*words: str) -> None:
    told = call(*words)
    assert "err= 0" in told, told


def verify_mirror(site: Site, size: int, options: list[str]) -> None:
    """As fio wrote it, by fio's checksums."""
    own = [option for option in options if not option.startswith("--fsync")]
    fio(*job(size, own), "--ioengine=psync", "--verify_only", f"--filename={site.image()}")


def check(site: Site, size: int, options: list[str], *, times: int = 1) -> None:
    site.init(f"disk={site.path}/disk.img:{JOBS * size}")
    with LiveRecorder(site.journal) as live:
        for _ in range(times):
            fio(*job(size, options), "--do_verify=1", "--ioengine=nbd", f"--uri={live.uri()}")
    site.prove()
    verify_mirror(site, size, options)


@pytest.mark.parametrize("name", CASES)
def test_fio_verifies_server_and_mirror(site: Site, name: str) -> None:
    check(site, MIB, CASES[name])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_fio_verifies_a_quarter_of_a_gibibyte(site: Site, name: str) -> None:
    """Twice over, so that every page is written again while older ones are on their way."""
    check(site, 64 * MIB, CASES[name], times=2)


def test_fio_trims(site: Site) -> None:
    """Trims and writes one after another; what is trimmed is given back."""
    site.init(f"disk={site.path}/disk.img:64M")
    with LiveRecorder(site.journal) as live:
        options = ["--rw=trimwrite", "--bs=64k", "--size=32m", "--ioengine=nbd", f"--uri={live.uri()}", "--iodepth=8"]
        fio("fio", "--name=t", *options)
        fio("fio", "--name=t", "--rw=randtrim", "--bs=256k", "--size=16m", "--ioengine=nbd", f"--uri={live.uri()}")
    report = site.prove()
    assert report["applied_lsn"]
    assert (site.path / "disk.img").stat().st_blocks * 512 <= 18 * MIB


def test_a_flipped_byte_is_seen_by_fio(site: Site) -> None:
    """So `--verify_only` above is not just a formality."""
    options = CASES["depth 32"]
    check(site, MIB, options)
    with site.image().open("r+b") as file:
        file.seek(3 * MIB + 5000)
        flipped = bytes([file.read(1)[0] ^ 1])
        file.seek(3 * MIB + 5000)
        file.write(flipped)
    with pytest.raises(AssertionError, match="verify"):
        verify_mirror(site, MIB, options)
