"""A base of a journal, read as a new mirror, `verify` and a receiver read it: basefile.py."""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import xxhash

from mirrortool.errors import CorruptJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.basefile import BaseFile, BaseHeader, check_sums, frame_seed
from mirrortool.journal.codec import FrameError, decode_body, decode_frame_header, stored_bytes
from mirrortool.journal.description import empty_state_sum
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from mirrortool.volume import Volume, VolumeSet
from tests.fakes.journals import PAGE
from tests.fuzz import sealing
from tests.fuzz.memoryfiles import MemoryFiles
from tests.fuzz.place import journal_maker
from tests.fuzz.targets import frames

MODULES = ("mirrortool.journal.bases.basefile", "mirrortool.journal.codec")
LSN = 12
BYTES_MAX = 3000
TOKENS = (basefile.MAGIC, basefile.END_MAGIC, layout.FRAME_MAGIC)


@functools.cache
def journal() -> Journal:
    """The journal that the base is of."""
    return journal_maker("bases", {"a": 8 * PAGE, "b": 5 * PAGE + 100}).abandon()


def fuzz_one(data: bytes) -> None:
    path = f"{journal().path}/bases/{basefile.file_name(LSN)}"
    with MemoryFiles({path: data}), BaseFile(journal(), path, LSN) as base:
        pages = last = 0
        try:
            for header, batch in base.frames():
                assert base.checked <= base.size and batch.pages[0] >= last
                last, pages = batch.pages[-1] + batch.counts[-1], pages + batch.page_count
                assert len(batch.payload) == PAGE * header.pages
                check_sums(batch, PAGE)
            assert base.page_count() == pages and base.checked + basefile.END.size == len(data)
        finally:
            base.has_arrived(len(data) // 2)
            assert sum(1 for _ in _quiet(base)) >= 0
        base.file_checksum()


def _quiet(base: BaseFile) -> Iterator[object]:
    try:
        yield from base.frames(payload=False)
    except CorruptJournalError:
        return


def base_of(volumes: tuple[Volume, ...], batches: list[Batch], header: BaseHeader) -> bytes:
    """A whole base of these pages."""
    state_sum = empty_state_sum(VolumeSet(volumes, PAGE))
    for batch in batches:
        state_sum ^= basefile.term_of(batch)
    data = basefile.encode_header(replace(header, state_sum=state_sum))
    return data + b"".join(map(frames.frame, batches))


def seeds() -> Iterator[bytes]:
    volumes = (journal().volumes["a"], replace(journal().volumes["b"], size=9 * PAGE))
    history = journal().history.current
    header = BaseHeader(
        PAGE, journal().uuid, history.lineage, history.number, Position(LSN, 99), 10**18, 0, CommitKind.FLUSH, volumes
    )
    first = BatchBuilder(PAGE)
    first.write(1, b"a" * PAGE)
    first.write(4, bytes(range(256)) * 4)
    second = BatchBuilder(PAGE)
    second.write(journal().volumes.first_page(volumes[1]) + 8, b"z" * PAGE)
    chance = _Never()
    batches = [first.build(), second.build()]
    for count in (2, 1, 0):
        yield _sealed(base_of(volumes, batches[:count], header) + basefile.encode_end(0, 0, 0), chance)


class _Never(random.Random):
    """Leaves nothing wrong."""

    def randrange(self, *bounds: int) -> int:  # type: ignore[override]
        return bounds[-1] - 1


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    return _sealed(bytes(libfuzzer(data, bytes_max)), chance)


def _sealed(data: bytes, chance: random.Random) -> bytes:
    """Header, frames that continue each other with the state sums of their pages, and an end record that fits."""
    head, volumes, rest = _header(data, chance)
    sealed, state_sum, pages, count = head, empty_state_sum(volumes) if volumes else 0, 0, 0
    after, lengths = sealing.Chain(0, int.from_bytes(head[120:128], "little")), list[int]()
    while len(rest) >= layout.FRAME_HEADER.size and rest[:4] != basefile.END_MAGIC:
        seed = frame_seed(journal().uuid, LSN, len(sealed))
        before = replace(after)
        frame = sealing.seal_frame(_captured(rest, chance), seed, PAGE, chance, before)
        try:
            header = decode_frame_header(frame[: layout.FRAME_HEADER.size], seed, PAGE)
            if stored_bytes(frame) == len(frame):
                batch = decode_body(header, frame[layout.FRAME_HEADER.size :], PAGE)
                state_sum ^= basefile.term_of(batch)
                pages += batch.page_count
        except FrameError:
            pass
        after.state_sum = state_sum
        again = sealing.seal_frame(frame, seed, PAGE, _Never(), after)
        lengths.append(len(again))
        sealed, rest, count = sealed + again, rest[len(frame) :], count + 1
    if volumes and not sealing.is_left_wrong(chance):
        sealed = sealed[:80] + state_sum.to_bytes(8, "little") + sealed[88:]
        # The header's checksum is where the chain of the frames begins: with another one, all are sealed once more.
        if sealed[:128] != _header(sealed, _Never())[0][:128]:
            return _again(sealed, rest, pages, lengths, chance)
    return _ended(sealed, rest, pages, count, chance)


def _again(sealed: bytes, rest: bytes, pages: int, lengths: list[int], chance: random.Random) -> bytes:
    size = basefile.HEADER.size + struct.unpack_from("<I", sealed, 92)[0]
    head = sealed[:120] + sealing.digest(sealed[:120] + sealed[basefile.HEADER.size : size])
    head += sealed[basefile.HEADER.size : size]
    after, at = sealing.Chain(0, int.from_bytes(head[120:128], "little")), size
    for length in lengths:
        after.state_sum = int.from_bytes(sealed[at + 48 : at + 56], "little")
        seed = frame_seed(journal().uuid, LSN, len(head))
        head += sealing.seal_frame(sealed[at : at + length], seed, PAGE, _Never(), after)
        at += length
    return _ended(head, rest, pages, len(lengths), chance)


def _ended(sealed: bytes, rest: bytes, pages: int, count: int, chance: random.Random) -> bytes:
    if sealing.is_left_wrong(chance):
        return sealed + rest
    return sealed + basefile.encode_end(count, pages, xxhash.xxh3_64_intdigest(sealed))


def _captured(data: bytes, chance: random.Random) -> bytes:
    """A frame that says that it is captured, and holds no commit."""
    if sealing.is_left_wrong(chance) or len(data) < layout.FRAME_HEADER.size:
        return data
    return data[:25] + b"\x01" + data[26:]


def _header(data: bytes, chance: random.Random) -> tuple[bytes, VolumeSet | None, bytes]:
    """A header of this journal, whose table may have other sizes."""
    if sealing.is_left_wrong(chance):
        return data, None, b""
    data = data.ljust(basefile.HEADER.size, b"\0")
    fields = list(basefile.HEADER.unpack_from(data))
    epoch = journal().history.current
    fields[:7] = [basefile.MAGIC, 1, PAGE, journal().uuid, epoch.lineage, epoch.number, len(journal().volumes)]
    fields[7] = LSN if not sealing.is_left_wrong(chance) else fields[7]
    fields[11] = fields[11] % 3 + 1 if chance.randrange(16) else fields[11]
    known = basefile.HEADER.size
    table, volumes = b"", []
    for volume in journal().volumes:
        at = known + len(table)
        size = int.from_bytes(data[at + 8 : at + 16], "little") % (1 << 20) if chance.randrange(16) else volume.size
        entry = basefile.VOLUME.pack(volume.start, size, len(volume.name)) + volume.name.encode()
        table, volumes = table + entry, [*volumes, Volume(volume.name, volume.start, size)]
    fields[12] = len(table)
    head = basefile.HEADER.pack(*fields)[:-8]
    return head + sealing.digest(head + table) + table, VolumeSet(volumes, PAGE), data[known + len(table) :]
