"""A base file: its bytes are those of the tables, it comes back as written, and nothing wrong goes unnoticed."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.checksum import page_sums, state_term, unpack_sums
from mirrortool.errors import CorruptJournalError, ForkedJournalError, JournalError, OtherJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.basefile import BaseFile, BaseHeader, encode_end, encode_header
from mirrortool.journal.bases.basewriter import BaseWriter
from mirrortool.journal.bases.listing import base_lsns, base_path, bases, lock_bases, open_base
from mirrortool.journal.codec import FrameError, compress, decode_frame_header, encode_frame
from mirrortool.journal.description import empty_state_sum
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.operation import BatchBuilder, CommitKind
from tests.fakes.journals import PAGE, JournalMaker
from tests.journal.tables import Row, struct_fields, tables_of

HEADER_TABLE, VOLUME_TABLE, END_TABLE = tables_of(basefile.__doc__ or "")
LSN = 77


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = JournalMaker(tmp_path / "j", {"a": 20 * PAGE, "b": 6 * PAGE + 99}).close()
    lock_bases(journal).close()
    return journal


def pages_of(seed: int) -> dict[int, bytes]:
    """Some pages by number: a run, a lone one, the partial last one of the second volume."""
    draw = random.Random(seed)
    second = (1 << 48) // PAGE
    return {page: draw.randbytes(PAGE) for page in (0, 1, 2, 9, second, second + 6)}


def header_of(journal: Journal, pages: dict[int, bytes]) -> BaseHeader:
    state_sum = empty_state_sum(journal.volumes)
    for page, data in pages.items():
        state_sum ^= state_term([page], unpack_sums(page_sums([data], PAGE)))
    return BaseHeader(
        PAGE,
        journal.uuid,
        journal.lineage,
        0,
        Position(LSN, 5),
        99,
        state_sum,
        CommitKind.FLUSH,
        tuple(journal.volumes),
    )


def write(journal: Journal, pages: dict[int, bytes], header: BaseHeader | None = None) -> Path:
    path = base_path(journal, LSN)
    with BaseWriter(journal, path, header or header_of(journal, pages)) as writer:
        for page, data in sorted(pages.items()):
            writer.add(page, data, page_sums([data], PAGE))
        assert writer.finish() == Path(path).stat().st_size
    return Path(path)


def read(journal: Journal) -> dict[int, bytes]:
    found = {}
    with open_base(journal, LSN) as base:
        for _, batch in base.frames():
            payload, done = bytes(batch.payload), 0
            for page, count in zip(batch.pages, batch.counts, strict=True):
                for number in range(count):
                    found[page + number] = payload[(done + number) * PAGE : (done + number + 1) * PAGE]
                done += count
        assert base.page_count() == len(found)
    return found


@pytest.mark.parametrize("frame_bytes", [1, 3 * PAGE, 1 << 20])
def test_a_base_comes_back_as_it_was_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, frame_bytes: int
) -> None:
    monkeypatch.setattr("mirrortool.journal.bases.basewriter.FRAME_BYTES", frame_bytes)
    pages = pages_of(1)
    write(journal, pages)
    assert read(journal) == pages
    assert base_lsns(journal) == [LSN]
    assert [base.header for base in bases(journal)] == [header_of(journal, pages)]


def test_a_base_of_empty_volumes_has_no_frame(journal: Journal) -> None:
    write(journal, {})
    assert read(journal) == {}


def test_a_base_that_does_not_give_the_state_sum_gets_no_name(journal: Journal) -> None:
    pages = pages_of(1)
    wrong = header_of(journal, pages_of(2))
    with pytest.raises(CorruptJournalError, match="do not give the state sum"):
        write(journal, pages, wrong)
    assert base_lsns(journal) == []
    assert [each.name for each in Path(journal.path, "bases").iterdir()] == ["lock"]


def test_what_was_not_finished_is_gone(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError), BaseWriter(journal, base_path(journal, LSN), header_of(journal, {})):
        raise ZeroDivisionError
    assert [each.name for each in Path(journal.path, "bases").iterdir()] == ["lock"]


def test_every_flipped_byte_is_found(journal: Journal) -> None:
    path = write(journal, pages_of(3))
    data = path.read_bytes()
    for offset in range(0, len(data), 7):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x20]) + data[offset + 1 :])
        with pytest.raises(JournalError):
            read(journal)


def test_every_truncation_and_every_appended_byte_is_found(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrortool.journal.bases.basewriter.FRAME_BYTES", 1)
    path = write(journal, pages_of(3))
    data = path.read_bytes()
    for end in [*range(0, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(CorruptJournalError):
            read(journal)
    path.write_bytes(data + b"x")
    with pytest.raises(CorruptJournalError):
        read(journal)


def test_a_base_of_another_journal_or_of_another_name_is_refused(journal: Journal, tmp_path: Path) -> None:
    path = write(journal, pages_of(3))
    other = JournalMaker(tmp_path / "other", {"a": 20 * PAGE, "b": 6 * PAGE + 99}).close()
    with pytest.raises(OtherJournalError):
        BaseFile(other, str(path), LSN)
    with pytest.raises(CorruptJournalError, match=r"does not fit the file's name"):
        BaseFile(journal, str(path), LSN + 1)


def test_a_base_of_a_commit_that_a_promotion_dropped_is_refused(journal: Journal) -> None:
    write(journal, pages_of(3))
    for start, is_kept in ((Position(LSN, 5), True), (Position(LSN - 1, 4), False)):
        history = journal.history
        journal.description = replace(journal.description, history=history.promoted(start, b"new lineage".ljust(16)))
        with contextlib.nullcontext() if is_kept else pytest.raises(ForkedJournalError, match="not promoted"):
            open_base(journal, LSN).close()
        journal.description = replace(journal.description, history=history)


def forged(journal: Journal, *frames: BatchBuilder, captured: bool = True, lsn: int = LSN) -> bytes:
    """A base with sound checksums whatever its frames hold."""
    head = encode_header(header_of(journal, {}))
    position = Position(0, int.from_bytes(head[120:128], "little"))
    data, pages = head, 0
    for builder in frames:
        batch = builder.build()
        pages += batch.page_count
        seed = basefile.frame_seed(journal.uuid, lsn, len(data))
        state_sum = 0
        buffers, position = encode_frame(
            batch,
            compress(batch.payload),
            after=position,
            time_ns=99,
            state_sum=state_sum,
            captured=captured,
            seed=seed,
        )
        data += b"".join(buffers)
    return data + encode_end(len(frames), pages, basefile.xxhash.xxh3_64_intdigest(data))


def write_of(*runs: tuple[int, int]) -> BatchBuilder:
    builder = BatchBuilder(PAGE)
    for page, count in runs:
        builder.write(page, b"x" * (PAGE * count))
    return builder


def zero_of(page: int) -> BatchBuilder:
    builder = BatchBuilder(PAGE)
    builder.zero(page, 1)
    return builder


@pytest.mark.parametrize(
    ("frames", "captured", "why"),
    [
        ([write_of((20, 1))], True, "outside the volumes"),
        ([write_of((5, 1), (3, 1))], True, "out of order"),
        ([write_of((5, 2), (6, 1))], True, "out of order"),
        ([write_of((5, 1)), write_of((5, 1))], True, "state sum|out of order"),
        ([zero_of(1)], True, "something else than pages"),
        ([write_of((1, 1))], False, "something else than pages"),
        ([write_of((1, 1))], True, "the pages up to here do not give the frame's state sum"),
    ],
)
def test_sound_checksums_do_not_make_a_base(
    journal: Journal, frames: list[BatchBuilder], captured: bool, why: str
) -> None:
    Path(base_path(journal, LSN)).write_bytes(forged(journal, *frames, captured=captured))
    with pytest.raises(CorruptJournalError, match=why):
        read(journal)


def test_a_frame_of_a_base_cannot_pass_for_one_of_the_journal(journal: Journal) -> None:
    path = write(journal, pages_of(1))
    data = path.read_bytes()
    start = data.index(layout.FRAME_MAGIC)
    with pytest.raises(FrameError, match="checksum"):
        decode_frame_header(data[start:], layout.frame_seed(journal.uuid, LSN, start), PAGE)
    places = [(uuid, lsn, at) for uuid in (journal.uuid, bytes(16)) for lsn in (1, 2) for at in (128, 200)]
    assert len({basefile.frame_seed(*place) for place in places}) == len(places)


# The format.


@pytest.mark.parametrize(
    ("table", "struct"),
    [(HEADER_TABLE, basefile.HEADER), (VOLUME_TABLE, basefile.VOLUME), (END_TABLE, basefile.END)],
    ids=["header", "volume", "end record"],
)
def test_rows_are_the_fields_of_the_struct_without_a_gap(table: list[Row], struct: basefile.struct.Struct) -> None:
    assert [(row.offset, row.size) for row in table] == struct_fields(struct)
    assert [row.offset + row.size for row in table] == [*(row.offset for row in table[1:]), struct.size]


def at(data: bytes, table: list[Row], name: str) -> int:
    (row,) = [row for row in table if row.name == name]
    return int.from_bytes(data[row.offset : row.offset + row.size], "little")


def test_the_fields_are_where_the_tables_say(journal: Journal) -> None:
    header = header_of(journal, {})
    data = encode_header(header)
    names = {
        "version": 1, "page_size": PAGE, "epoch": 0, "volumes": 2, "lsn": LSN, "chain": 5, "time": 99,
        "state_sum": header.state_sum, "kind": 1, "table": len(data) - 128,
        "magic": int.from_bytes(bytes.fromhex("89 4D 4A 42 0D 0A 1A 0A"), "little"),
        "uuid": int.from_bytes(journal.uuid, "little"), "lineage": int.from_bytes(journal.lineage, "little"),
        "checksum": basefile.xxhash.xxh3_64_intdigest(data[:120] + data[128:]),
    }  # fmt: skip
    assert {name: at(data, HEADER_TABLE, name) for name in names} == names
    second = data[128 + 19 :]
    assert [at(second, VOLUME_TABLE, name) for name in ("base", "size", "name")] == [1 << 48, 6 * PAGE + 99, 1]
    assert second[18:] == b"b"
    end = encode_end(3, 4, 5)
    assert [at(end, END_TABLE, name) for name in ("reserved", "frames", "pages", "file_checksum")] == [0, 3, 4, 5]
    assert end[:4] == b"MJBE"
    assert at(end, END_TABLE, "checksum") == basefile.xxhash.xxh3_64_intdigest(end[:32])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("version", 2, "a base of format 2, which this version does not know"),
        ("page_size", PAGE + 1, "the header contradicts itself"),
        ("table", 1 << 20, "the file ends inside its table of volumes"),
        ("volumes", 1, "the table of volumes has another length"),
        ("volumes", 3, "the table of volumes ends too early"),
    ],
)
def test_a_header_with_a_sound_checksum_that_makes_no_sense_is_none(
    journal: Journal, field: str, value: int, why: str
) -> None:
    data = bytearray(encode_header(header_of(journal, {})))
    (row,) = [row for row in HEADER_TABLE if row.name == field]
    data[row.offset : row.offset + row.size] = value.to_bytes(row.size, "little")
    data[120:128] = basefile.xxhash.xxh3_64_intdigest(data[:120] + data[128:]).to_bytes(8, "little")
    with pytest.raises(FrameError, match=why):
        basefile.decode_header(bytes(data))


@pytest.mark.parametrize("name", ["", "1.base", "0000000000000000.base", "000000000000000A.base", f"{1:016x}.base.new"])
def test_files_with_other_names_are_no_bases(name: str) -> None:
    assert basefile.parse_file_name(name) is None
    assert basefile.parse_file_name(basefile.file_name(1 << 40)) == 1 << 40
