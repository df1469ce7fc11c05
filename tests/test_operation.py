"""What goes into a batch comes out of it, one operation after another."""

from __future__ import annotations

from array import array

import pytest

from mirrortool.checksum import page_sums
from mirrortool.operation import MARK_NAME, Batch, BatchBuilder, CommitKind, Kind, Operation

PAGE = 512
DATA = b"a" * PAGE + b"b" * PAGE


def test_numbers_in_journals_never_change() -> None:
    assert [(kind.name, int(kind)) for kind in Kind] == [
        ("WRITE", 1), ("ZERO", 2), ("RESIZE", 3), ("COMMIT", 4), ("MARK", 5),
    ]  # fmt: skip
    assert [(kind.name, int(kind)) for kind in CommitKind] == [
        ("FLUSH", 1), ("INTERVAL", 2), ("SCAN", 3), ("FUZZY", 4), ("INCOMPLETE", 5), ("HEARTBEAT", 6),
    ]  # fmt: skip


def test_operations_come_out_as_they_went_in() -> None:
    builder = BatchBuilder(PAGE)
    builder.write(7, DATA)
    builder.zero(20, 3)
    builder.resize(0, 12345)
    builder.write(9, DATA[:PAGE])
    builder.commit(CommitKind.SCAN, 4, "before-upgrade")
    batch = builder.build()
    assert list(batch.operations(10)) == [
        Operation(10, Kind.WRITE, 7, 2, DATA),
        Operation(11, Kind.ZERO, 20, 3),
        Operation(12, Kind.RESIZE, 0, 12345),
        Operation(13, Kind.WRITE, 9, 1, DATA[:PAGE]),
        Operation(14, Kind.MARK, 0, 4, commit_kind=CommitKind.SCAN, name="before-upgrade"),
    ]
    assert batch.page_count == 3
    assert bytes(batch.sums) == page_sums([DATA[:PAGE], DATA[PAGE:], DATA[:PAGE]], PAGE)
    assert len(builder) == 0
    assert builder.payload_bytes == 0


def test_a_single_buffer_is_not_copied() -> None:
    buffer = bytearray(DATA)
    builder = BatchBuilder(PAGE)
    builder.write(0, buffer)
    batch = builder.build()
    buffer[0] ^= 1
    assert bytes(batch.payload) == bytes(buffer)


def test_sums_of_the_caller_are_taken_as_they_are() -> None:
    builder = BatchBuilder(PAGE)
    builder.write(0, DATA, b"x" * 16)
    assert bytes(builder.build().sums) == b"x" * 16


@pytest.mark.parametrize(
    ("kinds", "is_commit"), [(b"", False), (b"\1\2\3", False), (b"\1\4", True), (b"\5", True), (b"\4\1", False)]
)
def test_a_batch_is_a_commit_if_its_last_operation_is(kinds: bytes, is_commit: bool) -> None:
    zeros = array("Q", bytes(8 * len(kinds)))
    assert Batch(kinds, zeros, zeros).is_commit is is_commit


@pytest.mark.parametrize("after_mark", [True, False])
def test_nothing_follows_a_commit(after_mark: bool) -> None:
    builder = BatchBuilder(PAGE)
    builder.commit(CommitKind.FLUSH, 0, "mark" if after_mark else None)
    with pytest.raises(AssertionError):
        builder.zero(0, 1)


@pytest.mark.parametrize("data", [b"", b"x", DATA + b"x"])
def test_only_whole_pages_are_written(data: bytes) -> None:
    with pytest.raises(AssertionError):
        BatchBuilder(PAGE).write(0, data)


@pytest.mark.parametrize("name", ["a", "Z", "before-upgrade", "v1.2_3", "x" * 64])
def test_mark_names(name: str) -> None:
    assert MARK_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1", "-a", ".a", "a b", "a\n", "ä", "aä", "x" * 65, "a/b", "a\0"])
def test_other_mark_names_are_refused(name: str) -> None:
    assert not MARK_NAME.fullmatch(name)


def test_runs_have_their_own_part_of_sums_and_pages() -> None:
    builder = BatchBuilder(PAGE)
    builder.zero(20, 3)
    builder.write(7, DATA)
    builder.resize(0, 12345)
    builder.write(9, DATA[PAGE:])
    builder.commit(CommitKind.FLUSH, 4)
    batch = builder.build()
    a, b = page_sums([DATA[:PAGE]], PAGE), page_sums([DATA[PAGE:]], PAGE)
    expected = [
        (Kind.ZERO, 20, 3, b"", b""),
        (Kind.WRITE, 7, 2, a + b, DATA),
        (Kind.RESIZE, 0, 12345, b"", b""),
        (Kind.WRITE, 9, 1, b, DATA[PAGE:]),
        (Kind.COMMIT, CommitKind.FLUSH, 4, b"", b""),
    ]
    assert list(batch.runs()) == expected
    batch.payload = b""
    assert list(batch.runs()) == [(*run[:4], b"") for run in expected]
    assert list(Batch().runs()) == []
