"""An index file, read and applied as a view does it: indexpart.py and pagemap.py.

What is applied is compared with a plain table. Of bytes that are no index nothing is given out.
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from mirrortool.address import pages_in
from mirrortool.checksum import SUM_BYTES, unpack_sums
from mirrortool.journal import format as layout
from mirrortool.journal.codec import Stored, decode_frame_header, encode_frame
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch, BatchBuilder, CommitKind, Kind
from mirrortool.points import indexpart
from mirrortool.points.indexpart import (
    IndexKind,
    IndexOwner,
    IndexPart,
    UnsoundIndexError,
    decode_table,
    encode_part,
    encode_table,
    stored_parts,
)
from mirrortool.points.pagemap import FIRST_PLACE, UNTOUCHED, ZEROED, OutsideError, PageMap
from mirrortool.volume import Volume, VolumeSet
from tests.fuzz import sealing
from tests.fuzz.targets.pagesums import MemoryTable

MODULES = ("mirrortool.points.indexpart", "mirrortool.points.pagemap")
PAGE = 4096
UUID = b"u" * 16
BYTES_MAX = 3000
TOKENS = (indexpart.MAGIC,)
SEED = 7


@functools.cache
def volumes() -> VolumeSet:
    return VolumeSet([Volume("a", 0, 300 * PAGE), Volume("b", 1 << 48, 40 * PAGE + 99)], PAGE)


class PlainTable:
    """The places of pages, one by one."""

    def __init__(self, now: VolumeSet) -> None:
        self.volumes = now
        self.places: dict[int, int] = {}

    def apply(self, part: IndexPart, place: int) -> None:
        sums, done = unpack_sums(part.sums), 0
        for kind, page, count in zip(part.kinds, part.pages, part.counts, strict=True):
            if kind == Kind.WRITE:
                for number in range(count):
                    self.places[page + number] = place + done if sums[done] else ZEROED
                    done += 1
            elif kind == Kind.ZERO:
                self._zero(page, page + count)
            elif kind == Kind.RESIZE:
                volume = self.volumes.starting_at(page)
                assert volume is not None
                if count < volume.size:
                    self._zero(page + count // PAGE, page + pages_in(volume.size, PAGE))
                self.volumes = self.volumes.resized(volume, count)

    def _zero(self, first: int, end: int) -> None:
        for page in self.places:
            if first <= page < end:
                self.places[page] = ZEROED


def fuzz_one(data: bytes) -> None:
    kind = IndexKind.BASE if data[12:13] == b"\2" else IndexKind.JOURNAL_FILE
    owner = IndexOwner(kind, UUID, PAGE, Lsn(1))
    made, plain, place, end = PageMap(volumes(), str, is_empty=True), PlainTable(volumes()), FIRST_PLACE, 0
    with suppress(UnsoundIndexError, OutsideError):
        for part, end_of_part in stored_parts(MemoryTable("index", data), owner):
            encoded = b"".join(map(bytes, encode_part(part, owner)))
            assert end_of_part == end + len(encoded) and data[end:][:96] == encoded[:96]
            assert decode_table(memoryview(encode_table(part.frames)), len(part.frames))[0] == part.frames
            end = end_of_part
            made.apply(part.kinds, part.pages, part.counts, unpack_sums(part.sums), place)
            plain.apply(part, place)
            place += part.page_count
            assert made.volumes == plain.volumes
        _compare(made, plain)


def _compare(made: PageMap, plain: PlainTable) -> None:
    made.freeze()
    for page, known in plain.places.items():
        (found,) = (places[0] for _, places in made.pieces(page, 1))
        assert found == known or (known == ZEROED and found == UNTOUCHED)
    for volume in made.volumes:
        first, count = made.volumes.first_page(volume), made.volumes.page_count(volume)
        runs = list(made.chunks(first, count)) if count else []
        assert all(first <= page and page + number <= first + count for page, number in runs)
        held = {page for page, each in plain.places.items() if each >= FIRST_PLACE and first <= page < first + count}
        assert all(any(page <= each < page + number for page, number in runs) for each in held)


def part_of(batches: list[Batch], start: Position) -> IndexPart:
    """The part of some frames that follow a position."""
    part, offset = IndexPart(start, start), layout.FILE_HEADER.size
    for batch in batches:
        buffers, _ = encode_frame(
            batch,
            Stored(layout.CODEC_RAW, batch.payload),
            after=part.end,
            time_ns=1,
            state_sum=0,
            captured=False,
            seed=SEED,
        )
        frame = b"".join(map(bytes, buffers))
        part.add(decode_frame_header(frame[: layout.FRAME_HEADER.size], SEED, PAGE), batch, offset)
        offset += len(frame)
    return part


def seeds() -> Iterator[bytes]:
    owner = IndexOwner(IndexKind.JOURNAL_FILE, UUID, PAGE, Lsn(1))
    other = volumes().first_page(volumes()["b"])
    builder, batches = BatchBuilder(PAGE), list[Batch]()
    for page, count in ((0, 1), (130, 3), (7, 2)):
        builder.write(page, b"x" * PAGE * count)
        builder.write(other + page % 40, bytes(PAGE))
        builder.commit(CommitKind.FLUSH, NO_LSN)
        batches.append(builder.build())
    builder.zero(2, 290)
    builder.resize(other, 11 * PAGE - 7)
    batches.append(builder.build())
    for page in range(9):
        builder.write(page * 31, bytes([page + 1]) * PAGE)
    batches.append(builder.build())
    first = part_of(batches, Position(NO_LSN, 5))
    second = part_of(batches[::-1], first.end)
    base = IndexPart(Position(NO_LSN, 3), Position(Lsn(len(first.frames)), 3), frames=first.frames)
    for owner_of, parts in ((owner, [first, second]), (owner, [first]), (IndexOwner(2, UUID, PAGE, Lsn(1)), [base])):  # type: ignore[arg-type]
        yield b"".join(bytes(buffer) for part in parts for buffer in encode_part(part, owner_of))


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    return _sealed(bytes(libfuzzer(data, bytes_max)), chance)


def _sealed(data: bytes, chance: random.Random) -> bytes:
    """Parts with their checksums, as long as their counts say, and of operations that add up to these."""
    changed, at = bytearray(data), 0
    while at + indexpart.HEADER.size <= len(changed) and not sealing.is_left_wrong(chance):
        kind = changed[at + 12] & 3 or 1
        lsn, frames, operations, pages = struct.unpack_from("<Q28xIII", changed, at + 40)
        rest = len(changed) - at - indexpart.HEADER.size
        frames = max(1, min(frames, rest // indexpart.TABLE_ROW_BYTES))
        operations = min(operations, (rest - frames * indexpart.TABLE_ROW_BYTES) // 17)
        pages = min(pages, max(0, rest - frames * indexpart.TABLE_ROW_BYTES - 17 * operations) // SUM_BYTES)
        body = at + indexpart.HEADER.size
        length = frames * indexpart.TABLE_ROW_BYTES + operations * 17 + pages * SUM_BYTES
        head = struct.pack("<8sII16sQ", indexpart.MAGIC, 1, kind, UUID, 1)
        counted = frames if kind == IndexKind.BASE else operations
        changed[at : at + 40 + 8] = head + (lsn % (1 << 62)).to_bytes(8, "little")
        changed[at + 56 : at + 64] = (lsn % (1 << 62) + counted).to_bytes(8, "little")
        struct.pack_into("<IIII", changed, at + 72, PAGE, frames, operations, pages)
        changed[at + 88 : at + 96] = sealing.digest(bytes(changed[body : body + length]))
        changed[at + 120 : at + 128] = sealing.digest(bytes(changed[at : at + 120]))
        at = body + length
    return bytes(changed)
