"""After a promotion there is one primary: what anybody else records or holds is refused, with both positions."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import ForkedJournalError, MirrortoolError, NoSpaceError, NotAJournalError, PromotedError
from mirrortool.journal import format as layout
from mirrortool.journal import slots
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.record.recorder import Recorder
from mirrortool.record.recovery import OpenJournal
from mirrortool.replay.makebase import MakeBase
from mirrortool.replay.session import Replay
from mirrortool.replay.slotregistration import OWN_SLOT
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import RefusedError, ShipOptions
from mirrortool.status import mirror_status
from mirrortool.verify import Verify
from tests.fakes.journals import JournalMaker, assert_verifies, images_of, replay_all
from tests.fakes.promotions import AFTER, FRAMES, SIZES, Site, make_site, promote, receive, record_on, snapshot
from tests.fakes.serial import volumes_at
from tests.fakes.waiting import wait_until
from tests.journal.sample import commit_batch
from tests.ship.pairs import running


def test_a_promoted_mirror_is_nobodys_mirror_any_more(site: Site) -> None:
    site.promote()
    for use in (lambda: replay_all(site.journal, site.mirror), lambda: Verify(site.mirror)):
        with pytest.raises(PromotedError, match=f"primary's of epoch 1; they are recorded in {site.journal}"):
            use()
    replay_all(site.primary, site.path / "other")
    assert mirror_status(site.mirror).mirror.promoted is not None
    with pytest.raises(MirrortoolError):
        replay_all(site.primary, site.mirror)


def test_promoting_again_says_that_it_is_done(site: Site) -> None:
    first = site.promote()
    record_on(site.journal)
    before = snapshot(site.path)
    again = site.promote()
    assert (again.plan, again.is_complete, again.promoted) == (None, True, first.promoted)
    assert snapshot(site.path) == before


def test_the_old_primarys_host_is_no_primary_of_the_new_epoch(site: Site) -> None:
    """Its journal may be continued with what the new primary sends, if it lacked the end; its volumes may not."""
    old = Path(site.primary.path)
    assert site.primary.recorder_checkpoint() is not None
    site.promote()
    record_on(site.journal)
    shutil.rmtree(old / "files")
    receive(Journal(site.journal), old)
    assert Journal(str(old)).recorder_checkpoint() is None
    with pytest.raises(NotAJournalError, match="this is a copy"):
        OpenJournal(str(old))
    replay_all(str(old), site.path / "third")


@pytest.mark.parametrize("until", [Until(lsn=11), Until(lsn=6)])
def test_a_primary_that_was_replaced_is_told_so(site: Site, until: Until) -> None:
    """Also where the promotion that replaced it dropped its epoch."""
    replay_all(site.journal, site.path / "M2", until=Until(lsn=6))
    site.promote()
    assert mirror_status(site.mirror).damage is None
    record_on(site.journal)
    start = promote(str(site.path / "M2"), until=until).promoted.epoch.start
    said = f"primary of epoch 1 at position 11:.* of epoch 2 by now, from position {start} on"
    with pytest.raises(PromotedError, match=said):
        site.promote()
    damage = mirror_status(site.mirror).damage
    assert isinstance(damage, PromotedError)
    assert re.search(said, str(damage))
    promote(str(site.path / "M2"))


def test_it_cannot_be_promoted_with_another_copy(site: Site) -> None:
    receive(site.primary, site.path / "copy")
    site.promote()
    with pytest.raises(PromotedError, match="with another journal"):
        site.promote(journal_path=str(site.path / "copy"))


def go_on(site: Site) -> None:
    """The old primary records what nobody receives."""
    with JournalReader(site.primary) as end:
        while end.next_header():
            pass
        writer = JournalWriter(site.primary, end)
    writer.append(commit_batch(writer.durable.lsn), captured=True, state_sum=writer.state_sum)
    writer.close()


def test_mirrors_before_the_fork_go_on_and_refuse_the_stale_primary(site: Site) -> None:
    replay_all(site.journal, site.path / "behind", until=Until(lsn=6))
    replay_all(site.journal, site.path / "there", until=Until(lsn=11))
    site.promote()
    now = record_on(site.journal)
    go_on(site)
    for name in ("behind", "there"):
        replay_all(site.journal, site.path / name)
        assert images_of(site.path / name) == now
        assert_verifies(site.path / name)
        at = Mirror(str(site.path / name)).checkpoint.position
        with pytest.raises(ForkedJournalError, match=f"ended at position 11:.* at position {at}"):
            replay_all(site.primary, site.path / name)


def test_a_mirror_refuses_the_stale_primary_from_the_first_look_on(site: Site) -> None:
    """Before it has applied anything that only the new primary has."""
    replay_all(site.journal, site.path / "behind", until=Until(lsn=6))
    site.promote()
    replay_all(site.journal, site.path / "behind", until=Until(lsn=6))
    with pytest.raises(ForkedJournalError):
        replay_all(site.primary, site.path / "behind")


def test_mirrors_past_the_fork_are_refused_with_both_positions(site: Site) -> None:
    go_on(site)
    replay_all(site.primary, site.path / "ahead")
    at = Mirror(str(site.path / "ahead")).checkpoint.position
    assert at.lsn == 14
    start = site.promote().promoted.epoch.start
    with pytest.raises(ForkedJournalError, match=f"began at position {start}, but the mirror is at position {at}"):
        replay_all(site.journal, site.path / "ahead")


def test_two_mirrors_promoted_apart_refuse_each_other(site: Site) -> None:
    receive(site.primary, site.path / "J2")
    for name in ("M2", "of-one", "of-other"):
        replay_all(str(site.path / "J2"), site.path / name, until=Until(lsn=3))
    site.promote()
    promote(str(site.path / "M2"), until=Until(lsn=6))
    record_on(site.journal, "1")
    record_on(str(site.path / "J2"), "2")
    replay_all(site.journal, site.path / "of-one")
    replay_all(str(site.path / "J2"), site.path / "of-other")
    for journal, mirror in ((site.journal, "of-other"), (str(site.path / "J2"), "of-one")):
        with pytest.raises(ForkedJournalError, match="promoted apart"):
            replay_all(journal, site.path / mirror)


def test_a_file_of_the_other_history_is_refused(site: Site) -> None:
    """Such as one that a receiver of the old primary's stored: its name may be the very next."""
    receive(site.primary, site.path / "J2")
    replay_all(str(site.path / "J2"), site.path / "M2")
    promote(str(site.path / "M2"))
    record_on(str(site.path / "J2"), "2")
    site.promote()
    name = layout.file_name(12)
    shutil.copy(site.path / "J2" / "files" / name, f"{site.journal}/files/{name}")
    with pytest.raises(ForkedJournalError, match=r"position 11:.*in epoch 1, but epoch 1 of the journal began"):
        replay_all(site.journal, site.path / "third")


