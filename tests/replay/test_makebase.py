"""A base is made from the journal alone, of a state that the primary had, and leaves nothing else behind."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import CorruptJournalError, LockedError, NoSpaceError, NotComparableError
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns, base_path, bases, lock_bases
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.pointlookup import require_commit
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.mirror.lastreplay import LastReplay, load, save
from mirrortool.operation import CommitKind
from mirrortool.replay.forecast import forecast, pages_held
from mirrortool.replay.makebase import BaseCancelled, MakeBase
from mirrortool.replay.session import Replay
from mirrortool.store.parallelread import PieceReader
from mirrortool.wording import exact_bytes
from tests.fakes.disk import PowerCut, cut_at, faulty
from tests.fakes.histories import History, make_history
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, images_of, memory_directory, replay_all

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def history() -> Iterator[History]:
    with memory_directory() as path:
        yield make_history(path / "journal", 3)


def make(journal: Journal, until: Until | None = None) -> int:
    with MakeBase(journal.path, until) as making:
        making.run()
        return making.commit.lsn


def in_bases(journal: Journal) -> set[str]:
    return {each.name for each in Path(journal.path, "bases").iterdir()}


def test_a_base_is_what_a_replay_up_to_it_gives(history: History) -> None:
    journal, commits = history.journal, history.commits
    for lsn in (commits[5], commits[20], commits[-1]):
        assert make(journal, Until(lsn=lsn)) == lsn
    assert base_lsns(journal) == [commits[5], commits[20], commits[-1]]
    assert in_bases(journal) == {"lock", *(files.base_name(base_path(journal, lsn)) for lsn in base_lsns(journal))}
    assert Audit(journal.path).run().bases == 3
    for base in bases(journal):
        assert {each.name: each.size for each in base.header.volumes} == {
            name: len(data) for name, data in history.states[base.lsn].items()
        }


def test_a_base_is_made_of_an_older_one_where_the_journal_was_pruned(history: History) -> None:
    journal = history.journal
    make(journal, Until(lsn=history.commits[-8]))
    prune(journal.path, Keep(size=0))
    assert journal.file_starts()[0] > 1
    make(journal)
    prune(journal.path, Keep(size=0))
    assert base_lsns(journal) == [history.commits[-1]]
    result = Audit(journal.path).run()
    assert (result.lsn, result.bases) == (history.commits[-1], 1)
    replay_all(journal, Path(journal.path).parent / "mirror")
    assert images_of(Path(journal.path).parent / "mirror") == history.states[history.commits[-1]]


def test_a_base_of_the_newest_commit_of_one_file_is_what_a_new_mirror_begins_with(tmp_path: Path) -> None:
    """The file holds all that was written over and over; behind the base there is nothing."""
    maker = JournalMaker(tmp_path / "J", {"a": 40 * PAGE})
    draw = random.Random(1)
    for _ in range(20):
        maker.frame(Write("a", 0, draw.randbytes(40 * PAGE)), Commit())
    journal = maker.close()
    assert len(journal.file_starts()) == 1
    lsn = make(journal)
    for follow in (False, True):
        with Replay(journal.path, str(tmp_path / f"M{follow}"), follow=follow) as replay:
            assert replay.start.base is not None
            assert replay.start.base.lsn == lsn
            assert replay.start.journal_bytes == 0


def test_the_rate_is_that_of_the_work_and_never_falls_back(history: History) -> None:
    with MakeBase(history.journal.path) as making:
        replayed = []
        run = making._replay.run
        making._replay.run = lambda: (run(), replayed.append(making.statistics()))[0]
        making.run()
        (middle,), end = replayed, making.statistics()
    assert middle.replayed_bytes > 0
    assert (middle.pages, middle.pages_total) == (0, 0)
    assert end.replayed_bytes == middle.replayed_bytes
    assert 0 < end.pages <= end.pages_total


def test_one_that_is_there_is_not_made_again(history: History) -> None:
    lsn = make(history.journal)
    before = Path(base_path(history.journal, lsn)).stat().st_ino
    with MakeBase(history.journal.path) as making:
        assert making.exists
        assert making.run() == Path(base_path(history.journal, lsn)).stat().st_size
    assert Path(base_path(history.journal, lsn)).stat().st_ino == before


@pytest.mark.parametrize("kind", [CommitKind.FUZZY, CommitKind.INCOMPLETE])
def test_a_commit_that_is_no_state_of_the_primary_is_no_base(tmp_path: Path, kind: CommitKind) -> None:
    maker = JournalMaker(tmp_path / "j", {"a": 8 * PAGE})
    fuzzy = maker.frame(Write("a", 0, b"x" * PAGE), Commit(kind=kind))
    with pytest.raises(NotComparableError, match="no commit that is a state"):
        MakeBase(maker.journal.path)
    real = maker.frame(Write("a", 1, b"y" * PAGE), Commit())
    maker.frame(Write("a", 2, b"z" * PAGE), Commit("named", kind=kind))
    assert make(maker.journal) == real.lsn
    with pytest.raises(NotComparableError, match="at or before"):
        make(maker.journal, Until(lsn=fuzzy.lsn))
    with pytest.raises(NotComparableError, match="at or before"):
        make(maker.journal, Until(mark="named"))


def test_a_power_cut_leaves_nothing_that_hurts(history: History) -> None:
    """At any call: the journal is as it was, and the next call makes the base."""
    journal = history.journal
    want = None
    for number in range(1, 200, 17):
        with faulty(cut_at(number)):
            try:
                make(journal)
            except PowerCut:
                pass
        assert prune(journal.path, Keep(size=1 << 40)).plan.files == ()
        lsn = make(journal)
        data = Path(base_path(journal, lsn)).read_bytes()
        want = want or data
        assert data == want
        assert in_bases(journal) == {"lock", files.base_name(base_path(journal, lsn))}
        Path(base_path(journal, lsn)).unlink()


def test_it_stops_when_it_is_told_to(history: History) -> None:
    with MakeBase(history.journal.path) as making:
        making.cancel()
        with pytest.raises(BaseCancelled):
            making.run()
    assert in_bases(history.journal) == {"lock"}
    make(history.journal)


def test_only_one_is_made_at_a_time(history: History) -> None:
    with lock_bases(history.journal), pytest.raises(LockedError, match="bases"):
        make(history.journal)


def test_there_must_be_room(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice what the volumes hold, and no more: what was written again and again counts once."""
    needed = 2 * PAGE * pages_held(history.journal, history.commits[-1]) + (64 << 20)
    free = files.free_bytes
    monkeypatch.setattr(files, "free_bytes", lambda path: needed - 1 if path == history.journal.path else free(path))
    with pytest.raises(NoSpaceError, match=re.escape(f"needs {exact_bytes(needed)} meanwhile")):
        make(history.journal)
    monkeypatch.setattr(files, "free_bytes", lambda path: needed if path == history.journal.path else free(path))
    make(history.journal)


