"""Volumes whose pages are stored to through a mapping, which changes no time of the file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.record.scan import Scan
from mirrortool.store.flat import FlatStore
from tests.fakes.volumes import Primary, make_primary, pattern, written_back_directory

SIZE = 1 << 20


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Primary]:
    """A primary whose file system writes back, which /tmp often does not: in memory no store changes a file's times."""
    with written_back_directory(tmp_path) as directory:
        primary = make_primary(directory, {"disk": pattern(1, SIZE)}, 4096)
        primary.scan()
        yield primary


def test_mapped_writes_during_a_scan_make_it_fuzzy(on_disk: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was dirty before the scan takes stores without changing the file's times, unless it is flushed."""
    with open(on_disk.journal.volume_paths()["disk"], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"x"
        read = FlatStore.read_into

        def store_meanwhile(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
            read(self, page, buffers)
            mapped[0:1] = b"y"

        monkeypatch.setattr(FlatStore, "read_into", store_meanwhile)
        with Scan(on_disk.journal_path) as scan:
            assert scan.run().changed
