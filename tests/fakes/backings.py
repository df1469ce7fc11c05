"""Small backings for tests: extents of a few pages, so that a few kilobytes have many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mirrortool import files
from mirrortool.store.backing import Backing, make_backing
from mirrortool.store.backingformat import NOWHERE, RECORD, RECORD_BYTES, TABLE_OFFSET, BackingHeader
from mirrortool.store.backingset import BackingSet
from mirrortool.store.spanned import SpannedStore
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import VolumeSet

MIRROR = b"m" * 16
EXTENT = 2048


def small_header(number: int, cells: int, extent: int = EXTENT) -> BackingHeader:
    """Smaller than any that the program makes."""
    offset = TABLE_OFFSET + -(-cells * RECORD_BYTES // 4096) * 4096
    return BackingHeader(bytes([number + 1]) * 16, MIRROR, extent, offset + cells * extent, cells, offset, 0)


@dataclass
class Backings:
    """Files that are backings, opened as often as a test wants."""

    paths: list[str]
    headers: list[BackingHeader]

    def open(self, volumes: VolumeSet, *, write: bool = True, draining: Sequence[int] = ()) -> SpannedStore:
        """A store over all of them; nothing stays open when that fails."""
        gate = SyncGate()
        backings = [
            Backing(files.open_file(path, write=write), header, gate)
            for path, header in zip(self.paths, self.headers, strict=True)
        ]
        try:
            closed = [self.headers[number].uuid for number in draining]
            return SpannedStore(volumes, BackingSet(backings, gate), owner="M", write=write, draining=closed)
        except BaseException:
            for backing in backings:
                backing.close()
            raise

    def cells(self) -> list[list[tuple[bytes, bytes]]]:
        """Of each backing, each cell's record and bytes."""
        found = []
        for path, header in zip(self.paths, self.headers, strict=True):
            with open(path, "rb") as file:
                data = file.read()
            data = data.ljust(header.size, b"\0")
            records = [data[TABLE_OFFSET + cell * RECORD_BYTES :][:RECORD_BYTES] for cell in range(header.cells)]
            contents = [
                data[header.data_offset + cell * header.extent_bytes :][: header.extent_bytes]
                for cell in range(header.cells)
            ]
            found.append(list(zip(records, contents, strict=True)))
        return found

    def used(self) -> list[list[int | None]]:
        """Of each backing, the address that each cell has; None of one that has none."""
        return [[address_in(record) for record, _ in cells] for cells in self.cells()]

    def spoil_claimed(self) -> None:
        """Fill each claimed cell with bytes of no page: it may hold anything."""
        for (path, header), cells in zip(zip(self.paths, self.headers, strict=True), self.cells(), strict=True):
            with open(path, "r+b") as file:
                for cell, (record, _) in enumerate(cells):
                    if any(record) and address_in(record) is None:
                        file.seek(header.data_offset + cell * header.extent_bytes)
                        file.write(b"\xba\xd0" * (header.extent_bytes // 2))

    def assert_free_is_zero(self) -> None:
        """A free cell is zero."""
        for path, cells in zip(self.paths, self.cells(), strict=True):
            for cell, (record, content) in enumerate(cells):
                assert any(record) or not any(content), (path, cell)


def address_in(record: bytes) -> int | None:
    address = RECORD.unpack(record)[0]
    return None if not any(record) or address == NOWHERE else address


def make_backings(directory: object, *cells: int, extent: int = EXTENT) -> Backings:
    """One for each number of cells."""
    paths = [f"{directory}/b{number}" for number in range(len(cells))]
    headers = [small_header(number, count, extent) for number, count in enumerate(cells)]
    for path, header in zip(paths, headers, strict=True):
        with files.open_file(path, write=True, create=True) as file:
            make_backing(file, header)
    return Backings(paths, headers)


def leave_no_room(store: SpannedStore) -> None:
    """As if every cell that no extent has were another's."""
    for room in store._allocation._rooms:
        room.give_claimed_up()
        room.to_claim(room.left)
