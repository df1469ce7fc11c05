"""A description of a journal: what is written of it is read again, and its holder keeps it as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import NotAJournalError
from mirrortool.journal.description import Description, NextScan
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import Lsn
from mirrortool.volume import place
from tests.fakes.journals import JournalMaker


@pytest.fixture
def description() -> Description:
    return Description.begun(place([("a", 4096), ("b", 777)], 512))


def read(values: dict[str, object]) -> Description:
    return Description.from_json(Fields(values, "journal.json", NotAJournalError), "J")


def test_what_is_written_is_read_again(description: Description) -> None:
    end = FrameEnd(Position(Lsn(7), 99), Lsn(5), 1234)
    promoted = replace(description, history=description.history.promoted(end.position, b"l" * 16))
    for each in (description, promoted, replace(promoted, clean_end=end, next_scan=NextScan(5, 9))):
        assert read(each.to_json()) == each


def test_a_receiver_is_not_told_where_its_sender_ended(description: Description) -> None:
    ended = replace(description, clean_end=FrameEnd(description.start, Lsn(0), 0), next_scan=NextScan(5, 9))
    assert read(ended.identity()) == description


def test_a_newer_format_is_refused(description: Description) -> None:
    with pytest.raises(NotAJournalError, match="is of format 2, and this mirrortool knows formats up to 1"):
        read({**description.to_json(), "format": 2})


def test_who_holds_one_keeps_it_when_the_journal_has_another(tmp_path: Path) -> None:
    journal = JournalMaker(tmp_path / "J", {"disk": 4096}).close()
    held = journal.description
    journal.save_history(held.history.promoted(journal.start, b"l" * 16))
    assert journal.description != held and journal.epoch == held.history.current.number + 1
