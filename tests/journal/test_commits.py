"""Finding a commit gives what a look at every commit would give, and costs a file."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.errors import CorruptJournalError, JournalError, TornJournalError
from mirrortool.journal import commits as commits_module
from mirrortool.journal import format as layout
from mirrortool.journal.commits import Commit, Until, commits, find_commit, newest_commits, start_by_time
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import CommitKind
from tests.journal.sample import (
    Recorded,
    append,
    flip,
    journal_files,
    last_file,
    make_journal,
    open_writer,
    record_steps,
    write_batch,
)

pytestmark = pytest.mark.usefixtures("no_sync")

# Of each frame: the step of time before it, and what it is.
FRAMES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["write", "commit", "a", "b", "c"])), max_size=25)
FILE_BYTES = st.sampled_from([150, 300, 500, 5000])
examples = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def build(path: pathlib.Path, frames: list[tuple[int, str]], file_bytes: int) -> tuple[Journal, list[Recorded]]:
    """Times are even numbers, so that there are others between them."""

    def commit_of(number: int, what: str) -> tuple[str | None, CommitKind]:
        return None if what == "commit" else what, CommitKind(number % 4 + 1)

    return record_steps(path, [(2 * step, what) for step, what in frames], file_bytes, 10, commit_of)


def as_commit(frame: Recorded) -> Commit:
    _, _, _, durable, _, kind, name = frame.operations[-1]
    return Commit(frame.position, frame.time_ns, kind, frame.state_sum, name, durable)


def last(found: list[Commit]) -> Commit | None:
    return found[-1] if found else None


def check(journal: Journal, visible: list[Commit]) -> None:
    """Every way to find a commit agrees with a look at all that are visible."""
    for count in range(1, len(visible) + 2):
        assert newest_commits(journal, count) == visible[-count:]
    assert find_commit(journal, None) == last(visible)
    lsns = sorted({lsn for each in visible for lsn in (each.lsn - 1, each.lsn, each.lsn + 1)} | {0, 1 << 62})
    for lsn in lsns:
        assert find_commit(journal, Until(lsn=lsn)) == last([each for each in visible if each.lsn <= lsn])
    times = {time for each in visible for time in (each.time_ns - 1, each.time_ns, each.time_ns + 1)}
    for time_ns in sorted(times | {0, 1 << 62}):
        expected = last([each for each in visible if each.time_ns <= time_ns])
        assert find_commit(journal, Until(time_ns=time_ns)) == expected
    for name in ("a", "b", "c", "none"):
        assert find_commit(journal, Until(mark=name)) == last([each for each in visible if each.name == name])


def since(journal: Journal, time_ns: int) -> list[Commit]:
    """What comes before the damage, if there is any."""
    found: list[Commit] = []
    with contextlib.suppress(JournalError):
        found.extend(each for each in commits(journal, start_by_time(journal, time_ns)) if each.time_ns >= time_ns)
    return found


@examples
@given(FRAMES, FILE_BYTES)
def test_every_search_equals_a_look_at_all_commits(frames: list[tuple[int, str]], file_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal, written = build(pathlib.Path(directory, "j"), frames, file_bytes)
        expected = [as_commit(frame) for frame in written if frame.is_commit]
        assert list(commits(journal)) == expected
        check(journal, expected)
        for time_ns in range(8, 2 + max((frame.time_ns for frame in written), default=10)):
            assert since(journal, time_ns) == [each for each in expected if each.time_ns >= time_ns]
        for frame in written:
            later = [each for each in expected if each.lsn > frame.position.lsn]
            assert list(commits(journal, frame.position)) == later


@examples
@given(FRAMES.filter(len), FILE_BYTES, st.data())
def test_damage_hides_only_what_is_behind_it_in_its_file(
    frames: list[tuple[int, str]], file_bytes: int, data: st.DataObject
) -> None:
    """A search reads headers, and the bodies of commits: damage to anything else is for whoever reads on."""
    with tempfile.TemporaryDirectory() as directory:
        journal, written = build(pathlib.Path(directory, "j"), frames, file_bytes)
        file = data.draw(st.sampled_from(sorted({frame.file_first_lsn for frame in written})))
        path = pathlib.Path(journal.file_path(file))
        offset = data.draw(st.integers(0, path.stat().st_size - 1))
        flip(path, offset)
        hidden = hidden_from(written, file, offset)
        check(
            journal,
            [
                as_commit(frame)
                for frame in written
                if frame.is_commit and (frame.file_first_lsn != file or frame.position.lsn < hidden)
            ],
        )
        before = [as_commit(frame) for frame in written if frame.is_commit and frame.position.lsn < hidden]
        found = commits(journal)
        assert list(itertools.islice(found, len(before))) == before
        if hidden < NOTHING:
            with pytest.raises((CorruptJournalError, TornJournalError)):
                list(found)


NOTHING = 1 << 62


def hidden_from(written: list[Recorded], file: int, offset: int) -> int:
    """The LSN from which a search sees nothing in this file, when this byte of it is damaged."""
    if offset < layout.FILE_HEADER.size:
        return file
    damaged = next(frame for frame in written if frame.file_first_lsn == file and frame.offset <= offset < frame.end)
    is_read = damaged.is_commit or offset < damaged.offset + layout.FRAME_HEADER.size
    return damaged.position.lsn if is_read else NOTHING


def test_a_file_with_a_damaged_header_hides_its_own_commits_only(tmp_path: pathlib.Path) -> None:
    journal, written = build(tmp_path / "j", [(1, "commit"), (1, "a"), (1, "b")] * 5, 300)
    for path, file in zip(journal_files(journal.path), journal.file_starts(), strict=True):
        flip(path, 60)
        check(journal, [as_commit(frame) for frame in written if frame.file_first_lsn != file])
        flip(path, 60)


def test_the_newest_commits_read_no_older_file_than_they_must(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, written = build(tmp_path / "j", [(1, "commit")] * 20, 300)
    opened: list[int] = []

    class Spy(JournalReader):
        def __init__(self, journal: Journal, start: object = None, *, first_lsn: int | None = None) -> None:
            assert start is None
            assert first_lsn
            opened.append(first_lsn)
            super().__init__(journal, first_lsn=first_lsn)

    monkeypatch.setattr(commits_module, "JournalReader", Spy)
    starts = journal.file_starts()
    assert len(starts) > 7
    assert newest_commits(journal, 1) == [as_commit(written[-1])]
    assert opened == starts[-1:]
    opened.clear()
    wanted = written[len(written) // 2]
    assert find_commit(journal, Until(time_ns=wanted.time_ns)) == as_commit(wanted)
    assert len(opened) <= 2 + len(starts).bit_length()


@pytest.mark.parametrize("size", [0, 10, 127, 128])
def test_a_file_that_was_only_begun_is_in_nobodys_way(tmp_path: pathlib.Path, size: int) -> None:
    journal, written = build(tmp_path / "j", [(1, "commit"), (1, "a"), (1, "write"), (1, "b")] * 3, 300)
    expected = [as_commit(frame) for frame in written if frame.is_commit]
    writer = open_writer(Journal(journal.path), file_bytes=1)
    append(writer, write_batch(0, 0))
    last_file(journal).write_bytes(last_file(journal).read_bytes()[:size])
    check(journal, expected)
    assert list(commits(journal)) == expected
    assert since(journal, 0) == expected
    assert since(journal, expected[-1].time_ns) == expected[-1:]


def test_of_a_mark_given_twice_the_newest_counts(tmp_path: pathlib.Path) -> None:
    journal, written = build(tmp_path / "j", [(1, "a"), (1, "b"), (1, "a"), (1, "commit")], 150)
    assert find_commit(journal, Until(mark="a")) == as_commit(written[2])


def test_commits_of_one_time_are_found_to_the_last(tmp_path: pathlib.Path) -> None:
    journal, written = build(tmp_path / "j", [(0, "commit")] * 9, 150)
    assert len(journal_files(journal.path)) == 9
    assert find_commit(journal, Until(time_ns=written[0].time_ns)) == as_commit(written[-1])
    assert since(journal, written[0].time_ns) == [as_commit(frame) for frame in written]
    assert since(journal, written[0].time_ns + 1) == []


def test_a_journal_without_commits_has_none(tmp_path: pathlib.Path) -> None:
    journal = make_journal(tmp_path / "j")
    for _ in range(2):
        assert list(commits(journal)) == newest_commits(journal, 5) == since(journal, 0) == []
        assert find_commit(journal, None) is find_commit(journal, Until(lsn=9)) is find_commit(journal, Until(mark="a"))
        append(open_writer(journal), write_batch(0, 0))
