"""The slots of a copy stand beside the journal's own, under their own names, and no more than there may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.slots import Slot
from mirrortool.ship import remoteslots
from tests.fakes.journals import Commit, make_journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])


def far(name: str, lsn: int = 1) -> Slot:
    return Slot(name, "aa" * 16, "mirror", "/far", Position(lsn, 0), 0, 0)


def known(journal: Journal) -> dict[str, int]:
    return {slot.name: slot.position.lsn for slot in slots.slots(journal)}


def test_those_of_another_copy_and_the_journals_own_are_left_alone(journal: Journal) -> None:
    with slots.locked(journal):
        slots.save(journal, far("own"))
    remoteslots.save(journal, "east", [far("a"), far("b")])
    remoteslots.save(journal, "west", [far("a", 5)])
    remoteslots.save(journal, "east", [far("b", 3)])
    assert known(journal) == {"own": 1, "east.b": 3, "west.a": 5}
    assert [slot.via for slot in slots.slots(journal)] == ["east", "", "west"]


def test_a_receiver_may_tell_of_more_than_are_known_here(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remoteslots, "FAR_SLOTS_MAX", 2)
    told = [far(name) for name in "abc"]
    remoteslots.save(journal, "east", told)
    assert known(journal) == {"east.a": 1, "east.b": 1}
    remoteslots.save(journal, "east", [far("a", 2), far("b"), far("c")])
    assert known(journal) == {"east.a": 2, "east.b": 1}
    remoteslots.save(journal, "west", told)
    assert len(known(journal)) == 4


def test_a_name_that_would_be_too_long_is_made_shorter_and_stays_its_own() -> None:
    names = [remoteslots.name_of("v" * 40, far(f"{'m' * 40}{number}")) for number in range(3)]
    assert len(set(names)) == 3
    for name in names:
        slots.check_name(name)
