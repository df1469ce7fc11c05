"""The scratch file: it has no name, no more space than it may have, and a map in proportion to what is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import AccessError, HostError, NoSpaceError
from mirrortool.files import File
from mirrortool.serve.scratch import CHUNK_PAGES, Kept, Scratch

PAGE = 4096
TIB_PAGES = (1 << 40) // PAGE


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path), PAGE, 8 * PAGE)


def content(scratch: Scratch, page: int, count: int = 1) -> bytes:
    buffer = bytearray(b"b" * count * PAGE)
    scratch.lay_over(page, memoryview(buffer))
    return bytes(buffer)


def test_it_has_no_name(tmp_path: Path, scratch: Scratch) -> None:
    scratch.write(0, b"x" * PAGE)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="nowhere"):
        Scratch(str(tmp_path / "nowhere"), PAGE, PAGE)


def test_what_does_not_fit_changes_nothing(scratch: Scratch) -> None:
    scratch.write(3, b"x" * 6 * PAGE)
    with pytest.raises(NoSpaceError):
        scratch.write(8, b"y" * 4 * PAGE)
    assert content(scratch, 8, 4) == b"x" * PAGE + b"b" * 3 * PAGE
    scratch.write(7, b"y" * 4 * PAGE)
    assert content(scratch, 7, 4) == b"y" * 4 * PAGE
    assert scratch.bytes_used == 8 * PAGE


def test_a_write_that_fails_gives_its_slots_back(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NoSpaceError("the disk is full", where="scratch")

    with monkeypatch.context() as patch:
        patch.setattr(File, "pwrite", fail)
        with pytest.raises(HostError):
            scratch.write(0, b"x" * 5 * PAGE)
        with pytest.raises(HostError):
            scratch.write_part(7, 5, b"x", bytes(PAGE))
    assert (scratch.bytes_used, content(scratch, 0, 8)) == (0, b"b" * 8 * PAGE)
    scratch.write(0, b"y" * 8 * PAGE)
    assert content(scratch, 0, 8) == b"y" * 8 * PAGE


def test_the_file_never_grows_beyond_its_limit(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    highest = 0
    pwrite = File.pwrite

    def watched(self: File, data: files.Buffer, offset: int) -> None:
        nonlocal highest
        highest = max(highest, offset + len(data))
        pwrite(self, data, offset)

    monkeypatch.setattr(File, "pwrite", watched)
    for page in range(0, 1000, 7):
        scratch.write(page, b"x" * PAGE)
        scratch.zero(page, 1)
    scratch.write(0, b"x" * 8 * PAGE)
    assert highest <= 8 * PAGE


def test_zeroing_a_volume_of_terabytes_costs_nothing(scratch: Scratch) -> None:
    scratch.write(5, b"x" * PAGE)
    scratch.zero(1, 16 * TIB_PAGES)
    assert scratch.bytes_used == 0
    assert list(scratch.runs(0, 3 * CHUNK_PAGES)) == [
        (0, 1, Kept.NOTHING),
        (1, 3 * CHUNK_PAGES - 1, Kept.ZERO),
    ]
    assert len(scratch._chunks) <= 2 and len(scratch._zeroed) == 2


def test_the_map_is_small_where_little_is_written(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path), PAGE, 1 << 30)
    for number in range(1000):
        scratch.write(number * (TIB_PAGES // 1000), b"x" * PAGE)
    held = sum(map(sys.getsizeof, scratch._chunks.values()))
    assert held < 1000 * 1200


def test_runs_that_meet_are_one(scratch: Scratch) -> None:
    for first in (4, 0, 2, 8, 6):
        scratch.zero(first * CHUNK_PAGES, 2 * CHUNK_PAGES)
    assert scratch._zeroed == [0, 10]
    scratch.zero(12 * CHUNK_PAGES, CHUNK_PAGES)
    scratch.zero(11 * CHUNK_PAGES, 5 * CHUNK_PAGES)
    assert scratch._zeroed == [0, 10, 11, 16]