def test_frames_that_only_the_stale_primary_has_are_refused(site: Site) -> None:
    site.promote()
    name = layout.file_name(1)
    shutil.copy(f"{site.primary.path}/files/{name}", f"{site.journal}/files/{name}")
    with pytest.raises(ForkedJournalError, match="past the end of its epoch at 11:"), Recorder(site.journal):
        pass  # its checkpoint is at the fork, and after that there may be nothing of the old epoch
    journal = Journal(site.journal)
    with pytest.raises(ForkedJournalError, match="continues to position 12:"):
        volumes_at(journal)


# Readers of the journal meanwhile.


def test_a_reader_at_the_commit_goes_on_into_the_new_epoch(place: Path) -> None:
    site = make_site(place, FRAMES, until=Until(lsn=6))
    with JournalReader(Journal(site.journal)) as reader:
        while reader.next_header():
            pass
        site.promote()
        assert reader.next_header() is None
        record_on(site.journal)
        told: list[int] = []
        reader.on_epoch = lambda: told.append(reader.position.lsn)
        assert reader.next_header() is not None
        assert (told, reader.journal.epoch, reader.is_in_current_epoch) == ([11], 1, True)


def test_a_replay_at_work_notes_the_epoch_before_it_has_a_frame_of_it(place: Path) -> None:
    site = make_site(place, FRAMES, until=Until(lsn=6))
    other = site.path / "other"
    with Replay(site.journal, str(other)) as replay:
        replay.run()
        promotion = site.promote()
        record_on(site.journal)
        assert Mirror(str(other)).history == site.primary.history
        assert replay._reader.next_header() is not None
        assert Mirror(str(other)).history.current == promotion.promoted.epoch
    with pytest.raises(ForkedJournalError):
        replay_all(site.primary, other)


