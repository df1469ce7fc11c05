"""What several tests of replays begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, making


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    """A journal of one volume and one commit, which is being written."""
    with making(tmp_path / "journal", {"a": 40 * PAGE}, Write("a", 0, b"a" * PAGE), Commit()) as made:
        yield made
