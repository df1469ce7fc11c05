"""A backing is made whole or not at all, and its table is read from the device."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from mirrortool import files
from mirrortool.errors import InputOutputError
from mirrortool.store import backing as module
from mirrortool.store.backing import Backing, make_backing, read_header, unmake_backing
from mirrortool.store.backingformat import NOWHERE, RECORD_BYTES, TABLE_OFFSET, BackingHeader
from tests.fakes.backings import small_header
from tests.fakes.cuts import lose_everywhere
from tests.fakes.disk import LosingSync, faulty, no_fault
from tests.fakes.volumes import fast_directory

HEADER = small_header(0, 20)


@pytest.fixture
def path() -> Iterator[str]:
    with fast_directory() as directory:
        yield f"{directory}/b"


def make(path: str) -> None:
    with files.open_file(path, write=True, create=True) as file:
        make_backing(file, BackingHeader.of_new(b"u" * 16, b"m" * 16, 64 << 10, 1 << 20, 0))
    files.sync_name(path)


def header_at(path: str) -> BackingHeader | None:
    with files.open_file(path) as file:
        return read_header(file)


def test_a_backing_that_is_made_is_whole_or_none_whatever_the_disk_loses(path: str) -> None:
    def prepare() -> None:
        if os.path.exists(path):
            os.remove(path)

    def check(has_ended: bool) -> None:
        found = header_at(path) if os.path.exists(path) else None
        assert found or not has_ended
        assert not found or os.path.getsize(path) >= found.size

    lose_everywhere(prepare, lambda: make(path), check, least=4)


def test_what_was_there_before_is_gone_when_it_is_a_backing(path: str) -> None:
    """The caller zeroed it, and the header comes last."""

    def prepare() -> None:
        with open(path, "wb") as file:
            file.write(b"old" * 100_000)

    def zero_and_make() -> None:
        with files.open_file(path, write=True) as file:
            file.punch(0, file.size())
            make_backing(file, BackingHeader.of_new(b"u" * 16, b"m" * 16, 64 << 10, 256 << 10, 0))

    def check(has_ended: bool) -> None:
        assert header_at(path) or not has_ended
        with open(path, "rb") as file:
            assert header_at(path) is None or not any(file.read()[512:])

    ways = [lambda disk, seed=seed: disk.cut_power(random.Random(seed)) for seed in range(12)]
    lose_everywhere(prepare, zero_and_make, check, least=4, ways=ways)


def test_one_that_was_given_up_does_not_come_back(path: str) -> None:
    def unmake() -> None:
        with files.open_file(path, write=True) as file:
            unmake_backing(file)

    def check(has_ended: bool) -> None:
        assert not has_ended or header_at(path) is None

    lose_everywhere(lambda: make(path), unmake, check, least=1)


def test_records_are_read_wherever_they_lie_in_the_table(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_CELLS", 4)
    monkeypatch.setattr(module, "_PIECE_BYTES", 4 * RECORD_BYTES)
    with files.open_file(path, write=True, create=True) as file:
        file.truncate(HEADER.size)
        opened = Backing(file, HEADER)
        assert list(opened.entries()) == []
        used = {cell: opened.records.used(cell, cell * 2048, 1 + cell) for cell in (0, 3, 4, 11, 12, 13)}
        opened.write_records({**used, 19: opened.records.claimed(19)})
        expected = [(cell, cell * 2048, 1 + cell) for cell in sorted(used)]
        assert list(opened.entries()) == [*expected, (19, NOWHERE, 0)]
        opened.free_records(3, 9)
        opened.free_records(19, 1)
        assert [cell for cell, _, _ in opened.entries()] == [0, 12, 13]
        opened.close()


def test_a_table_that_is_shorter_than_its_cells_has_no_more_records(path: str) -> None:
    with files.open_file(path, write=True, create=True) as file:
        opened = Backing(file, HEADER)
        opened.write_records({2: opened.records.used(2, 0, 1)})
        file.truncate(TABLE_OFFSET + 3 * RECORD_BYTES - 5)
        assert list(opened.entries()) == [(2, None, 1)]
        opened.close()


def test_what_a_sync_that_failed_has_lost_is_not_read_from_the_cache(path: str) -> None:
    """The kernel holds it for written, and the next sync says nothing of it."""

    def fail(call: object) -> None:
        if getattr(call, "name", "") == "fdatasync" and is_failing:
            raise LosingSync(5, share=1.0)

    is_failing = False
    with faulty(fail), files.open_file(path, write=True, create=True) as file:
        file.truncate(HEADER.size)
        file.fdatasync()
        opened = Backing(file, HEADER)
        opened.write_records({2: opened.records.used(2, 0, 1)})
        is_failing = True
        with pytest.raises(InputOutputError):
            opened.sync()
        is_failing = False
        assert len(list(opened.entries())) == 1
        with pytest.raises(InputOutputError):
            opened.sync()
        again = Backing(file, HEADER)
        again.sync()
        again.drop_cache()
        assert list(again.entries()) == []
        opened.close()


def test_what_is_no_backing_has_no_header(path: str) -> None:
    with faulty(no_fault), files.open_file(path, write=True, create=True) as file:
        assert read_header(file) is None
        file.pwrite(b"something else", 0)
        assert read_header(file) is None
