"""Write, zero, read; and, of volumes that nobody records meanwhile, resize and write from outside."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import strategies as st

from mirrortool import Recorder, Scan
from mirrortool.errors import ChangedOutsideError
from tests.machine.site import SEEDS, SHARES, Site, at, precondition, rule, runs, stands

NAMES = st.sampled_from(["a", "a", "b"])
LENGTHS = st.sampled_from([1, 100, 511, 512, 513, 2048, 4096, 5000, 20000])


class Changing(Site):
    @precondition(runs)
    @rule(name=NAMES, where=SHARES, length=LENGTHS, seed=SEEDS, aligned=st.booleans(), fua=st.booleans())
    def write(self, name: str, where: float, length: int, seed: int, aligned: bool, fua: bool) -> None:
        offset, length = self._range(name, where, length, aligned)
        data = random.Random(seed).randbytes(length)
        self.model.begin(name, offset, data)
        with self.power():
            assert self.recorder
            self.recorder.write(name, offset, data, fua=fua)
            self.learn()
            if fua:
                self.model.flushed()

    @precondition(runs)
    @rule(seed=SEEDS, count=st.integers(2, 8))
    def write_much(self, seed: int, count: int) -> None:
        """Changes of any kind, one after another."""
        chance = random.Random(seed)
        for _ in range(count):
            name, where, length = chance.choice("aab"), chance.random(), chance.choice([1, 512, 700, 4096, 9000])
            if chance.random() < 0.7:
                self.write(name, where, length, chance.randrange(999), chance.random() < 0.5, chance.random() < 0.1)
            else:
                self.zero(name, where, length, chance.random() < 0.5)

    @precondition(runs)
    @rule(name=NAMES, where=SHARES, length=LENGTHS, aligned=st.booleans())
    def zero(self, name: str, where: float, length: int, aligned: bool) -> None:
        offset, length = self._range(name, where, length, aligned)
        self.model.begin(name, offset, bytes(length))
        with self.power():
            assert self.recorder
            self.recorder.zero(name, offset, length)
            self.learn()

    @precondition(runs)
    @rule(name=NAMES, where=SHARES, length=LENGTHS)
    def read(self, name: str, where: float, length: int) -> None:
        assert self.recorder
        offset, length = self._range(name, where, length, False)
        assert self.recorder.read(name, offset, length) == self.model.now[name][offset : offset + length]

    def _range(self, name: str, where: float, length: int, aligned: bool) -> tuple[int, int]:
        size = len(self.model.now[name])
        offset = at(where, size)
        if aligned:
            offset -= offset % self.page_size
        return offset, min(length, size - offset)

    @precondition(lambda machine: stands(machine) and machine.is_clean)
    @rule(name=NAMES, pages=st.integers(1, 12), extra=st.sampled_from([0, 1, 7, 511]), seed=SEEDS)
    def resize(self, name: str, pages: int, extra: int, seed: int) -> None:
        """A volume becomes longer or shorter, as truncate(1) does it; the next scan journals that."""
        size = pages * self.page_size + extra
        before = self.model.now[name]
        os.truncate(self.primary.paths[name], size)
        self.model.coming = {**self.model.now, name: before[:size].ljust(size, b"\0")}
        self._scan()

    @precondition(lambda machine: stands(machine) and machine.is_clean)
    @rule(name=NAMES, where=SHARES, length=LENGTHS, seed=SEEDS)
    def write_outside(self, name: str, where: float, length: int, seed: int) -> None:
        """Another program writes to a volume: no recorder takes it as it is, and a scan journals it."""
        offset, length = self._range(name, where, length, False)
        data = random.Random(seed).randbytes(length)
        self.primary.write(name, offset, data)
        with pytest.raises(ChangedOutsideError):
            Recorder(self.journal_path, background=False)
        self.model.begin(name, offset, data)
        self._scan()

    @precondition(stands)
    @rule()
    def scan(self) -> None:
        """Of volumes in which nothing changed, perhaps after a crash."""
        self.model.coming = self.model.now
        with self.power():
            self._scan()

    def _scan(self) -> None:
        with Scan(self.journal_path) as scan:
            result = scan.run()
        assert not result.changed, result
        self.model.changed(result.commit.lsn)
        self.model.committed(result.commit.lsn)
        self.model.flushed()
        self.is_clean = True
        self.done["scan"] += 1
