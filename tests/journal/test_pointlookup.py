"""What is printed of a commit selects it; what the journal does not have is refused, and nothing replaces it."""

from __future__ import annotations

import pathlib
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool import clock
from mirrortool.errors import CorruptJournalError, MirrortoolError, NotComparableError, UsageError
from mirrortool.journal import pointlookup
from mirrortool.journal.commits import Commit, commits, is_flush_or_mark, is_state
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import check_may_come, commits_from, position_after, require_commit
from mirrortool.operation import CommitKind
from mirrortool.times import format_time
from tests.journal.sample import (
    Recorded,
    flip,
    journal_files,
    last_file,
    record_steps,
)

pytestmark = pytest.mark.usefixtures("no_sync")

START_NS = 1_764_343_696_123_000_000
MS = 10**6
# Of each frame: nanoseconds since the one before, and what it is.
STEPS = st.one_of(st.integers(0, 3), st.sampled_from([MS // 2, MS - 1, MS, 3 * MS]), st.integers(0, 5 * MS))
FRAMES = st.lists(st.tuples(STEPS, st.sampled_from(["write", "commit", "a", "b"])), min_size=1, max_size=20)
FILE_BYTES = st.sampled_from([150, 500, 5000])
examples = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def build(path: pathlib.Path, frames: list[tuple[int, str]], file_bytes: int = 5000) -> tuple[Journal, list[Recorded]]:
    kinds = {"beat": CommitKind.HEARTBEAT, "fuzzy": CommitKind.FUZZY}

    def commit_of(_: int, what: str) -> tuple[str | None, CommitKind]:
        return None if what in ("commit", *kinds) else what, kinds.get(what, CommitKind.FLUSH)

    return record_steps(path, frames, file_bytes, START_NS, commit_of)


def point(text: object) -> Until:
    return Until.parse(str(text))


def ms_of(time_ns: int) -> int:
    return time_ns // MS


@examples
@given(FRAMES, FILE_BYTES)
def test_what_is_printed_of_a_commit_selects_it(frames: list[tuple[int, str]], file_bytes: int) -> None:
    """As an upper bound, a lower one, and a place to begin after; two commits of a millisecond by LSN, and by @."""
    with tempfile.TemporaryDirectory() as directory:
        journal, written = build(pathlib.Path(directory, "j"), frames, file_bytes)
        every = list(commits(journal))
        for commit in every:
            assert require_commit(journal, point(commit.lsn)) == commit
            at_once = [each for each in every if ms_of(each.time_ns) == ms_of(commit.time_ns)]
            printed = point(format_time(commit.time_ns))
            assert require_commit(journal, printed) == at_once[-1]
            exactly = point(f"@{commit.time_ns}")
            assert require_commit(journal, exactly) == [e for e in every if e.time_ns == commit.time_ns][-1]
            for since, first in ((printed, at_once[0]), (exactly, commit), (point(commit.lsn), commit)):
                lower = since.begin_ns
                expected = [e for e in every if (e.lsn >= first.lsn if lower is None else e.time_ns >= lower)]
                found = list(commits_from(journal, since))
                assert found == expected and commit in found
            assert position_after(journal, point(commit.lsn)) == commit.position
            before = [frame.position for frame in written if ms_of(frame.time_ns) < ms_of(commit.time_ns)]
            assert position_after(journal, printed) == (before[-1] if before else journal.start)


@examples
@given(FRAMES, FILE_BYTES, st.integers(-2 * MS, 30 * MS))
def test_a_time_is_refused_or_the_last_commit_not_after_it(
    frames: list[tuple[int, str]], file_bytes: int, offset: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal, written = build(pathlib.Path(directory, "j"), frames, file_bytes)
        every = list(commits(journal))
        time_ns = START_NS + offset
        wanted = Until(time_ns=time_ns)
        fit = [each for each in every if each.time_ns <= time_ns]
        if time_ns > written[-1].time_ns:
            with pytest.raises(UsageError, match="not known yet"):
                require_commit(journal, wanted)
        elif fit:
            assert require_commit(journal, wanted) == fit[-1]
        else:
            with pytest.raises(UsageError, match="no commit at or before"):
                require_commit(journal, wanted)


@pytest.fixture
def journal(tmp_path: pathlib.Path) -> Journal:
    """Commits at LSN 2, 3 and 5, the last with a heartbeat's frame after it, and a write that is not committed."""
    frames = [(0, "write"), (MS, "nightly-6"), (MS, "fuzzy"), (MS, "write"), (MS, "commit"), (9 * MS, "beat")]
    return build(tmp_path / "j", [*frames, (MS, "write")], file_bytes=150)[0]


def refused(journal: Journal, text: object) -> str:
    with pytest.raises(UsageError) as caught:
        require_commit(journal, point(text))
    assert caught.value.where == journal.path
    return f"{caught.value.what}; {caught.value.remedy}"


def test_an_lsn_above_the_head_is_refused(journal: Journal) -> None:
    assert "LSN 8 is above the newest, 7;" in refused(journal, 8)
    assert "as seconds since 1970 it is @1764343696" in refused(journal, 1764343696)
    assert require_commit(journal, point(7)).lsn == 6, "an LSN that is there, though not committed"


def test_the_nanoseconds_of_json_are_no_lsn() -> None:
    with pytest.raises(UsageError, match="are @1764343696123456789"):
        Until.parse("1764343696123456789")


def test_a_time_after_the_newest_frame_is_refused_and_heartbeats_count(journal: Journal) -> None:
    last = START_NS + 14 * MS
    assert require_commit(journal, Until(time_ns=last)).lsn == 6
    assert f"is of {format_time(last)}, so {format_time(last + MS)} is not known yet" in refused(
        journal, f"@{last + MS}"
    )


def test_a_time_before_the_oldest_is_refused_and_the_oldest_named(journal: Journal) -> None:
    assert f"the oldest is 2 of {format_time(START_NS + MS)}" in refused(journal, f"@{START_NS}")
    assert "at or before LSN 1; the oldest is 2 of " in refused(journal, 1)


def test_a_mistyped_mark_is_refused_and_near_ones_named(journal: Journal) -> None:
    assert refused(journal, "nightly-7").startswith("no mark nightly-7; near: nightly-6;")
    assert refused(journal, "zzz").startswith("no mark zzz; mirrortool log")


def test_newest_is_the_newest_commit(journal: Journal, tmp_path: pathlib.Path) -> None:
    assert require_commit(journal, point("newest")) == require_commit(journal)
    with pytest.raises(NotComparableError, match="no commit yet"):
        require_commit(build(tmp_path / "none", [(0, "write")])[0], point("newest"))


def test_only_commits_that_count_are_taken(journal: Journal) -> None:
    assert require_commit(journal, None, is_flush_or_mark).lsn == 5
    assert require_commit(journal, point(4), is_state).lsn == 2
    with pytest.raises(NotComparableError, match="no commit that is a state"):
        require_commit(*_only_fuzzy(journal), is_state)


def _only_fuzzy(journal: Journal) -> tuple[Journal, Until]:
    path = pathlib.Path(journal.path).parent / "fuzzy"
    return build(path, [(0, "fuzzy"), (MS, "commit")])[0], Until(lsn=1)


def test_since_now_is_nothing_and_since_long_ago_is_all(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: START_NS + 60 * 10**9)
    assert list(commits_from(journal, point("-1s"))) == []
    assert [each.lsn for each in commits_from(journal, point("@0"))] == [2, 3, 5, 6]
    assert [each.lsn for each in commits_from(journal, point("nightly-6"))] == [2, 3, 5, 6]
    assert [each.lsn for each in commits_from(journal, point("newest"))] == [6]
    assert [each.lsn for each in commits_from(journal, point(4))] == [5, 6]
    for text in ("99", "nightly-7", f"@{START_NS + 61 * 10**9}"):
        with pytest.raises(UsageError):
            commits_from(journal, point(text))


def test_who_waits_waits_for_what_may_come(journal: Journal) -> None:
    for text in ("99", "later", f"@{START_NS + 10**12}", "2", "1"):
        if text != "1":
            check_may_come(journal, point(text))
    for text in ("1", f"@{START_NS}"):
        with pytest.raises(UsageError, match="the oldest is 2"):
            check_may_come(journal, point(text))


def test_damage_is_told_where_it_may_hide_the_point(journal: Journal) -> None:
    """Not that the point is not there; and a caller that reads on finds it."""
    *_, before, damaged = sorted(journal_files(journal.path))
    assert before != damaged
    flip(damaged, 100)
    flip(before, 100)
    for wanted in (Until(lsn=99), Until(time_ns=START_NS + 10**12), Until(mark="nightly-7")):
        with pytest.raises(CorruptJournalError):
            require_commit(journal, wanted)
    assert require_commit(journal, Until(lsn=99), up_to_damage=True) in list(_readable(journal))


def _readable(journal: Journal) -> list[Commit]:
    found: list[Commit] = []
    try:
        for commit in commits(journal):
            found.append(commit)
    except MirrortoolError:
        pass
    return found


def test_a_torn_tail_hides_nothing(journal: Journal) -> None:
    path = last_file(journal)
    path.write_bytes(path.read_bytes()[:-3])
    assert "above the newest, 6" in refused(journal, 7)
    assert require_commit(journal, point(6)).lsn == 6


def test_nothing_is_read_but_the_newest_file_where_that_tells(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    reader = pointlookup.JournalReader

    def counting(*args: object, **kwargs: int) -> object:
        opened.append(kwargs["first_lsn"])
        return reader(*args, **kwargs)  # type: ignore[arg-type]  # whatever it is given

    monkeypatch.setattr(pointlookup, "JournalReader", counting)
    require_commit(journal, point(2))
    assert opened == [journal.file_starts()[-1]]
