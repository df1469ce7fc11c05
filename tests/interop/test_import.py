"""Logs that QEMU and fio wrote, imported and replayed: the mirror is QEMU's image, and what fio's log says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.operation import CommitKind
from tests.fakes.loop import call, require_tools
from tests.interop.tool import Site, assert_same

MIB = 1 << 20
SIZE = 32 * MIB
SECTOR_SIZES = (512, 4096)


class Qemu:
    """An image that blklogwrites logs, and its log."""

    def __init__(self, path: Path, sector_size: int) -> None:
        self.image, self.log = path / "qemu.img", path / "qemu.log"
        with self.image.open("wb") as file:
            file.truncate(SIZE)
        self.log.touch()
        self._fresh = f"log-sector-size={sector_size}"

    def run(self, program: str, *arguments: object) -> None:
        """Run qemu-io or qemu-img on it; after the first time the log is continued."""
        options = (
            f"driver=blklogwrites,file.driver=file,file.filename={self.image},file.discard=unmap,"
            f"log.driver=file,log.filename={self.log},{self._fresh}"
        )
        self._fresh = "log-append=on"
        first, *rest = program.split()
        call(first, *rest, "--image-opts", *arguments, options)

    def io(self, *commands: str) -> None:
        self.run("qemu-io", *(part for command in commands for part in ("-c", command)))

    def bench(self, *arguments: object) -> None:
        self.run("qemu-img bench", "-w", *arguments)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    require_tools("cmp")
    return Site(tmp_path)


def begin(site: Site, *volumes: str) -> None:
    site.init(*(f"{name}={site.path / name}.copy:{SIZE}" for name in volumes))


def bring_in(site: Site, log: Path, kind: str, *options: object) -> dict[str, Any]:
    """Import and replay, and prove the mirror; what import reports."""
    report: dict[str, Any] = json.loads(site.run("import", site.journal, log, "--format", kind, "--json", *options))
    replayed = json.loads(site.run("replay", site.journal, site.mirror, "--json", "--quiet"))
    assert replayed["is_consistent"] and replayed["applied_lsn"] == report["lsn"]
    verified = json.loads(site.run("verify", site.mirror, "--json", "--quiet"))
    assert verified["bad_pages"] == [] and verified["state_sum"] == replayed["state_sum"]
    return report


@pytest.fixture(params=SECTOR_SIZES)
def qemu(site: Site, request: pytest.FixtureRequest) -> Qemu:
    require_tools("qemu-io", "qemu-img")
    return Qemu(site.path, request.param)


def test_writes_zeroes_discards_and_flushes_of_qemu_io(site: Site, qemu: Qemu) -> None:
    qemu.io(
        "write -P 0xab 0 1M",
        "write -P 0xcd 512k 3M",
        "write -z 1M 64k",
        "write -z -u 3M 256k",
        "write -z 8M 16M",
        "discard 2M 512k",
        "flush",
        "write -f -P 0x11 5M 4k",
        "write -P 0x12 1M 4096",
        "aio_write -P 0x13 6M 64k",
        "aio_flush",
        "write -P 0x14 31M 1M",
    )
    begin(site, "disk")
    report = bring_in(site, qemu.log, "logwrites")
    assert_same(qemu.image, site.mirror / "volumes" / "disk.img")
    assert_same(qemu.image, site.path / "disk.copy")
    assert (report["writes"], report["zeros"], report["marks"]) == (9, 1, 0)
    assert report["commits"] >= 3


def test_many_writes_at_once(site: Site, qemu: Qemu) -> None:
    """Eight at a time, small and large, with flushes among them; then the log is continued."""
    qemu.bench("-c", 3000, "-d", 8, "-s", 4096, "-S", 20480, "--flush-interval", 40, "--pattern", 0x5A)
    qemu.bench("-c", 100, "-d", 8, "-s", 2 * MIB, "-S", 2 * MIB, "--pattern", 0xA5)
    qemu.bench("-c", 2000, "-d", 8, "-s", 12288, "-S", 16384, "-o", 4096, "--flush-interval", 8, "--no-drain",
               "--pattern", 0x77)  # fmt: skip
    begin(site, "disk")
    report = bring_in(site, qemu.log, "logwrites")
    assert_same(qemu.image, site.mirror / "volumes" / "disk.img")
    assert_same(qemu.image, site.path / "disk.copy")
    assert report["writes"] == 5100
    assert report["bytes"] == 3000 * 4096 + 100 * 2 * MIB + 2000 * 12288


def test_mirror_of_a_flush_is_the_image_as_it_was_then(site: Site, qemu: Qemu) -> None:
    qemu.io("write -P 0x21 0 1M", "flush", "write -P 0x22 4096 64k", "discard 8k 16k", "flush")
    shutil.copy(qemu.image, site.path / "then.img")
    qemu.io("write -P 0x23 0 2M", "flush", "write -P 0x24 5M 4096")
    begin(site, "disk")
    bring_in(site, qemu.log, "logwrites")
    assert_same(qemu.image, site.mirror / "volumes" / "disk.img")
    flushes = [commit.lsn for commit in commits(Journal(str(site.journal))) if commit.kind == CommitKind.FLUSH]
    then = site.path / "then"
    site.run("replay", site.journal, then, "--until", flushes[1], "--quiet")
    assert_same(site.path / "then.img", then / "volumes" / "disk.img")


def test_log_into_one_of_several_volumes(site: Site, qemu: Qemu) -> None:
    qemu.io("write -P 0x31 1M 1M", "flush")
    begin(site, "other", "disk")
    bring_in(site, qemu.log, "logwrites", "--volume", "disk")
    assert_same(qemu.image, site.mirror / "volumes" / "disk.img")
    assert (site.mirror / "volumes" / "other.img").read_bytes() == bytes(SIZE)


# fio.


def model(log: Path, seed: int, names: list[str]) -> dict[str, bytes]:
    """What the manual page says that the files hold, in as few words as it says it."""
    images = {name: bytearray(SIZE) for name in names}
    for number, line in enumerate(log.read_text().splitlines(), 1):
        _, name, action, *place = line.split() if number > 1 else ("", "", "")
        if action not in ("write", "trim"):
            continue
        offset, length = map(int, place)
        data = bytes(length)
        if action == "write":
            pieces = range(offset, offset + length, MIB)
            texts = [f"{seed} {number} {at}".encode() for at in pieces]
            data = b"".join(hashlib.shake_128(text).digest(MIB) for text in texts)[:length]
        images[Path(name).name][offset : offset + length] = data
    return {name: bytes(image) for name, image in images.items()}


def test_log_of_fio_on_two_files(site: Site) -> None:
    require_tools("fio")
    log = site.path / "fio.log"
    call(
        "fio", "--name=load", "--ioengine=psync", f"--filename={site.path}/one:{site.path}/two", "--filesize=16m",
        "--io_size=24m", "--bsrange=512-64k", "--blockalign=512", "--rw=randrw", "--fsync=16", "--fdatasync=7",
        "--randseed=1", f"--write_iolog={log}", f"--aux-path={site.path}",
    )  # fmt: skip
    assert log.read_text().startswith("fio version 3 iolog\n")
    begin(site, "one", "two")
    report = bring_in(site, log, "fio", "--seed", 11)
    lines = log.read_text().splitlines()
    assert report["entries"] == len(lines)
    assert report["writes"] == sum(" write " in line for line in lines) > 100
    assert 0 < report["commits"] <= 1 + sum(" sync " in line or " datasync " in line for line in lines)
    for name, image in model(log, 11, ["one", "two"]).items():
        assert (site.mirror / "volumes" / f"{name}.img").read_bytes() == image


def test_log_of_fio_with_trims_and_large_writes(site: Site) -> None:
    """On a device that is none, as fio trims no files."""
    require_tools("fio")
    log = site.path / "fio.log"
    call(
        "fio", "--name=load", "--ioengine=null", "--filename=disk", "--size=32m", "--bs=1536k,1536k,512k",
        "--rw=randtrimwrite", "--norandommap", "--fsync=3", "--randseed=2", f"--write_iolog={log}",
        f"--aux-path={site.path}",
    )  # fmt: skip
    begin(site, "disk")
    report = bring_in(site, log, "fio")
    assert report["zeros"] and report["writes"]
    assert (site.mirror / "volumes" / "disk.img").read_bytes() == model(log, 0, ["disk"])["disk"]
