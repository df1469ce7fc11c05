"""A mirror's slot follows the mirror, and belongs to nobody else."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import ForkedJournalError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slots import find_slot, locked, save
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.session import Replay
from mirrortool.replay.slotregistration import OWN_SLOT, Registration
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, replay_all
from tests.fakes.tails import scripted
from tests.fakes.waiting import wait_until


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def test_the_slot_follows_the_mirror(maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 0.0)
    found: list[tuple[int, int]] = []

    def act(number: int) -> None:
        wait_until(lambda: Mirror(str(mirror)).checkpoint.position.lsn == maker.commits[-1])
        name = replay.slot
        assert name
        slot = find_slot(maker.journal, name)
        assert slot
        found.append((slot.position.lsn, maker.commits[-1]))
        maker.frame(Write("a", number, bytes([number + 1]) * PAGE), Commit())

    actions = [lambda n=n: act(n) for n in range(5)]
    with scripted(monkeypatch, maker.journal.path, mirror, actions, slot=OWN_SLOT) as replay:
        checkpoint = replay.run()
        assert replay.slot == f"mirror-{replay.mirror.uuid.hex()[:8]}"
    assert all(lsn <= newest for lsn, newest in found), "the slot led the mirror"
    assert [slot.position for slot in slots.slots(maker.journal)] == [checkpoint.position]


def with_slot(journal: Journal, mirror: Path, name: str = OWN_SLOT, **options: Any) -> None:
    with Replay(journal.path, str(mirror), slot=name, **options) as replay:
        replay.run()


def test_a_mirror_keeps_the_slot_that_it_had(maker: JournalMaker, mirror: Path, tmp_path: Path) -> None:
    with_slot(maker.journal, mirror, "nightly")
    mirror.rename(tmp_path / "elsewhere")
    with_slot(maker.journal, tmp_path / "elsewhere")
    assert [slot.name for slot in slots.slots(maker.journal)] == ["nightly"]
    with_slot(maker.journal, tmp_path / "elsewhere", "daily")
    assert [slot.name for slot in slots.slots(maker.journal)] == ["daily"], "the former one holds nothing back"


def test_a_name_that_cannot_be_a_slots_becomes_one(maker: JournalMaker, tmp_path: Path) -> None:
    for name in ("7 of nine!", "é" * 80, "-"):
        with_slot(maker.journal, tmp_path / name)
    assert len(slots.slots(maker.journal)) == 3


def test_without_a_name_no_slot_is_kept(maker: JournalMaker, mirror: Path) -> None:
    replay_all(maker.journal, mirror)
    assert not slots.slots(maker.journal)


def lead_astray(mirror: Path) -> None:
    """From here on its history is another than the journal's."""
    opened = Mirror(str(mirror))
    position = opened.checkpoint.position
    opened.save_checkpoint(replace(opened.checkpoint, position=replace(position, chain=position.chain ^ 1)))


def test_a_mirror_of_another_history_leaves_no_slot(maker: JournalMaker, mirror: Path) -> None:
    replay_all(maker.journal, mirror)
    lead_astray(mirror)
    with pytest.raises(ForkedJournalError):
        with_slot(maker.journal, mirror)
    assert not slots.slots(maker.journal)


def test_a_slot_that_was_there_is_left_to_a_mirror_of_another_history(maker: JournalMaker, mirror: Path) -> None:
    with_slot(maker.journal, mirror)
    lead_astray(mirror)
    with pytest.raises(ForkedJournalError):
        with_slot(maker.journal, mirror)
    assert len(slots.slots(maker.journal)) == 1


def slot_files(journal: Journal) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(slots.slots_path(journal)).glob("*.json")}


def go_on_apart(path: Path, maker: JournalMaker) -> Journal:
    """Record a copy of a journal further by itself."""
    other = copy.copy(maker)
    other.journal, other.commits, other._sums = Journal(str(path)), [], dict(maker._sums)
    with JournalReader(other.journal) as end:
        while end.next_header():
            pass
        other.writer = JournalWriter(other.journal, end, file_bytes=1 << 20)
    other.frame(Write("a", 1, b"apart" * PAGE), Commit())
    return other.abandon()


