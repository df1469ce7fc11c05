"""Two hosts with a network of their own between them: fio, a recorder and ship on one; sshd, receive and replay there.

Real network namespaces, a real cable (veth) that is cut without telling an end, a real ssh and sshd, and a small disk
(tmpfs) for the copy, which another file fills. Each process is killed in turn, also while the cable is cut or the disk
full. fakes/hosts.py says what is promised; fio's own checksums tell whether primary and mirror have what fio wrote.

The long run, every trouble 100 times: pytest -m soak tests/interop/test_two_namespaces.py
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.daemon import PROGRAM, SMALL_FILES, Daemon, children_of
from tests.fakes.hosts import Hosts
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require_tools
from tests.fakes.network import Network, two_namespaces
from tests.fakes.processes import kill_all
from tests.fakes.sshd import Sshd, in_login_shell, running_sshd
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap
from tests.interop.tool import Site

MIB = 1 << 20
VOLUME_BYTES = 8 * MIB
DISK_BYTES = 384 * MIB
"""Of the copy's disk: for a base as well, which wants 80 MiB while it is made."""
ASKING = (["ClientAliveInterval 1", "ClientAliveCountMax 2"], ["ServerAliveInterval=1", "ServerAliveCountMax=2"])
"""For both ends of ssh: two questions without an answer, one each second, end the connection."""


class Fio:
    """Job after job of fio's, each of which reads back and checks what it wrote."""

    JOB_BYTES = MIB
    WRITES_A_SECOND = 500
    GRACE_SECONDS = 1.0

    def __init__(self, live: LiveRecorder) -> None:
        self._live = live
        self._chance = random.Random()
        self._thread: threading.Thread | None = None
        # Set before the recorder is ended on purpose: a job that fails afterwards proves nothing.
        self._ending = threading.Event()
        self.failure: str | None = None
        self.done = 0

    @property
    def is_on(self) -> bool:
        return self._thread is not None

    def recovered(self) -> None:
        """What was acknowledged before is looked at by others: tests/crash/test_record_kill.py."""

    def begin(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ending(self) -> None:
        self._ending.set()

    def join(self) -> None:
        assert self._thread
        self._thread.join(self.GRACE_SECONDS)
        if self._thread.is_alive():  # fio does not always notice that its server is gone
            self._process.kill()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._thread = None
        assert not self.failure, self.failure

    def finish(self) -> None:
        self._last = self._job(7)
        told = call(*self._last, *self._target(), "--do_verify=1")
        assert "err= 0" in told, told

    def check(self, image: Path) -> None:
        told = call(*self._last, "--ioengine=psync", f"--filename={image}", "--verify_only")
        assert "err= 0" in told, told

    def _run(self) -> None:
        while not self._ending.is_set():
            job = [*self._job(self._chance.randrange(1 << 30)), f"--rate_iops={self.WRITES_A_SECOND}"]
            command = [*job, *self._target(), "--do_verify=1"]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) as self._process:
                told, _ = self._process.communicate()
            code = self._process.returncode
            has_lied = "verify failed" in told or "verify: bad" in told
            if has_lied or (code and not self._ending.is_set()):
                self.failure = told
                return
            self.done += code == 0

    def _job(self, seed: int) -> list[str]:
        return [
            "fio", "--thread", "--name=v", "--rw=randwrite", "--bs=4k", "--verify_fatal=1", "--iodepth=8", "--fsync=16",
            f"--size={self.JOB_BYTES}", f"--offset={seed % (VOLUME_BYTES // self.JOB_BYTES) * self.JOB_BYTES}",
            "--verify=crc32c", "--verify_state_save=0", f"--randseed={seed}",
        ]  # fmt: skip

    def _target(self) -> list[str]:
        return ["--ioengine=nbd", f"--uri={self._live.uri()}"]


