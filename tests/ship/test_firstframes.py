"""What is sent first: what follows the copy, or a base with the file that holds its commit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirrortool.errors import MissingFileError
from mirrortool.journal.bases.listing import base_path
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.replay.makebase import MakeBase
from mirrortool.ship.firstframes import first_after
from tests.fakes.journals import PAGE, Commit, Write, make_journal

BASES = (8, 20, 28)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Twenty commits in many files, of which the first ones are gone; and three bases."""
    frames = [[Write("disk", 0, bytes([number + 1]) * PAGE), Commit()] for number in range(20)]
    made = make_journal(tmp_path / "J", {"disk": PAGE}, frames, file_bytes=700)
    for lsn in BASES:
        with MakeBase(made.path, Until(lsn=lsn)) as making:
            making.run()
    for first_lsn in made.file_starts():
        if first_lsn <= 13:
            os.remove(made.file_path(first_lsn))
    return Journal(made.path)


def test_a_copy_gets_the_newest_base_and_a_pipe_the_oldest_whose_commit_is_there(journal: Journal) -> None:
    for position, lsn in ((Position(2, 7), 28), (None, 20)):
        first = first_after(journal, position, "x")
        with first.reader as reader:
            assert first.base and first.base.lsn == lsn
            assert reader.file_first_lsn <= lsn
            while reader.position.lsn < lsn:
                assert reader.next_header()
            assert reader.position == first.base.position


def test_a_base_whose_commit_is_gone_is_no_beginning(journal: Journal) -> None:
    for lsn in BASES[1:]:
        os.remove(base_path(journal, lsn))
    with pytest.raises(MissingFileError, match="no base"):
        first_after(journal, None, "x")