def test_a_page_that_the_work_lost_is_found(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    read = PieceReader.read

    def rot(self: PieceReader, page: int, count: int) -> None:
        read(self, page, count)
        self.buffer[5] ^= 1

    with MakeBase(history.journal.path) as making:
        monkeypatch.setattr(PieceReader, "read", rot)
        with pytest.raises(CorruptJournalError, match="another page than the journal"):
            making.run()
    assert in_bases(history.journal) == {"lock"}


# What a replay would do.


def test_a_forecast_is_an_upper_bound_and_changes_nothing(history: History) -> None:
    journal, mirror = history.journal, Path(history.journal.path).parent / "mirror"
    before = sorted(mirror.parent.rglob("*"))
    target = require_commit(journal, None)
    found = forecast(journal, str(mirror), target)
    assert sorted(mirror.parent.rglob("*")) == before
    assert (found.is_new, found.start.base, found.goal.lsn, found.seconds) == (True, None, history.commits[-1], None)
    assert found.pages >= pages_held(journal, history.commits[-1])
    assert found.start.journal_bytes == sum(each.stat().st_size for each in Path(journal.files_path).iterdir())
    make(journal, Until(lsn=history.commits[-2]))
    nearer = forecast(journal, str(mirror), target)
    assert nearer.start.base and nearer.start.base.lsn == history.commits[-2]
    assert nearer.start.base_bytes + nearer.start.journal_bytes < found.start.journal_bytes
    assert nearer.pages < found.pages


def test_how_long_comes_from_the_last_replay(history: History) -> None:
    journal, mirror = history.journal, Path(history.journal.path).parent / "mirror"
    replay_all(journal, mirror, until=Until(lsn=history.commits[3]))
    last = load(str(mirror))
    assert last and last.milliseconds >= 0 and last.journal_bytes > 0
    save(str(mirror), LastReplay(0, 1, 0, 0, 0, 0, 0, 0, 2000, 1000))
    found = forecast(journal, str(mirror), require_commit(journal, None))
    assert found.seconds == pytest.approx(2 * found.start.journal_bytes / 1000)
