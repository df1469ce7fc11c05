"""The NBD programs that users have, against a server of ours: they are the judges of the protocol."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.nbd.server import Server
from mirrortool.nbd.tls import server_context
from tests.fakes.certificates import certify, make_authority
from tests.fakes.loop import call, require, require_tools
from tests.fakes.memory_export import MemoryExport

MIB = 1 << 20
SIZE = 8 * MIB
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(SIZE)


@pytest.fixture
def uri(tmp_path: Path, export: MemoryExport) -> Iterator[str]:
    events: list[str] = []
    with Server([export, MemoryExport(MIB, "other")], [f"unix:{tmp_path}/s"], on_event=events.append):
        yield f"nbd+unix:///disk?socket={tmp_path}/s"
    assert events == []


def test_qemu_io(uri: str, export: MemoryExport) -> None:
    require_tools("qemu-io")
    commands = [
        "write -P 0xab 0 1M", "write -P 0xcd 1M 3M", "write -z 2M 64k", "discard 3M 512k", "flush",
        "write -f -P 0x11 5M 4k", "read -P 0xab 0 1M", "read -P 0 2M 64k", "read -P 0x11 5M 4k", "read -P 0 3M 512k",
        "aio_write -P 0x22 6M 64k", "aio_write -P 0x33 7M 1", "aio_flush", "read -P 0x22 6M 64k",
    ]  # fmt: skip
    arguments = [word for command in commands for word in ("-c", command)]
    assert "failed" not in call("qemu-io", "-f", "raw", *arguments, uri)
    assert export.data[5 * MIB : 5 * MIB + 4096] == b"\x11" * 4096
    assert "flush" in [name for name, _ in export.calls]


def test_qemu_img_converts_both_ways_compares_and_maps(uri: str, export: MemoryExport, tmp_path: Path) -> None:
    require_tools("qemu-img")
    source, copy = tmp_path / "source.img", tmp_path / "copy.img"
    source.write_bytes(os.urandom(MIB) + bytes(3 * MIB) + os.urandom(100_000) + bytes(4 * MIB - 100_000))
    export.data[:] = b"old" * (SIZE // 3) + b"ol"
    call("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri)
    assert export.data == source.read_bytes()
    call("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, copy)
    assert copy.read_bytes() == source.read_bytes()
    call("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, source)
    extents = json.loads(call("qemu-img", "map", "--output=json", "-f", "raw", uri))
    assert sum(extent["length"] for extent in extents if extent["zero"]) >= 6 * MIB
    assert sum(extent["length"] for extent in extents) == SIZE


def test_nbdinfo_tells_what_is_there(uri: str, export: MemoryExport) -> None:
    require_tools("nbdinfo")
    export.data[MIB : 2 * MIB] = b"x" * MIB
    told = json.loads(call("nbdinfo", "--json", uri))["exports"][0]
    assert (told["export-size"], told["block_size_preferred"], told["can_multi_conn"]) == (SIZE, 4096, True)
    assert "base:allocation" in told["contexts"]
    runs = json.loads(call("nbdinfo", "--map", "--json", uri))
    assert [(run["offset"], run["length"], run["type"]) for run in runs] == [
        (0, MIB, 3), (MIB, MIB, 0), (2 * MIB, 6 * MIB, 3),
    ]  # fmt: skip
    listed = json.loads(call("nbdinfo", "--list", "--json", uri))["exports"]
    assert [one["export-name"] for one in listed] == ["disk", "other"]


def test_nbdcopy_both_ways(uri: str, export: MemoryExport, tmp_path: Path) -> None:
    require_tools("nbdcopy")
    source, copy = tmp_path / "source.img", tmp_path / "copy.img"
    source.write_bytes(os.urandom(3 * MIB) + bytes(5 * MIB))
    call("nbdcopy", "--flush", source, uri)
    assert export.data == source.read_bytes()
    call("nbdcopy", uri, copy)
    assert copy.read_bytes() == source.read_bytes()


LIBNBD = """
import errno, nbd, sys
def refused(number, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        raise AssertionError(function)
for structured in (True, False):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.add_meta_context("base:allocation")
    h.connect_uri(sys.argv[1])
    assert h.get_structured_replies_negotiated() == structured
    assert h.can_meta_context("base:allocation") == structured
    assert h.can_fua() and h.can_multi_conn() and h.can_cache() and h.can_fast_zero() and h.can_trim()
    size = h.get_size()
    h.pwrite(b"a" * 5000, 1000, nbd.CMD_FLAG_FUA)
    h.zero(1000, 1500, nbd.CMD_FLAG_NO_HOLE)
    h.zero(4096, 4 << 20, nbd.CMD_FLAG_FAST_ZERO)
    h.trim(4096, 5 << 20)
    h.cache(4096, 0)
    h.flush()
    assert h.pread(5000, 1000) == b"a" * 500 + bytes(1000) + b"a" * 3500
    if structured:
        assert h.pread(5000, 1000, nbd.CMD_FLAG_DF) == h.pread(5000, 1000)
        chunks = []
        h.pread_structured(3 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data))))
        assert sum(length for _, length in chunks) == 3 << 20
        found = []
        h.block_status(size, 0, lambda name, offset, extents, error: found.extend(extents))
        assert sum(found[::2]) == size and set(found[1::2]) == {0, 3}, found
    refused(errno.EINVAL, h.pread, 1, size)
    refused(errno.ENOSPC, h.pwrite, b"x", size)
    refused(errno.ENOSPC, h.zero, 2, size - 1)
    refused(errno.EINVAL, h.trim, 2, size - 1)
    refused(errno.EINVAL, h.pwrite, b"x", 0, nbd.CMD_FLAG_DF)
    h.shutdown()
"""


def test_libnbd(uri: str) -> None:
    known = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    require(known.returncode == 0, "python3-libnbd is not installed")
    call(SYSTEM_PYTHON, "-c", LIBNBD, uri)


@pytest.mark.parametrize("depth", [1, 32])
def test_fio_verifies_what_it_wrote(uri: str, depth: int) -> None:
    require_tools("fio")
    job = ["--name=v", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", f"--size={SIZE}"]
    told = call("fio", *job, f"--iodepth={depth}", "--verify=crc32c", "--verify_state_save=0", "--do_verify=1")
    assert "err= 0" in told


def test_qemu_and_libnbd_over_tls(tmp_path: Path) -> None:
    require_tools("openssl", "qemu-io", "nbdinfo")
    make_authority(tmp_path)
    for holder in ("server", "client"):
        certify(tmp_path, tmp_path, holder)
    events: list[str] = []
    tls = server_context(str(tmp_path))
    with Server([MemoryExport(SIZE)], ["tcp:127.0.0.1:0"], tls=tls, on_event=events.append) as server:
        port = str(server.addresses[0]).rpartition(":")[2]
        told = call("nbdinfo", f"nbds://localhost:{port}/disk?tls-certificates={tmp_path}")
        assert "with TLS" in told
        image = f"driver=nbd,host=localhost,port={port},export=disk,tls-creds=t"
        secrets = f"tls-creds-x509,id=t,endpoint=client,dir={tmp_path}"
        commands = ["-c", "write -P 7 1M 2M", "-c", "read -P 7 1M 2M", "-c", "flush"]
        assert "failed" not in call("qemu-io", "--object", secrets, "--image-opts", *commands, image)
    assert events == []