def test_a_reader_after_the_commit_learns_that_it_forked(site: Site) -> None:
    with JournalReader(Journal(site.journal)) as reader:
        while reader.next_header():
            pass
        assert reader.position.lsn == 13
        site.promote()
        with pytest.raises(ForkedJournalError, match=r"began at position 11:.*its reader is at position 13:"):
            reader.next_header()


def test_a_reader_of_an_epoch_that_a_promotion_drops_learns_of_it(place: Path) -> None:
    """The file that it has read to the end is gone, and the new history does not continue the one that it knows."""
    site = make_site(place, FRAMES, until=Until(lsn=6))
    replay_all(site.journal, site.path / "newer")
    promote(str(site.path / "newer"))
    record_on(site.journal)
    journal = Journal(site.journal)
    with JournalReader(journal) as reader, JournalReader(journal) as other:
        while reader.next_header() and other.next_header():
            pass
        assert other.position.lsn > 11
        site.promote(until=Until(lsn=6))
        assert [epoch.number for epoch in Journal(site.journal).history.epochs] == [0, 2]
        for each in (reader, other):
            with pytest.raises(ForkedJournalError, match=r"epoch 2 .* began at position 6:.* at 11:"):
                each.next_header()


def test_a_reader_before_the_fork_goes_on_though_the_old_primary_had_stopped_cleanly(place: Path) -> None:
    """What was noted as durable, and is gone, was dropped; it is not missing."""
    maker = JournalMaker(place / "primary", SIZES, file_bytes=1)
    for frame in FRAMES + AFTER:
        maker.frame(*frame)
    site = Site(place, maker.close())
    site.receive()
    assert Journal(site.journal).clean_end is not None
    replay_all(site.journal, site.mirror, until=Until(lsn=6))
    with JournalReader(Journal(site.journal)) as reader, JournalReader(Journal(site.journal)) as at_work:
        while reader.position.lsn < 9:
            assert reader.next_frame() and at_work.next_frame()
        with Promotion(site.mirror, until=Until(lsn=9)) as promotion:
            promotion.drain()
            with pytest.MonkeyPatch.context() as patch:  # the files are cut, and it is not complete yet
                patch.setattr(Journal, "save_history", lambda *_: _look_at_work(at_work))
                with pytest.raises(NoSpaceError):
                    promotion.carry_out()
        site.promote()
        assert reader.next_header() is None
        record_on(site.journal)
        for each in (reader, at_work):
            assert each.next_header() is not None and each.is_in_current_epoch


