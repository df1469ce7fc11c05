"""SlotPlaces: a slot's LSN alone does not make its position one of the journal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.slotpositions import SlotPlaces
from mirrortool.journal.slots import Slot
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    """Several files, so that positions lie inside files and between two."""
    maker = JournalMaker(tmp_path / "journal", {"a": 8 * PAGE}, file_bytes=600)
    yield maker
    maker.close()


def slot(name: str, position: Position) -> Slot:
    return Slot(name, "00" * 16, "mirror", "/m", position, 0, 0)


def test_every_position_of_the_journal_is_contained_and_no_other_with_the_same_lsn(maker: JournalMaker) -> None:
    positions = [maker.journal.start]
    positions += [maker.frame(Write("a", n % 8, bytes([n]) * PAGE), Commit()) for n in range(1, 12)]
    assert 2 < len(maker.journal.file_starts()) < len(positions) - 1
    right = [slot(f"r{n}", position) for n, position in enumerate(positions)]
    wrong = [slot(f"w{n}", replace(each, chain=each.chain ^ 1)) for n, each in enumerate(positions)]
    found = SlotPlaces().is_contained(maker.journal, [*right, *wrong])
    assert found == {each.name: True for each in right} | {each.name: False for each in wrong}


def test_a_slot_ahead_of_the_journal_is_of_another_history(maker: JournalMaker) -> None:
    end = maker.frame(Commit())
    ahead = slot("m", Position(end.lsn + 5, end.chain))
    places = SlotPlaces()
    assert places.is_contained(maker.journal, [ahead]) == {"m": False}
    for _ in range(5):
        there = maker.frame(Commit())
    assert places.is_contained(maker.journal, [slot("m", there)]) == {"m": True}, "asked again, as nothing was known"


def test_of_what_was_pruned_nothing_is_said(maker: JournalMaker) -> None:
    first = maker.frame(Commit())
    while len(maker.journal.file_starts()) < 3:
        last = maker.frame(Commit())
    Path(maker.journal.file_path(1)).unlink()
    starts = maker.journal.file_starts()
    assert starts[0] > first.lsn + 1
    slots = [slot("gone", first), slot("there", last), replace(slot("lost", last), is_lost=True)]
    assert SlotPlaces().is_contained(maker.journal, slots) == {"there": True}


def test_what_is_known_is_known_of_this_history_only(tmp_path: Path, maker: JournalMaker) -> None:
    """Of two copies of a journal that went on apart, each has its own positions."""
    maker.frame(Commit())
    maker.writer.sync()
    shutil.copytree(maker.journal.path, tmp_path / "other")
    here = slot("m", maker.frame(Write("a", 0, b"h" * PAGE), Commit()))
    assert SlotPlaces().is_contained(maker.journal, [here]) == {"m": True}
    assert SlotPlaces().is_contained(Journal(str(tmp_path / "other")), [here]) == {"m": False}
