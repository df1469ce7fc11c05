"""A copy whose receiver ended while a base took the place of older files: each command finishes that or says so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import UnfinishedArrivalError
from mirrortool.journal import slots
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import load_mark
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.slots import Slot
from mirrortool.journal.tail import wait_for_journal
from mirrortool.journal.unfinished import Unfinished, due_file
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.record.recorder import Recorder
from tests.fakes.disk import Call, PowerCut, cut_at, faulty
from tests.fakes.journals import assert_verifies, images_of
from tests.ship.conftest import no_directory_sync, original, place
from tests.ship.prunedjournal import BASE, Pruned, assert_sound, assert_whole
from tests.ship.shipments import local

__all__ = ["no_directory_sync", "original", "place"]
pytestmark = pytest.mark.usefixtures("no_directory_sync")

OTHER = "ab" * 16


def copies_between(original: Pruned, place: Path) -> Iterator[Path]:
    """A copy for each changing call at which its receiver can end while the base replaces files."""
    was_between = False
    for number in range(1, 200):
        copy = original.copy(place / f"C{number}")
        with slots.locked(Journal(str(copy))):
            end = find_end(Journal(str(copy)))
            slots.save(Journal(str(copy)), Slot("m", OTHER, "mirror", "/m", end, 1, 1))
        with faulty(cut_at(number)), pytest.raises(PowerCut):
            local(original.journal, copy, has_slot=False).run()
        if due_file(str(copy)) is not None:
            was_between = True
            yield copy
        elif was_between:
            return
        shutil.rmtree(copy)
    raise AssertionError("it never ended")


def test_what_only_reads_says_so(original: Pruned, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for copy in copies_between(original, place):
        seen.add(len(Journal(str(copy), finishing=Unfinished.ARRIVAL).file_starts()))
        for command in (["status"], ["verify", "-q"], ["log"], ["slot", "list"]):
            assert main([*command, str(copy)]) == UnfinishedArrivalError.exit_code == 12
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"mirrortool: {copy}: a base is taking") and "next mirrortool ship" in line
        local(original.journal, copy, has_slot=False).run()
        assert_whole(original, copy)
    assert seen == {0, 1, 2, 3}


def replay_new(copy: Path, _: Pruned) -> None:
    assert main(["replay", str(copy), str(copy) + "-new", "-q"]) == 0
    assert_verifies(str(copy) + "-new")


def replay_old(copy: Path, original: Pruned) -> None:
    mirror = shutil.copytree(original.mirror, str(copy) + "-old")
    assert main(["replay", str(copy), mirror, "-q"]) == 0
    assert_verifies(mirror)


def drop(copy: Path, _: Pruned) -> None:
    assert main(["slot", "drop", str(copy), "m", "-q"]) == 0
    assert slots.slots(Journal(str(copy))) == []


def run_on(*command: str) -> Callable[[Path, Pruned], None]:
    def act(copy: Path, _: Pruned) -> None:
        assert main([command[0], str(copy), *command[1:]]) == 0

    return act


def ship_further(copy: Path, _: Pruned) -> None:
    assert main(["ship", str(copy), str(copy) + "-further", "-q"]) == 0
    assert find_end(Journal(str(copy) + "-further")) == find_end(Journal(str(copy)))


def wait_for_it(copy: Path, _: Pruned) -> None:
    """As a follower does, which may look just then."""
    assert wait_for_journal(str(copy), threading.Event())


WORK = [replay_new, replay_old, drop, run_on("base", "-q"), run_on("prune", "--keep", "1d", "-q"), ship_further]


@pytest.mark.parametrize("act", [*WORK, wait_for_it])
def test_what_works_on_the_copy_finishes_it(original: Pruned, place: Path, act: Callable[[Path, Pruned], None]) -> None:
    for copy in copies_between(original, place):
        act(copy, original)
        assert due_file(str(copy)) is None
        assert_sound(copy)
        assert Journal(str(copy)).file_starts()[0] <= 2 * BASE
        assert all(slot.is_lost for slot in slots.slots(Journal(str(copy))) if slot.owner == OTHER)
        local(original.journal, copy, has_slot=False).run()
        assert_sound(copy)
        assert find_end(Journal(str(copy))) == find_end(original.journal)


def test_promote_finishes_it_and_the_primary_is_whole(original: Pruned, place: Path) -> None:
    for copy in copies_between(original, place):
        mirror = shutil.copytree(original.mirror, str(copy) + "-M")
        with Promotion(mirror, journal_path=str(copy)) as promotion:
            promotion.drain()
            promotion.verify()
            promotion.carry_out()
        assert due_file(str(copy)) is None
        assert Mirror(mirror).checkpoint.position == Journal(str(copy)).history.current.start
        assert Mirror(mirror).checkpoint.position.lsn >= 2 * BASE
        assert_sound(copy)
        with Recorder(str(copy)):
            pass


def test_a_copy_that_begins_at_a_base_knows_its_sizes(original: Pruned, place: Path) -> None:
    """From the base's commit on; before it a volume may have been larger."""
    copy = original.copy(place / "C")
    local(original.journal, copy, has_slot=False).run()
    mark = load_mark(str(copy))
    assert mark and mark.sizes == original.journal.volumes.sizes


def test_what_came_of_a_base_goes_when_the_copy_is_promoted(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")

    def fault(call: Call) -> None:
        if "/bases/arriving/" in call.path and call.name == "fdatasync":
            raise PowerCut

    with faulty(fault), pytest.raises(PowerCut):
        local(original.journal, copy, has_slot=False).run()
    assert list((copy / "bases/arriving").iterdir())
    before = images_of(original.mirror)
    mirror = shutil.copytree(original.mirror, place / "M")
    with Promotion(str(mirror), journal_path=str(copy)) as promotion:
        promotion.drain()
        promotion.carry_out()
    assert images_of(mirror) == before
    assert not list((copy / "bases/arriving").iterdir())


def test_who_cannot_write_is_told_and_who_can_waits_for_the_receiver(
    original: Pruned, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = next(copies_between(original, place))
    with Journal(str(copy), finishing=Unfinished.ARRIVAL).lock():
        monkeypatch.setattr("mirrortool.journal.copies.basetransfer._SWITCH_SECONDS", 0.1)
        with pytest.raises(UnfinishedArrivalError):
            open_finished(str(copy))
    assert open_finished(str(copy)).file_starts()
