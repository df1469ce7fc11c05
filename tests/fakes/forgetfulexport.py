"""An export whose server is killed, at a request that a test chooses, and loses what was not flushed.

Most blocks of 4 KiB that were written and not flushed are lost, some are kept, and of some only the first sectors are.
A server that was killed is started again at once, in the test's process: connections of before end at their next
request, and are not answered.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence

from mirrortool.change import Change
from tests.fakes.memory_export import MemoryExport

BLOCK = 4096
SECTOR = 512
_LOST, _TORN = 0.8, 0.1


class ForgetfulExport(MemoryExport):
    """Attributes:
    durable: what a power cut leaves at least.
    kills: how often it was killed.
    """

    def __init__(self, size: int, name: str = "disk", *, seed: int = 0) -> None:
        super().__init__(size, name, description="forgetful")
        self.durable = bytearray(size)
        self.kills = 0
        self._draw = random.Random(seed)
        self._requests_left = -1
        self._state = threading.Lock()  # protects what follows and the bytes; held for a request
        self._here = threading.local()  # the number of the life in which this connection's thread began

    def kill_after(self, requests: int) -> None:
        """The change or flush after these is not carried out, nor any later request of the same connections."""
        self._requests_left = requests

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._state:
            self._require_alive()
            buffer[:] = self.data[offset : offset + len(buffer)]

    def change(self, changes: Sequence[Change]) -> None:
        with self._state:
            for offset, length, data, _ in changes:
                self._count()
                self.data[offset : offset + length] = bytes(length) if data is None else data

    def flush(self) -> None:
        with self._state:
            self._count()
            self.durable[:] = self.data

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        with self._state:
            self._require_alive()
        yield from super().extents(offset, length)

    def _require_alive(self) -> None:
        if getattr(self._here, "life", self.kills) != self.kills:
            raise ConnectionAbortedError
        self._here.life = self.kills

    def _count(self) -> None:
        self._require_alive()
        if self._requests_left == 0:
            self._forget()
            self.kills += 1
            self._requests_left = -1
            raise ConnectionAbortedError
        self._requests_left -= self._requests_left > 0

    def _forget(self) -> None:
        for start in range(0, self.size, BLOCK):
            block = slice(start, min(start + BLOCK, self.size))
            if self.data[block] == self.durable[block]:
                continue
            luck = self._draw.random()
            if luck < _LOST:
                kept = 0
            elif luck < _LOST + _TORN:
                kept = SECTOR * self._draw.randrange(BLOCK // SECTOR)
            else:
                kept = BLOCK
            middle = min(start + kept, block.stop)
            self.durable[start:middle] = self.data[start:middle]
        self.data[:] = self.durable
