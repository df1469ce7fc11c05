"""A journal that was pruned is shipped by its base, and whatever interrupts that leaves a copy that is sound."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import (
    CorruptJournalError,
    LinkError,
    LockedError,
    MirrortoolError,
    MissingFileError,
    NoSpaceError,
)
from mirrortool.journal import holds, slots
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns, base_path, lock_bases
from mirrortool.journal.copies import basetransfer
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import Slot
from mirrortool.journal.tail import Tail
from mirrortool.journal.unfinished import Unfinished, due_file
from mirrortool.mirror.directory import Mirror
from mirrortool.points.view import open_point
from mirrortool.replay.makebase import MakeBase
from mirrortool.ship import receiverprocess
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.firstframes import first_after
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.receiver import Receiver
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import RefusedError, ShipOptions
from tests.fakes.daemon import Daemon
from tests.fakes.disk import Call, FullDisk, PowerCut, cut_at, faulty
from tests.fakes.journals import assert_verifies, images_of, replay_all
from tests.fakes.pointviews import contents
from tests.fakes.serial import volumes_at
from tests.fakes.waiting import wait_until
from tests.ship.pairs import Cable, FlippingCable, assert_same, counted, running, shipment
from tests.ship.prunedjournal import BASE, BEHIND, END, Pruned, assert_sound, assert_whole
from tests.ship.shipments import EACH_KIND, copy_shipment, local

SYNC_DIRECTORY = files.sync_directory
pytestmark = pytest.mark.usefixtures("no_directory_sync")


@EACH_KIND
@pytest.mark.parametrize("is_new", [True, False])
def test_a_copy_gets_the_base_and_what_follows(original: Pruned, place: Path, kind: str, is_new: bool) -> None:
    copy = place / "C" if is_new else original.copy(place / "C")
    done = copy_shipment(kind, original.journal, copy, slot="s")
    done.run()
    assert_whole(original, copy)
    assert Journal(str(copy)).clean_end == original.journal.clean_end
    (slot,) = slots.slots(original.journal)
    assert (slot.position, slot.is_lost, slot.resync_lsn) == (find_end(original.journal), False, 0)
    slots.drop(original.journal, "s")
    copy_shipment(kind, original.journal, copy, has_slot=False).run()  # nothing of it again
    replay_all(str(copy), place / "M")
    assert images_of(place / "M") == {"disk": original.image}
    assert_verifies(place / "M")


def test_the_mirror_of_a_copy_that_was_behind_starts_over_and_verifies(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")
    shutil.copytree(original.mirror, place / "M")
    old = Slot("m", "ab" * 16, "mirror", "/m", find_end(Journal(str(copy))), 1, 1)
    with slots.locked(Journal(str(copy))):
        slots.save(Journal(str(copy)), old)
    local(original.journal, copy, has_slot=False).run()
    (slot,) = slots.slots(Journal(str(copy)))
    assert slot == replace(old, is_lost=True)
    replay_all(str(copy), place / "M")
    assert_verifies(place / "M")
    assert images_of(place / "M") == {"disk": original.image}


def bytes_both_ways(original: Pruned, path: Path) -> tuple[int, int]:
    cable = Cable(str(path))
    shipment(original.journal, cable, has_slot=False).run()
    assert_whole(original, path)
    return cable.carried, cable.answered


@pytest.mark.parametrize("stride", [pytest.param(13, marks=pytest.mark.soak), 499])
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("way", ["to", "from"])
def test_cut_at_any_byte_then_resumed(original: Pruned, place: Path, way: str, is_new: bool, stride: int) -> None:
    both = bytes_both_ways(original, place / "whole")
    for at in range(0, both[way == "from"], stride if way == "to" else stride // 5):
        copy = place / f"C{at}" if is_new else original.copy(place / f"C{at}")
        cable = Cable(str(copy))
        cable.breaks_at, cable.answers_break_at = (at, None) if way == "to" else (None, at)
        with pytest.raises(LinkError) if way == "to" else suppress(LinkError):
            shipment(original.journal, cable, has_slot=False).run()
        assert_sound(copy)
        again = Cable(str(copy))
        shipment(original.journal, again, has_slot=False).run()
        assert not again.errors
        assert_whole(original, copy)
        shutil.rmtree(copy)


def test_what_came_of_a_base_is_not_sent_again(original: Pruned, place: Path) -> None:
    size = os.path.getsize(base_path(original.journal, 2 * BASE))
    to, _ = bytes_both_ways(original, place / "whole")
    cable = Cable(str(place / "C"), breaks_at=to * 3 // 4)
    with pytest.raises(LinkError):
        shipment(original.journal, cable, has_slot=False).run()
    cable.breaks_at = None
    before = cable.carried
    shipment(original.journal, cable, has_slot=False).run()
    assert cable.carried - before < to - size
    assert_whole(original, place / "C")


def test_flipped_byte_is_never_taken(original: Pruned, place: Path) -> None:
    to, _ = bytes_both_ways(original, place / "whole")
    for at in range(0, to, 631):
        copy = original.copy(place / f"C{at}")
        with pytest.raises(MirrortoolError):
            shipment(original.journal, FlippingCable(str(copy), at), has_slot=False).run()
        assert_sound(copy)
        for _ in range(2):  # a flip in what was kept may be found only now, and then the base begins anew
            with suppress(LinkError, RefusedError):
                shipment(original.journal, Cable(str(copy)), has_slot=False).run()
        assert_whole(original, copy)


@pytest.fixture
def synced_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the removal of a file, too, something comes at which a test may cut."""
    monkeypatch.setattr(files, "sync_directory", SYNC_DIRECTORY)


