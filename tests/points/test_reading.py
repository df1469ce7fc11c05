"""Reading a view beside everything that may happen to its journal, and what is refused."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import (
    CorruptJournalError,
    ForkedJournalError,
    FuzzyCommitError,
    MissingFileError,
    NotComparableError,
    UsageError,
)
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.lsn import Lsn
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from mirrortool.points import frames, origin
from mirrortool.points.view import PointView, open_point
from tests.fakes.histories import History
from tests.fakes.journals import PAGE, Commit, JournalMaker, Op, Write, Zero, images_of, make_journal, replay_all
from tests.fakes.pointviews import check, contents, make_large_history
from tests.fakes.promotions import AFTER, FRAMES, SIZES, Site, receive
from tests.fakes.serial import volumes_at


@pytest.fixture
def history(tmp_path: Path) -> History:
    return make_large_history(tmp_path / "journal", 5)


def lose_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the journal cannot be written."""
    monkeypatch.setattr(origin.slots, "locked", refuse)


def refuse(journal: Journal) -> None:
    files.open_file(f"{journal.path}/nothing/there")  # AccessError


def test_a_view_is_what_a_replay_makes_of_it(history: History, tmp_path: Path) -> None:
    for lsn in random.Random(2).sample(history.commits, 6):
        mirror = tmp_path / f"M{lsn}"
        checkpoint = replay_all(history.journal, mirror, until=Until(lsn=lsn), window_bytes=9000)
        with open_point(history.journal, Until(lsn=lsn)) as view:
            assert view.commit.position == checkpoint.position
            assert contents(view) == images_of(mirror)
            with closing(Mirror(str(mirror)).open_sums(write=False)) as sums:
                for volume in view.volumes:
                    first, count = view.volumes.first_page(volume), view.volumes.page_count(volume)
                    assert view.sums_of(first, count) == sums.read(first, count)
                    assert view.sum_of(first) == int.from_bytes(sums.read(first, 1), "big")


