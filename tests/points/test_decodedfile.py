"""Payloads that were decompressed are read from a file: bounded, without a name, and never trusted."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from mirrortool.errors import NoSpaceError
from mirrortool.files import File
from mirrortool.journal.point import Until
from mirrortool.points import decodedfile, frames
from mirrortool.points.decodedfile import DecodedFile
from mirrortool.points.view import open_point
from tests.fakes.pointviews import check, make_large_history

SIZE = decodedfile.SMALL_BYTES


def payload(number: int, size: int = SIZE) -> bytes:
    return random.Random(number).randbytes(size)


def add(kept: DecodedFile, number: int, size: int = SIZE) -> None:
    """As one that was decompressed twice."""
    kept.add(number, payload(number, size))
    kept.add(number, payload(number, size))


def read(kept: DecodedFile, number: int, size: int = SIZE, at: int = 0) -> bytes | None:
    buffer = bytearray(size - at)
    half = len(buffer) // 2
    found = kept.read(number, at, [memoryview(buffer)[:half], memoryview(buffer)[half:]])
    return bytes(buffer) if found else None


def opened(place: Path, slots: int) -> DecodedFile:
    return DecodedFile(lambda: str(place), slots * SIZE)


def test_what_was_decompressed_twice_is_there(tmp_path: Path) -> None:
    kept = opened(tmp_path, 4)
    kept.add(1, payload(1))
    assert read(kept, 1) is None and list(tmp_path.iterdir()) == []
    kept.add(1, payload(1))
    assert read(kept, 1) == payload(1)
    assert read(kept, 1, at=512) == payload(1)[512:]
    assert read(kept, 2) is None
    assert list(tmp_path.iterdir()) == [], "it has no name"
    kept.close()
    assert read(kept, 1) is None
    kept.add(2, payload(2))


def test_small_ones_and_those_that_are_too_large_are_not(tmp_path: Path) -> None:
    kept = opened(tmp_path, 2)
    add(kept, 1, SIZE - 1)
    add(kept, 2, 2 * SIZE + 1)
    assert read(kept, 1, SIZE - 1) is None and read(kept, 2, 2 * SIZE + 1) is None


def test_the_oldest_give_way_and_the_file_stays_as_large_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, chance, highest = opened(tmp_path, 5), random.Random(1), 0
    pwrite = File.pwrite

    def watched(self: File, data: bytes, offset: int) -> None:
        nonlocal highest
        highest = max(highest, offset + len(data))
        pwrite(self, data, offset)

    monkeypatch.setattr(File, "pwrite", watched)
    sizes = {number: chance.choice([SIZE, SIZE + 512, 2 * SIZE]) for number in range(60)}
    for number, size in sizes.items():
        add(kept, number, size)
        for other in range(number + 1):
            assert read(kept, other, sizes[other]) in (None, payload(other, sizes[other]))
        assert read(kept, number, size) == payload(number, size)
        assert sum(read(kept, other, sizes[other]) is not None for other in range(number + 1)) <= 5
    assert highest <= 5 * SIZE


def test_no_more_payloads_are_kept_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decodedfile, "ENTRIES_MAX", 3)
    kept = opened(tmp_path, 50)
    for number in range(10):
        add(kept, number)
    assert [number for number in range(10) if read(kept, number)] == [7, 8, 9]


def test_by_default_it_may_have_an_eighth_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decodedfile.files, "free_bytes", lambda _: 8 * 2 * SIZE)
    kept = DecodedFile(lambda: str(tmp_path))
    for number in range(3):
        add(kept, number)
    assert [number for number in range(3) if read(kept, number)] == [1, 2]


def test_where_there_is_no_room_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(tmp_path, 4)
    add(kept, 1)

    def full(*_: object) -> None:
        raise NoSpaceError("full")

    with monkeypatch.context() as patch:
        patch.setattr(File, "pwrite", full)
        add(kept, 2)
    add(kept, 3)
    assert not any(read(kept, number) for number in (1, 2, 3))


def test_a_directory_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    kept = opened(tmp_path / "gone", 4)
    add(kept, 1)
    assert read(kept, 1) is None


def spoiled(_self: DecodedFile, _key: object, _at: int, views: list[memoryview]) -> bool:
    """Other bytes than were written, as where another payload came there meanwhile."""
    for view in views:
        view[:] = b"?" * len(view)
    return True


@pytest.mark.parametrize("spoils", [False, True])
def test_a_view_is_right_whatever_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, spoils: bool
) -> None:
    """With a file that is a few frames large, and nearly no memory."""
    monkeypatch.setattr(decodedfile, "SMALL_BYTES", 0)
    monkeypatch.setattr(decodedfile, "_SHARE", 1 << 26)
    monkeypatch.setattr(decodedfile.files, "free_bytes", lambda _: 60_000 << 26)
    monkeypatch.setattr(frames, "DECODED_BYTES", 4000)
    if spoils:
        monkeypatch.setattr(DecodedFile, "read", spoiled)
    history = make_large_history(tmp_path / "journal", 3)
    lsn = history.commits[-1]
    with open_point(history.journal, Until(lsn=lsn)) as view:
        failed: list[BaseException] = []

        def look() -> None:
            try:
                for _ in range(3):
                    check(view, history.states[lsn])
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        if not spoils:
            assert view._reader._kept._places
