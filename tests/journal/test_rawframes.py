"""Frames are passed on as they lie in the files, from any of them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.errors import MissingFileError
from mirrortool.journal import journalfile
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import RunReader, position_at
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of two files."""
    maker = JournalMaker(tmp_path / "journal", {"a": 8 * PAGE}, file_bytes=900)
    for number in range(8):
        maker.frame(Write("a", number, bytes([number + 1]) * PAGE), Commit())
    journal = maker.close()
    assert len(journal.file_starts()) > 1
    return journal


def positions(journal: Journal) -> list[Position]:
    with JournalReader(journal) as reader:
        return [journal.start, *(header.position for header in iter(reader.next_header, None))]


@pytest.mark.parametrize("run_bytes", [1, 700, 1 << 20])
@pytest.mark.parametrize("read_bytes", [1, 700, 1 << 20])
def test_runs_from_any_position_are_the_bytes_of_the_files(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, read_bytes: int, run_bytes: int
) -> None:
    """However much is read at a time: a file is larger than that, and frames begin anywhere in it."""
    monkeypatch.setattr(journalfile, "_READ_BYTES", read_bytes)
    whole = {first: Path(journal.file_path(first)).read_bytes() for first in journal.file_starts()}
    for start in positions(journal):
        at = start
        with RunReader(journal, start) as reader:
            while run := reader.next_run(run_bytes):
                assert run.start == at
                assert run.data == whole[run.file_first_lsn][run.offset : run.offset + len(run.data)]
                at = run.position
        assert at == positions(journal)[-1]


def test_the_start_is_known_without_its_file(journal: Journal) -> None:
    """A copy may have nothing yet, and a journal may be pruned; elsewhere the file alone tells."""
    first, second = journal.file_starts()[:2]
    assert position_at(journal, Lsn(0)) == journal.start
    Path(journal.file_path(first)).unlink()
    assert position_at(journal, Lsn(0)) == journal.start
    assert position_at(journal, Lsn(second - 1)).lsn == second - 1
    with pytest.raises(MissingFileError, match="no journal file holds LSN 2"):
        position_at(journal, Lsn(2))
