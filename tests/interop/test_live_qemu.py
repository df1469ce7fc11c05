"""QEMU's block layer in front of a live recorder, as under a VM: a disk is moved in while it changes, and a recorder
that is killed and started again is no more to a guest than a slow disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrortool.record.controlsocket import ask
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require_tools
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap, wait_until
from tests.interop.tool import Site, assert_same

MIB = 1 << 20
SIZE = 64 * MIB
ANSWER_SECONDS = 60.0


class StorageDaemon:
    """A qemu-storage-daemon that serves a node of its own by NBD, and its monitor."""

    def __init__(self, path: Path, *options: str) -> None:
        self.front = path / "front"
        monitor = path / "monitor"
        self._process = subprocess.Popen(
            [
                "qemu-storage-daemon", "--chardev", f"socket,path={monitor},server=on,wait=off,id=c",
                "--monitor", "chardev=c", "--nbd-server", f"addr.type=unix,addr.path={self.front},max-connections=0",
                *options,
            ],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: monitor.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self._process.communicate()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(monitor))
        self._lines = self._socket.makefile()
        self._events: list[dict[str, Any]] = []
        self._lines.readline()
        self.do("qmp_capabilities")

    @property
    def uri(self) -> str:
        return f"nbd+unix:///disk?socket={self.front}"

    def do(self, command: str, **arguments: object) -> Any:
        """A command and its result."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if "event" in answer:
                self._events.append(answer)
                continue
            assert "return" in answer, answer
            return answer["return"]

    def wait_for(self, event: str, **data: object) -> None:
        """Until this happens, with these data among others; what happened before is forgotten."""
        while True:
            while self._events:
                found = self._events.pop(0)
                assert found["event"] != "BLOCK_JOB_ERROR", found
                if found["event"] == event and data.items() <= found["data"].items():
                    return
            self._events.append(json.loads(self._lines.readline()))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(b'{"execute": "quit"}\n')
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.communicate()
        self._lines.close()
        self._socket.close()


def our_node(live: LiveRecorder, name: str) -> str:
    return (
        f"driver=nbd,node-name={name},server.type=unix,server.path={live.socket},export=disk,reconnect-delay=40,"
        "discard=unmap"
    )


def front(node: str) -> list[str]:
    return ["--export", f"type=nbd,id=front,node-name={node},name=disk,writable=on"]


@pytest.fixture
def site() -> Iterator[Site]:
    require_tools("qemu-storage-daemon", "qemu-io", "qemu-img", "fio", "cmp")
    with fast_directory() as path:
        made = Site(Path(path))
        made.init(f"disk={path}/disk.img:{SIZE}")
        yield made


