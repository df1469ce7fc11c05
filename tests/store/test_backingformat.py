"""The bytes of a backing: what was packed is read, and of what was not packed so nothing is taken for whole."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.errors import MirrortoolError, NewerMirrorError, UnusableVolumeError
from mirrortool.store.backingformat import (
    EXTENT_MAX,
    EXTENT_MIN,
    FREE,
    HEADER_BYTES,
    NOWHERE,
    RECORD_BYTES,
    TABLE_OFFSET,
    BackingHeader,
    RecordCodec,
    data_offset,
    is_extent_size,
    parse_header,
)

UUID, MIRROR = bytes(range(16)), bytes(range(16, 32))
HEADER = BackingHeader.of_new(UUID, MIRROR, 1 << 20, 100 << 20, 7)


def sealed(data: bytes) -> bytes:
    """The same header with a checksum that is right."""
    return data[:504] + xxhash.xxh3_64_intdigest(data[:504]).to_bytes(8, "little")


def test_a_header_is_read_as_it_was_packed() -> None:
    data = HEADER.to_bytes()
    assert len(data) == HEADER_BYTES
    assert parse_header(data, "x") == HEADER
    assert parse_header(data + b"more", "x") == HEADER


@pytest.mark.parametrize("data", [b"", b"\x89MBK", bytes(512), b"QFI\xfb" + bytes(508)])
def test_what_does_not_begin_as_a_backing_is_none(data: bytes) -> None:
    assert parse_header(data, "x") is None


def test_a_header_of_which_a_bit_is_wrong_is_damaged() -> None:
    data = HEADER.to_bytes()
    for place in range(8, HEADER_BYTES, 7):
        bad = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(UnusableVolumeError, match="damaged"):
            parse_header(bad, "x")
    with pytest.raises(UnusableVolumeError, match="damaged"):
        parse_header(data[:100], "x")


@pytest.mark.parametrize(
    "change",
    [
        {"extent_bytes": 3 << 20},
        {"extent_bytes": EXTENT_MAX * 2},
        {"extent_bytes": EXTENT_MIN // 2},
        {"cells": 0},
        {"cells": 1 << 41},
        {"cells": HEADER.cells + 1},
        {"data_offset": HEADER.data_offset + 512},
        {"size": 1 << 20},
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(change: dict[str, int]) -> None:
    with pytest.raises(UnusableVolumeError, match="damaged"):
        parse_header(replace(HEADER, **change).to_bytes(), "x")


def test_a_later_version_is_refused_by_its_number() -> None:
    data = HEADER.to_bytes()
    with pytest.raises(NewerMirrorError, match="format 9"):
        parse_header(sealed(data[:8] + struct.pack("<I", 9) + data[12:]), "x")


@given(st.sampled_from([1 << bits for bits in range(16, 25)]), st.integers(0, 1 << 44))
def test_a_backing_has_as_many_cells_as_fit(extent: int, size: int) -> None:
    try:
        header = BackingHeader.of_new(UUID, MIRROR, extent, size, 0)
    except UnusableVolumeError:
        assert size < data_offset(1) + extent
        return
    assert header.data_offset >= TABLE_OFFSET + header.cells * RECORD_BYTES
    assert header.data_offset % EXTENT_MIN == 0
    assert header.data_offset + header.cells * extent <= size
    more = header.cells + 1
    assert data_offset(more) + more * extent > size
    assert parse_header(header.to_bytes(), "x") == header


def test_extents_have_a_power_of_two_of_bytes_between_64_kib_and_16_mib() -> None:
    assert [size for size in range(0, (32 << 20) + 1, 32 << 10) if is_extent_size(size)] == [
        64 << 10 << bits for bits in range(9)
    ]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, (1 << 42) - 1), st.integers(1, NOWHERE)), min_size=1, max_size=40),
    st.integers(0, 1 << 30),
)
def test_records_are_read_as_they_were_packed(entries: list[tuple[bool, int, int]], first: int) -> None:
    codec = RecordCodec(HEADER)
    data, expected = b"", []
    for cell, (is_used, extent, sequence) in enumerate(entries, first):
        data += codec.used(cell, extent << 20, sequence) if is_used else codec.claimed(cell) if extent % 2 else FREE
        expected += [(cell, extent << 20, sequence)] * is_used + [(cell, NOWHERE, 0)] * (not is_used and extent % 2)
    assert list(codec.parse(data, first)) == expected


def test_a_record_counts_in_its_own_cell_of_its_own_backing_alone() -> None:
    codec, other = RecordCodec(HEADER), RecordCodec(replace(HEADER, uuid=MIRROR))
    assert list(codec.parse(codec.used(3, 0, 1), 4)) == [(4, None, 1)]
    assert list(other.parse(codec.used(3, 0, 1), 3)) == [(3, None, 1)]


@pytest.mark.parametrize(
    "fields",
    [(1 << 19, 1, 0), (1 << 62, 1, 0), (1 << 20, 0, 0), (1 << 20, 1, 5), (NOWHERE, 1, 0), (0, 0, 0)],
)
def test_a_record_that_nobody_packs_so_is_damaged(fields: tuple[int, int, int]) -> None:
    """Also with a checksum that is right, as of another program."""
    body = struct.pack("<QQQ", *fields)
    seed = int.from_bytes(UUID[:8], "little") + 5
    record = body + xxhash.xxh3_64_intdigest(body, seed).to_bytes(8, "little")
    assert list(RecordCodec(HEADER).parse(record, 5)) == [(5, None, fields[1])]


@given(st.binary(max_size=2048))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    for each in (data, HEADER.to_bytes()[:8] + data, sealed(HEADER.to_bytes()[:8] + data.ljust(504, b"\0"))):
        with suppress(MirrortoolError):
            parse_header(each, "x")
    whole = data[: len(data) // RECORD_BYTES * RECORD_BYTES]
    assert all(cell >= 9 for cell, _, _ in RecordCodec(HEADER).parse(whole, 9))