@pytest.mark.parametrize("who", ["mirror", "ship"])
def test_the_slot_of_who_is_past_the_fork_is_lost_wherever_it_was_saved(
    place: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 1e9)  # so it stays where it was saved
    site = make_site(place, FRAMES, until=Until(lsn=6))
    with ExitStack() as opened:
        if who == "mirror":
            work = opened.enter_context(Replay(site.journal, str(place / "other"), follow=True, slot=OWN_SLOT))
        else:
            destination = parse_destination(str(place / "copy"))
            options = ShipOptions(follow=True)
            work = Shipment(site.journal, destination, options, connector(destination, options))
        with running(work.run, work.cancel if who == "mirror" else work.stop) as errors:
            wait_until(lambda: _reached(place, who) == 11)
            journal, at_6 = Journal(site.journal), Mirror(site.mirror).checkpoint.position
            with slots.locked(journal):  # the promotion does not see what the owner has
                (slot,) = slots.slots(journal)
                slots.save(journal, replace(slot, position=at_6))
            with Promotion(site.mirror, until=Until(lsn=6)) as promotion:
                promotion.carry_out()
            wait_until(lambda: bool(errors))
    assert [error.exit_code for error in errors] == [ForkedJournalError.exit_code]  # or the copy says so first
    (slot,) = slots.slots(Journal(site.journal))
    assert (slot.kind, slot.is_lost, slot.holds_back) == (who, True, False)
    if who == "ship":  # one that was killed finds out when it begins again
        slots.save(Journal(site.journal), replace(slot, is_lost=False))
        with pytest.raises(RefusedError):
            Shipment(site.journal, destination, options, connector(destination, options)).run()
        assert slots.slots(Journal(site.journal))[0].is_lost


def no_space(*_: object) -> None:
    raise NoSpaceError("full")


def test_a_promotion_that_ends_while_a_reader_looks_is_not_called_interrupted(site: Site) -> None:
    """Its note is there at the first look, and the lock free at the second: it was completed between them."""
    with JournalReader(Journal(site.journal)) as reader:
        reader.read_to(Mirror(site.mirror).checkpoint.position.lsn)
        with pytest.MonkeyPatch.context() as patch, Promotion(site.mirror, until=Until(lsn=6)) as promotion:
            patch.setattr(Journal, "save_history", no_space)
            with pytest.raises(NoSpaceError):
                promotion.carry_out()

        def complete(_: Journal) -> bool:
            patched.undo()
            site.promote()
            return False

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Journal, "is_in_use", complete)
            assert reader._is_promoted()
        assert reader.journal.history == Journal(site.journal).history


def test_the_slot_of_a_mirror_that_is_refused_as_past_the_fork_is_lost(site: Site) -> None:
    """It was saved before the mirror got there, and the mirror was killed."""
    path = str(site.path / "ahead")
    with Replay(site.journal, path, slot=OWN_SLOT, until=Until(lsn=6)) as replay:
        replay.run()
    (old,) = slots.slots(Journal(site.journal))
    shutil.copytree(site.journal, site.path / "later")
    go_on(site)
    replay_all(site.primary, path)
    site.promote()
    with slots.locked(Journal(site.journal)):
        slots.save(Journal(site.journal), old)
    with pytest.raises(ForkedJournalError):
        Replay(site.journal, path, slot=OWN_SLOT)
    assert [slot.is_lost for slot in slots.slots(Journal(site.journal))] == [True]


def _reached(place: Path, who: str) -> int:
    with suppress(MirrortoolError):
        return (
            Mirror(str(place / "other")).checkpoint.position.lsn
            if who == "mirror"
            else (find_end(Journal(str(place / "copy"))).lsn)
        )
    return 0


def _look_at_work(reader: JournalReader) -> None:
    assert reader.next_header() is None
    raise NoSpaceError("full")


def test_bases_of_what_a_promotion_drops_are_dropped_with_it(site: Site) -> None:
    for lsn in (6, 11):
        with MakeBase(site.journal, Until(lsn=lsn)) as making:
            making.run()
    site.promote(until=Until(lsn=6))
    assert base_lsns(Journal(site.journal)) == [6]
    assert any(path.name.startswith(f"{11:016x}.base-") for path in Path(site.journal, "forked").iterdir())
    record_on(site.journal)
    with MakeBase(site.journal) as making:
        making.run()
    assert Audit(site.journal).run().bases == 2
