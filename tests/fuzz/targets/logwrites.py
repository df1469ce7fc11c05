"""A log of dm-log-writes, imported into volumes that only count: logwrites.py, readwindow.py and importloop.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mirrortool.record.importers.logwrites import ENTRY, MAGIC, SUPER, VERSION, Flag
from mirrortool.record.importers.openlog import LogFormat
from tests.fuzz import sealing
from tests.fuzz.targets.fiologs import import_into_nothing

MODULES = ("mirrortool.record.importers.logwrites", "mirrortool.record.importers.importloop")
SECTOR = 64
BYTES_MAX = 1024
TOKENS = (SUPER.pack(MAGIC, VERSION, 1, SECTOR), b"\x10\0\0\0\0\0\0\0", b"\x0f\0\0\0\0\0\0\0", b"mark")


def fuzz_one(data: bytes) -> None:
    import_into_nothing(data, LogFormat.LOGWRITES, volume="disk")


def entry(sector: int, sectors: int, flags: int, text: bytes = b"", sector_size: int = SECTOR) -> bytes:
    """An entry without its data."""
    return (ENTRY.pack(sector, sectors, flags, len(text)) + text).ljust(sector_size, b"\0")


def log(*entries: bytes, sector_size: int = SECTOR) -> bytes:
    """A log of entries with their data."""
    return SUPER.pack(MAGIC, VERSION, len(entries), sector_size).ljust(sector_size, b"\0") + b"".join(entries)


def seeds() -> Iterator[bytes]:
    yield log(
        entry(0, 2, 0) + b"d" * 2 * SECTOR,
        entry(3, 1, Flag.FUA) + b"f" * SECTOR,
        entry(0, 0, Flag.FLUSH),
        entry(5, 100, Flag.DISCARD),
        entry(0, 0, Flag.MARK, b"a mark"),
        entry(1, 1, Flag.FLUSH | Flag.FUA | Flag.METADATA) + bytes(SECTOR),
        entry(0, 0, Flag.MARK, b"mark"),
    )
    yield log(entry(1, 1, 0, sector_size=512) + b"x" * 512, sector_size=512)
    yield log()


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    """Numbers near to those that fit: which entry follows which depends on each of them."""
    mutated = bytearray(libfuzzer(data, bytes_max).ljust(SUPER.size, b"\0"))
    if sealing.is_left_wrong(chance):
        return bytes(mutated)
    _, _, count, sector = SUPER.unpack_from(mutated)
    if sector not in (32, 64, 512) and chance.randrange(8):
        sector = SECTOR
    step = max(sector, ENTRY.size)
    entries, at = 0, step
    while at + step <= len(mutated):
        first, sectors, flags, text = ENTRY.unpack_from(mutated, at)
        if chance.randrange(16):
            left = (len(mutated) - at) // step - 1
            flags &= 31
            sectors = sectors % 64 if flags & Flag.DISCARD else min(sectors % 64, left)
            first %= 1 << 14
            ENTRY.pack_into(mutated, at, first, sectors, flags, text)
        at += step + (0 if flags & Flag.DISCARD else min(sectors, 1 << 20) * step)
        entries += 1
    if chance.randrange(4):
        count = entries
    SUPER.pack_into(mutated, 0, MAGIC, VERSION, count, sector)
    return bytes(mutated)