@dataclass
class Pair:
    """The hosts, what joins them, and the disk over there."""

    hosts: Hosts
    fio: Fio
    network: Network
    sshd: Sshd
    disk: Path
    chance: random.Random
    notices_seconds: float
    """The longest time until a link is known to be broken over which nothing comes."""

    def __post_init__(self) -> None:
        lossy = ["netem", "delay", "20ms", "5ms", "loss", "3%"]
        slow = ["tbf", "rate", "4mbit", "burst", "16k", "latency", "200ms"]
        self._disciplines = [slow, lossy] if self.network.has(*lossy) else [slow]
        self.hosts.troubles |= {
            "session": lambda: kill_all(children_of(self.sshd.process.pid)),
            "blink": self.blink,
            "cut": self.cut,
            "full": self.fill,
            "narrow": self.narrow,
        }

    def blink(self) -> None:
        """The cable is cut, but mended before anybody gives up."""
        with self._cut():
            nap(self.chance.uniform(0.1, 0.6))

    def cut(self) -> None:
        """Until the sender finds that the link is broken, as no answer comes; it continues by itself."""
        self.hosts.wait_for_more()
        with self._cut():
            self._wait_told("retrying", self.notices_seconds)
            self._kill_one()

    def fill(self) -> None:
        """Until the sender hears of it; with room it continues by itself."""
        self.hosts.wait_for_more()
        with filled(self.disk, self.chance.choice([0, 5000, 100_000])):
            self._wait_told("No space", 3.0)
            self._kill_one()
            nap(self.chance.uniform(0, 1))

    def _wait_told(self, text: str, seconds: float) -> None:
        """Until ship says so; it says nothing if it has not yet said that the trouble before is over."""
        told, ends = len(self.hosts.ship.lines), time.monotonic() + seconds
        is_told = False
        while not is_told and time.monotonic() < ends:
            nap(0.02)
            is_told = any(text in line for line in self.hosts.ship.lines[told:])
        self.hosts.seen[f"told {text}"] += is_told

    def narrow(self) -> None:
        """A slow link for a while; a lossy one too, if the kernel has that."""
        self.network.disturb(self.network.near, *self.chance.choice(self._disciplines))
        nap(self.chance.uniform(0.2, 1))
        self._kill_one()
        self.network.calm(self.network.near)

    @contextmanager
    def _cut(self) -> Iterator[None]:
        """Meanwhile, one end of the cable is down."""
        side = self.chance.choice([self.network.near, self.network.far])
        self.network.cut(side)
        try:
            yield
        finally:
            self.network.mend(side)

    def _kill_one(self) -> None:
        """Or nobody."""
        name = self.chance.choice(["receive", "session", "link", "ship", "replay", "", ""])
        if name:
            self.hosts.trouble(name)


@contextmanager
def filled(disk: Path, left: int) -> Iterator[None]:
    """Meanwhile, about this many bytes are free."""
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(64 << 10))
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - left))
        yield
    finally:
        filler.unlink()


@contextmanager
def small_disk(where: Path) -> Iterator[Path]:
    """A tmpfs of DISK_BYTES."""
    where.mkdir()
    call("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", where)
    try:
        yield where
    finally:
        call("umount", "--lazy", where)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """With the seed that a test asks for; with an odd one ssh asks nothing, so that ship must notice by itself."""
    require_tools("fio", "cmp", "mount", "umount")
    seed = getattr(request, "param", 0)
    server, client = ASKING if seed % 2 == 0 else ([], [])
    with ExitStack() as stack:
        path = Path(stack.enter_context(fast_directory()))
        network = stack.enter_context(two_namespaces())
        disk = stack.enter_context(small_disk(path / "disk"))
        (path / "sshd").mkdir()
        at = {"inside": network.inside(network.far), "server": server, "client": [*client, "ConnectTimeout=5"]}
        sshd = stack.enter_context(running_sshd(path / "sshd", network.far_address, **at))
        made = make_pair(path, network, sshd, disk, random.Random(seed), 5.0 if client else 20.0)
        stack.callback(made.hosts.end)
        yield made


def make_pair(
    path: Path, network: Network, sshd: Sshd, disk: Path, chance: random.Random, notices_seconds: float
) -> Pair:
    primary = path / "primary"
    primary.mkdir()
    site = Site(primary)
    site.init(f"disk={primary}/disk.img:{VOLUME_BYTES}")
    near, far = network.inside(network.near), network.inside(network.far)
    live = LiveRecorder(site.journal, program=[*near, *SMALL_FILES])
    copy, mirror = disk / "journal", path / "mirror"
    remote = ["--rsh", sshd.rsh, "--remote-path", in_login_shell(" ".join(PROGRAM)), "--timeout", "15s"]
    ship = Daemon("ship", site.journal, f"{sshd.host}:{copy}", "--follow", *remote, program=[*near, *PROGRAM])
    replay = Daemon("replay", copy, mirror, "--follow", program=[*far, *PROGRAM])
    fio = Fio(live)
    return Pair(Hosts(site, live, fio, copy, mirror, ship, replay), fio, network, sshd, disk, chance, notices_seconds)


ONCE = ("cut", "session", "full", "receive", "replay", "link", "blink", "recorder")


def test_the_mirror_gets_there_through_every_trouble(pair: Pair) -> None:
    has_a_process_to_kill = {"session", "receive", "link"}.__contains__
    pair.hosts.run(
        pair.chance, list(ONCE), prune_every=len(ONCE) - 1, pause_seconds=0.2, is_patient=has_a_process_to_kill
    )
    assert all(pair.hosts.seen[name] for name in ONCE), pair.hosts.seen
    assert pair.fio.done


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("pair", range(100, 104), indirect=True)
def test_the_mirror_gets_there_through_every_trouble_25_times(pair: Pair) -> None:
    """In any order; with all seeds, 100 times."""
    turns = list(pair.hosts.troubles) * 25
    pair.chance.shuffle(turns)
    pair.hosts.run(pair.chance, turns, prune_every=9, is_patient=lambda _: pair.chance.random() < 0.5)
    print(dict(pair.hosts.seen), pair.fio.done)
    assert pair.hosts.seen["pruned files"] and pair.fio.done
