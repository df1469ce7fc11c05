"""What of a file, directory or name is not durable, as diskstate.py keeps it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

SECTOR = 512


@dataclass(frozen=True)
class Reality:
    """Which promises a file system makes beyond those that every one makes.

    Attributes:
        in_order: names survive in the order in which they were made, and a sync commits all before it.
        sync_keeps_name: fsync or fdatasync of a file makes the names durable that it got.
        split_renames: after a rename to another directory a file may have both names, until both directories are
            synced, as without a journal; no directory has two.
    """

    in_order: bool = False
    sync_keeps_name: bool = False
    split_renames: bool = False


ANY_ORDER = Reality()
JOURNALED = Reality(in_order=True, sync_keeps_name=True)


@dataclass(frozen=True)
class Write:
    """Bytes that were put at an offset."""

    offset: int
    data: bytes
    is_direct: bool = False

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True)
class Resize:
    size: int


@dataclass(eq=False)
class Node:
    """A file, directory or link of which something is not durable.

    Attributes:
        descriptor: open as long as the model speaks of it: a removed one can come back, and its inode is nobody else's.
        medium: the bytes that a cut cannot lose; None while they are those of the file.
        changes: since `medium`, oldest first.
        dropped: sectors that the cache has and the medium never will, as the kernel holds them for written.
    """

    number: int
    key: tuple[int, int]
    descriptor: int
    mode: int
    owner: tuple[int, int]
    link: str | None
    medium: bytes | None = None
    changes: list[Write | Resize] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)

    def path(self) -> str | None:
        """Where it is now; None if nowhere."""
        path = os.readlink(f"/proc/self/fd/{self.descriptor}")
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            return path if (found.st_dev, found.st_ino) == self.key else None
        return None

    def written(self, offset: int, data: bytes, *, is_direct: bool = False) -> None:
        """The file got these bytes."""
        touched = sectors_of(offset, len(data))
        if not self.dropped.isdisjoint(touched):  # the cache's whole sectors get there now
            self.dropped.difference_update(touched)
            offset, end = touched.start * SECTOR, touched.stop * SECTOR
            data = os.pread(self.descriptor, end - offset, offset)
        self.changes.append(Write(offset, data, is_direct))

    def resized(self, size: int) -> None:
        """The file got this size."""
        self.dropped = {sector for sector in self.dropped if sector * SECTOR < size}
        self.changes.append(Resize(size))

    def drop(self, offset: int, length: int) -> None:
        """The cache has it, and the medium never will."""
        self.dropped.update(sectors_of(offset, length))

    def cached(self) -> bytes:
        """What a process reads of it."""
        parts, offset = [], 0
        while part := os.pread(self.descriptor, 1 << 20, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)


@dataclass(eq=False)
class NameChange:
    """One entry or, of a rename, two: (directory, name, what it led to, what it leads to)."""

    entries: tuple[tuple[Node, str, Node | None, Node | None], ...]
    needs: set[NameChange]


@dataclass(frozen=True)
class Survivors:
    """One state that a power cut may leave: the names that are lost, and the bytes of each file that was not synced."""

    lost: tuple[NameChange, ...]
    contents: dict[Node, bytes]


def without(change: Write | Resize, dropped: set[int]) -> list[Write | Resize]:
    """What is left of a change that does not reach these sectors."""
    if isinstance(change, Resize) or dropped.isdisjoint(sectors_of(change.offset, len(change.data))):
        return [change]
    parts: list[Write | Resize] = []
    for sector in sectors_of(change.offset, len(change.data)):
        start, end = max(change.offset, sector * SECTOR), min(change.end, sector * SECTOR + SECTOR)
        if sector not in dropped:
            parts.append(Write(start, change.data[start - change.offset : end - change.offset], change.is_direct))
    return parts


def sectors_of(offset: int, length: int) -> range:
    return range(offset // SECTOR, -(-(offset + length) // SECTOR)) if length else range(0)