@pytest.mark.usefixtures("no_directory_sync", "synced_directories")
@pytest.mark.parametrize("is_new", [True, False])
def test_a_receiver_that_is_killed_anywhere_leaves_a_sound_copy(original: Pruned, place: Path, is_new: bool) -> None:
    def ship(copy: Path) -> None:
        local(original.journal, copy, has_slot=False).run()

    whole = place / "whole" if is_new else original.copy(place / "whole")
    with faulty(lambda _: None) as system:
        ship(whole)
    assert len(system.calls) > 30
    was_between = False
    for number in range(1, len(system.calls) + 1):
        copy = place / f"C{number}" if is_new else original.copy(place / f"C{number}")
        with faulty(cut_at(number)), pytest.raises(PowerCut):
            ship(copy)
        if due_file(str(copy)) is not None:  # see test_interrupted_base.py
            was_between = True
            Copy(str(copy)).close()
            assert Journal(str(copy)).file_starts()
        assert_sound(copy)
        ship(copy)
        assert_whole(original, copy)
        shutil.rmtree(copy)
    assert was_between


@pytest.mark.usefixtures("no_directory_sync", "synced_directories")
def test_what_is_left_of_another_base_goes_in_an_order_that_a_crash_may_stop(original: Pruned, place: Path) -> None:
    """Its journal file without it would count as one that is due."""
    first_lsn = original.journal.file_holding(2 * BASE)
    for number in itertools.count(1):
        copy = original.copy(place / f"C{number}")
        left = copy / "bases/arriving"
        left.mkdir(parents=True)
        (left / f"{2 * BASE:016x}-5-{'0' * 16}.part").write_bytes(b"other")
        shutil.copy(original.journal.file_path(first_lsn), left)
        with faulty(cut_at(number)), suppress(PowerCut):
            local(original.journal, copy, has_slot=False).run()
        Copy(str(copy)).close()
        assert_sound(copy)
        assert find_end(Journal(str(copy))).lsn >= 2 * BEHIND
        if base_lsns(Journal(str(copy))):
            break
        shutil.rmtree(copy)


