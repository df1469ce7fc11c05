"""A journal file belongs to one of the journal's epochs, and begins in it; else it is of another history."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.errors import ForkedJournalError
from mirrortool.journal.codec import FileHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.epochs import EpochWatch
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn
from tests.fakes.journals import PAGE, JournalMaker

FORK, END = Position(Lsn(10), 0xA), Position(Lsn(20), 0xB)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of three epochs: the second from LSN 10 to 20."""
    journal = JournalMaker(tmp_path / "journal", {"a": 4 * PAGE}).close()
    history = journal.history
    for number, start in enumerate((FORK, END), 1):
        history = history.promoted(start, bytes([number]) * 16)
    journal.save_history(history)
    return Journal(journal.path)


def end_of(journal: Journal, epoch: int, start: Position, lineage: bytes | None = None) -> Position | None:
    """As for a file of this epoch that begins after a position."""
    header = FileHeader(
        PAGE, journal.uuid, lineage or journal.history.epochs[epoch].lineage, epoch, start.next_lsn, start.chain, 0, 0
    )
    watch = EpochWatch(journal)
    return watch.end_of(watch.find(header), header, "file")


@pytest.mark.parametrize(
    ("epoch", "start", "end"),
    [
        (0, Position(Lsn(9), 1), FORK),
        (1, FORK, END),
        (1, Position(Lsn(19), 1), END),
        (2, END, None),
        (2, Position(Lsn(1000), 1), None),
    ],
)
def test_a_file_of_the_journal_begins_in_its_epoch(
    journal: Journal, epoch: int, start: Position, end: Position | None
) -> None:
    assert end_of(journal, epoch, start) == end


@pytest.mark.parametrize(
    ("epoch", "start"),
    [
        (1, Position(Lsn(9), 1)),
        (1, Position(Lsn(10), 0xB)),
        (2, Position(Lsn(20), 0xA)),
        (0, FORK),
        (1, END),
        (1, Position(Lsn(21), 1)),
    ],
)
def test_a_file_that_begins_outside_its_epoch_is_of_another_history(
    journal: Journal, epoch: int, start: Position
) -> None:
    with pytest.raises(ForkedJournalError, match=f"begins at position {start} in epoch {epoch}"):
        end_of(journal, epoch, start)


def test_a_file_of_an_epoch_that_the_journal_does_not_have_is_of_another_history(journal: Journal) -> None:
    with pytest.raises(ForkedJournalError, match="in epoch 1, but epoch 2 of the journal began at position"):
        end_of(journal, 1, FORK, b"x" * 16)
