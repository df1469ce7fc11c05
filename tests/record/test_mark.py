"""A mark names the newest commit, and nothing that is no commit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool.errors import LockedError, NotComparableError, UsageError
from mirrortool.files import File
from mirrortool.journal.commits import Until, commits, find_commit
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from mirrortool.record.scan import Scan
from tests.fakes.recorders import quiet_recorder
from tests.fakes.volumes import PAGE, Primary, fast_directory, make_primary, pattern


@pytest.fixture
def primary() -> Iterator[Primary]:
    with fast_directory() as path:
        yield make_primary(path, {"a": pattern(1, 3 * PAGE)})


def test_a_mark_is_a_commit_of_the_same_state(primary: Primary) -> None:
    scanned = primary.scan()
    position = mark(primary.journal_path, "before-upgrade")
    found = find_commit(primary.journal, Until(mark="before-upgrade"))
    assert found is not None
    assert (found.position, found.state_sum, found.kind) == (position, scanned.state_sum, scanned.kind)
    assert found.durable_lsn == scanned.commit.lsn
    assert primary.journal.clean_end.position == position
    primary.check()
    primary.scan()
    primary.check()


def test_of_two_marks_of_one_name_the_newest_counts(primary: Primary) -> None:
    primary.scan()
    mark(primary.journal_path, "x")
    primary.write("a", 0, b"new")
    primary.scan()
    second = mark(primary.journal_path, "x")
    assert find_commit(primary.journal, Until(mark="x")).position == second
    assert mark(primary.journal_path, "y").lsn == second.lsn + 1
    assert [commit.name for commit in commits(primary.journal)] == [None, "x", None, "x", "y"]


def test_without_a_commit_there_is_nothing_to_mark(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotComparableError, match="no commit yet"):
        mark(primary.journal_path, "x")
    primary.scan()
    primary.write("a", 0, b"new")

    def cancel(*_: object) -> None:
        raise ScanStop

    with monkeypatch.context() as patched:
        patched.setattr(Scan, "_commit", cancel)
        with pytest.raises(ScanStop):
            primary.scan()
    with pytest.raises(NotComparableError, match="unfinished scan"):
        mark(primary.journal_path, "x")
    primary.scan()
    mark(primary.journal_path, "x")


def test_what_an_earlier_start_redid_can_be_marked(primary: Primary) -> None:
    """It was killed before it made a commit of that."""
    with Recorder(primary.journal_path, background=False) as recorder:
        InitialScan(recorder).run()
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 5, b"acknowledged")
    with quiet_recorder(primary) as recorder:
        assert recorder.redone
    mark(primary.journal_path, "x")
    with quiet_recorder(primary):
        primary.check()


class ScanStop(Exception):
    """Stands for a crash before the commit."""


@pytest.mark.parametrize("name", ["", "1a", "a b", "ä", "a/b", "a\n", "-a", "a" * 65])
def test_what_is_no_name_is_refused_before_it_is_in_the_journal(primary: Primary, name: str) -> None:
    position = primary.scan().commit
    with pytest.raises(UsageError):
        mark(primary.journal_path, name)
    assert [commit.position for commit in commits(primary.journal)] == [position]


@pytest.mark.parametrize("name", ["a", "A.b_c-d9", "a" * 64])
def test_names_may_be_all_that_the_manual_says(primary: Primary, name: str) -> None:
    primary.scan()
    mark(primary.journal_path, name)
    assert find_commit(primary.journal, Until(mark=name)) is not None


def test_a_recorder_at_work_excludes_marks(primary: Primary) -> None:
    primary.scan()
    with Scan(primary.journal_path), pytest.raises(LockedError):
        mark(primary.journal_path, "x")


def test_a_mark_that_cannot_be_written_leaves_the_journal_sound(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mirrortool.errors import NoSpaceError

    position = primary.scan().commit

    def fail(*_: object) -> None:
        raise NoSpaceError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(File, "pwritev", fail)
        with pytest.raises(NoSpaceError):
            mark(primary.journal_path, "x")
    assert [commit.position for commit in commits(primary.journal)] == [position]
    mark(primary.journal_path, "x")
