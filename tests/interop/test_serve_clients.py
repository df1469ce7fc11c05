"""The NBD programs that users have, at a commit that is served: they find it, and what they write on it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.fakes.loop import call, require, require_tools
from tests.fakes.served import Served
from tests.interop.tool import Site

KIB, MIB = 1 << 10, 1 << 20
SIZE = 16 * MIB + 77
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A commit named then, with data in the third MiB and at the end; it is kept as then.img, and overwritten since."""
    made = Site(tmp_path)
    image, chance = tmp_path / "disk.img", random.Random(1)
    with image.open("wb") as file:
        file.truncate(SIZE)
        for offset, length in ((2 * MIB, MIB), (SIZE - 5000, 5000)):
            file.seek(offset)
            file.write(chance.randbytes(length))
    made.init(f"disk={image}")
    made.run("record", made.journal, "-q")
    made.run("mark", made.journal, "then", "-q")
    call("cp", "--sparse=always", image, tmp_path / "then.img")
    with image.open("r+b") as file:
        file.write(chance.randbytes(8 * MIB))
    made.run("record", made.journal, "-q")
    return made


def served(site: Site, *options: object) -> Served:
    return Served(site.journal, site.path / "s", "--until", "then", *options)


def holes(uri: str) -> list[tuple[int, int]]:
    """(first byte, byte after the last), of a hole that reads as zeros."""
    found: list[tuple[int, int]] = []
    for run in json.loads(call("nbdinfo", "--map", "--json", uri)):
        start, end = run["offset"], run["offset"] + run["length"]
        if run["type"] == 3 and found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        elif run["type"] == 3:
            found.append((start, end))
    return found


END = SIZE - SIZE % 4096
"""Where the last page begins, a partial one."""
DATA = (SIZE - 5000) // 4096 * 4096
"""Where the page begins in which the data at the end do."""


def test_it_is_the_commit_byte_for_byte_and_as_sparse(site: Site) -> None:
    require_tools("qemu-img", "nbdcopy", "nbdinfo")
    with served(site) as then:
        told = json.loads(call("nbdinfo", "--json", then.uri()))["exports"][0]
        assert (told["export-size"], told["is_read_only"], told["can_multi_conn"]) == (SIZE, True, True)
        assert "at LSN " in told["description"]
        assert holes(then.uri()) == [(0, 2 * MIB), (3 * MIB, DATA)]
        call("nbdcopy", then.uri(), site.path / "copy.img")
        call("cmp", site.path / "copy.img", site.path / "then.img")
        call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", then.uri(), site.path / "copy.qcow2")
        call("qemu-img", "compare", "-F", "raw", site.path / "copy.qcow2", site.path / "then.img")


def qemu_io(uri: str, *commands: str) -> str:
    return call("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), uri)


def test_qemu_finds_what_it_wrote_over_it(site: Site) -> None:
    require_tools("qemu-io", "nbdinfo")
    with served(site, "--writable", "--scratch", site.path, "--scratch-size", "4M") as then:
        told = qemu_io(
            then.uri(), "write -P 0xab 0 1M", "write -z -u 2560k 256k", "discard 2M 64k", "write -P 0x33 7M 1",
            "flush", "write -f -P 0x44 4095 4099", "read -P 0xab 0 4095", "read -P 0x44 4095 4099",
            "read -P 0xab 8194 100k", "read -P 0 2560k 256k", "read -P 0 2M 64k", "read -P 0x33 7M 1",
            "read -P 0 7340033 511", "write -z -u 0 16M", "read -P 0 0 8M", "write -P 0x55 8M 3M", "read -P 0x55 8M 3M",
        )  # fmt: skip
        assert "failed" not in told and "error" not in told, told
        assert holes(then.uri()) == [(0, 8 * MIB), (11 * MIB, END)]
        assert "No space left" in call("qemu-io", "-f", "raw", "-c", "write 0 2M", then.uri(), check=False)
    with served(site) as then:
        call("qemu-img", "compare", "-f", "raw", "-F", "raw", then.uri(), site.path / "then.img")


LIBNBD = """
import errno, nbd, os, sys
several = []
for _ in range(4):
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.connect_uri(sys.argv[1])
    several.append(h)
expected = bytearray(several[0].pread(1 << 20, 2 << 20))
for turn in range(50):
    h = several[turn % 4]
    at, length = turn * 7919 % (1 << 19), 1 + turn * 701 % 9000
    data = os.urandom(length) if turn % 5 else bytes(length)
    if turn % 5:
        h.pwrite(data, (2 << 20) + at, nbd.CMD_FLAG_FUA if turn % 3 else 0)
    else:
        h.zero(length, (2 << 20) + at)
    expected[at:at + length] = data
    several[(turn + 1) % 4].flush()
    assert several[(turn + 2) % 4].pread(1 << 20, 2 << 20) == expected, turn
size = h.get_size()
found = []
h.block_status(size, 0, lambda name, offset, extents, error: found.extend(extents))
assert sum(found[::2]) == size and set(found[1::2]) == {0, 3}, found
try:
    h.pread(1, size)
except nbd.Error as error:
    assert error.errnum == errno.EINVAL
else:
    raise AssertionError
for h in several:
    h.shutdown()
"""


def test_connections_of_libnbd_see_each_others_writes(site: Site) -> None:
    known = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    require(known.returncode == 0, "python3-libnbd is not installed")
    with served(site, "--writable", "--scratch", site.path) as then:
        call(SYSTEM_PYTHON, "-c", LIBNBD, then.uri())


def test_an_export_is_the_same_file(site: Site) -> None:
    site.run("export", site.journal, "disk", site.path / "out.img", "--until", "then", "-q")
    call("cmp", site.path / "out.img", site.path / "then.img")
    assert os.stat(site.path / "out.img").st_blocks <= 1.05 * os.stat(site.path / "then.img").st_blocks
