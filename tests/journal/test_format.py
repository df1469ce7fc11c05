"""The tables in the docstring of journal/format.py are the bytes that the codec writes."""

from __future__ import annotations

import struct

import pytest

from mirrortool.journal import format as layout
from mirrortool.journal.codec import FileHeader, compress, encode_file_header, encode_frame
from mirrortool.journal.position import Position
from mirrortool.operation import BatchBuilder, CommitKind
from tests.journal.tables import Row, struct_fields, tables_of

FILE_TABLE, FRAME_TABLE = tables_of(layout.__doc__ or "")
UUID, LINEAGE = bytes(range(16)), bytes(range(16, 32))


@pytest.mark.parametrize(
    ("table", "header"),
    [(FILE_TABLE, layout.FILE_HEADER), (FRAME_TABLE, layout.FRAME_HEADER)],
    ids=["file header", "frame header"],
)
def test_rows_are_the_fields_of_the_struct_without_a_gap(table: list[Row], header: struct.Struct) -> None:
    assert [(row.offset, row.size) for row in table] == struct_fields(header)
    assert [row.offset + row.size for row in table] == [*(row.offset for row in table[1:]), header.size]


def at(data: bytes, table: list[Row], name: str) -> int:
    """The field with this name, as a number."""
    (row,) = [row for row in table if row.name == name]
    return int.from_bytes(data[row.offset : row.offset + row.size], "little")


def test_a_file_header_has_its_fields_where_the_table_says() -> None:
    data = encode_file_header(FileHeader(4096, UUID, LINEAGE, 2, 3, 4, 5, 6))
    expected = {
        "version": 1, "page_size": 4096, "epoch": 2, "first_lsn": 3, "chain": 4, "time": 5, "state_sum": 6,
        "uuid": int.from_bytes(UUID, "little"), "lineage": int.from_bytes(LINEAGE, "little"),
        "magic": int.from_bytes(bytes.fromhex("89 4D 4A 46 0D 0A 1A 0A"), "little"),
    }  # fmt: skip
    assert {name: at(data, FILE_TABLE, name) for name in expected} == expected
    for row in FILE_TABLE:
        assert row.name != "reserved" or not any(data[row.offset : row.offset + row.size])


def test_a_frame_header_has_its_fields_where_the_table_says() -> None:
    builder = BatchBuilder(512)
    builder.zero(0, 1)
    builder.write(1, b"x" * 1024)
    builder.commit(CommitKind.FLUSH, 1, "mark")
    batch = builder.build()
    stored = compress(batch.payload)
    buffers, position = encode_frame(
        batch, stored, after=Position(7, 8), time_ns=9, state_sum=10, captured=True, seed=11
    )
    data = b"".join(buffers)
    expected = {
        "magic": int.from_bytes(b"MJF1", "little"), "operations": 3, "first_lsn": 8, "pages": 2, "codec": 1, "flags": 3,
        "payload": len(stored.data), "name": 4, "reserved": 0, "time": 9, "chain": 8, "state_sum": 10,
        "body_checksum": layout.xxhash.xxh3_64_intdigest(data[72:]),
        "checksum": layout.xxhash.xxh3_64_intdigest(data[:64], 11),
    }  # fmt: skip
    assert {name: at(data, FRAME_TABLE, name) for name in expected} == expected
    assert position == Position(10, layout.xxhash.xxh3_64_intdigest(data[:64]))
    assert len(data) == 72 + 3 * 17 + 4 + 2 * 8 + len(stored.data)


def test_a_frame_body_has_its_columns_in_the_order_of_the_docstring() -> None:
    builder = BatchBuilder(512)
    builder.zero(5, 6)
    builder.commit(CommitKind.SCAN, 2, "m")
    buffers, _ = encode_frame(
        builder.build(), compress(b""), after=Position(7, 8), time_ns=0, state_sum=0, captured=False, seed=0
    )
    assert b"".join(buffers)[72:] == bytes([2, 5]) + struct.pack("<QQQQ", 5, 3, 6, 2) + b"m"


@pytest.mark.parametrize("first_lsn", [1, 0x10, 1 << 40, (1 << 64) - 1])
def test_file_names_are_the_first_lsn(first_lsn: int) -> None:
    name = layout.file_name(first_lsn)
    assert name == f"{first_lsn:016x}.mj"
    assert layout.parse_file_name(name) == first_lsn


@pytest.mark.parametrize(
    "name",
    [
        "", ".mj", "1.mj", "0000000000000000.mj", "-000000000000001.mj", "+000000000000001.mj", "000000000000000A.mj",
        "00000000_0000001.mj", "10000000000000000.mj", "0000000000000001", "0000000000000001.mj.new",
        " 00000000000001.mj", "0000000000000001.mj\n", "000000000000000١.mj", "000000000000000g.mj",
    ],
)  # fmt: skip
def test_files_with_other_names_are_ignored(name: str) -> None:
    assert layout.parse_file_name(name) is None


def test_seeds_differ_by_journal_file_and_offset() -> None:
    places = [(uuid, first, offset) for uuid in (UUID, LINEAGE) for first in (1, 2) for offset in (1, 2, 128)]
    assert len({layout.frame_seed(*place) for place in places}) == len(places)


def test_the_limits_are_those_of_the_design() -> None:
    assert layout.PAYLOAD_BYTES_MAX == layout.FILE_BYTES_TARGET == 64 << 20
    assert layout.FILE_AGE_NS_MAX == 3600 * 10**9
