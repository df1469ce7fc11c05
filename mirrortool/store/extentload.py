"""Builds the map of a store over several backings from their tables, and puts right what a crash left.

What a crash may leave:
    a claimed cell          may hold anything; it is zeroed, durably, and then free
    two cells of an extent  the one with the higher sequence counts; the other is zeroed, durably, and then free

Rule: everything that is read was made durable before (backing.py), so what is built on it cannot be lost after it.
Bound: for each extent 8 bytes for its sequence, until all tables are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mirrortool.errors import ChangedOutsideError
from mirrortool.store.allocation import number_and_cell, place_of
from mirrortool.store.backing import Backing
from mirrortool.store.backingformat import NOWHERE
from mirrortool.store.cellroom import Run, runs_of
from mirrortool.store.extentmap import NO_PLACE, ExtentMap
from mirrortool.volume import VolumeSet


@dataclass(frozen=True, slots=True)
class Extents:
    """What the tables say.

    Attributes:
        places: the map.
        sequence: the highest of all records.
        free: of each backing the runs of cells with no record.
        leftovers: of each backing the runs of cells that have one, but not of an extent in the map.
        damaged: pairs of a backing's path and a cell; its record is damaged, or of an extent that no volume has.
    """

    places: ExtentMap
    sequence: int
    free: list[list[Run]]
    leftovers: list[list[Run]]
    damaged: list[tuple[str, int]]


def load_extents(backings: Iterable[Backing], volumes: VolumeSet) -> Extents:
    """Read the tables of all backings; nothing is changed."""
    places, sequences = ExtentMap(), ExtentMap()
    free: list[list[Run]] = []
    leftovers: list[list[int]] = []
    damaged: list[tuple[str, int]] = []
    highest = 0
    for number, backing in enumerate(backings):
        leftovers.append([])
        extent_bytes, runs, end = backing.header.extent_bytes, list[Run](), 0
        for cell, address, sequence in backing.entries():
            if cell > end:
                runs.append((end, cell - end))
            end = cell + 1
            if address == NOWHERE:
                leftovers[number].append(cell)
            elif address is None or not _is_in_a_volume(address, volumes):
                damaged.append((backing.path, cell))
            else:
                extent, highest = address // extent_bytes, max(highest, sequence)
                other = places.get(extent)
                if other != NO_PLACE and sequences.get(extent) > sequence:
                    leftovers[number].append(cell)
                    continue
                if other != NO_PLACE:
                    its_backing, its_cell = number_and_cell(other)
                    leftovers[its_backing].append(its_cell)
                places.put(extent, place_of(number, cell))
                sequences.put(extent, sequence)
        if end < backing.cells:
            runs.append((end, backing.cells - end))
        free.append(runs)
    return Extents(places, highest, free, [runs_of(cells) for cells in leftovers], damaged)


def refuse_damaged(extents: Extents) -> None:
    """
    Raises:
        ChangedOutsideError: a record is damaged, so that it is not known where an extent is.
    """
    if extents.damaged:
        path, cell = extents.damaged[0]
        others = f", and {len(extents.damaged) - 1} more" if len(extents.damaged) > 1 else ""
        raise ChangedOutsideError(
            f"the record of cell {cell} is damaged{others}: where an extent lies is not known",
            where=path,
            remedy="bring back what was there; mirrortool verify names the pages that are lost without it",
        )


def zero_leftovers(backings: Iterable[Backing], leftovers: Sequence[Sequence[Run]]) -> None:
    """Zero what a crash left, durably; then its records say that it is free."""
    for backing, runs in zip(backings, leftovers, strict=True):
        if not runs:
            continue
        for run in runs:
            backing.zero(*run)
        backing.sync()
        for run in runs:
            backing.free_records(*run)


def _is_in_a_volume(address: int, volumes: VolumeSet) -> bool:
    return any(volume.start <= address < volume.start + volumes.limit_of(volume) for volume in volumes)