@pytest.mark.parametrize("payload", ["random", "compressible"])
def test_frames_of_large_payloads_are_read(tmp_path: Path, payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(frames, "DECODED_BYTES", 3 << 20)
    draw = random.Random(1)
    size = 2 << 20
    whole = draw.randbytes(size) if payload == "random" else bytes(range(1, 251)) * (size // 250) + b"x" * (size % 250)
    operations: list[Op] = [Write("a", 0, whole), Write("a", 1, whole[: -2 * PAGE]), Commit()]
    journal = make_journal(tmp_path / "journal", {"a": size}, [operations, [Write("a", 7, b"y" * PAGE), Commit()]])
    with open_point(journal, None) as view:
        check(view, volumes_at(journal))


def test_many_threads_read_at_once(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FILES_MAX", 2)
    lsn = history.commits[-1]
    expected = history.states[lsn]["a"]
    wrong: list[int] = []

    def read(view: PointView, seed: int) -> None:
        draw = random.Random(seed)
        first = view.volumes.first_page(view.volumes["a"])
        for _ in range(60):
            page = draw.randrange(len(expected) // PAGE - 1)
            count = draw.randint(1, min(40, len(expected) // PAGE - page))
            buffers = [memoryview(bytearray(PAGE)) for _ in range(count)]
            view.read_into(first + page, buffers)
            if b"".join(buffers) != expected[page * PAGE : (page + count) * PAGE]:
                wrong.append(page)

    with open_point(history.journal, Until(lsn=lsn)) as view:
        threads = [threading.Thread(target=read, args=(view, seed)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_several_who_open_a_journal_at_once_make_one_index(history: History) -> None:
    found: list[dict[str, bytes]] = []

    def look(lsn: int) -> None:
        with open_point(Journal(history.journal.path), Until(lsn=lsn)) as view:
            found.append(contents(view) if contents(view) != history.states[lsn] else {})

    threads = [threading.Thread(target=look, args=(lsn,)) for lsn in random.Random(1).sample(history.commits, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{}] * 6
    assert all(path.suffix == ".index" for path in Path(history.journal.indexes_path).iterdir())


def test_what_is_read_is_durable_before(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[..., object]:
        real = getattr(File, name)

        def call(file: File, *args: object) -> object:
            if file.path.endswith(".mj"):
                calls.append((name, file.path))
            return real(file, *args)

        return call

    for name in ("fdatasync", "pread", "pread_into"):
        monkeypatch.setattr(File, name, noting(name))
    with open_point(history.journal, None) as view:
        calls.clear()
        contents(view)
    synced: set[str] = set()
    assert calls
    for name, path in calls:
        assert name == "fdatasync" or path in synced
        synced.add(path)


def damaged(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_page_that_rotted_is_named_by_its_frame(history: History) -> None:
    journal, lsn = history.journal, history.commits[-1]
    with open_point(journal, Until(lsn=lsn)) as view:
        contents(view)  # indexed by now
    path = Path(journal.file_path(journal.file_starts()[-1]))
    with open_point(journal, Until(lsn=lsn)) as view:
        damaged(path, path.stat().st_size - 300)
        with pytest.raises(CorruptJournalError, match="damaged at offset") as caught:
            contents(view)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 11


def test_damage_after_a_commit_does_not_matter(history: History) -> None:
    journal = history.journal
    damaged(Path(journal.file_path(journal.file_starts()[-1])), 200)
    starts = journal.file_starts()
    before = [lsn for lsn in history.commits if lsn < starts[-1]]
    with open_point(journal, Until(lsn=before[-1])) as view:
        check(view, history.states[before[-1]])
    for until in (Until(lsn=history.commits[-1]), Until(lsn=history.commits[-1] - 1), Until(is_newest=True), None):
        with pytest.raises(CorruptJournalError):
            open_point(journal, until)
    between = Until(lsn=Lsn(starts[-1] - 1))
    with open_point(journal, between) as view:
        check(view, history.states[before[-1]])


def test_a_file_that_is_missing_is_named(history: History) -> None:
    journal = history.journal
    path = Path(journal.file_path(journal.file_starts()[1]))
    path.unlink()
    with pytest.raises(MissingFileError, match="is missing"):
        open_point(journal, None)
    with open_point(journal, Until(lsn=history.commits[0])) as view:
        check(view, history.states[history.commits[0]])


def test_what_was_pruned_under_a_view_without_a_hold_is_an_error(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = history.journal
    lose_hold(monkeypatch)
    with open_point(journal, None) as view:
        assert view.why_not_held
        for start in journal.file_starts()[:-1]:
            files.remove(journal.file_path(start))
        with pytest.raises(MissingFileError):
            contents(view)


def test_a_longer_file_in_place_of_one_of_a_copy_is_read_as_well(tmp_path: Path) -> None:
    maker = JournalMaker(tmp_path / "journal", {"a": 64 * PAGE})
    maker.frame(Write("a", 0, random.Random(1).randbytes(32 * PAGE)), Commit())
    maker.writer.sync()
    receive(maker.journal, tmp_path / "copy")
    copy = Journal(str(tmp_path / "copy"))
    with open_point(copy, None) as view:
        expected = volumes_at(maker.journal)
        maker.frame(Write("a", 0, b"z" * PAGE), Commit())
        maker.writer.sync()
        path = copy.file_path(copy.file_starts()[0])
        shutil.copy(maker.journal.file_path(maker.journal.file_starts()[0]), f"{path}.new")
        files.rename(f"{path}.new", path)
        check(view, expected)
    with open_point(copy, None) as view:
        check(view, volumes_at(maker.journal))
    maker.abandon()


@pytest.mark.parametrize("is_read", [True, False])
def test_what_a_promotion_drops_is_read_no_more(tmp_path: Path, *, is_read: bool) -> None:
    operations = [*FRAMES, [Write("a", 5, b"Q" * PAGE), Commit()]]
    primary = make_journal(tmp_path / "P", SIZES, operations, clean=False)
    site = Site(tmp_path, primary)
    site.receive()
    replay_all(site.journal, site.mirror, until=Until(lsn=11))
    journal = Journal(site.journal)
    with open_point(journal, Until(mark="last")) as kept, open_point(journal, None) as dropped:
        if is_read:
            contents(dropped)
        site.promote(until=Until(lsn=11))
        check(kept, volumes_at(primary, 11))
        with pytest.raises(ForkedJournalError) if not is_read else nullcontext():  # what was decoded is still known
            assert contents(dropped) == volumes_at(primary)
    with open_point(Journal(site.journal), None) as view:
        check(view, volumes_at(primary, 11))


def test_a_torn_tail_after_a_commit_does_not_matter(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "journal", SIZES, [*FRAMES, *AFTER], clean=False)
    path = Path(journal.file_path(journal.file_starts()[-1]))
    path.write_bytes(path.read_bytes()[:-5])
    with open_point(journal, None) as view:
        assert view.commit.name == "last"
        check(view, volumes_at(journal, view.commit.lsn))


def test_commits_that_are_no_state_of_the_primary_are_refused(tmp_path: Path) -> None:
    kinds = [CommitKind.FLUSH, CommitKind.FUZZY, CommitKind.INCOMPLETE, CommitKind.HEARTBEAT]
    journal = make_journal(
        tmp_path / "journal",
        {"a": 8 * PAGE},
        [[Write("a", number, b"x" * PAGE), Commit(kind=kind)] for number, kind in enumerate(kinds)],
    )
    with pytest.raises(FuzzyCommitError, match="--allow-fuzzy"):
        open_point(journal, Until(lsn=4))
    with pytest.raises(NotComparableError, match="LSN 6 is incomplete"):
        open_point(journal, Until(lsn=6), allow_fuzzy=True)
    for lsn, fuzzy in ((2, False), (4, True), (8, False)):
        with open_point(journal, Until(lsn=lsn), allow_fuzzy=fuzzy) as view:
            check(view, volumes_at(journal, lsn))


def test_a_point_that_is_not_there_is_refused(history: History, tmp_path: Path) -> None:
    for until in (Until(lsn=10**6), Until(mark="nothing"), Until(lsn=0)):
        with pytest.raises(UsageError):
            open_point(history.journal, until)
    empty = make_journal(tmp_path / "empty", {"a": PAGE}, [[Zero("a", 0, 1)]])
    with pytest.raises(NotComparableError):
        open_point(empty, None)
