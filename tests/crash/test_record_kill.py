"""kill -9 of a real recorder at any moment, under clients that know each write which it acknowledged.

kill -9 leaves the kernel its page cache, so every acknowledged write is there afterwards, flushed or not; one that was
not acknowledged is there or not, page by page. Journal, volume and mirror are then the same.

The long run: pytest -m soak tests/crash/test_record_kill.py
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import TornJournalError
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.nbd.protocol import Command, CommandFlag
from mirrortool.operation import CommitKind
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.daemon import PROGRAM
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap, wait_until
from tests.interop.tool import Site
from tests.nbd.wire import Client, encode_request, write

PAGE = 4096
MIB = 1 << 20
SIZE = 16 * MIB + 777
CLIENTS = 4
STRIPE = 64 << 10
"""Each client has every CLIENTS-th stripe to itself: the order of its own requests is all the order there is."""
KILLS = 6
SOAK_KILLS = 200


@dataclass
class Request:
    """One that is on its way: what it is about to make of a range; None for a flush, `is_read` for a read."""

    offset: int
    data: bytes | None
    is_read: bool = False


@dataclass
class Model:
    """What the volume must be.

    Attributes:
        image: with everything that was acknowledged.
        pending: requests that were sent, and neither acknowledged nor looked at after a crash.
    """

    image: bytearray
    pending: list[Request] = field(default_factory=list)
    acknowledged: int = 0
    flushed: int = 0

    def reconcile(self, found: bytes) -> int:
        """After a crash: each page of a pending write is old or new, all else is as acknowledged; how many were new."""
        new = 0
        for request in self.pending:
            if request.data is None or request.is_read:
                continue
            end = request.offset + len(request.data)
            for page in range(request.offset // PAGE, (end - 1) // PAGE + 1):
                low, high = max(request.offset, page * PAGE), min(end, (page + 1) * PAGE)
                part = request.data[low - request.offset : high - request.offset]
                if found[low:high] == part:
                    self.image[low:high] = part
                    new += 1
        self.pending = []
        if found != self.image:
            bad = [at for at in range(0, len(found), 512) if found[at : at + 512] != self.image[at : at + 512]]
            raise AssertionError(f"{len(bad)} blocks are neither old nor new: {bad[:20]}")
        return new


class Load:
    """A client that writes, zeroes, trims, reads and flushes, several requests at a time, until its server dies."""

    DEPTH = 12

    def __init__(self, model: Model, address: Path, number: int, seed: int) -> None:
        self._model = model
        self._address = address
        self._number = number
        self._chance = random.Random(seed)
        self._going: dict[int, Request] = {}
        self._cookie = 0
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with Client(UnixAddress(str(self._address))) as client:
                client.go("disk")
                while True:
                    while len(self._going) < self._chance.choice([1, self.DEPTH]):
                        self._send(client)
                    self._receive(client)
        except (ConnectionError, EOFError):
            pass
        except BaseException as failure:
            self.failure = failure
        self._model.pending.extend(self._going.values())

    def _send(self, client: Client) -> None:
        chance, command, flags = self._chance, Command.WRITE, 0
        kind = chance.random()
        self._cookie += 1
        offset, length = self._free_range()
        if kind < 0.05:
            self._going[self._cookie] = Request(0, None)
            client.send(encode_request(Command.FLUSH, self._cookie))
            return
        if kind < 0.15:
            expected = bytes(self._model.image[offset : offset + length])
            self._going[self._cookie] = Request(offset, expected, is_read=True)
            client.send(encode_request(Command.READ, self._cookie, offset, length))
            return
        if kind < 0.25:
            flags = CommandFlag.FUA
        if kind < 0.8:
            data = (chance.randbytes(16) * (length // 16 + 1))[:length]
            self._going[self._cookie] = Request(offset, data)
            client.send(write(self._cookie, offset, data, flags))
            return
        command = Command.TRIM if kind < 0.9 else Command.WRITE_ZEROES
        if command == Command.TRIM:  # which leaves what is not a whole page as it likes
            offset, length = offset // PAGE * PAGE, PAGE
            if offset + length > SIZE or self._is_busy(offset, offset + length):
                self._cookie -= 1
                return
        self._going[self._cookie] = Request(offset, bytes(length))
        client.send(encode_request(command, self._cookie, offset, length, flags=flags))

    def _free_range(self) -> tuple[int, int]:
        """A range in a stripe of its own, in pages that no request on its way touches."""
        while True:
            stripe = self._chance.randrange(SIZE // STRIPE // CLIENTS) * CLIENTS + self._number
            if self._number == 0 and self._chance.random() < 0.03:
                stripe = SIZE // STRIPE  # the last one, cut short
            room = min(STRIPE, SIZE - stripe * STRIPE)
            if self._chance.random() < 0.5:
                first, length = self._chance.randrange(room // 512 + 1) * 512, self._chance.choice([1, 512, 1536])
            else:
                first = self._chance.randrange(room // PAGE + 1) * PAGE
                length = self._chance.choice([1, 1, 2, 9]) * PAGE
            first = min(first, room - 1)
            offset, end = stripe * STRIPE + first, stripe * STRIPE + min(room, first + length)
            if not self._is_busy(offset, end):
                return offset, end - offset

    def _is_busy(self, offset: int, end: int) -> bool:
        return any(
            request.offset // PAGE * PAGE < end and offset < (request.offset + len(request.data) + PAGE) // PAGE * PAGE
            for request in self._going.values()
            if request.data is not None
        )

    def _receive(self, client: Client) -> None:
        answer = client.answer()
        assert not answer.error, answer
        request = self._going[answer.cookie]
        if request.is_read:
            assert request.data is not None
            found = client.receive(len(request.data))
            assert found == request.data, f"a read at {request.offset} is not what was written"
        elif request.data is None:
            self._model.flushed += 1
        else:
            self._model.image[request.offset : request.offset + len(request.data)] = request.data
            self._model.acknowledged += 1
        del self._going[answer.cookie]


@dataclass
class Kit:
    site: Site
    model: Model
    live: LiveRecorder

    def read(self) -> bytes:
        """The whole volume, as the recorder has it."""
        with Client(UnixAddress(str(self.live.socket))) as client:
            size, _ = client.go("disk")
            assert size == SIZE
            data = b""
            while len(data) < size:
                length = min(4 * MIB, size - len(data))
                assert client.do(Command.READ, len(data), length).error == 0
                data += client.receive(length)
        return data

    def load(self, seed: int) -> list[Load]:
        return [Load(self.model, self.live.socket, number, seed * CLIENTS + number) for number in range(CLIENTS)]

    def join(self, loads: list[Load]) -> None:
        for load in loads:
            load.thread.join(30)
            assert not load.thread.is_alive()
            if load.failure:
                raise load.failure

    def wait_answered(self) -> None:
        """Until the load had many more answers."""
        goal = self.model.acknowledged + 200
        self.live.wait_until(lambda: self.model.acknowledged >= goal)

    def check_volume(self) -> None:
        """After a clean stop: the volume is what was acknowledged, and mirror and journal are the volume."""
        assert (self.site.path / "disk.img").read_bytes() == self.model.image
        self.site.prove()


@pytest.fixture
def kit() -> Iterator[Kit]:
    with fast_directory() as path:
        yield make_kit(Path(path))


def make_kit(path: Path, program: Sequence[object] = PROGRAM) -> Kit:
    """A volume with something in it, and its journal; `program` records."""
    site = Site(path)
    content = bytearray(SIZE)
    content[5 * MIB : 9 * MIB + 100] = random.Random(3).randbytes(4 * MIB + 100)
    (path / "disk.img").write_bytes(content)
    site.init(f"disk={path}/disk.img")
    return Kit(site, Model(content), LiveRecorder(site.journal, program=program))


def kill_often(kit: Kit, kills: int, seed: int) -> None:
    """Kill under load; in turn recovery is killed, too, or the journal is replayed as the crash left it."""
    chance = random.Random(seed)
    new = redone = 0
    for number in range(kills):
        kit.live.start()
        redone += any("written to the volumes again" in line for line in kit.live.lines)
        new += kit.model.reconcile(kit.read())
        loads = kit.load(seed * 1000 + number)
        nap(chance.choice([0.02, 0.3, 1.3]) * chance.uniform(0.3, 1.0))
        kit.live.kill()
        kit.join(loads)
        if number % 3 == 1:
            for _ in range(2):
                kit.live.begin()
                nap(chance.uniform(0.1, 0.7))
                kit.live.kill()
        if number % 3 == 2:
            kit.site.run("replay", kit.site.journal, kit.site.mirror, "--quiet")
            kit.site.run("verify", kit.site.mirror, "--quiet")
        if number % 4 == 3:
            kit.live.start()
            new += kit.model.reconcile(kit.read())
            kit.live.finish()
            kit.check_volume()
    kit.live.start()
    new += kit.model.reconcile(kit.read())
    kit.live.finish()
    kit.check_volume()
    print(f"{kills} kills: {kit.model.acknowledged} acknowledged, {kit.model.flushed} flushes, "
          f"{redone} redone, {new} pages of unacknowledged writes were there")  # fmt: skip
    assert kit.model.acknowledged > kills * 20
    assert redone, "no kill left anything to redo"


def test_no_acknowledged_write_is_lost(kit: Kit) -> None:
    kill_often(kit, KILLS, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_no_acknowledged_write_is_lost_in_200_kills(kit: Kit, seed: int) -> None:
    kill_often(kit, SOAK_KILLS // 10, 100 + seed)


def has_complete_commit(site: Site) -> bool:
    """Whether any commit claims to be a state of the volumes; the tail may be torn."""
    with contextlib.suppress(TornJournalError):
        return any(each.kind != CommitKind.INCOMPLETE for each in commits(Journal(str(site.journal))))
    return False


def test_killed_during_the_initial_scan(tmp_path: Path) -> None:
    """While clients write; no commit claims to be a state of the volume before the scan has ended."""
    site = Site(tmp_path)
    size = 192 * MIB
    content = bytearray(random.Random(4).randbytes(MIB) * (size // MIB))
    for page in range(0, size, PAGE):
        content[page : page + 8] = page.to_bytes(8, "big")
    (tmp_path / "disk.img").write_bytes(content)
    site.init(f"disk={tmp_path}/disk.img")
    live = LiveRecorder(site.journal)
    chance = random.Random(5)
    between = 0
    for number in range(4):
        live.start()
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("disk")
            for _ in range(40):
                page = chance.randrange(size // PAGE) * PAGE
                data = chance.randbytes(8) * 512
                content[page : page + PAGE] = data
                assert client.do(Command.WRITE, page, PAGE, data=data).error == 0
            nap(chance.uniform(0, 0.15))
            live.kill()
        is_complete = has_complete_commit(site)
        between += not is_complete
        if not is_complete and number % 2:
            site.run("mark", site.journal, "early", code=3)
            assert not site.mirror.exists()
    assert between, "no kill ever met the scan"
    live.start()
    live.finish()
    assert (tmp_path / "disk.img").read_bytes() == content
    site.prove()


def test_killed_during_a_clean_stop(kit: Kit) -> None:
    chance = random.Random(6)
    for number in range(4):
        kit.live.start()
        kit.model.reconcile(kit.read())
        loads = kit.load(700 + number)
        kit.wait_answered()
        kit.live.process.terminate()
        nap(chance.uniform(0.0, 0.15))
        kit.live.kill()
        kit.join(loads)
    kit.live.start()
    kit.model.reconcile(kit.read())
    kit.live.finish()
    kit.check_volume()


def test_a_clean_stop_under_load_loses_nothing(kit: Kit) -> None:
    """Whoever was answered is on the volume itself, without any redo."""
    for number in range(3):
        kit.live.start()
        loads = kit.load(800 + number)
        kit.wait_answered()
        kit.live.finish()
        kit.join(loads)
        kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.check_volume()


def test_a_mark_after_the_kill_is_what_was_acknowledged(kit: Kit) -> None:
    """`mark` acquires the lock, recovers, and names the state that clients had seen."""
    kit.live.start()
    kit.live.wait_for_base()
    loads = kit.load(900)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    kit.site.run("mark", kit.site.journal, "crash")
    kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.site.run("replay", kit.site.journal, kit.site.mirror, "--until", "crash", "--quiet")
    assert kit.site.image().read_bytes() == kit.model.image
    kit.live.start()
    kit.live.finish()
    kit.check_volume()


def test_a_scan_after_the_kill_recovers(kit: Kit) -> None:
    kit.live.start()
    loads = kit.load(901)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    kit.site.run("record", kit.site.journal, "--quiet")
    kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.check_volume()


def test_a_volume_changed_after_the_kill_is_not_touched(kit: Kit) -> None:
    """Exit 21, and not one byte is written, until the user says that the volume counts."""
    kit.live.start()
    loads = kit.load(902)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    image = kit.site.path / "disk.img"
    with image.open("r+b") as file:
        file.write(b"somebody else")
    later = time.time_ns() + 3600 * 10**9
    os.utime(image, ns=(later, later))
    before = image.read_bytes()
    for extra in ([], ["--nbd", f"unix:{kit.live.socket}"]):
        kit.site.run("record", kit.site.journal, *extra, code=21)
    assert image.read_bytes() == before
    kit.live = LiveRecorder(kit.site.journal, "--scan")
    kit.live.start()
    kit.live.wait_for_base()
    assert kit.read() == before
    kit.live.finish()
    kit.site.prove()
    assert image.read_bytes() == before


def test_a_volume_changed_at_once_after_the_kill(kit: Kit) -> None:
    """Within a second of the crash, where nothing is redone: refused, or journaled, but never missing from a mirror."""
    kit.live.start()
    kit.live.wait_for_base()
    with Client(UnixAddress(str(kit.live.socket))) as client:
        client.go("disk")
        assert client.do(Command.WRITE, 0, PAGE, data=b"x" * PAGE).error == 0
    kit.live.kill()
    with (kit.site.path / "disk.img").open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"somebody else")
    kit.live.begin()
    wait_until(lambda: not kit.live.is_running or kit.live.is_serving, told=lambda: kit.live.lines)
    if kit.live.is_running:
        kit.live.finish()
        kit.site.follow()
        assert kit.site.image().read_bytes() == (kit.site.path / "disk.img").read_bytes()
    else:
        assert kit.live.process.returncode == 21


def is_decided(processes: Sequence[subprocess.Popen[Any]]) -> bool:
    """Whether all but one have ended."""
    return sum(process.poll() is not None for process in processes) == len(processes) - 1


def test_two_recorders_started_at_once(kit: Kit) -> None:
    """One serves, the other is refused; whoever it is, the socket is the winner's."""
    for _ in range(3):
        command = [sys.executable, "-m", "mirrortool", "record", kit.site.journal, "--nbd", kit.live.address, "-q"]
        words, pipe = [str(word) for word in command], subprocess.PIPE
        others = [subprocess.Popen(words, stdout=pipe, stderr=pipe) for _ in range(3)]
        kit.live.begin()
        everyone = [*others, kit.live.process]
        wait_until(partial(is_decided, everyone))
        assert sorted(process.returncode or 0 for process in everyone) == [0, 22, 22, 22]
        assert kit.read() == kit.model.image
        (winner,) = [process for process in everyone if process.poll() is None]
        winner.terminate()
        assert winner.wait(30) == 0
        for process in others:
            process.communicate()
    kit.site.prove()
