"""The tables of page sums, as any bytes on a disk that rotted, and operations on them: pagesums.py.

The first bytes are operations, after a zero byte come the two tables of the first volume, one after the other. There is
no wrong table for the reader, only one that does not prove; what is changed is as a plain table in memory has it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence

from mirrortool import files
from mirrortool.checksum import pack_sums, state_term, unpack_sums
from mirrortool.openfile import Buffer, Facts, File
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet
from tests.fuzz import sealing

MODULES = ("mirrortool.store.pagesums",)
PAGE = 65536
SEGMENT = 256
SIZES = {"a": 3 * SEGMENT * PAGE + 5 * PAGE, "b": 100}
BYTES_MAX = 1200
PLACES = (0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 7, 2 * SEGMENT, 3 * SEGMENT, 3 * SEGMENT + 5)


class MemoryTable(File):
    """A sparse file in memory."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(path, -1)
        self.data = bytearray(data)

    def pread(self, length: int, offset: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def pwrite(self, data: Buffer, offset: int) -> None:
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.data))
        self.data[offset:end] = bytes(max(0, end - offset))

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def data_extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        step = 512
        for at in range(start - start % step, min(end, len(self.data)), step):
            if any(self.data[at : at + step]):
                yield max(at, start), min(at + step, end)

    def size(self) -> int:
        return len(self.data)

    def facts(self) -> Facts:
        return Facts(files.Identity(1, 1, False), len(self.data), len(self.data), 0, 0, "file")

    def fdatasync(self) -> None:
        return


@functools.cache
def volumes() -> VolumeSet:
    return VolumeSet([Volume("a", 0, SIZES["a"]), Volume("b", 1 << 48, SIZES["b"])], PAGE)


def fuzz_one(data: bytes) -> None:
    operations, _, tables = data.partition(b"\0")
    half = len(tables) // 16 * 8
    contents = {"sums/a.sums": tables[:half], "sums/a.segments": tables[half:]}
    before = files.open_file, files.sync_directory
    files.open_file = lambda path, **_: MemoryTable(path, contents.get(path, b""))  # type: ignore[assignment]
    files.sync_directory = lambda _: None
    try:
        sums = PageSums("sums", volumes(), 0, write=True)
    finally:
        files.open_file, files.sync_directory = before
    _check(sums, operations[:12])


def _check(sums: PageSums, operations: Sequence[int]) -> None:
    pages = 3 * SEGMENT + 5
    known = list(unpack_sums(sums.read(0, pages)))
    proof = sums.prove()
    assert set(proof.contradicted) <= {"a"}
    is_sound = not proof.contradicted
    right = [sums.is_segment_right(page) for page in (0, SEGMENT, 2 * SEGMENT, 3 * SEGMENT)]
    assert all(right) == is_sound
    if is_sound:
        sums.state_sum = proof.state_sum
    for operation in operations:
        _do(sums, known, operation)
    assert list(unpack_sums(sums.read(0, pages))) == known
    if is_sound:
        assert sums.compute_state_sum() == sums.state_sum and not sums.prove().contradicted
    sums.rebuild()
    assert sums.state_sum == sums.compute_state_sum() and not sums.prove().contradicted
    assert sums.term_of(0, pages) == state_term(range(pages), known)


def _do(sums: PageSums, known: list[int], operation: int) -> None:
    first, last = sorted((PLACES[operation & 7], PLACES[operation >> 3 & 7]))
    if operation & 64:
        sums.zero(first, last - first)
        known[first:last] = [0] * (last - first)
    else:
        changes = {
            page: operation * 0x0101010101010101 for page in {first, last, (first + last) // 2} if page < len(known)
        }
        sums.apply(changes)
        for page, value in changes.items():
            known[page] = value


def tables_of(known: dict[int, int]) -> bytes:
    """Tables that agree with each other."""
    sums = [known.get(page, 0) for page in range(max(known, default=-1) + 1)]
    terms = []
    for start in range(0, len(sums), SEGMENT):
        part = sums[start : start + SEGMENT]
        terms.append(state_term(range(start, start + len(part)), part))
    return _joined(pack_sums(sums), pack_sums(terms))


def _joined(sums: bytes, terms: bytes) -> bytes:
    half = max(len(sums), len(terms))
    return sums.ljust(half, b"\0") + terms.ljust(half, b"\0")


def seeds() -> Iterator[bytes]:
    yield b"\x01\x4a\x09\0" + tables_of({0: 5, 3: 7, 40: 9})
    yield b"\x7f\x3f\0" + tables_of({0: 1})
    yield b"\x11\0"
    yield b"\0" + tables_of({1: 5})[:-3] + b"xyz"


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    mutated = bytes(libfuzzer(data, bytes_max))
    operations, _, tables = mutated.partition(b"\0")
    if sealing.is_left_wrong(chance) or chance.randrange(3) == 0:
        return mutated
    half = len(tables) // 16 * 8
    return operations + b"\0" + tables_of(dict(enumerate(unpack_sums(tables[:half]))))
