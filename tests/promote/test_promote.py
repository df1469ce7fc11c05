"""A mirror becomes the primary: at the right commit, with all that a primary has; or nothing changes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files, hostinfo
from mirrortool.change import Change
from mirrortool.errors import (
    ChangedOutsideError,
    CorruptJournalError,
    FuzzyCommitError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    NotAMirrorError,
    NotComparableError,
    PastPointError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import load_mark, save_mark
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.unfinished import load_note
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from mirrortool.promote import Promotion
from mirrortool.record.recorder import Recorder
from mirrortool.replay.session import Replay
from tests.fakes.journals import PAGE, Commit, Write, images_of, replay_all
from tests.fakes.promotions import (
    AFTER,
    FRAMES,
    SIZES,
    Site,
    check_is_primary,
    check_slots,
    contents_of,
    headers,
    make_site,
    page,
    promote,
    record_on,
    register,
    snapshot,
)
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import loop_device

# The way it should go.


def test_the_last_commit_that_arrived_is_the_new_primarys_first_state(site: Site) -> None:
    promotion = site.promote()
    plan = promotion.plan
    assert (plan.commit.lsn, plan.commit.name, plan.operations_to_replay) == (11, "last", 5)
    assert (plan.dropped.frames, plan.dropped.operations) == (2, 2)
    journal = Journal(site.journal)
    assert (journal.epoch, journal.history.current.start) == (1, plan.commit.position)
    assert journal.history.continues(site.primary.history)
    assert contents_of(site.journal) == volumes_at(site.primary, 11)
    assert set(journal.volume_paths().values()) == {f"{site.mirror}/volumes/{name}.img" for name in SIZES}
    check_is_primary(site.journal, promotion, site.path / "third")


def test_new_frames_are_in_files_of_the_new_epoch(site: Site) -> None:
    site.promote()
    record_on(site.journal)
    assert headers(site.journal) == [(1, 0), (12, 1)]
    record_on(site.journal)
    assert headers(site.journal) == [(1, 0), (12, 1)], "and only the first such frame begins one"


def test_who_changes_the_new_primarys_volume_before_it_is_recorded_is_found_out(site: Site) -> None:
    """Also one who dates it back."""
    site.promote()
    path = Journal(site.journal).volume_paths()["a"]
    was = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"somebody else")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(ChangedOutsideError):
        record_on(site.journal)


def test_the_machine_may_be_started_anew_before_it_is_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion = site.promote()
    files.remove(f"{site.journal}/seen.json")
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another boot")
    check_is_primary(site.journal, promotion, site.path / "third")


@pytest.mark.parametrize("file_bytes", [64 << 20, 500, 1])
def test_what_is_dropped_is_kept_where_it_was(place: Path, file_bytes: int) -> None:
    site = make_site(place, FRAMES + AFTER, file_bytes=file_bytes, until=Until(lsn=3))
    before = {path.name: path.read_bytes() for path in Path(site.journal, "files").iterdir()}
    promotion = site.promote()
    end, dropped = promotion.plan.end, 0
    for name, data in before.items():
        here, there = Path(site.journal, "files", name), Path(site.journal, "forked", f"{name}-0")
        kept = here.read_bytes() if here.exists() else b""
        assert data.startswith(kept)
        assert there.exists() == (len(kept) < len(data))
        if there.exists():
            moved = there.read_bytes()
            start = max(len(kept), layout.FILE_HEADER.size)
            assert moved[start:] == data[start:]
            assert moved[: layout.FILE_HEADER.size] == data[: layout.FILE_HEADER.size]
            dropped += len(data) - len(kept)
    assert promotion.plan.dropped.size == dropped > 0
    assert end.position.lsn == 11
    check_is_primary(site.journal, promotion, site.path / "third")


def test_the_primarys_own_journal_can_be_promoted_too(place: Path) -> None:
    """On a shared path: nothing of the old primary's host is left in it."""
    site = make_site(place, FRAMES)
    replay_all(site.primary, site.mirror)
    files.replace_small(site.primary.detached_path, b"{}")
    promotion = site.promote()
    assert not files.exists(site.primary.detached_path)
    check_is_primary(site.primary.path, promotion, place / "third")


def test_a_journal_that_was_moved_is_named(site: Site) -> None:
    os.rename(site.journal, site.path / "elsewhere")
    with pytest.raises(MirrortoolError, match="does not exist"):
        site.promote()
    moved = str(site.path / "elsewhere")
    check_is_primary(moved, site.promote(journal_path=moved), site.path / "third")


def test_a_torn_tail_is_dropped(site: Site) -> None:
    with Path(site.journal, "files", layout.file_name(1)).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 5)
    promotion = site.promote()
    assert promotion.plan.dropped.frames == 1
    assert "torn tail" in promotion.plan.dropped.problem
    check_is_primary(site.journal, promotion, site.path / "third")


