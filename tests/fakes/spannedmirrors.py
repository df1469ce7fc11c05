"""Mirrors on backings, small: extents of a few pages, as `small_extents` lets them be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.store import backingformat, cellroom
from tests.fakes.journals import PAGE

EXTENT = 4 * PAGE


@contextmanager
def small_extents() -> Iterator[None]:
    """Extents of four pages and more are allowed, and only some cells are claimed at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backingformat, "EXTENT_MIN", EXTENT)
        patch.setattr(cellroom, "CLAIM_BYTES", 4 * EXTENT)
        yield


def targets(place: Path, cells: Sequence[int]) -> list[BackTarget]:
    """Files for backings with these numbers of cells."""
    sizes = [backingformat.data_offset(count) + count * EXTENT for count in cells]
    return [BackTarget(str(place / f"b{number}"), size) for number, size in enumerate(sizes)]
