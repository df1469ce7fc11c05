"""A shipment goes only to a copy of its own journal's history, and of its own slot; else both sides say why not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import (
    ForkedJournalError,
    LinkError,
    UsageError,
)
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.slots import Slot
from mirrortool.replay.session import Replay
from mirrortool.ship import receiver, sender
from mirrortool.ship.sender import Shipping
from mirrortool.ship.shipoptions import RefusedError, ShipOptions
from tests.fakes.journals import Commit, make_journal
from tests.fakes.waiting import wait_until
from tests.journal.sample import last_file
from tests.ship.pairs import assert_same, running
from tests.ship.shipments import EACH_KIND, append_mark, copy_shipment, fill, local, maker_at, only_slot


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "retry_seconds", lambda _: 0.01)


def test_a_slot_has_one_destination_and_a_journal_some(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    with pytest.raises(UsageError, match="a slot's name is for one destination"):
        Shipping.open(journal.path, ["x", "y"], ShipOptions(slot="s"))
    for destinations in ([], [str(tmp_path / str(number)) for number in range(sender.DESTINATIONS_MAX + 1)]):
        with pytest.raises(UsageError, match=f"{len(destinations)} destinations; 1 to {sender.DESTINATIONS_MAX}"):
            Shipping.open(journal.path, destinations)


@EACH_KIND
def test_a_fork_is_refused_with_both_positions(tmp_path: Path, kind: str) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    maker.abandon()
    shutil.copytree(tmp_path / "J", tmp_path / "K")
    for name in "JK":
        append_mark(Journal(str(tmp_path / name)), f"from-{name}")
    copy_shipment(kind, Journal(str(tmp_path / "J")), tmp_path / "C").run()
    before = Path(last_file(Journal(str(tmp_path / "C")))).read_bytes()
    with pytest.raises(ForkedJournalError) as caught:
        copy_shipment(kind, Journal(str(tmp_path / "K")), tmp_path / "C", follow=True).run()
    for name in "JK":
        assert str(find_end(Journal(str(tmp_path / name)))) in str(caught.value)
    assert Path(last_file(Journal(str(tmp_path / "C")))).read_bytes() == before


@EACH_KIND
def test_another_journal_is_refused_for_good(tmp_path: Path, kind: str) -> None:
    one, other = (make_journal(tmp_path / name, {"disk": 512}, [[Commit()]]) for name in "JK")
    copy_shipment(kind, one, tmp_path / "C").run()
    with pytest.raises(RefusedError) as caught:
        copy_shipment(kind, other, tmp_path / "C", follow=True).run()
    assert caught.value.exit_code == 15


def test_a_primary_behind_its_own_copy_is_refused_and_a_copy_behind_another_waits(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J", file_bytes=1 << 20)
    fill(maker, 4)
    maker.writer.sync()
    local(maker.journal, tmp_path / "behind", has_slot=False).run()
    shutil.copytree(tmp_path / "J", tmp_path / "older")
    fill(maker, 4)
    maker.close()
    local(maker.journal, tmp_path / "C").run()
    with pytest.raises(ForkedJournalError, match="frames that were durable are gone"):
        local(tmp_path / "older", tmp_path / "C").run()
    with pytest.raises(LinkError, match="ahead of this one"):
        local(tmp_path / "behind", tmp_path / "C").run()


def test_far_slots_show_as_slots_here_and_go_when_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "SLOTS_SECONDS", 0.0)
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    local(maker.journal, tmp_path / "C", slot="far").run()
    copy = Journal(str(tmp_path / "C"))
    far = Slot("mirror", "ab" * 16, "mirror", "/srv/M", find_end(copy), 1, 1)
    with slots.locked(copy):
        slots.save(copy, far)
        slots.save(copy, replace(far, name="x" * 64))
    local(maker.journal, tmp_path / "C", slot="far").run()
    found = {slot.name: slot for slot in slots.slots(maker.journal)}
    assert found["far.mirror"] == replace(far, name="far.mirror", via="far")
    assert not found["far.mirror"].holds_back and found["far"].holds_back
    assert len(found) == 3 and all(len(name) <= 64 for name in found)
    slots.drop(copy, "x" * 64)
    local(maker.journal, tmp_path / "C", slot="far").run()
    assert {slot.name for slot in slots.slots(maker.journal)} == {"far", "far.mirror"}
    maker.close()


def test_a_slot_belongs_to_one_copy(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    local(journal, tmp_path / "C", slot="s").run()
    with pytest.raises(RefusedError, match=r"no copy here, but slot s .* is of one, .*/C; .* another --slot"):
        local(journal, tmp_path / "D", slot="s").run()
    assert not (tmp_path / "D").exists()
    local(journal, tmp_path / "D", has_slot=False).run()
    with pytest.raises(UsageError, match=r"slot s is of another copy, .*/C, than the one at .*/D; .*--replace-slot"):
        local(journal, tmp_path / "D", slot="s").run()
    assert [slot.name for slot in slots.slots(journal)] == ["s"]


def test_a_mirrors_slot_is_no_copys(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    with Replay(journal.path, str(tmp_path / "M"), slot="s") as replay:
        replay.run()
    with pytest.raises(UsageError, match="slot s is of another mirror"):
        local(journal, tmp_path / "C", slot="s").run()
    assert not (tmp_path / "C").exists()


@EACH_KIND
@pytest.mark.parametrize("options", [{}, {"has_slot": False}, {"follow": True}])
def test_an_unmounted_copy_is_not_begun_again(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    place = tmp_path / "usb" / "C"
    place.parent.mkdir()
    copy_shipment(kind, journal, place).run()
    before = only_slot(journal)
    place.rename(tmp_path / "disk")  # and the mount point is empty
    with pytest.raises(
        RefusedError, match=r"no copy here, but slot .* of the sender's journal is of one, .*C; mount"
    ) as got:
        copy_shipment(kind, journal, place, **options).run()
    assert got.value.exit_code == 14
    assert os.listdir(place.parent) == [] and only_slot(journal) == before
    (tmp_path / "disk").rename(place)
    copy_shipment(kind, journal, place).run()
    assert only_slot(journal).owner == before.owner


@EACH_KIND
def test_a_copy_is_begun_anew_in_one_step(tmp_path: Path, kind: str) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    copy_shipment(kind, journal, tmp_path / "C").run()
    before = only_slot(journal)
    shutil.rmtree(tmp_path / "C")
    copy_shipment(kind, journal, tmp_path / "C", replace_slot=True).run()
    assert only_slot(journal).owner != before.owner
    assert_same(journal.path, str(tmp_path / "C"))


def test_a_receiver_that_does_not_know_what_it_is_asked_begins_a_copy_and_the_sender_says_why_it_goes_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    local(journal, tmp_path / "C").run()
    shutil.rmtree(tmp_path / "C")
    monkeypatch.setattr(receiver, "check_is_there", lambda *_: None)  # as 0.1.0
    with pytest.raises(UsageError, match=r"is of another copy than the one at .*/C; .*--replace-slot"):
        local(journal, tmp_path / "C").run()


def test_a_promotion_of_the_sender_is_followed(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    journal = maker.abandon()
    shutil.copytree(journal.path, tmp_path / "stale")
    following = local(journal, tmp_path / "C", follow=True)
    with running(following.run, following.stop) as errors:
        wait_until(lambda: (following.statistics().acknowledged or Position(0, 0)).lsn == 10)
        promoted = Journal(journal.path)
        promoted.save_history(promoted.history.promoted(find_end(promoted), os.urandom(16)))
        append_mark(promoted, "promoted")
        wait_until(lambda: (following.statistics().acknowledged or Position(0, 0)).lsn == 11)
    assert errors == []
    assert Journal(str(tmp_path / "C")).history == promoted.history
    with pytest.raises(RefusedError) as caught:
        local(tmp_path / "stale", tmp_path / "C").run()
    assert caught.value.exit_code == 13


def test_two_primaries_of_a_journal_are_told_apart(tmp_path: Path) -> None:
    """Each way round; where neither dropped anything that the other has, it is a primary's journal all the same."""
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    old = maker.abandon()
    shutil.copytree(old.path, tmp_path / "N")
    new = Journal(str(tmp_path / "N"))
    fork = find_end(new)
    new.save_history(new.history.promoted(fork, os.urandom(16)))
    with pytest.raises(RefusedError, match="a primary's journal is here") as caught:
        local(new, Path(old.path)).run()
    assert caught.value.exit_code == 32
    append_mark(old, "stale")
    append_mark(new, "promoted")
    for there, here, at in ((old, new, find_end(new)), (new, old, find_end(old))):
        with pytest.raises(RefusedError) as caught:
            local(there, Path(here.path)).run()
        assert caught.value.exit_code == 13
        assert str(fork) in str(caught.value) and str(at) in str(caught.value)