@pytest.mark.parametrize(("until", "lsn"), [(Until(lsn=10), 9), (Until(mark="first"), 6), (Until(lsn=6), 6)])
def test_an_earlier_commit_can_be_promoted(site: Site, until: Until, lsn: int) -> None:
    promotion = site.promote(until=until)
    assert promotion.promoted.epoch.start.lsn == lsn
    check_is_primary(site.journal, promotion, site.path / "third")


def test_what_was_durable_in_the_copy_and_is_dropped_is_not_missed(site: Site) -> None:
    """The durable mark of the copy goes: it is after where the new primary's history begins."""
    end = find_end(Journal(site.journal))
    assert end.lsn == 13
    save_mark(site.journal, end, {})
    check_is_primary(site.journal, site.promote(), site.path / "third")
    assert load_mark(site.journal) is None
    assert not Path(site.journal, "received.json").exists()


def test_it_can_be_done_again_and_again(site: Site) -> None:
    """Each time a mirror of the newest primary, at a commit before its end."""
    for number in range(1, 4):
        promotion = site.promote()
        assert promotion.promoted.epoch.number == number
        replay_all(site.journal, site.path / f"M{number}")
        record_on(site.journal, str(number))
        replay_all(site.journal, site.path / f"M{number}")
        site = Site(site.path, site.primary)
        shutil.rmtree(site.mirror)
        (site.path / f"M{number}").rename(site.mirror)
    assert [epoch.number for epoch in Journal(site.journal).history.epochs] == [0, 1, 2, 3]
    check_is_primary(site.journal, site.promote(), site.path / "third")


def test_a_device_can_be_promoted(place: Path) -> None:
    site = make_site(place, FRAMES + AFTER)
    with loop_device(place, 1 << 20) as device:
        replay_all(site.journal, site.mirror, targets={"a": device})
        site.promote()
        with Recorder(site.journal, background=False) as recorder:
            recorder.change("a", [Change(PAGE, PAGE, page("N"))])
            recorder.commit()
        replay_all(site.journal, place / "third")
        assert Path(device).read_bytes()[: 12 * PAGE + 5] == images_of(place / "third")["a"]


def test_slots_of_what_was_dropped_are_lost(site: Site) -> None:
    register(site.journal, site.mirror)
    site.promote()
    check_slots(site.journal)


# What is refused; nothing has changed then.


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def _damage_before_the_commit(site: Site) -> None:
    _flip(Path(site.journal, "files", layout.file_name(7)), layout.FILE_HEADER.size + 100)


def _damage_after_a_commit(site: Site) -> None:
    """It hides commit 11; two files follow, so it is no torn tail."""
    _flip(Path(site.journal, "files", layout.file_name(10)), layout.FILE_HEADER.size + 20)


def _damaged_commit(site: Site) -> None:
    _flip(Path(site.journal, "files", layout.file_name(10)), layout.FILE_HEADER.size + layout.FRAME_HEADER.size + 9)


def _bad_page(site: Site) -> None:
    _flip(Path(site.mirror, "volumes", "b.img"), PAGE + 7)


def _other_size(site: Site) -> None:
    with Path(site.mirror, "volumes", "b.img").open("r+b") as file:
        file.truncate(5 * PAGE)


REFUSED: list[tuple[Callable[[Site], None], type[MirrortoolError]]] = [
    (_damage_before_the_commit, CorruptJournalError),
    (_damage_after_a_commit, CorruptJournalError),
    (_damaged_commit, CorruptJournalError),
    (_bad_page, ChangedOutsideError),
    (_other_size, ChangedOutsideError),
]


@pytest.mark.parametrize(("spoil", "error"), REFUSED)
def test_what_is_wrong_is_found_before_anything_changes(
    place: Path, spoil: Callable[[Site], None], error: type[MirrortoolError]
) -> None:
    site = make_site(place, FRAMES + AFTER, file_bytes=1, until=Until(lsn=6))
    spoil(site)
    before = snapshot(Path(site.journal))
    with pytest.raises(error):
        site.promote()
    assert snapshot(Path(site.journal)) == before
    assert Mirror(site.mirror).promoted is None


@pytest.mark.parametrize("until", [Until(lsn=6), Until(lsn=9)])
def test_damage_after_an_earlier_commit_that_is_named_does_not_matter(place: Path, until: Until) -> None:
    site = make_site(place, FRAMES + AFTER, file_bytes=1, until=Until(lsn=6))
    _damage_after_a_commit(site)
    promotion = site.promote(until=until)
    assert "another file" in promotion.plan.dropped.problem or "frame" in promotion.plan.dropped.problem
    check_is_primary(site.journal, promotion, site.path / "third")


