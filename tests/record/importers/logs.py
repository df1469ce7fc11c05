"""Logs written from scratch, a model of what they mean, and a recorder that only remembers.

Nothing here shares code with the importers: the struct formats are written out again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mirrortool.change import Change
from mirrortool.journal.position import Position
from mirrortool.volume import VolumeSet, place

FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16
MAGIC = 0x6A736677736872


@dataclass(frozen=True)
class Logged:
    """An entry of a dm-log-writes log, in sectors."""

    sector: int = 0
    sectors: int = 0
    flags: int = 0
    data: bytes = b""
    text: bytes = b""


def log_bytes(entries: Sequence[Logged], sector_size: int = 512, *, count: int | None = None) -> bytes:
    """A log as the kernel and QEMU write it; `count` is what the super block claims."""
    parts = [struct.pack("<QQQI", MAGIC, 1, len(entries) if count is None else count, sector_size)]
    for entry in entries:
        assert len(entry.data) == (0 if entry.flags & DISCARD else entry.sectors * sector_size)
        header = struct.pack("<QQQQ", entry.sector, entry.sectors, entry.flags, len(entry.text)) + entry.text
        parts += [header, entry.data]
    return b"".join(part.ljust(-(-len(part) // sector_size) * sector_size, b"\0") for part in parts)


@dataclass(frozen=True)
class State:
    """The volumes at a commit; `name` of a mark."""

    images: tuple[bytes, ...]
    name: str | None = None


def states_of(entries: Iterable[Logged], size: int, sector_size: int = 512) -> tuple[list[State], bytes]:
    """What serial replay makes of a log: the state at each flush, FUA and mark, and the one at its end."""
    image = bytearray(size)
    found: list[State] = []
    for entry in entries:
        if entry.flags & FLUSH:
            found.append(State((bytes(image),)))
        start, length = entry.sector * sector_size, entry.sectors * sector_size
        image[start : start + length] = bytes(length) if entry.flags & DISCARD else entry.data
        if entry.flags & FUA:
            found.append(State((bytes(image),)))
        if entry.flags & MARK:
            found.append(State((bytes(image),), entry.text.decode()))
    return found, bytes(image)


def fio_data(seed: int, line: int, offset: int, length: int) -> bytes:
    """What mirrortool-import(1) says that a write of a fio log has, computed as it says."""
    data = b""
    for start in range(0, length, 1 << 20):
        text = f"{seed} {line} {offset + start}".encode()
        data += hashlib.shake_128(text).digest(min(1 << 20, length - start))
    return data


@dataclass
class Remembered:
    """A recorder whose journal is a list; what it is handed must be what it may be handed."""

    volumes: VolumeSet
    images: dict[str, bytearray] = field(default_factory=dict)
    frames: list[tuple[str, list[Change]]] = field(default_factory=list)
    commits: list[State] = field(default_factory=list)
    flushes: int = 0
    lsn: int = 0

    def __post_init__(self) -> None:
        self.images = {volume.name: bytearray(volume.size) for volume in self.volumes}

    def change(self, volume: str, changes: Sequence[Change]) -> None:
        assert changes and len(changes) <= 256
        assert sum(len(change.data or b"") for change in changes) <= 1 << 20
        self.frames.append((volume, list(changes)))
        for offset, length, data, _ in changes:
            assert length > 0 and offset + length <= self.volumes[volume].size
            assert data is None or len(data) == length
            self.images[volume][offset : offset + length] = bytes(length) if data is None else data
            self.lsn += 1

    def commit(self, name: str | None = None, *, durable: bool = True) -> Position:
        assert not durable, "what happened before needs no sync"
        self.lsn += 1
        self.commits.append(State(tuple(bytes(image) for image in self.images.values()), name))
        return Position(self.lsn, 0)

    def flush(self) -> None:
        self.flushes += 1


def remembered(**sizes: int) -> Remembered:
    """One for volumes of these sizes."""
    return Remembered(place(list(sizes.items()), 4096))


def without_repeats(states: Sequence[State]) -> list[State]:
    """A flush right after a commit makes no commit; a mark always does."""
    kept: list[State] = []
    for state in states:
        if not kept or state.name is not None or state.images != kept[-1].images:
            kept.append(state)
    return kept


def written(path: Path, data: bytes) -> str:
    """A file of these bytes."""
    path.write_bytes(data)
    return str(path)
