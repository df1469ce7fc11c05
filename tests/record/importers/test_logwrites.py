"""dm-log-writes logs: what the writer in logs.py wrote is read again, and what nobody wrote is refused."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirrortool.errors import BadLogError
from mirrortool.files import open_file
from mirrortool.record.importers.logstep import PIECE_BYTES, Action, Step
from mirrortool.record.importers.logwrites import Flag, LogWrites
from tests.fakes.parts import in_parts
from tests.record.importers.logs import DISCARD, FLUSH, FUA, MARK, METADATA, Logged, log_bytes, written

SECTOR_SIZES = (32, 512, 4096)
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def entries_of(sector_size: int) -> st.SearchStrategy[Logged]:
    """Any entry that is not all zeros, small."""

    def make(sector: int, sectors: int, flags: int, seed: int, text: bytes) -> Logged:
        data = b"" if flags & DISCARD else bytes([seed]) * (sectors * sector_size)
        text = text[: sector_size - 32] if flags & MARK else b""
        if not (sector or sectors or flags):
            flags = FLUSH
        return Logged(sector, sectors, flags, data, text)

    return st.builds(
        make,
        st.integers(0, 40),
        st.integers(0, 3),
        st.integers(0, 31),
        st.integers(0, 255),
        st.text("abc -_é", max_size=20).map(lambda text: text.encode()),
    )


LOGS = st.sampled_from(SECTOR_SIZES).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(entries_of(size), max_size=12))
)


@contextmanager
def opened(path: str) -> Iterator[LogWrites]:
    with open_file(path) as file:
        yield LogWrites(file, "disk")


def read_again(path: str) -> list[Logged]:
    with opened(path) as log:
        return [
            Logged(
                entry.offset // log.sector_size,
                entry.length // log.sector_size,
                entry.flags,
                data_of(log, entry.offset, entry.length, entry.data_at) if not entry.flags & Flag.DISCARD else b"",
                entry.text,
            )
            for entry in log.entries()
        ]


def data_of(log: LogWrites, offset: int, length: int, data_at: int) -> bytes:
    step = Step(Action.WRITE, 0, 0, "disk", offset, length, data_at)
    found, at = b"", offset
    for piece in log.pieces(step):
        assert piece.offset == at and piece.length > 0
        assert piece.data is None or len(piece.data) == piece.length <= PIECE_BYTES
        found += bytes(piece.length) if piece.data is None else piece.data
        at += piece.length
    return found


@FAST
@given(LOGS)
def test_what_was_written_is_read(tmp_path: Path, log: tuple[int, list[Logged]]) -> None:
    sector_size, entries = log
    path = written(tmp_path / "log", log_bytes(entries, sector_size))
    assert read_again(path) == entries


@FAST
@given(LOGS)
def test_what_lies_behind_the_count_is_not_read(tmp_path: Path, log: tuple[int, list[Logged]]) -> None:
    """QEMU raises the count now and then, so that a log has more than it counts, of which the last may be garbage."""
    sector_size, entries = log
    path = written(tmp_path / "log", log_bytes(entries, sector_size, count=len(entries) // 2) + b"garbage")
    assert read_again(path) == entries[: len(entries) // 2]


SAMPLE = [
    Logged(3, 2, 0, b"a" * 1024),
    Logged(0, 0, FLUSH),
    Logged(1, 1, FLUSH | FUA | METADATA, b"b" * 512),
    Logged(5, 100, DISCARD),
    Logged(flags=MARK, text=b"mkfs"),
]


def test_steps_are_in_the_order_that_dm_log_writes_defines(tmp_path: Path) -> None:
    with opened(written(tmp_path / "log", log_bytes(SAMPLE))) as log:
        found = [(step.action, step.number, step.offset, step.length, step.text) for step in log.steps()]
        assert log.count() == 5
    assert found == [
        (Action.WRITE, 0, 1536, 1024, ""),
        (Action.FLUSH, 1, 0, 0, ""),
        (Action.FLUSH, 2, 0, 0, ""),
        (Action.WRITE, 2, 512, 512, ""),
        (Action.FLUSH, 2, 0, 0, ""),
        (Action.ZERO, 3, 2560, 51200, ""),
        (Action.MARK, 4, 0, 0, "mkfs"),
    ]


@in_parts(4)
def test_log_cut_at_any_byte_is_refused(tmp_path: Path, part: int) -> None:
    whole = log_bytes(SAMPLE)
    for end in range(part, len(whole), 4):
        with pytest.raises(BadLogError) as caught:
            read_again(written(tmp_path / "log", whole[:end]))
        assert str(caught.value).startswith(f"{tmp_path}/log: ")
    assert read_again(written(tmp_path / "log", whole)) == SAMPLE


@pytest.mark.parametrize("bit", range(64))
def test_count_that_lies_is_found(tmp_path: Path, bit: int) -> None:
    count = 5 ^ (1 << bit)
    path = written(tmp_path / "log", log_bytes(SAMPLE, count=count))
    if count < 5:
        assert read_again(path) == SAMPLE[:count]
    else:
        with pytest.raises(BadLogError, match=f"counts {count} entries|ends before it|never written"):
            read_again(path)


@FAST
@given(st.integers(0, 28 * 8 - 1), st.integers(0, 4))
@example(24 * 8 + 9, 0)
def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, bit: int, number: int) -> None:
    """Of the super block and each entry's fields; whatever comes of it is an entry inside the file, or BadLogError."""
    data = bytearray(log_bytes(SAMPLE))
    places = [0, 512, 2048, 2560, 3584, 4096]
    data[places[number] + bit // 8] ^= 1 << bit % 8
    path = written(tmp_path / "log", bytes(data))
    try:
        found = read_again(path)
    except BadLogError:
        return
    assert len(found) <= 2 * len(SAMPLE)


@FAST
@given(st.binary(max_size=4096), st.sampled_from(SECTOR_SIZES), st.integers(0, 200))
def test_garbage_is_refused_or_stays_inside(tmp_path: Path, garbage: bytes, size: int, count: int) -> None:
    head = struct.pack("<QQQI", 0x6A736677736872, 1, count, size).ljust(size, b"\0")
    try:
        found = read_again(written(tmp_path / "log", head + garbage))
    except BadLogError:
        return
    assert len(found) == count <= len(garbage) // size
    assert sum(len(entry.data) for entry in found) <= len(garbage)


def super_block(magic: int = 0x6A736677736872, version: int = 1, count: int = 1, sector_size: int = 512) -> bytes:
    return struct.pack("<QQQI", magic, version, count, sector_size).ljust(512, b"\0")


def entry(*fields: int) -> bytes:
    return struct.pack("<QQQQ", *fields).ljust(512, b"\0")


REFUSED = [
    (b"", "too short for a dm-log-writes log"),
    (bytes(4096), "the super block was never written"),
    (super_block(magic=7), "not a dm-log-writes log"),
    (b"fio version 3 iolog\n" + bytes(100), "give --format fio"),
    (super_block(version=2), "version 2"),
    (super_block(sector_size=0), "0 is not a sector size"),
    (super_block(sector_size=16), "16 is not a sector size"),
    (super_block(sector_size=513), "513 is not a sector size"),
    (super_block(sector_size=1 << 24), "16777216 is not a sector size"),
    (super_block(sector_size=1 << 31), "2147483648 is not a sector size"),
    (super_block(count=2) + entry(1, 0, 1, 0), "counts 2 entries, and has 1024 bytes, room for 1"),
    (super_block(count=(1 << 64) - 1), "counts 18446744073709551615 entries"),
    (super_block() + entry(0, 0, 0, 0), "entry 0 at byte 512: it was never written"),
    (super_block() + entry(0, 0, 32, 0), "entry 0 at byte 512: it has the unknown flags 0x20"),
    (super_block() + entry(0, 0, 1 << 63, 0), "unknown flags 0x8000000000000000"),
    (super_block() + entry(0, 1, 0, 0), "it has 512 bytes of data, and the log ends at byte 1024"),
    (super_block() + entry(0, 1 << 50, 0, 0), "it has 512.0 PiB (576460752303423488 bytes) of data"),
    (super_block() + entry((1 << 64) - 1, 1, 4, 0), "after the end of any volume"),
    (super_block() + entry(1, (1 << 64) - 1, 4, 0), "after the end of any volume"),
    (super_block(count=2) + entry(0, 1, 0, 0) + bytes(512), "entry 1 at byte 1536: the log ends before it"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "phrase"), REFUSED)
def test_refused(tmp_path: Path, data: bytes, phrase: str) -> None:
    with pytest.raises(BadLogError) as caught:
        read_again(written(tmp_path / "log", data))
    assert phrase in str(caught.value) and str(tmp_path / "log") in str(caught.value)


@pytest.mark.parametrize(
    ("length", "text"), [(4, b"mkfs"), (6, b"mkfs"), (2, b"mk"), (0, b""), (1 << 60, b"mkfs"), (513, b"mkfs")]
)
def test_text_of_a_mark_ends_with_it_or_its_sector(tmp_path: Path, length: int, text: bytes) -> None:
    data = struct.pack("<QQQQ", 0, 0, MARK, length) + b"mkfs"
    (found,) = read_again(written(tmp_path / "log", super_block() + data.ljust(512, b"\0")))
    assert found.text == text


def test_large_write_comes_in_pieces_cut_where_pages_begin(tmp_path: Path) -> None:
    data = b"0123456789abcdef" * (3 << 16) + b"x" * 512
    path = written(tmp_path / "log", log_bytes([Logged(3, len(data) // 512, 0, data)]))
    with opened(path) as log:
        (step,) = log.steps()
        pieces = list(log.pieces(step))
        assert b"".join(piece.data or b"" for piece in pieces) == data
    assert all(piece.offset % PIECE_BYTES == 0 for piece in pieces[1:])


def test_holes_of_the_log_are_pieces_without_data(tmp_path: Path) -> None:
    """QEMU's write-zeroes of a terabyte is a hole in its log."""
    path = tmp_path / "log"
    length = 1 << 40
    with path.open("wb") as file:
        file.write(super_block() + entry(8, length // 512, 0, 0))
        file.seek(1024 + length // 2)
        file.write(b"x" * 4096)
        file.truncate(1024 + length)
    with opened(str(path)) as log:
        (step,) = log.steps()
        pieces = list(log.pieces(step))
    assert sum(piece.length for piece in pieces) == length and pieces[0].offset == 4096
    assert sum(len(piece.data) for piece in pieces if piece.data) < 1 << 20
    assert b"".join(piece.data for piece in pieces if piece.data).strip(b"\0") == b"x" * 4096
    assert all(piece.data or before.data for before, piece in itertools.pairwise(pieces))


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = written(tmp_path / "log", log_bytes([Logged(0, 1 << 16, 0, b"x" * (32 << 20))]))
    tracemalloc.start()
    try:
        with opened(path) as log:
            for step in log.steps():
                for _ in log.pieces(step):
                    pass
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_log_that_becomes_shorter_meanwhile_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log", log_bytes([Logged(0, 1 << 16, 0, b"x" * (32 << 20))]))
    with opened(path) as log:
        (step,) = log.steps()
        pieces = log.pieces(step)
        next(pieces)
        with open(path, "r+b") as file:
            file.truncate(20 << 20)
        with pytest.raises(BadLogError, match="entry 0 at byte 512: the log ends inside its data"):
            list(pieces)