class Guest:
    """fio as a guest that never stops writing until it is told to; its files are blocks of patterns."""

    def __init__(self, uri: str) -> None:
        self._process = subprocess.Popen(
            [
                "fio", "--name=guest", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bsrange=4k-64k",
                "--fsync=50", f"--size={SIZE}", "--time_based", "--runtime=300", "--iodepth=8", "--rate_iops=1500",
                "--refill_buffers",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def stop(self) -> None:
        assert self._process.poll() is None, self._process.communicate()
        self._process.terminate()
        told, _ = self._process.communicate(timeout=60)
        assert "err= 0" in told, told


def head_lsn(site: Site) -> int:
    """The newest that a live recorder has."""
    told = ask(str(site.journal), {"request": "status"})
    assert told
    return int(told["head_lsn"])


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_disk_that_changes_is_moved_in(site: Site, mode: str) -> None:
    """blockdev-mirror while a guest writes; after the switch the guest continues, and writes to mirrortool."""
    source = site.path / "source.img"
    source.write_bytes(random.Random(1).randbytes(30 * MIB) + bytes(SIZE - 30 * MIB))
    live = LiveRecorder(site.journal)
    with live:
        daemon = StorageDaemon(
            site.path,
            "--blockdev", f"driver=file,node-name=source,filename={source},discard=unmap",
            "--blockdev", our_node(live, "ours"),
            *front("source"),
        )  # fmt: skip
        with contextlib.closing(daemon):
            guest = Guest(daemon.uri)
            daemon.do("blockdev-mirror", job_id="move", device="source", target="ours", sync="full", copy_mode=mode)
            daemon.wait_for("BLOCK_JOB_READY", device="move")
            written_ns = source.stat().st_mtime_ns
            wait_until(lambda: source.stat().st_mtime_ns > written_ns)
            guest.stop()
            last = ["-c", "write -P 0x77 40M 64k", "-c", "discard 50M 1M", "-c", "flush"]
            call("qemu-io", "-f", "raw", *last, daemon.uri)
            daemon.do("job-complete", id="move")
            daemon.wait_for("JOB_STATUS_CHANGE", id="move", status="concluded")
            call("qemu-img", "compare", "-f", "raw", "-F", "raw", live.uri(), daemon.uri)
            before = source.read_bytes()
            moved = call("qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", live.uri(), source)
            assert "identical" in moved
            guest, lsn = Guest(daemon.uri), head_lsn(site)
            live.wait_until(lambda: head_lsn(site) > lsn)
            guest.stop()
            call("qemu-io", "-f", "raw", "-c", "write -P 0x78 41M 64k", "-c", "flush", daemon.uri)
            call("qemu-io", "-f", "raw", "-r", "-c", "read -P 0x78 41M 64k", live.uri())
            assert source.read_bytes() == before, "the old disk is out of use"
    site.prove()


def test_guest_outlives_recorders_that_are_killed(site: Site) -> None:
    """With reconnect-delay it sees no error, and reads back what it wrote; so does whoever has the mirror."""
    live = LiveRecorder(site.journal)
    live.start()
    daemon = StorageDaemon(site.path, "--blockdev", our_node(live, "ours"), *front("ours"))
    job = [
        "fio", "--name=v", "--bs=4k", "--size=4m", "--offset_increment=4m", "--numjobs=4", "--rw=randwrite",
        "--randseed=3", "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--group_reporting",
    ]  # fmt: skip
    with contextlib.closing(daemon):
        slow = ["--rate_iops=300", "--fsync=20", "--iodepth=8", "--do_verify=1"]
        fio = subprocess.Popen(
            [*job, *slow, "--ioengine=nbd", f"--uri={daemon.uri}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        chance = random.Random(4)
        kills = 0
        while kills < 3:
            nap(chance.uniform(0.3, 0.7))
            assert fio.poll() is None, fio.communicate()
            live.kill()
            kills += 1
            live.start()
        told, _ = fio.communicate(timeout=120)
        assert fio.returncode == 0 and "err= 0" in told, told
    live.finish()
    site.prove()
    told = call(*job, "--ioengine=psync", "--verify_only", f"--filename={site.image()}")
    assert "err= 0" in told


def test_qemu_io_outlives_a_kill_and_a_clean_restart(site: Site) -> None:
    """The same without a daemon, command by command; a clean stop is no different to it."""
    live = LiveRecorder(site.journal)
    live.start()
    commands = []
    for number in range(40):
        commands += [f"write -P {number + 1} {number}M 512k", "sleep 50"]
    commands += [f"read -P {number + 1} {number}M 512k" for number in range(40)]
    words = [word for command in commands for word in ("-c", command)]
    image = f"driver=nbd,server.type=unix,server.path={live.socket},export=disk,reconnect-delay=40"
    guest = subprocess.Popen(
        ["qemu-io", "--image-opts", *words, image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for number in range(2):
        nap(0.5)  # of the 4 s that its commands need; qemu-io says nothing before its end
        if number:
            live.stop()
        else:
            live.kill()
        live.start()
    told, _ = guest.communicate(timeout=120)
    assert guest.returncode == 0 and "failed" not in told and "rror" not in told, told
    live.finish()
    site.prove()


def test_image_that_qemu_has_open_is_refused_and_ours_to_qemu(site: Site) -> None:
    """Locks hold in both directions."""
    image = site.path / "disk.img"
    daemon = StorageDaemon(site.path, "--blockdev", f"driver=file,node-name=disk,filename={image}", *front("disk"))
    with contextlib.closing(daemon):
        site.run("record", site.journal, "--nbd", f"unix:{site.path}/s", code=22)
        assert not os.path.exists(site.path / "s")
    with LiveRecorder(site.journal) as live:
        refused = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write -P 2 0 4k", str(image)], capture_output=True, text=True, check=False
        )
        assert refused.returncode and "lock" in refused.stderr
        call("qemu-io", "-f", "raw", "-c", "write -P 3 0 4k", live.uri())
    site.prove()


def test_log_of_blklogwrites_of_the_same_run(site: Site) -> None:
    """QEMU logs and we record the same writes: its image, our volume, our mirror and the mirror of its log are one."""
    log, imported = site.path / "qemu.log", Site(site.path / "imported")
    log.touch()
    imported.path.mkdir()
    imported.init(f"disk={imported.path}/disk.img:{SIZE}")
    with LiveRecorder(site.journal) as live:
        node = (
            f"driver=blklogwrites,log-sector-size=512,log.driver=file,log.filename={log},file.driver=nbd,"
            f"file.server.type=unix,file.server.path={live.socket},file.export=disk"
        )
        bench = ["-w", "-c", 2000, "-d", 8, "-s", 4096, "-S", 20480, "--flush-interval", 40, "--pattern", 0x5A]
        call("qemu-img", "bench", *bench, "--image-opts", node)
        more = ["write -P 1 1M 3M", "write -z 2M 64k", "write -z -u 8M 16M", "discard 30M 1M", "write -f -P 2 31M 4k"]
        words = [word for command in more for word in ("-c", command)]
        call("qemu-io", "--image-opts", *words, node.replace("log-sector-size=512", "log-append=on"))
    site.prove()
    imported.run("import", imported.journal, log, "--format", "logwrites", "--quiet")
    imported.prove()
    assert_same(site.path / "disk.img", imported.image())
