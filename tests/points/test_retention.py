"""What a view reads stays while it is open, whatever prunes the journal; and no longer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import AccessError, LockedError, MissingFileError, UsageError
from mirrortool.files import File
from mirrortool.journal import holds, slots
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.points.view import open_point
from mirrortool.replay.makebase import MakeBase
from tests.fakes.histories import History
from tests.fakes.pointviews import check, contents, make_large_history


@pytest.fixture
def history(tmp_path: Path) -> History:
    return make_large_history(tmp_path / "journal", 5)


def add_base(journal: Journal, lsn: int) -> None:
    with MakeBase(journal.path, Until(lsn=lsn)) as making:
        making.run()


def indexed(journal: Journal) -> list[str]:
    return files.list_directory(journal.indexes_path)


def test_base_and_files_that_a_view_reads_stay_until_it_is_closed(history: History) -> None:
    journal, commits = history.journal, history.commits
    first, later, middle = commits[2], commits[-2], commits[5]
    add_base(journal, first)
    add_base(journal, later)
    with open_point(journal, Until(lsn=middle), doing="serve") as view:
        pruned = prune(journal.path, Keep(size=0))
        assert pruned.plan.bases == ()
        assert pruned.plan.holds[0].lsn == first + 1
        assert "reads it (serve)" in pruned.plan.holds[0].why
        assert base_lsns(journal) == [first, later]
        check(view, history.states[middle])
    assert prune(journal.path, Keep(size=0)).plan.bases == (first,)
    assert base_lsns(journal) == [later]
    kept = {f"{start:016x}.mj.index" for start in journal.file_starts()} | {f"{later:016x}.base.index"}
    assert set(indexed(journal)) <= kept
    with pytest.raises(UsageError, match=f"the oldest is base {later}"):
        open_point(journal, Until(lsn=middle))
    with open_point(journal, None) as view:
        check(view, history.states[commits[-1]])


def test_a_view_from_the_first_lsn_keeps_the_whole_journal(history: History) -> None:
    journal = history.journal
    starts = journal.file_starts()
    with open_point(journal, Until(lsn=history.commits[3])):
        add_base(journal, history.commits[-1])
        assert prune(journal.path, Keep(size=0)).plan.files == ()
    assert prune(journal.path, Keep(size=0)).plan.files == tuple(starts[:-1])


def test_no_view_is_opened_of_what_is_being_pruned(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_LOCK_SECONDS", 0)
    with slots.locked(history.journal), pytest.raises(LockedError):
        open_point(history.journal, None)


def test_a_journal_that_cannot_be_written_is_read_without_a_hold(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = history.journal
    real = files.open_file

    def refuse(path: str, **options: bool) -> File:
        if path.startswith(journal.path) and options.get("write"):
            raise AccessError("read-only", where=path)
        return real(path, **options)

    monkeypatch.setattr(files, "open_file", refuse)
    with open_point(journal, None) as view:
        assert isinstance(view.why_not_held, AccessError)
        assert holds.holds(journal) == []
        check(view, history.states[history.commits[-1]])


def test_a_hold_lasts_as_long_as_its_view(history: History) -> None:
    draw = random.Random(1)
    views = [open_point(history.journal, Until(lsn=lsn)) for lsn in draw.sample(history.commits, 4)]
    assert len(holds.holds(history.journal)) == len(views)
    for number, view in enumerate(views, 1):
        assert view.why_not_held is None
        view.close()
        view.close()
        assert len(holds.holds(history.journal)) == len(views) - number


def test_a_base_that_lies_elsewhere_and_is_not_there_is_named(history: History, tmp_path: Path) -> None:
    journal = history.journal
    (tmp_path / "disk").mkdir()
    with MakeBase(journal.path, Until(lsn=history.commits[4]), to=str(tmp_path / "disk")) as making:
        making.run()
    with open_point(journal, None) as view:
        expected = contents(view)
    (tmp_path / "disk").rename(tmp_path / "away")
    with open_point(journal, None) as view:  # from LSN 0
        assert contents(view) == expected
    Path(journal.file_path(journal.file_starts()[0])).unlink()
    with pytest.raises(MissingFileError, match="mount or bring back"):
        open_point(journal, None)
