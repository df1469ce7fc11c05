"""A mirror becomes the primary: at the right commit, whole whatever stops it, and nobody else is one after that."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import (
    ChangedOutsideError,
    CorruptJournalError,
    ForkedJournalError,
    FuzzyCommitError,
    HostError,
    JournalError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    NotAJournalError,
    NotAMirrorError,
    NotComparableError,
    PastTargetError,
    PromotedError,
    UnfinishedPromotionError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.codec import decode_file_header
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.promoting import load_note
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.directory import Mirror
from mirrortool.nbd.export import Change
from mirrortool.operation import CommitKind
from mirrortool.promote import Promotion
from mirrortool.record.recorder import Recorder
from mirrortool.record.recovery import OpenJournal
from mirrortool.replay.session import Replay
from mirrortool.status import mirror_status
from mirrortool.verify import Verify
from tests.fakes.faulty_os import Call, PowerCut, faulty
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Op,
    Resize,
    Write,
    Zero,
    assert_verifies,
    images_of,
    memory_directory,
    replay_all,
    shrink_pieces,
)
from tests.fakes.recorders import small_scale
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import loop_device
from tests.journal.sample import commit_batch

SIZES = {"a": 20 * PAGE, "b": 6 * PAGE + 99}


def page(letter: str, count: int = 1) -> bytes:
    return letter.encode() * (PAGE * count)


FRAMES: list[list[Op]] = [
    [Write("a", 0, page("A", 4)), Write("b", 1, page("B")), Commit()],  # LSN 3
    [Write("a", 2, page("C", 3)), Zero("a", 0, 1), Commit("first")],  # 6
    [Resize("a", 12 * PAGE + 5), Write("b", 6, page("D")), Commit()],  # 9
    [Write("a", 7, page("E")), Commit("last")],  # 11
]
BEHIND: list[list[Op]] = [[Write("a", 8, page("X", 2))], [Write("b", 0, page("Y"))]]  # 12, 13: no commit


@dataclass
class Site:
    """A primary's journal, the copy of it that another host received, and a mirror there.

    Attributes:
        primary: as the old primary has it, and may go on with.
    """

    path: Path
    primary: Journal

    @property
    def journal(self) -> str:
        return str(self.path / "J")

    @property
    def mirror(self) -> str:
        return str(self.path / "M")

    def receive(self) -> None:
        """Have all that the primary has."""
        receive(self.primary, self.path / "J")

    def promote(self, **options: object) -> Promotion:
        return promote(self.mirror, **options)


def receive(primary: Journal, target: Path) -> None:
    """What a receiver has: the journal, and nothing of the primary's host."""
    target.mkdir(exist_ok=True)
    shutil.copy(f"{primary.path}/journal.json", target)
    shutil.copytree(f"{primary.path}/files", target / "files", dirs_exist_ok=True)


def promote(mirror: str, **options: object) -> Promotion:
    """All of it."""
    with Promotion(mirror, **options) as promotion:
        if promotion.plan:
            promotion.drain()
            promotion.verify()
        promotion.carry_out()
    return promotion


def make_site(path: Path, frames: list[list[Op]], *, file_bytes: int = 64 << 20, until: Until | None = None) -> Site:
    maker = JournalMaker(path / "primary", SIZES, file_bytes=file_bytes)
    for frame in frames:
        maker.frame(*frame)
    site = Site(path, maker.abandon())
    site.receive()
    if until:
        replay_all(site.journal, site.mirror, until=until)
    return site


