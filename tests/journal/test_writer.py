"""What the writer appended is there, in order, and a failure never leaves more than it says."""

from __future__ import annotations

import errno
import pathlib
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import HostError, InputOutputError, NoSpaceError
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.codec import decode_file_header
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from tests.conftest import FakeClock
from tests.fakes.descriptors import open_descriptors
from tests.journal.sample import (
    append,
    commit_batch,
    journal_files,
    last_file,
    make_journal,
    open_writer,
    read_all,
    write_batch,
)
from tests.journal.writing import Calls, fail_with, positions, put

HOUR = 3600

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def journal(tmp_path: pathlib.Path, fake_clock: FakeClock) -> Journal:  # noqa: ARG001
    return make_journal(tmp_path / "journal")


def header_of(path: pathlib.Path) -> Any:
    return decode_file_header(path.read_bytes())


def test_frames_are_read_back_as_they_were_appended(journal: Journal) -> None:
    writer = open_writer(journal)
    frames = [append(writer, write_batch(page, page, 2)) for page in range(5)]
    frames.append(append(writer, commit_batch(0, "mark")))
    assert read_all(journal).frames == frames
    assert writer.position == frames[-1].position
    assert writer.durable == journal.start


def test_an_empty_journal_has_no_file_and_no_end(journal: Journal) -> None:
    writer = open_writer(journal)
    writer.close()
    assert journal_files(journal.path) == []
    assert Journal(journal.path).clean_end is None


def test_a_file_is_full_before_it_exceeds_its_size(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=1000)
    frames = [append(writer, write_batch(page, page)) for page in range(60)]
    sizes = [path.stat().st_size for path in journal_files(journal.path)]
    assert len(sizes) > 3
    assert max(sizes) <= 1000
    longest = max(frame.end - frame.offset for frame in frames)
    assert min(sizes[:-1]) > 1000 - longest
    assert read_all(journal).frames == frames


@pytest.mark.parametrize(("spare", "second_file"), [(0, 1), (-1, 2)])
def test_a_frame_fills_a_file_to_the_last_byte_its_name_included(
    journal: Journal, spare: int, second_file: int
) -> None:
    first = append(open_writer(journal), commit_batch(0, "m" * 60))
    room = first.end + (first.end - first.offset)
    writer = open_writer(Journal(journal.path), file_bytes=room + spare)
    assert append(writer, commit_batch(0, "m" * 60)).file_first_lsn == second_file


def test_a_frame_larger_than_a_file_has_one_for_itself(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=150)
    frames = [append(writer, write_batch(page, page)) for page in range(3)]
    assert [frame.file_first_lsn for frame in frames] == [1, 2, 3]
    assert read_all(journal).frames == frames


def test_a_file_ends_an_hour_after_its_first_frame(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal)
    fake_clock.advance(10 * HOUR)
    starts = []
    for seconds in (0, HOUR - 1, 1, 1, HOUR, 1):
        fake_clock.advance(seconds)
        starts.append(append(writer, write_batch(0, 1)).file_first_lsn)
    assert starts == [1, 1, 1, 4, 4, 6]


