"""Recorders in tests: dropped as by kill -9, compared with a model of plain bytearrays, their mirrors with both."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from mirrortool.change import Change
from mirrortool.record import recorder as recorder_module
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.scan import Scan
from mirrortool.replay import readback
from mirrortool.store import parallelread
from mirrortool.verify import Verify
from tests.fakes.disk import PowerCut
from tests.fakes.journals import assert_is_commit, images_of, replay_all
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import PAGE, Primary


def opened_of(recorder: Recorder) -> OpenJournal:
    """What a recorder has open."""
    opened = recorder._volumes._open
    assert isinstance(opened, OpenJournal)
    return opened


def drop(recorder: Recorder) -> None:
    """Let go of everything as kill -9 does: nothing more is written."""
    recorder._volumes.stop()
    opened_of(recorder)._opened.close()


@contextmanager
def quiet_recorder(primary: Primary, **options: Any) -> Iterator[Recorder]:
    """A recorder that writes back only when it is asked to; dropped at the end unless it was closed."""
    recorder = Recorder(primary.journal_path, background=False, **options)
    try:
        yield recorder
    finally:
        drop(recorder)


def based(primary: Primary) -> Primary:
    """The same, wholly journaled, and stopped cleanly."""
    with Recorder(primary.journal_path, background=False) as recorder:
        InitialScan(recorder).run()
    return primary


def kill_scan(primary: Primary, **options: Any) -> None:
    """A scan that is killed at the seventeenth page of a volume."""
    real = Scan._compare

    def compare(scan: Scan, reader: Any, page: int, count: int) -> None:
        if page >= 16:
            raise PowerCut
        real(scan, reader, page, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scan, "_compare", compare)
        with pytest.raises(PowerCut):
            primary.scan(**options)


def small_scale(patch: pytest.MonkeyPatch, page_size: int = PAGE) -> None:
    """Pieces of a few pages, frames of a few changes, and a ZERO that is done at once."""
    for module in (parallelread, readback):
        patch.setattr(module, "PIECE_BYTES", 8 * page_size)
    patch.setattr(recorder_module, "ZERO_BYTES_MAX", 5 * page_size)
    patch.setattr(recorder_module, "FRAME_CHANGES", 3)


class Model:
    """The bytes that volumes must have; `states` are all that they had, oldest first, if `remember` is set."""

    def __init__(self, contents: Mapping[str, bytes], *, remember: bool = False) -> None:
        self.contents = {name: bytearray(content) for name, content in contents.items()}
        self._remember = remember
        self.states: list[dict[str, bytes]] = [self.state()]

    def state(self) -> dict[str, bytes]:
        return {name: bytes(content) for name, content in self.contents.items()}

    def change(self, name: str, changes: list[Change]) -> None:
        for change in changes:
            data = bytes(change.length) if change.data is None else bytes(change.data)
            self.contents[name][change.offset : change.offset + change.length] = data
        if self._remember:
            self.states.append(self.state())


def random_changes(chance: random.Random, size: int, page_size: int, most: int = 5) -> list[Change]:
    """Changes of one volume: any alignment, whole pages, or to the end."""
    return [_random_change(chance, size, page_size) for _ in range(chance.randrange(1, most))]


def _random_change(chance: random.Random, size: int, page_size: int) -> Change:
    offset = chance.randrange(size)
    length = min(chance.choice([1, 100, page_size, 3 * page_size, size]), size - offset)
    length = chance.randrange(1, length + 1)
    if chance.random() < 0.5:
        offset -= offset % page_size
        length = min(-(-length // page_size) * page_size, size - offset)
    kind = chance.random()
    data = chance.randbytes(length) if kind < 0.7 else None
    return Change(offset, length, data, keep_allocated=0.7 <= kind < 0.8)


def check_reads(recorder: Recorder, model: Model, chance: random.Random) -> None:
    """Reads and extents of a random range say what the model has."""
    name = chance.choice(list(model.contents))
    content = model.contents[name]
    offset = chance.randrange(len(content))
    length = chance.randrange(1, len(content) - offset + 1)
    assert recorder.read(name, offset, length) == content[offset : offset + length]
    check_extents(recorder, model, name, offset, length)


def check_extents(recorder: Recorder, model: Model, name: str, offset: int, length: int) -> None:
    place = offset
    for run, is_hole in recorder.extents(name, offset, length):
        assert run > 0
        if is_hole:
            assert not any(model.contents[name][place : place + run])
        place += run
    assert place == offset + length


def check_everywhere(primary: Primary, contents: Mapping[str, bytes], mirror: str | None = None) -> None:
    """Journal, volumes and a mirror, a new one by default, have these bytes, and verify proves it, sums and all."""
    assert primary.contents() == contents
    assert volumes_at(primary.journal) == contents
    is_new = mirror is None
    path = mirror or os.path.join(primary.directory, "mirror-of-all")
    replay_all(primary.journal, path)
    assert assert_is_commit(primary.journal, path)
    assert images_of(path) == contents
    with Verify(path, journal_path=primary.journal_path, cached=True) as verify:
        result = verify.run()
    assert result.is_right and result.table_is_right, result
    if is_new:
        shutil.rmtree(path)