@pytest.fixture(autouse=True)
def scale(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_pieces(monkeypatch)
    small_scale(monkeypatch)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def site(place: Path) -> Site:
    return make_site(place, FRAMES + BEHIND, until=Until(lsn=6))


def contents_of(journal: str) -> dict[str, bytes]:
    """The volumes that a journal names on this host."""
    return {name: Path(path).read_bytes() for name, path in Journal(journal).volume_paths().items()}


def record_on(journal: str, letter: str = "N") -> dict[str, bytes]:
    """Record live: the volumes' bytes after a clean stop."""
    with Recorder(journal, background=False) as recorder:
        assert not recorder.statistics().incomplete
        recorder.change("a", [Change(PAGE, PAGE, page(letter))])
        recorder.commit()
    return contents_of(journal)


def check_is_primary(journal: str, promotion: Promotion, scratch: Path) -> None:
    """It can be recorded to, and a new mirror of it is what its volumes are."""
    assert contents_of(journal) == volumes_at(Journal(journal), promotion.promoted.epoch.start.lsn)
    now = record_on(journal)
    assert volumes_at(Journal(journal)) == now
    replay_all(journal, scratch)
    assert images_of(scratch) == now
    assert_verifies(scratch)
    shutil.rmtree(scratch)


def headers(journal: str) -> list[tuple[int, int]]:
    """First LSN and epoch of each journal file."""
    found = [decode_file_header(path.read_bytes()) for path in sorted(Path(journal, "files").iterdir())]
    return [(header.first_lsn, header.epoch) for header in found]


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


def test_the_machine_may_be_started_anew_before_it_is_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion = site.promote()
    files.remove(f"{site.journal}/seen.json")
    monkeypatch.setattr(files, "boot_id", lambda: "another boot")
    check_is_primary(site.journal, promotion, site.path / "third")


@pytest.mark.parametrize("file_bytes", [64 << 20, 500, 1])
def test_what_is_dropped_is_kept_where_it_was(place: Path, file_bytes: int) -> None:
    site = make_site(place, FRAMES + BEHIND, file_bytes=file_bytes, until=Until(lsn=3))
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
    with pytest.raises(MirrortoolError, match="no journal here"):
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
    site = make_site(place, FRAMES + BEHIND)
    with loop_device(place, 1 << 20) as device:
        replay_all(site.journal, site.mirror, targets={"a": device})
        site.promote()
        with Recorder(site.journal, background=False) as recorder:
            recorder.change("a", [Change(PAGE, PAGE, page("N"))])
            recorder.commit()
        replay_all(site.journal, place / "third")
        assert Path(device).read_bytes()[: 12 * PAGE + 5] == images_of(place / "third")["a"]


# What is refused; nothing has changed then.


def snapshot(path: Path) -> dict[str, bytes]:
    """All files but locks and receipts."""
    found = (each for each in path.rglob("*") if each.is_file() and each.name != "lock" and "receipts" not in str(each))
    return {str(each): each.read_bytes() for each in found}


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def _damage_before_the_commit(site: Site) -> None:
    _flip(Path(site.journal, "files", layout.file_name(7)), layout.FILE_HEADER.size + 100)


def _damage_behind_a_commit(site: Site) -> None:
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
    (_damage_behind_a_commit, CorruptJournalError),
    (_damaged_commit, CorruptJournalError),
    (_bad_page, ChangedOutsideError),
    (_other_size, ChangedOutsideError),
]


@pytest.mark.parametrize(("spoil", "error"), REFUSED)
def test_what_is_wrong_is_found_before_anything_changes(
    place: Path, spoil: Callable[[Site], None], error: type[MirrortoolError]
) -> None:
    site = make_site(place, FRAMES + BEHIND, file_bytes=1, until=Until(lsn=6))
    spoil(site)
    before = snapshot(Path(site.journal))
    with pytest.raises(error):
        site.promote()
    assert snapshot(Path(site.journal)) == before
    assert Mirror(site.mirror).promoted is None


@pytest.mark.parametrize("until", [Until(lsn=6), Until(lsn=9)])
def test_damage_behind_an_earlier_commit_that_is_named_does_not_matter(place: Path, until: Until) -> None:
    site = make_site(place, FRAMES + BEHIND, file_bytes=1, until=Until(lsn=6))
    _damage_behind_a_commit(site)
    promotion = site.promote(until=until)
    assert "another file" in promotion.plan.dropped.problem or "frame" in promotion.plan.dropped.problem
    check_is_primary(site.journal, promotion, site.path / "third")


def test_a_bad_page_that_replay_did_not_look_at_is_found(site: Site) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        _bad_page(site)
        with pytest.raises(ChangedOutsideError, match="1 pages are not what the primary had"):
            promotion.verify()
    assert load_note(site.journal) is None


def test_sums_that_rotted_are_found_without_verify_too(site: Site) -> None:
    replay_all(site.journal, site.mirror)
    _flip(Path(site.mirror, "sums", "b.sums"), 9)
    before = snapshot(site.path)
    with Promotion(site.mirror) as promotion, pytest.raises(CorruptJournalError, match="state sum"):
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
    with pytest.raises(PastTargetError, match="at LSN 6 already, past commit 3"):
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


def test_a_full_journal_disk_is_found_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        before = snapshot(site.path)
        monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
        with pytest.raises(NoSpaceError, match="sums"):
            promotion.carry_out()
        assert snapshot(site.path) == before


# After it.


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
        pass  # its checkpoint is at the fork, and behind that there may be nothing of the old epoch
    journal = Journal(site.journal)
    with pytest.raises(ForkedJournalError, match="goes on to position 12:"):
        volumes_at(journal)


# Who reads the journal meanwhile.


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


def test_a_reader_behind_the_commit_learns_that_it_forked(site: Site) -> None:
    with JournalReader(Journal(site.journal)) as reader:
        while reader.next_header():
            pass
        assert reader.position.lsn == 13
        site.promote()
        with pytest.raises(ForkedJournalError, match=r"was read up to position 13:.*began at position 11:"):
            reader.next_header()


