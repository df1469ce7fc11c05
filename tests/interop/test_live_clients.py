"""The NBD programs that users have, at a live recorder: they read what they wrote, and the mirror has it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.operation import CommitKind
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require, require_tools
from tests.interop.tool import Site

KIB, MIB = 1 << 10, 1 << 20
SIZE = 64 * MIB
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A volume of 64 MiB with data in its third MiB, and a journal of it."""
    require_tools("cmp")
    made = Site(tmp_path)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
        file.seek(2 * MIB)
        file.write(random.Random(1).randbytes(MIB))
    made.init(f"disk={image}")
    return made


def qemu_io(uri: str, *commands: str) -> None:
    told = call("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), uri)
    assert "failed" not in told and "error" not in told, told


def test_qemu_io(site: Site) -> None:
    require_tools("qemu-io")
    checks = [
        "read -P 0xab 0 1M", "read -P 0 2M 64k", "read -P 0x11 5M 4k", "read -P 0 3M 512k", "read -P 0x22 6M 64k",
        "read -P 0x33 7M 1", "read -P 0 7340033 511", "read -P 0x44 8388000 9000", "read -P 0 16M 32M",
        "read -P 0x55 63M 1M",
    ]  # fmt: skip
    with LiveRecorder(site.journal) as live:
        qemu_io(
            live.uri(), "write -P 0xab 0 1M", "write -P 0xcd 1M 3M", "write -z 2M 64k", "write -z -u 3M 256k",
            "discard 3328k 256k", "flush", "write -f -P 0x11 5M 4k", "aio_write -P 0x22 6M 64k",
            "aio_write -P 0x33 7M 1", "aio_flush", "write -P 0x44 8388000 9000", "write -P 0x66 20M 1M",
            "discard 16M 32M", "write -P 0x55 63M 1M", *checks,
        )  # fmt: skip
        qemu_io(live.uri(), *checks)
    kinds = [commit.kind for commit in commits(Journal(str(site.journal)))]
    assert CommitKind.FLUSH in kinds
    site.prove()
    with LiveRecorder(site.journal) as live:
        qemu_io(live.uri(), *checks)
    assert os.stat(site.path / "disk.img").st_blocks * 512 < 8 * MIB, "what is discarded uses no space"


def test_qemu_img_convert_compare_and_map(site: Site) -> None:
    """In from qcow2, out again while the pages still wait and after they arrived."""
    require_tools("qemu-img")
    source, packed, copy = site.path / "source.img", site.path / "source.qcow2", site.path / "copy.img"
    source.write_bytes(os.urandom(5 * MIB) + bytes(20 * MIB) + os.urandom(100_000) + bytes(SIZE - 25 * MIB - 100_000))
    call("qemu-img", "convert", "-O", "qcow2", source, packed)
    with LiveRecorder(site.journal) as live:
        call("qemu-img", "convert", "-n", "-O", "raw", packed, live.uri())
        call("qemu-img", "compare", "-f", "raw", "-F", "qcow2", live.uri(), packed)
        call("qemu-img", "convert", "-f", "raw", "-O", "raw", live.uri(), copy)
        assert copy.read_bytes() == source.read_bytes()
        extents = json.loads(call("qemu-img", "map", "--output=json", "-f", "raw", live.uri()))
        assert sum(extent["length"] for extent in extents) == SIZE
        assert sum(extent["length"] for extent in extents if extent["zero"]) >= SIZE - 6 * MIB
    site.prove()
    call("qemu-img", "compare", "-f", "raw", site.image(), source)


def test_qemu_img_bench_with_flushes(site: Site) -> None:
    require_tools("qemu-img")
    with LiveRecorder(site.journal) as live:
        bench = ["qemu-img", "bench", "-w", "-f", "raw"]
        call(*bench, "-c", 3000, "-d", 16, "-s", 4096, "-S", 20480, "--flush-interval", 50, "--no-drain", live.uri())
        call(*bench, "-c", 40, "-d", 4, "-s", 1536 * KIB, "-o", 512, "--pattern", 0x5A, live.uri())
    site.prove()


def test_nbdcopy_both_ways(site: Site) -> None:
    require_tools("nbdcopy")
    source, copy = site.path / "source.img", site.path / "copy.img"
    source.write_bytes(os.urandom(13 * MIB) + bytes(SIZE - 13 * MIB))
    with LiveRecorder(site.journal) as live:
        call("nbdcopy", "--flush", source, live.uri())
        call("nbdcopy", live.uri(), copy)
        assert copy.read_bytes() == source.read_bytes()
    site.prove()


def holes(uri: str) -> list[tuple[int, int]]:
    """(first byte, byte after the last), of a hole that reads as zeros."""
    runs = json.loads(call("nbdinfo", "--map", "--json", uri))
    assert sum(run["length"] for run in runs) == SIZE
    assert {run["type"] for run in runs} <= {0, 3}
    found: list[tuple[int, int]] = []
    for run in runs:
        start, end = run["offset"], run["offset"] + run["length"]
        if run["type"] and found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        elif run["type"]:
            found.append((start, end))
    return found


def test_map_tells_holes_before_and_after_they_arrive(site: Site) -> None:
    require_tools("nbdinfo", "qemu-io")
    with LiveRecorder(site.journal) as live:
        assert holes(live.uri()) == [(0, 2 * MIB), (3 * MIB, SIZE)]
        qemu_io(live.uri(), "write -P 1 10M 1M", "discard 2560k 256k", "write -z -u 50M 1M", "write -P 1 63M 1M")
        expected = [(0, 2 * MIB), (2560 * KIB, 2816 * KIB), (3 * MIB, 10 * MIB), (11 * MIB, 63 * MIB)]
        assert holes(live.uri()) == expected
        told = json.loads(call("nbdinfo", "--json", live.uri()))["exports"][0]
        assert (told["export-size"], told["can_multi_conn"], told["is_read_only"]) == (SIZE, True, False)
    site.prove()
    with LiveRecorder(site.journal) as live:
        assert holes(live.uri()) == expected, "now they are on the volume"


LIBNBD = """
import errno, nbd, os, sys

def connected(structured=True):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.add_meta_context("base:allocation")
    h.connect_uri(sys.argv[1])
    return h

def refused(numbers, function, *arguments):
    try:
        function(*arguments)
    except nbd.Error as error:
        assert error.errnum in numbers, error
    else:
        raise AssertionError((function, arguments))

for structured in (True, False):
    h = connected(structured)
    assert h.get_structured_replies_negotiated() == structured
    assert h.can_meta_context("base:allocation") == structured
    assert h.can_fua() and h.can_multi_conn() and h.can_trim() and h.can_zero() and h.can_flush()
    assert not h.is_read_only()
    size = h.get_size()
    h.pwrite(b"a" * 5000, 1000, nbd.CMD_FLAG_FUA)
    h.zero(1000, 1500, nbd.CMD_FLAG_NO_HOLE)
    h.trim(4096, 5 << 20, nbd.CMD_FLAG_FUA)
    h.cache(4096, 0)
    h.flush()
    assert h.pread(5000, 1000) == b"a" * 500 + bytes(1000) + b"a" * 3500
    large = os.urandom(32 << 20)
    h.pwrite(large, 8 << 20)
    assert h.pread(32 << 20, 8 << 20) == large
    h.zero(32 << 20, 8 << 20)
    assert h.pread(32 << 20, 8 << 20) == bytes(32 << 20)
    if structured:
        chunks = []
        h.pread_structured(3 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data))))
        assert sum(length for _, length in chunks) == 3 << 20
        assert h.pread(5000, 1000, nbd.CMD_FLAG_DF) == h.pread(5000, 1000)
        found = []
        h.block_status(size, 0, lambda name, offset, extents, error: found.extend(extents))
        assert sum(found[::2]) == size and set(found[1::2]) == {0, 3}, found
        one = []
        h.block_status(size, 0, lambda n, o, extents, e: one.extend(extents), nbd.CMD_FLAG_REQ_ONE)
        assert len(one) == 2 and one[0] <= size, one
        refused([errno.EINVAL], h.block_status, 4096, size, lambda *_: 0)
    refused([errno.EINVAL], h.pread, 1, size)
    refused([errno.ENOSPC, errno.EINVAL], h.pwrite, b"x", size)
    refused([errno.ENOSPC, errno.EINVAL], h.pwrite, b"x" * 2, size - 1)
    refused([errno.ENOSPC, errno.EINVAL], h.zero, 2, size - 1)
    refused([errno.EINVAL], h.trim, 2, size - 1)
    refused([errno.EINVAL], h.pread, 1, (1 << 63) - 1)
    h.pwrite(b"z", size - 1)
    assert h.pread(1, size - 1) == b"z"
    h.shutdown()

# A flush on any connection covers what any other completed, and every connection reads it at once.
several = [connected() for _ in range(4)]
for turn in range(20):
    for number, h in enumerate(several):
        h.pwrite(bytes([turn + 1, number + 1]) * 2048, (number << 20) + turn * 512)
    several[turn % 4].flush()
    for number in range(4):
        for h in several:
            assert h.pread(4096, (number << 20) + turn * 512) == bytes([turn + 1, number + 1]) * 2048
for h in several:
    h.shutdown()

h = nbd.NBD()
refused([errno.ENOENT, errno.EINVAL, 0], h.connect_uri, sys.argv[1].replace("disk", "nobody", 1))
"""


def test_libnbd(site: Site) -> None:
    known = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    require(known.returncode == 0, "python3-libnbd is not installed")
    with LiveRecorder(site.journal) as live:
        call(SYSTEM_PYTHON, "-c", LIBNBD, live.uri())
    site.prove()


def test_sizes_that_are_no_multiple_of_anything(tmp_path: Path) -> None:
    """QEMU asks for 512-byte blocks and rounds; nbdcopy copies every byte."""
    require_tools("nbdcopy", "qemu-io", "cmp")
    site = Site(tmp_path)
    size = 3 * MIB + 4096 + 512 + 77
    site.init(f"disk={tmp_path}/disk.img:{size}", f"tiny={tmp_path}/tiny.img:1", f"none={tmp_path}/none.img:0")
    source, copy = tmp_path / "source.img", tmp_path / "copy.img"
    source.write_bytes(os.urandom(size))
    with LiveRecorder(site.journal) as live:
        call("nbdcopy", "--flush", source, live.uri())
        call("nbdcopy", live.uri(), copy)
        assert copy.read_bytes() == source.read_bytes()
        qemu_io(live.uri(), "write -P 9 3M 4608", "read -P 9 3M 4608")
        call("nbdcopy", live.uri("none"), copy)
        assert copy.read_bytes() == b""
    site.prove()