def test_the_age_of_a_file_does_not_begin_anew_with_the_process(journal: Journal, fake_clock: FakeClock) -> None:
    starts = []
    for _ in range(5):
        writer = open_writer(Journal(journal.path))
        starts.append(append(writer, write_batch(0, 1)).file_first_lsn)
        writer.close()
        fake_clock.advance(HOUR // 2)
    assert starts == [1, 1, 1, 4, 4]


def test_a_clock_that_steps_back_does_not_show(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal, file_bytes=400)
    times = []
    for step in (0, 5, -100, 1, 200, -1, 0):
        fake_clock.advance(step)
        times.append(append(writer, write_batch(0, 1)).time_ns)
    start = times[0]
    assert [(time - start) // 10**9 for time in times] == [0, 5, 5, 5, 106, 106, 106]
    assert [frame.time_ns for frame in read_all(journal).frames] == times


def test_a_given_time_is_taken_unless_it_is_older(journal: Journal) -> None:
    writer = open_writer(journal)
    assert [append(writer, write_batch(0, 1), time_ns=time).time_ns for time in (5, 3, 9)] == [5, 5, 9]


def test_time_goes_on_after_a_restart(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal)
    before = append(writer, write_batch(0, 1)).time_ns
    writer.close()
    fake_clock.advance(-1000)
    writer = open_writer(Journal(journal.path))
    assert append(writer, write_batch(0, 1)).time_ns == before


def test_a_file_header_says_what_was_before_it(journal: Journal, fake_clock: FakeClock) -> None:
    """Also its time: that of the newest frame before, not of the first one in it."""
    writer = open_writer(journal, file_bytes=150)
    frames = []
    for _ in range(3):
        fake_clock.advance(10)
        frames.append(append(writer, write_batch(0, 1)))
    first, *rest = map(header_of, journal_files(journal.path))
    assert (first.start, first.time_ns, first.state_sum) == (journal.start, 0, journal.first_state_sum)
    before = [(frame.position, frame.time_ns, frame.state_sum) for frame in frames]
    assert [(header.start, header.time_ns, header.state_sum) for header in rest] == before[:2]
    assert {header.uuid for header in (first, *rest)} == {journal.uuid}


@pytest.mark.parametrize("size", [0, 1, 127])
def test_a_successor_that_was_only_begun_goes_where_the_next_frame_needs_none(journal: Journal, size: int) -> None:
    """Left there, it would say that the file before it is finished."""
    kept = append(open_writer(journal), write_batch(0, 1))
    pathlib.Path(journal.file_path(2)).write_bytes(bytes(size))
    writer = open_writer(Journal(journal.path))
    frames = [kept, *(append(writer, write_batch(number, 1)) for number in range(3))]
    writer.close()
    assert journal.file_starts() == [1]
    for number, frame in enumerate(frames, 1):
        assert read_all(Journal(journal.path), frame.position).frames == frames[number:]


def test_a_file_is_sealed_before_its_successor_exists(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal, file_bytes=150)
    append(writer, write_batch(0, 1))
    old, new = layout.file_name(1), layout.file_name(2)
    calls = Calls(monkeypatch)
    append(writer, write_batch(0, 1))
    writer.sync()
    steps = [
        f"fdatasync {old}", f"open_file {new}", f"truncate {new}", f"pwrite {new}", "sync_directory files",
        f"pwritev {new}", f"fdatasync {new}",
    ]  # fmt: skip
    assert [name for name in calls.names if name != "open_file files"] == steps


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("after", [0, 1, 71, 72, 100])
def test_a_failed_append_leaves_nothing_and_the_next_works(
    journal: Journal, number: int, after: int, monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    writer = open_writer(journal)
    kept = append(writer, write_batch(0, 1))
    before = last_file(journal).read_bytes()
    state = writer.position, writer.state_sum, writer.time_ns
    fake_clock.advance(5)
    with monkeypatch.context() as patch:
        patch.setattr(File, "pwritev", fail_with(number, after=after))
        with pytest.raises(HostError):
            append(writer, write_batch(1, 2))
    assert last_file(journal).read_bytes() == before
    assert (writer.position, writer.state_sum, writer.time_ns) == state
    assert read_all(journal).frames == [kept]
    cut = last_file(journal)
    again = append(writer, write_batch(1, 3))
    writer.close()
    assert cut.read_bytes() == before, "a reader may hold bytes of what was there for durable"
    read = read_all(Journal(journal.path))
    assert (read.frames, read.error) == ([kept, again], None)


def test_a_failed_append_that_cannot_be_cut_off_ends_the_writer(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal)
    kept = append(writer, write_batch(0, 1))

    def fail(file: File, _: int) -> None:
        raise InputOutputError("no", where=file.path)

    with monkeypatch.context() as patch:
        patch.setattr(File, "pwritev", fail_with(errno.EIO, after=50))
        patch.setattr(File, "truncate", fail)
        with pytest.raises(InputOutputError):
            append(writer, write_batch(1, 2))
    for again in (lambda: append(writer, write_batch(1, 2)), writer.sync, writer.close):
        with pytest.raises(InputOutputError, match="earlier failure"):
            again()
    assert Journal(journal.path).clean_end is None
    assert read_all(journal).frames == [kept]


@pytest.mark.parametrize("failing", ["open_file", "pwrite", "truncate", "sync_directory", "pwritev"])
def test_a_rotation_that_fails_can_be_tried_again(
    journal: Journal, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal, file_bytes=150)
    kept = append(writer, write_batch(0, 1))

    def fail(*_: object, **__: object) -> None:
        raise NoSpaceError("full")

    with monkeypatch.context() as patch:
        patch.setattr(File if hasattr(File, failing) else files, failing, fail)
        with pytest.raises(NoSpaceError):
            append(writer, write_batch(1, 2))
    read = read_all(journal)
    assert (read.frames, read.error) == ([kept], None)
    again = append(writer, write_batch(1, 3))
    assert again.file_first_lsn == 2
    writer.close()
    read = read_all(Journal(journal.path))
    assert (read.frames, read.error) == ([kept, again], None)


def test_a_clean_stop_says_where_the_frames_end(journal: Journal) -> None:
    writer = open_writer(journal)
    frame = append(writer, write_batch(0, 1))
    writer.close()
    assert Journal(journal.path).clean_end == FrameEnd(frame.position, 1, frame.end)
    writer = open_writer(Journal(journal.path))
    assert Journal(journal.path).clean_end is None
    writer.abandon()
    assert Journal(journal.path).clean_end is None


def test_a_writer_continues_in_the_file_that_it_finds(journal: Journal) -> None:
    frames = []
    for number in range(4):
        writer = open_writer(Journal(journal.path))
        frames.append(append(writer, write_batch(number, number)))
        writer.close()
    assert {frame.file_first_lsn for frame in frames} == {1}
    assert read_all(Journal(journal.path)).frames == frames


@pytest.mark.parametrize("size", [0, 1, 127])
def test_a_successor_that_was_only_begun_is_begun_anew(journal: Journal, size: int) -> None:
    writer = open_writer(journal, file_bytes=150)
    kept = append(writer, write_batch(0, 1))
    writer.abandon()
    pathlib.Path(journal.file_path(2)).write_bytes(b"\xff" * size)
    writer = open_writer(Journal(journal.path), file_bytes=150)
    again = append(writer, write_batch(1, 2))
    assert again.file_first_lsn == 2
    assert read_all(journal).frames == [kept, again]


def test_a_writer_that_cannot_begin_leaves_no_descriptor_open(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    writer.close()
    closed = Journal(journal.path)
    with JournalReader(closed) as end:
        while end.next_header():
            pass
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(File, "pwrite", fail_with(errno.ENOSPC))
            with pytest.raises(NoSpaceError):
                JournalWriter(closed, end)
        assert open_descriptors() == before


def test_nothing_is_appended_by_a_writer_that_was_closed(journal: Journal) -> None:
    """Its lock is gone: another recorder may be running."""
    writer = open_writer(journal)
    frame = put(writer, 0)
    writer.close()
    with pytest.raises(InputOutputError):
        put(writer, 1)
    assert journal.file_starts() == [1]
    assert positions(journal) == [frame]