def test_a_bad_page_that_replay_did_not_look_at_is_found(site: Site) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        _bad_page(site)
        with pytest.raises(ChangedOutsideError, match="1 page is not what the primary had"):
            promotion.verify()
    assert load_note(site.journal) is None


def test_a_mirror_that_is_another_state_than_it_says_is_found(site: Site) -> None:
    """Each page has its sum, but all of them together are not what the primary had."""
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        mirror = Mirror(site.mirror)
        mirror.save_checkpoint(replace(mirror.checkpoint, state_sum=mirror.checkpoint.state_sum ^ 1))
        with pytest.raises(ChangedOutsideError, match=r"checkpoint\.json: .* state sum"):
            promotion.verify()
    assert load_note(site.journal) is None


def test_sums_that_rotted_are_found_without_verify_too(site: Site) -> None:
    replay_all(site.journal, site.mirror)
    _flip(Path(site.mirror, "sums", "b.sums"), 9)
    before = snapshot(site.path)
    with Promotion(site.mirror) as promotion, pytest.raises(ChangedOutsideError, match=r"sums: .* state sum"):
        promotion.carry_out()
    assert snapshot(site.path) == before


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [(CommitKind.INCOMPLETE, NotComparableError, 3), (CommitKind.FUZZY, FuzzyCommitError, 25)],
)
def test_a_commit_that_is_no_state_of_the_primary_is_refused(
    place: Path, kind: CommitKind, error: type[MirrortoolError], code: int
) -> None:
    site = make_site(place, [*FRAMES, [Write("a", 9, page("F")), Commit(kind=kind)]], until=Until(lsn=3))
    with pytest.raises(error) as refused:
        site.promote()
    assert refused.value.exit_code == code
    if kind == CommitKind.FUZZY:
        assert site.promote(allow_fuzzy=True).promoted.epoch.start.lsn == 13
    else:
        assert site.promote(until=Until(lsn=12)).promoted.epoch.start.lsn == 11


def test_a_mirror_does_not_go_back(site: Site) -> None:
    with pytest.raises(PastPointError, match="at LSN 6 already, after the commit at LSN 3"):
        site.promote(until=Until(lsn=5))


def test_a_mirror_between_two_commits_waits_for_the_second(site: Site) -> None:
    replay_all(site.journal, site.mirror)
    mirror = Mirror(site.mirror)
    mirror.save_checkpoint(mirror.checkpoint.reaching(13))
    with pytest.raises(NotComparableError, match="rolling forward"):
        site.promote()


def test_a_journal_without_a_commit_has_nothing_to_promote(place: Path) -> None:
    site = make_site(place, [[Write("a", 0, page("A"))]])
    site.path.joinpath("other").mkdir()
    other = make_site(place / "other", FRAMES, until=Until(lsn=3))
    with pytest.raises(NotAMirrorError):
        site.promote()
    with pytest.raises(MirrortoolError, match="another journal"):
        promote(other.mirror, journal_path=site.journal)


def test_whoever_is_at_work_is_to_be_stopped(site: Site) -> None:
    with Journal(site.journal).lock(), pytest.raises(LockedError, match="stop its recorder or receiver"):
        site.promote()
    with Replay(site.journal, site.mirror), pytest.raises(LockedError, match="the mirror is in use"):
        site.promote()
    with Promotion(site.mirror), pytest.raises(LockedError):
        Promotion(site.mirror)


def test_a_replay_in_between_is_noticed(site: Site) -> None:
    with Promotion(site.mirror, until=Until(lsn=9)) as promotion:
        promotion.drain()
        replay_all(site.journal, site.mirror)
        with pytest.raises(NotComparableError, match="promote again"):
            promotion.carry_out()
    assert load_note(site.journal) is None
    site.promote()


def test_what_is_dropped_needs_room_in_the_journal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, dropped = [], []
    for until in (Until(lsn=9), None):
        with Promotion(site.mirror, until=until) as promotion:
            promotion.drain()
            with monkeypatch.context() as patch:
                patch.setattr(files, "free_bytes", lambda _: 0)
                with pytest.raises(NoSpaceError) as refused:
                    promotion.carry_out()
            assert promotion.plan
            dropped.append(promotion.plan.dropped.size)
            (bytes_needed,) = re.findall(r"needs .*\((\d+) bytes\)", str(refused.value))
            needed.append(int(bytes_needed))
    assert dropped[0] > dropped[1] > 0
    assert needed[0] - needed[1] == dropped[0] - dropped[1]


def test_a_full_journal_disk_is_found_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        before = snapshot(site.path)
        monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
        with pytest.raises(NoSpaceError, match="sums"):
            promotion.carry_out()
        assert snapshot(site.path) == before