def test_a_slot_is_not_moved_forward_before_the_journal_is_known_to_be_the_mirrors(
    maker: JournalMaker, mirror: Path
) -> None:
    """A replay that is killed before it is refused puts nothing back."""
    with_slot(maker.journal, mirror, "nightly")
    slot = find_slot(maker.journal, "nightly")
    assert slot
    with locked(maker.journal):
        save(maker.journal, replace(slot, position=maker.journal.start))
    before = slot_files(maker.journal)
    opened = Mirror(str(mirror))
    registration = Registration(maker.journal, opened, "nightly")
    assert slot_files(maker.journal) == before
    registration.confirm(opened.checkpoint)
    confirmed = find_slot(maker.journal, "nightly")
    assert confirmed and confirmed.position == slot.position


def test_a_refused_replay_leaves_no_trace(maker: JournalMaker, mirror: Path, tmp_path: Path) -> None:
    """A journal was copied, both were recorded further, and the mirror follows the copy."""
    with_slot(maker.journal, mirror, "nightly")
    maker.writer.sync()
    shutil.copytree(maker.journal.path, tmp_path / "copy")
    other = go_on_apart(tmp_path / "copy", maker)
    maker.frame(Write("a", 0, b"here" * (PAGE // 4)), Commit())
    with_slot(other, mirror, "nightly")
    before = slot_files(maker.journal), (mirror / "mirror.json").read_bytes()
    for name in ("nightly", OWN_SLOT, "another"):
        with pytest.raises(ForkedJournalError):
            with_slot(maker.journal, mirror, name)
        assert (slot_files(maker.journal), (mirror / "mirror.json").read_bytes()) == before


def test_a_mirror_that_went_back_is_held_back_for_and_its_slot_restored_if_refused(
    maker: JournalMaker, mirror: Path, tmp_path: Path
) -> None:
    with_slot(maker.journal, mirror, "nightly")
    shutil.copytree(mirror, tmp_path / "older")
    maker.frame(Write("a", 0, b"here" * (PAGE // 4)), Commit())
    with_slot(maker.journal, mirror, "nightly")
    shutil.rmtree(mirror)
    (tmp_path / "older").rename(mirror)
    before = slot_files(maker.journal)
    lead_astray(mirror)
    with pytest.raises(ForkedJournalError):
        with_slot(maker.journal, mirror)
    assert slot_files(maker.journal) == before
    opened = Mirror(str(mirror))
    lead_astray(mirror)  # back
    registration = Registration(maker.journal, Mirror(str(mirror)), "nightly")
    slot = find_slot(maker.journal, "nightly")
    assert slot
    assert slot.position.lsn == opened.checkpoint.position.lsn, "nothing may go that it needs"
    registration.withdraw()
    assert slot_files(maker.journal) == before


def test_the_slot_of_another_mirror_is_not_dropped_with_a_former_name(maker: JournalMaker, tmp_path: Path) -> None:
    with_slot(maker.journal, tmp_path / "one", "nightly")
    slots.drop(maker.journal, "nightly")
    with_slot(maker.journal, tmp_path / "other", "nightly")
    with_slot(maker.journal, tmp_path / "one", "daily")
    assert [slot.name for slot in slots.slots(maker.journal)] == ["daily", "nightly"]


def test_a_lost_slot_whose_files_are_still_there_counts_again(maker: JournalMaker, mirror: Path) -> None:
    with_slot(maker.journal, mirror)
    (slot,) = slots.slots(maker.journal)
    save(maker.journal, replace(slot, is_lost=True))
    maker.frame(Commit())
    with_slot(maker.journal, mirror)
    (slot,) = slots.slots(maker.journal)
    assert not slot.is_lost
    assert slot.position.lsn == maker.commits[-1]


def test_who_is_starting_over_holds_its_base_until_that_is_durable(maker: JournalMaker, mirror: Path) -> None:
    """Each checkpoint on the way is one of a mirror that still needs all of the base."""
    with_slot(maker.journal, mirror, "m1")
    opened = Mirror(str(mirror))
    registration = Registration(maker.journal, opened, "m1")
    slot = find_slot(maker.journal, "m1")
    assert slot
    with locked(maker.journal):
        save(maker.journal, replace(slot, is_lost=True, resync_lsn=slot.position.lsn))
    registration = Registration(maker.journal, opened, "m1")
    registration.advance(replace(opened.checkpoint, resync_lsn=slot.position.lsn), is_idle=True)
    slot = find_slot(maker.journal, "m1")
    assert slot and slot.is_lost and slot.resync_lsn
    registration.advance(opened.checkpoint, is_idle=True)
    slot = find_slot(maker.journal, "m1")
    assert slot and not slot.is_lost and not slot.resync_lsn