def test_a_damaged_base_is_named_and_not_sent(original: Pruned, place: Path) -> None:
    shutil.copytree(original.journal.path, place / "J")
    journal = Journal(str(place / "J"))
    path = Path(base_path(journal, 2 * BASE))
    sound = path.read_bytes()
    for at in (3, len(sound) // 2, len(sound) - 60, len(sound) - 5):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        copy = original.copy(place / f"C{at}")
        with pytest.raises(CorruptJournalError) as caught:
            local(journal, copy).run()
        assert str(path) in str(caught.value) and "mirrortool base" in str(caught.value)
        assert base_lsns(Journal(str(copy))) == []
        assert_same(original.behind, copy)
    path.write_bytes(sound)
    local(journal, copy).run()
    assert_whole(original, copy)


def test_without_a_base_the_remedy_is_named(original: Pruned, place: Path) -> None:
    shutil.copytree(original.journal.path, place / "J")
    os.remove(base_path(Journal(str(place / "J")), 2 * BASE))
    for destination in (str(place / "C"), "-"):
        where = parse_destination(destination)
        options = ShipOptions()
        with (place / "out").open("wb") as sink, pytest.raises(MissingFileError) as caught:
            Shipment(str(place / "J"), where, options, connector(where, options, sink=sink.fileno())).run()
        assert caught.value.exit_code == 12 and f"mirrortool base {place}/J" in str(caught.value)


def stream_of(journal: Journal) -> bytes:
    where, options = parse_destination("-"), ShipOptions()
    with tempfile.TemporaryFile() as file:
        Shipment(journal.path, where, options, connector(where, options, sink=file.fileno())).run()
        file.seek(0)
        return file.read()


def receive(stream: bytes, path: Path) -> None:
    with (path.parent / "in").open("w+b") as file:
        file.write(stream)
        file.seek(0)
        receiverprocess.ReceiverProcess(str(path), Stream(file.fileno(), -1)).run()


def test_a_pipe_has_the_base_first(original: Pruned, place: Path) -> None:
    stream = stream_of(original.journal)
    for _ in range(2):
        receive(stream, place / "new")
        assert_whole(original, place / "new")
    receive(stream, original.copy(place / "behind"))
    assert_whole(original, place / "behind")
    cut = original.copy(place / "cut")
    with pytest.raises(LinkError):
        receive(stream[: len(stream) // 3], cut)
    assert_same(original.behind, cut)
    receive(stream, cut)
    assert_whole(original, cut)


def test_a_copy_that_has_what_comes_before_takes_no_base(original: Pruned, place: Path) -> None:
    """One that was pruned itself continues; a stream's base says nothing new to it."""
    copy = place / "C"
    local(original.journal, copy, has_slot=False).run()
    os.remove(base_path(Journal(str(copy)), 2 * BASE))
    receive(stream_of(original.journal), copy)
    assert base_lsns(Journal(str(copy))) == []


def test_who_works_with_the_bases_of_the_copy_is_waited_for(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")
    with lock_bases(Journal(str(copy))):
        with pytest.raises(RefusedError) as caught:
            shipment(original.journal, Cable(str(copy)), has_slot=False).run()
        assert caught.value.exit_code == LockedError.exit_code
        assert_same(original.behind, copy)
    shipment(original.journal, Cable(str(copy)), has_slot=False).run()
    assert_whole(original, copy)


def test_what_a_process_reads_of_the_copy_stays_until_it_ends(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")
    journal = Journal(str(copy))
    expected = volumes_at(journal)
    with open_point(journal, None) as view:
        with pytest.raises(RefusedError, match=f"process {os.getpid()} reads it") as caught:
            shipment(original.journal, Cable(str(copy)), has_slot=False).run()
        assert caught.value.exit_code == LockedError.exit_code
        assert_same(original.behind, copy)
        assert contents(view) == expected
    shipment(original.journal, Cable(str(copy)), has_slot=False).run()
    assert_whole(original, copy)


def test_a_change_to_a_base_that_a_crash_interrupted_waits_for_readers(
    original: Pruned, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = original.copy(place / "C")
    with open_point(Journal(str(copy)), None) as view:
        before = contents(view)
        with monkeypatch.context() as patch:
            patch.setattr(holds, "check_not_held", lambda *_: None)
            with pytest.MonkeyPatch.context() as crash:
                crash.setattr(basetransfer, "_finish", cut_short)
                with suppress(MirrortoolError, PowerCut):
                    shipment(original.journal, Cable(str(copy)), has_slot=False).run()
        assert due_file(str(copy))
        with pytest.raises(LockedError):
            basetransfer.finish_base_transfer(Journal(str(copy), finishing=Unfinished.ARRIVAL))
        assert contents(view) == before
    assert open_finished(str(copy))
    shipment(original.journal, Cable(str(copy)), has_slot=False).run()
    assert_whole(original, copy)


def cut_short(*_: object) -> None:
    raise PowerCut


class FullBefore(FullDisk):
    """A disk that has no room for bases."""

    def __call__(self, call: Call) -> None:
        if self.is_full and call.path.endswith(".part") and "write" in call.name:
            raise OSError(28, "full")


@EACH_KIND
def test_a_disk_that_is_full_for_a_base_is_a_state(
    original: Pruned, place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mirrortool.ship import local as local_link
    from mirrortool.ship import session

    for module in (local_link, receiverprocess):
        monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(session, "_PAUSE_SECONDS", 0.01)
    copy, disk = original.copy(place / "C"), FullBefore(place)
    disk.is_full = True
    with faulty(disk):
        with pytest.raises(NoSpaceError):
            copy_shipment(kind, original.journal, copy, has_slot=False).run()
        following = copy_shipment(kind, original.journal, copy, follow=True, has_slot=False)
        with running(following.run, following.stop) as errors:
            wait_until(lambda: "No space left" in following.statistics().problem)
            disk.is_full = False
            wait_until(lambda: following.statistics().acknowledged == find_end(original.journal))
        assert errors == []
    assert_whole(original, copy)


def test_a_base_and_its_files_stay_while_they_are_sent(original: Pruned, place: Path) -> None:
    shutil.copytree(original.journal.path, place / "J")
    journal = Journal(str(place / "J"))
    copy = original.copy(place / "C")
    with pytest.raises(LinkError):
        shipment(journal, Cable(str(copy), breaks_at=2500), slot="s").run()
    (slot,) = slots.slots(journal)
    assert (slot.position, slot.resync_lsn) == (find_end(Journal(str(copy))), 2 * BASE)
    with MakeBase(journal.path) as making:
        making.run()
    prune(journal.path, Keep())
    assert base_lsns(journal)[0] == 2 * BASE and first_after(journal, find_end(Journal(str(copy))), "c").base
    local(journal, copy, slot="s").run()
    (slot,) = slots.slots(journal)
    assert (slot.position, slot.resync_lsn, slot.is_lost) == (find_end(journal), 0, False)


def test_a_base_stays_until_the_copy_says_that_it_has_it(
    original: Pruned, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(original.journal.path, place / "J")
    journal = Journal(str(place / "J"))
    monkeypatch.setattr(Receiver, "make_durable", lambda self: self._base_place(self._copy))  # acknowledges nothing
    following = local(journal, original.copy(place / "C"), slot="s", follow=True)
    waits = counted(monkeypatch, Tail, "wait")
    with running(following.run, following.stop):
        wait_until(lambda: len(waits) > 1)
        assert following.statistics().sent_lsn == find_end(journal).lsn
        assert slots.slots(journal)[0].resync_lsn == 2 * BASE


def test_a_step_of_checking_is_bounded(original: Pruned, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a base is checked a step at a time, so that the sender hears of the receiver meanwhile."""
    monkeypatch.setattr(basetransfer, "_STEP_BYTES", 1)
    to, _ = bytes_both_ways(original, place / "whole")
    cable = Cable(str(place / "C"), breaks_at=to // 2)
    with pytest.raises(LinkError):
        shipment(original.journal, cable, has_slot=False).run()
    cable.breaks_at = None
    shipment(original.journal, cable, has_slot=False).run()
    assert_whole(original, place / "C")


def test_a_copy_that_was_shipped_by_its_base_passes_an_audit(original: Pruned, place: Path) -> None:
    local(original.journal, place / "C", has_slot=False).run()
    Audit(str(place / "C")).run()


def test_a_follower_of_the_copy_goes_on_from_the_base(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")
    shutil.copytree(original.mirror, place / "M")
    follower = Daemon("replay", copy, place / "M", "--follow")
    follower.start()
    wait_until(lambda: bool(slots.slots(Journal(str(copy)))))
    local(original.journal, copy, has_slot=False).run()
    wait_until(lambda: Mirror(str(place / "M")).checkpoint.position.lsn == 2 * END)
    follower.stop()
    assert images_of(place / "M") == {"disk": original.image}
    assert_verifies(place / "M")
    (slot,) = slots.slots(Journal(str(copy)))
    assert not slot.is_lost and slot.position.lsn == 2 * END
