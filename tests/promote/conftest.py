"""A mirror to be promoted, in memory and of small scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal.commits import Until
from tests.fakes.journals import memory_directory, shrink_pieces
from tests.fakes.promotions import AFTER, FRAMES, Site, make_site
from tests.fakes.recorders import small_scale


@pytest.fixture(autouse=True)
def scale(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_pieces(monkeypatch)
    small_scale(monkeypatch)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def site(place: Path) -> Site:
    return make_site(place, FRAMES + AFTER, until=Until(lsn=6))
