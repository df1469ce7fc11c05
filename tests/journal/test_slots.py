"""Slots: a journal knows its readers and how far each is, never further than it durably is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import AccessError, LockedError, NoSpaceError, UsageError
from mirrortool.journal import slots as module
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.slots import (
    TRANSITIONS,
    SlotKeeper,
    SlotState,
    damaged_slots,
    drop,
    find_slot,
    locked,
    lose,
    save,
    slots,
)
from tests.conftest import FakeClock
from tests.fakes.journals import Commit, JournalMaker, Write

A, B = "aa" * 16, "bb" * 16


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return JournalMaker(tmp_path / "j", {"disk": 8192}).close()


def slot(name: str = "m1", lsn: int = 0, owner: str = A) -> module.Slot:
    return module.Slot(name, owner, "mirror", "/srv/m1", Position(lsn, 7 * lsn), 1000 + lsn, 0)


def test_a_slot_comes_back_as_it_was_saved(journal: Journal, fake_clock: FakeClock) -> None:
    keeper = SlotKeeper(journal, slot(lsn=5))
    assert find_slot(journal, "m1") == keeper.slot == replace(slot(lsn=5), updated_ns=fake_clock.ns)
    assert slots(journal) == [keeper.slot]


def test_no_slots_at_first(journal: Journal) -> None:
    assert slots(journal) == []


def test_a_slot_is_saved_once_a_second_and_at_the_end(journal: Journal, fake_clock: FakeClock) -> None:
    keeper = SlotKeeper(journal, slot())
    keeper.advance(Position(3, 21), 2000)
    assert slots(journal)[0].position.lsn == 0
    fake_clock.advance(1.0)
    keeper.advance(Position(4, 28), 3000)
    assert (slots(journal)[0].position.lsn, slots(journal)[0].time_ns) == (4, 3000)
    keeper.advance(Position(5, 35), 4000, now=True)
    assert slots(journal)[0].position.lsn == 5


def test_two_mirrors_cannot_share_a_slot(journal: Journal) -> None:
    SlotKeeper(journal, slot(owner=A))
    with pytest.raises(UsageError, match="is of another mirror than the one at /srv/m1"):
        SlotKeeper(journal, slot(owner=B))
    SlotKeeper(journal, slot(owner=A, lsn=2))
    assert slots(journal)[0].position.lsn == 2


def test_a_slot_is_lost_where_the_journal_begins_later_until_its_owner_has_started_over(tmp_path: Path) -> None:
    maker = JournalMaker(tmp_path / "j", {"disk": 8192}, file_bytes=600)
    for number in range(8):
        maker.frame(Write("disk", number, bytes([number + 1]) * 512), Commit())
    journal = maker.close()
    Path(journal.file_path(journal.file_starts()[0])).unlink()
    keeper = SlotKeeper(journal, slot())
    assert keeper.was_lost
    assert slots(journal)[0].is_lost
    keeper.start_over(Position(14, 98), 6000)
    assert not slots(journal)[0].is_lost
    assert slots(journal)[0].holds_back


@pytest.mark.parametrize(("before", "event"), TRANSITIONS)
def test_a_slot_comes_from_state_to_state_as_the_table_says(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, before: SlotState, event: str
) -> None:
    monkeypatch.setattr(module, "base_lsns", lambda _: [5])
    keeper = SlotKeeper(journal, slot(lsn=1))
    made = {
        SlotState.READING: slot(lsn=1),
        SlotState.LOST: slot(lsn=1).losing(),
        SlotState.STARTING_OVER: replace(slot(lsn=1), is_lost=True, resync_lsn=5),
        SlotState.REMOTE: replace(slot(lsn=1), via="far"),
    }[before]
    assert made.state == before
    keeper._save(made)
    events: dict[str, Callable[[], None]] = {
        "lose": lambda: lose(journal, "m1", "/srv/m1"),
        "advance": lambda: keeper.advance(Position(2, 14), 2000, now=True),
        "resync": lambda: keeper.resync(5),
        "start_over": lambda: keeper.start_over(Position(2, 14), 2000),
    }
    events[event]()
    (after,) = slots(journal)
    assert after.state == TRANSITIONS[before, event]
    assert after.holds_back is (after.state in (SlotState.READING, SlotState.STARTING_OVER))


def test_a_dropped_slot_does_not_come_back_by_itself(journal: Journal, fake_clock: FakeClock) -> None:
    keeper = SlotKeeper(journal, slot())
    assert drop(journal, "m1").name == "m1"
    fake_clock.advance(2.0)
    keeper.advance(Position(9, 63), 5000)
    assert slots(journal) == []
    with pytest.raises(UsageError, match="no slot m1"):
        drop(journal, "m1")


def test_while_somebody_prunes_a_slot_waits(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.0)
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        keeper.advance(Position(9, 63), 5000, now=True)
        assert slots(journal)[0].position.lsn == 0
        with pytest.raises(LockedError):
            SlotKeeper(journal, slot("m2"))
    keeper.advance(Position(9, 63), 5000, now=True)
    assert slots(journal)[0].position.lsn == 9


@pytest.mark.parametrize("name", ["", "9", "a/b", "../x", "a" * 65, "a\n"])
def test_a_slot_has_a_name_that_is_a_file_name(journal: Journal, name: str) -> None:
    with pytest.raises(UsageError, match="is not a slot's name"):
        SlotKeeper(journal, slot(name))
    with pytest.raises(UsageError, match="is not a slot's name"):
        drop(journal, name)


def test_slots_are_bounded(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_MAX", 2)
    for name in ("a", "b"):
        SlotKeeper(journal, slot(name))
    with pytest.raises(UsageError, match="2 slots already"):
        SlotKeeper(journal, slot("c"))
    SlotKeeper(journal, slot("a", lsn=1))


def test_a_slot_that_makes_no_sense_is_known_apart_and_written_anew_by_its_owner(journal: Journal) -> None:
    SlotKeeper(journal, slot())
    SlotKeeper(journal, slot("m2"))
    path = Path(journal.path, "slots", "m1.json")
    path.write_text("{}")
    assert [each.name for each in slots(journal)] == ["m2"]
    damaged = damaged_slots(journal)
    assert list(damaged) == ["m1"] and "mirrortool slot drop" in str(damaged["m1"])
    unconfirmed = SlotKeeper(journal, slot(lsn=5), is_confirmed=False)
    unconfirmed.withdraw()
    assert path.read_text() == "{}", "a replay that is refused leaves no trace"
    unconfirmed = SlotKeeper(journal, slot(lsn=5), is_confirmed=False)
    unconfirmed.confirm(slot(lsn=5).position, slot().time_ns, "/m")
    assert not damaged_slots(journal)
    assert [(each.name, each.position.lsn) for each in slots(journal)] == [("m1", 5), ("m2", slot().position.lsn)]


def test_other_files_are_no_slots(journal: Journal) -> None:
    SlotKeeper(journal, slot())
    Path(journal.path, "slots", "m1.json.new").write_text("{")
    Path(journal.path, "slots", "README").write_text("{")
    assert [each.name for each in slots(journal)] == ["m1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_journal_needs_no_slot(journal: Journal) -> None:
    os.chmod(journal.path, 0o555)
    try:
        with pytest.raises(AccessError, match="--no-slot"):
            SlotKeeper(journal, slot())
    finally:
        os.chmod(journal.path, 0o755)


def test_a_journal_that_cannot_be_written_names_no_slot(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AccessError("cannot make the directory: read-only", where=journal.path)

    monkeypatch.setattr(module.files, "make_directory", refuse)
    with pytest.raises(AccessError, match="--no-slot"):
        SlotKeeper(journal, slot())


def test_a_far_slot_holds_nothing_back() -> None:
    assert slot().holds_back
    assert not replace(slot(), via="ship-east").holds_back
    assert not replace(slot(), is_lost=True).holds_back


def test_an_owner_that_got_on_by_what_it_had_open_is_not_lost_any_more(journal: Journal, fake_clock: FakeClock) -> None:
    """Nothing that it needs from here on is gone, so it must be kept."""
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        save(journal, replace(keeper.slot, is_lost=True))
    fake_clock.advance(2.0)
    keeper.advance(Position(9, 63), 5000)
    assert (slots(journal)[0].is_lost, slots(journal)[0].position.lsn) == (False, 9)


def test_an_owner_whose_next_file_is_gone_stays_lost(tmp_path: Path, fake_clock: FakeClock) -> None:
    maker = JournalMaker(tmp_path / "j", {"disk": 8192}, file_bytes=600)
    for number in range(8):
        maker.frame(Write("disk", number, bytes([number + 1]) * 512), Commit())
    journal = maker.close()
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        save(journal, replace(keeper.slot, is_lost=True))
    Path(journal.file_path(journal.file_starts()[0])).unlink()
    fake_clock.advance(2.0)
    keeper.advance(Position(1, 7), 5000)
    assert slots(journal)[0].is_lost


def test_an_owner_that_is_starting_over_stays_lost_until_it_has(journal: Journal, fake_clock: FakeClock) -> None:
    """What it has meanwhile is not a position from which the journal continues."""
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        save(journal, replace(keeper.slot, is_lost=True, resync_lsn=9))
    fake_clock.advance(2.0)
    keeper.advance(Position(4, 28), 5000)
    assert (slots(journal)[0].is_lost, slots(journal)[0].resync_lsn) == (True, 9)


def test_an_owner_that_gives_up_needs_nothing(journal: Journal) -> None:
    """Not even the base that it was starting over from."""
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        save(journal, replace(keeper.slot, is_lost=True, resync_lsn=9))
    assert slots(journal)[0].holds_back
    keeper.give_up()
    assert keeper.was_lost
    assert slots(journal)[0].is_lost
    assert not slots(journal)[0].holds_back


def test_only_the_slot_of_who_is_past_the_fork_is_lost(journal: Journal) -> None:
    """Another owner may have taken the name."""
    SlotKeeper(journal, slot())
    lose(journal, "m1", "/srv/elsewhere")
    assert not slots(journal)[0].is_lost
    lose(journal, "m1", "/srv/m1")
    assert slots(journal)[0].is_lost


def test_a_promotion_is_not_outlived(journal: Journal, fake_clock: FakeClock) -> None:
    """What the owner has may be what was dropped."""
    keeper = SlotKeeper(journal, slot())
    with locked(journal):
        save(journal, replace(keeper.slot, is_lost=True))
    Journal(journal.path).save_history(journal.history.promoted(journal.start, b"x" * 16))
    fake_clock.advance(2.0)
    keeper.advance(Position(9, 63), 5000)
    assert slots(journal)[0].is_lost


@pytest.mark.parametrize("lsn", [4, 5])
def test_what_a_promotion_dropped_is_never_a_place_that_holds_the_journal(
    journal: Journal, fake_clock: FakeClock, lsn: int
) -> None:
    """An owner may still read what it had open, and be killed before it learns of that."""
    keeper = SlotKeeper(journal, slot())
    Journal(journal.path).save_history(journal.history.promoted(Position(4, 28), b"x" * 16))
    fake_clock.advance(2.0)
    keeper.advance(Position(lsn, 7 * lsn), 5000)
    (found,) = slots(journal)
    assert (found.position.lsn, found.is_lost, found.holds_back) == (lsn, lsn > 4, lsn <= 4)


def test_a_slot_that_another_took_is_not_moved(journal: Journal, fake_clock: FakeClock) -> None:
    """Else the journal would drop what the other needs."""
    former = SlotKeeper(journal, slot(owner=A))
    drop(journal, "m1")
    SlotKeeper(journal, slot(owner=B, lsn=2))
    fake_clock.advance(2.0)
    former.advance(Position(9, 63), 5000, now=True)
    assert (slots(journal)[0].owner, slots(journal)[0].position.lsn) == (B, 2)


def full(*_args: object, **_kwargs: object) -> None:
    raise NoSpaceError("cannot write: no space left", where="slots")


def test_on_a_full_journal_a_known_mirror_may_catch_up(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    SlotKeeper(journal, slot(lsn=3))
    monkeypatch.setattr(module, "save", full)
    assert SlotKeeper(journal, slot(lsn=5)).slot.position.lsn == 3
    for other in (slot(lsn=2), slot("m2")):
        with pytest.raises(NoSpaceError):
            SlotKeeper(journal, other)


def test_far_slots_take_no_places(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS_MAX", 1)
    with locked(journal):
        save(journal, replace(slot("far"), via="ship-east"))
    SlotKeeper(journal, slot("near"))


def test_a_place_that_could_not_be_saved_is_saved_the_next_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = SlotKeeper(journal, slot())

    def no_room(*_: object) -> None:
        raise NoSpaceError("cannot write: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "save", no_room)
        keeper.advance(Position(5, 35), 2000, now=True)
    assert keeper.slot.position.lsn == slots(journal)[0].position.lsn == 0
    keeper.advance(Position(5, 35), 2000, now=True)
    assert keeper.slot.position.lsn == slots(journal)[0].position.lsn == 5
