"""A replay does not fill the place of a mirror that is only not mounted, and lets one be made anew in one step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import NotAMirrorError, UsageError
from mirrortool.journal import slots
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.session import Replay
from mirrortool.replay.slotregistration import OWN_SLOT
from tests.fakes.journals import JournalMaker


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a disk with mirrors is mounted."""
    (tmp_path / "usb").mkdir()
    return tmp_path / "usb"


def unmount(place: Path, disk: str) -> None:
    """What is there is out of sight, and the mount point empty."""
    place.rename(place.parent / disk)
    place.mkdir()


def mount(place: Path, disk: str) -> None:
    place.rmdir()
    (place.parent / disk).rename(place)


def replay(maker: JournalMaker, mirror: Path, slot: str | None = OWN_SLOT, **options: Any) -> Mirror:
    with Replay(maker.journal.path, str(mirror), slot=slot, **options) as opened:
        opened.run()
    return Mirror(str(mirror))


def names(maker: JournalMaker) -> set[str]:
    return {slot.name for slot in slots.slots(maker.journal)}


@pytest.mark.parametrize("slot", [OWN_SLOT, "named", None])
def test_an_unmounted_mirror_is_not_made_again(maker: JournalMaker, place: Path, slot: str | None) -> None:
    first = replay(maker, place / "M", slot or OWN_SLOT)
    before = names(maker)
    unmount(place, "disk")
    with pytest.raises(NotAMirrorError, match=r"no mirror here, but slot .* is of one, at LSN 2; mount"):
        replay(maker, place / "M", slot)
    assert os.listdir(place) == [] and names(maker) == before
    mount(place, "disk")
    assert replay(maker, place / "M", slot).uuid == first.uuid and names(maker) == before


def test_a_path_is_known_by_where_it_leads(maker: JournalMaker, place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("usb")
    replay(maker, place / "M")
    shutil.rmtree(place / "M")
    with pytest.raises(NotAMirrorError, match="no mirror here, but slot"):
        replay(maker, tmp_path / "link" / "M")


@pytest.mark.parametrize("slot", [OWN_SLOT, "named", None])
def test_a_mirror_is_made_anew_in_one_step(maker: JournalMaker, place: Path, slot: str | None) -> None:
    first = replay(maker, place / "M", slot or OWN_SLOT)
    shutil.rmtree(place / "M")
    second = replay(maker, place / "M", slot, replace_slot=True)
    assert second.uuid != first.uuid
    owners = {found.owner for found in slots.slots(maker.journal)}
    assert owners == (set() if slot is None else {second.uuid.hex()})


def test_kill_9_while_a_mirror_is_made_anew_leaves_one_slot(maker: JournalMaker, place: Path) -> None:
    first = replay(maker, place / "M")
    for _ in range(2):
        shutil.rmtree(place / "M")
        opened = Replay(maker.journal.path, str(place / "M"), slot=OWN_SLOT, replace_slot=True)
        opened.__exit__()  # and nothing more is done
        (slot,) = slots.slots(maker.journal)
        assert slot.owner == opened.mirror.uuid.hex() != first.uuid.hex()


def test_without_a_former_one_the_option_changes_nothing(maker: JournalMaker, place: Path) -> None:
    replay(maker, place / "other", "other")
    replay(maker, place / "M", replace_slot=True)
    replay(maker, place / "M", replace_slot=True)
    assert len(names(maker)) == 2 and "other" in names(maker)


def test_a_refused_replay_leaves_the_slot_to_the_one_before(maker: JournalMaker, place: Path) -> None:
    first = replay(maker, place / "M", "named")
    shutil.rmtree(place / "M")
    with pytest.raises(UsageError, match="has no volume b"):
        replay(maker, place / "M", "named", replace_slot=True, targets={"b": "x"})
    assert [slot.owner for slot in slots.slots(maker.journal)] == [first.uuid.hex()]


def test_disks_that_are_mounted_by_turns_have_a_slot_each(maker: JournalMaker, place: Path) -> None:
    replay(maker, place / "M", "first")
    unmount(place, "disk-1")
    replay(maker, place / "M", "second")
    for disk, other in (("disk-2", "disk-1"), ("disk-1", "disk-2")):
        unmount(place, disk)
        mount(place, other)
        replay(maker, place / "M")
    assert names(maker) == {"first", "second"}
    shutil.rmtree(place / "M")
    with pytest.raises(UsageError, match="slots first and second are all of mirrors at this path"):
        replay(maker, place / "M", replace_slot=True)
    anew = replay(maker, place / "M", "second", replace_slot=True)
    assert names(maker) == {"first", "second"}
    assert next(slot.owner for slot in slots.slots(maker.journal) if slot.name == "second") == anew.uuid.hex()


def test_another_mirror_in_its_place_is_not_registered_beside_it(maker: JournalMaker, place: Path) -> None:
    replay(maker, place / "M")
    unmount(place, "disk")
    replay(maker, place / "elsewhere", None)
    (place / "elsewhere").rename(place / "M")
    with pytest.raises(NotAMirrorError, match="another mirror than the one that slot"):
        replay(maker, place / "M")
    replay(maker, place / "M", None)
    other = replay(maker, place / "M", replace_slot=True)
    assert [slot.owner for slot in slots.slots(maker.journal)] == [other.uuid.hex()]


def test_a_slot_of_another_path_is_taken_only_if_that_is_said(maker: JournalMaker, place: Path) -> None:
    replay(maker, place / "M", "named")
    with pytest.raises(UsageError, match=r"slot named is of another mirror, .*/M, than the one at .*/N; .*--replace"):
        replay(maker, place / "N", "named")
    assert os.listdir(place) == ["M"]
    mirror = replay(maker, place / "N", "named", replace_slot=True)
    assert [slot.owner for slot in slots.slots(maker.journal)] == [mirror.uuid.hex()]


def test_the_command_says_what_to_do(maker: JournalMaker, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(maker, place / "M")
    unmount(place, "disk")
    for more in ([], ["--dry-run"], ["--until", "2"], ["--no-slot"]):
        assert main(["replay", maker.journal.path, str(place / "M"), *more]) == 24
        assert "mount the file system that it is on; " in capsys.readouterr().err
    assert main(["replay", "-q", maker.journal.path, str(place / "M"), "--dry-run", "--replace-slot"]) == 0
    assert not os.listdir(place)
    assert main(["replay", "-q", maker.journal.path, str(place / "M"), "--replace-slot"]) == 0


def test_a_service_does_not_replace_slots_at_each_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unit", "replay", "/srv/J", "/srv/M", "--replace-slot"]) == 2
    assert "a service would do it at each start" in capsys.readouterr().err
