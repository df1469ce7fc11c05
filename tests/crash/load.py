"""A live recorder under clients that know each write which it acknowledged, and what its volume must then be."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mirrortool.nbd.protocol import Command, CommandFlag
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.daemon import PROGRAM
from tests.fakes.live import LiveRecorder
from tests.fakes.waiting import nap
from tests.interop.tool import Site
from tests.nbd.wire import Client, encode_request, write

PAGE = 4096
MIB = 1 << 20
SIZE = 16 * MIB + 777
CLIENTS = 4
PAUSE_SECONDS = 0.002
"""Between the answers that a client takes: it is to be there all the time, not to take all of the processors."""
STRIPE = 64 << 10
"""Each client has every CLIENTS-th stripe to itself: the order of its own requests is all the order there is."""


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
                    nap(PAUSE_SECONDS)
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


def make_kit(path: Path, program: Sequence[object] = PROGRAM) -> Kit:
    """A volume with something in it, and its journal; `program` records."""
    site = Site(path)
    content = bytearray(SIZE)
    content[5 * MIB : 9 * MIB + 100] = random.Random(3).randbytes(4 * MIB + 100)
    (path / "disk.img").write_bytes(content)
    site.init(f"disk={path}/disk.img")
    return Kit(site, Model(content), LiveRecorder(site.journal, program=program))