# Whatever stops it, the next one completes it, and until then nobody can take the half for a whole.


def copy_site(site: Site, path: Path) -> Site:
    """The same; mirror.json names the journal by its path."""
    copied = Site(path, site.primary)
    for name in ("J", "M"):
        shutil.rmtree(path / name, ignore_errors=True)
        shutil.copytree(site.path / name, path / name)
    Mirror(copied.mirror).follow_to(Journal(copied.journal))
    return copied


def carry_out_under(site: Site, fault: Callable[[Call], object], chance: random.Random | None) -> bool:
    """Drain and verify in peace, then carry out with this fault; whether it got through."""
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(fault) as system:
            try:
                promotion.carry_out()
            except (PowerCut, HostError):
                if chance:
                    system.disk.cut_power(chance, lose_size=True)
                return False
    return True


def check_half(site: Site, before: dict[str, bytes]) -> None:
    """Old state, or one that only promote can use."""
    is_begun = load_note(site.journal) is not None
    is_marked = Mirror(site.mirror).promoted is not None
    if not is_begun and not is_marked:
        now = snapshot(Path(site.journal)).items()
        assert {name: data for name, data in now if not name.endswith(".new")} == before
        replay_all(site.journal, site.mirror)
        return
    if is_begun:
        for use in (lambda: OpenJournal(site.journal), lambda: replay_all(site.journal, site.path / "third")):
            with pytest.raises(UnfinishedPromotionError, match=f"promote {site.mirror} completes it"):
                use()
    if is_marked:
        with pytest.raises((PromotedError, UnfinishedPromotionError)):
            replay_all(site.journal, site.mirror)
        with pytest.raises((PromotedError, MirrortoolError)):
            replay_all(site.primary, site.mirror)


def kill(number: int) -> Callable[[Call], object]:
    def fault(call: Call) -> None:
        if call.number >= number:
            raise PowerCut

    return fault


def fail(number: int) -> Callable[[Call], object]:
    def fault(call: Call) -> None:
        if call.number == number:
            raise OSError(errno.EIO, "failed by the test")

    return fault


@pytest.mark.parametrize(("kind", "loses"), [(kill, False), (kill, True), (fail, False)], ids=["kill", "power", "EIO"])
def test_it_is_completed_whatever_call_it_stopped_at(
    place: Path, kind: Callable[[int], Callable[[Call], object]], loses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_site(place, FRAMES + BEHIND, file_bytes=600, until=Until(lsn=11))
    (place / "run").mkdir()
    halves = 0
    for number in itertools.count(1):
        site = copy_site(made, place / "run")
        before = snapshot(Path(site.journal))
        is_done = carry_out_under(site, kind(number), random.Random(number) if loses else None)
        if is_done:
            break
        if loses:
            monkeypatch.setattr(files, "boot_id", lambda number=number: f"boot {number}")
        check_half(site, before)
        halves += load_note(site.journal) is not None
        promotion = site.promote()
        assert promotion.is_complete
        dropped = Path(site.journal, "forked").iterdir()
        assert sum(path.stat().st_size for path in dropped) > 0
        check_is_primary(site.journal, promotion, place / "third")
    assert number > 40 and halves > 20, (number, halves)


def test_what_stops_it_says_that_it_must_be_run_again(site: Site) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(lambda call: _stop_at("recorder.json", call)), pytest.raises(HostError, match="run promote again"):
            promotion.carry_out()
        promotion.carry_out()
    check_is_primary(site.journal, promotion, site.path / "third")


def test_one_that_had_changed_nothing_yet_is_forgotten(site: Site) -> None:
    """The note is there, the mirror is not marked; and it went on with another copy of the journal since."""
    with Promotion(site.mirror, until=Until(lsn=9)) as promotion:
        promotion.drain()
        with faulty(lambda call: _stop_at("mirror.json", call)), pytest.raises(HostError):
            promotion.carry_out()
    assert load_note(site.journal) is not None
    replay_all(site.primary, site.mirror)
    check_is_primary(site.journal, site.promote(journal_path=site.journal), site.path / "third")


def _stop_at(name: str, call: Call) -> None:
    if name in call.path:
        raise OSError(errno.EIO, "failed by the test")


def test_another_mirror_does_not_take_over_an_interrupted_promotion(site: Site) -> None:
    replay_all(site.journal, site.path / "M2")
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(kill(30)), pytest.raises(PowerCut):
            promotion.carry_out()
    with pytest.raises(UnfinishedPromotionError, match=site.mirror):
        promote(str(site.path / "M2"))
    site.promote()


def test_a_note_that_makes_no_sense_is_an_error_of_the_journal(site: Site) -> None:
    Path(site.journal, "promoting.json").write_text("{}")
    with pytest.raises(JournalError, match=r"promoting\.json"):
        site.promote()
