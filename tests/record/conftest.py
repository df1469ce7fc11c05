"""What most tests of this folder work with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.recorders import small_scale
from tests.fakes.volumes import fast_directory


@pytest.fixture
def directory() -> Iterator[str]:
    """A directory of the test's own, in memory where there is one."""
    with fast_directory() as path:
        yield path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, frames and large ZEROs of a few pages of 512 bytes."""
    small_scale(monkeypatch)
