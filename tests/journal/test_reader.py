"""A reader gives what was written, in order, and an error that names what keeps it from doing so."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
from collections.abc import Callable

import pytest

from mirrortool import files, hostinfo
from mirrortool.errors import (
    CorruptJournalError,
    ExhaustedError,
    ForkedJournalError,
    JournalError,
    MissingFileError,
    OtherJournalError,
    PrunedJournalError,
    TornJournalError,
)
from mirrortool.journal import format as layout
from mirrortool.journal import journalfile
from mirrortool.journal.codec import FileHeader, encode_file_header
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from tests.fakes.descriptors import open_descriptors
from tests.fakes.disk import fail_at, faulty, no_fault
from tests.journal.sample import (
    HEADER,
    Recorded,
    append,
    commit_batch,
    cut,
    flip,
    journal_files,
    last_file,
    make_journal,
    open_writer,
    read_all,
    write_batch,
)

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def journal(tmp_path: pathlib.Path) -> Journal:
    return make_journal(tmp_path / "journal")


@pytest.fixture
def frames(journal: Journal) -> list[Recorded]:
    """Nine frames in three files or more, without a clean stop."""
    writer = open_writer(journal, file_bytes=600)
    written = []
    for number in range(9):
        builder = write_batch(number, number) if number % 3 != 2 else commit_batch(0, f"mark{number}")
        written.append(append(writer, builder))
    writer.sync()
    writer.abandon()
    assert len(journal_files(journal.path)) >= 3
    return written


def starts(frames: list[Recorded]) -> list[int]:
    return sorted({frame.file_first_lsn for frame in frames})


def read(journal: Journal, start: Position | None = None) -> tuple[list[Recorded], type[JournalError] | None]:
    result = read_all(journal, start)
    return result.frames, result.error and type(result.error)


def test_everything_is_read_once_and_in_order(journal: Journal, frames: list[Recorded]) -> None:
    assert read(journal) == (frames, None)


def test_a_reader_says_where_it_stands(journal: Journal, frames: list[Recorded]) -> None:
    with JournalReader(journal) as reader:
        assert (reader.position, reader.file_first_lsn, reader.offset) == (journal.start, 0, 0)
        assert reader.state_sum == journal.first_state_sum
        for frame in frames:
            assert reader.next_header()
            assert (reader.position, reader.time_ns, reader.state_sum) == (
                frame.position, frame.time_ns, frame.state_sum,
            )  # fmt: skip
            assert (reader.file_first_lsn, reader.offset) == (frame.file_first_lsn, frame.end)
        assert reader.next_header() is None
        assert reader.next_frame() is None


def test_a_reader_can_begin_at_every_position(journal: Journal, frames: list[Recorded]) -> None:
    assert read(journal, journal.start) == (frames, None)
    for number, frame in enumerate(frames, 1):
        assert read(journal, frame.position) == (frames[number:], None)
        with JournalReader(journal, frame.position) as reader:
            assert (reader.position, reader.time_ns, reader.state_sum) == (
                frame.position, frame.time_ns, frame.state_sum,
            )  # fmt: skip


def test_a_reader_can_begin_at_every_file(journal: Journal, frames: list[Recorded]) -> None:
    for start in starts(frames):
        with JournalReader(journal, first_lsn=start) as reader:
            assert reader.position.lsn == start - 1
            frame = reader.next_frame()
            assert frame
            assert frame.header.first_lsn == start


@pytest.mark.parametrize("begin", [0, 4])
def test_reading_up_to_an_lsn_stops_at_the_frame_that_reaches_it(
    journal: Journal, frames: list[Recorded], begin: int
) -> None:
    ends = [frame.position.lsn for frame in frames]
    for lsn in range(max(ends) + 3):
        start = frames[begin - 1].position if begin else None
        expected = [end for end, before in zip(ends, [0, *ends], strict=False) if before < lsn][begin:]
        with JournalReader(journal, start) as reader:
            assert [header.position.lsn for header in reader.up_to(lsn)] == expected
        with JournalReader(journal, start) as reader:
            reached = reader.read_to(lsn)
            assert reached == reader.position
            assert reached.lsn == (expected[-1] if expected else reader.position.lsn)


def test_what_is_appended_later_is_read_later(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=400)
    with JournalReader(journal) as reader:
        for number in range(12):
            assert reader.next_header() is None
            appended = append(writer, write_batch(number, number))
            frame = reader.next_frame()
            assert frame
            assert frame.header.position == appended.position
            assert bytes(frame.batch.payload) == appended.operations[0][4]


def test_bytes_are_durable_before_they_are_read(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is taken first: what comes in between is not covered by the fdatasync, and not read."""
    writer = open_writer(journal)
    append(writer, write_batch(0, 0))
    real = files.File.fdatasync

    def grow_first(file: files.File) -> None:
        if file.path == journal.file_path(1):
            monkeypatch.setattr(files.File, "fdatasync", real)
            append(writer, write_batch(1, 1))
        real(file)

    monkeypatch.setattr(files.File, "fdatasync", grow_first)
    with JournalReader(journal) as reader:
        assert reader.next_header()
        assert reader.position.lsn == 1
        assert reader._file
        assert reader._file.size < os.path.getsize(journal.file_path(1))
        assert reader.next_header()


@pytest.mark.parametrize("size", [None, 0, 1, HEADER - 1, HEADER])
def test_a_successor_without_a_frame_is_the_end(journal: Journal, frames: list[Recorded], size: int | None) -> None:
    """Absent, empty, or only begun: also for whoever seeks to just before it, the recorder among them."""
    start = starts(frames)[-1]
    before = [frame for frame in frames if frame.position.lsn < start]
    path = pathlib.Path(journal.file_path(start))
    if size is None:
        path.unlink()
    else:
        cut(path, size)
    assert read(journal) == (before, None)
    for number, frame in enumerate(before, 1):
        assert read(journal, frame.position) == (before[number:], None)


def test_a_successor_with_a_torn_header_is_a_torn_tail(
    journal: Journal, frames: list[Recorded], other_boot: None  # noqa: ARG001
) -> None:  # fmt: skip
    start = starts(frames)[-1]
    before = [frame for frame in frames if frame.position.lsn < start]
    pathlib.Path(journal.file_path(start)).write_bytes(bytes(HEADER))
    for number in range(len(before) + 1):
        position = before[number - 1].position if number else journal.start
        result = read_all(journal, position)
        assert result.frames == before[number:]
        assert isinstance(result.error, TornJournalError)
        assert (result.error.path, result.error.offset) == (journal.file_path(start), 0)


def test_a_missing_file_between_two_others_is_named(journal: Journal, frames: list[Recorded]) -> None:
    for start in starts(frames)[1:-1]:
        path = pathlib.Path(journal.file_path(start))
        hidden = path.rename(path.with_suffix(".hidden"))
        got, error = read(journal)
        assert got == [frame for frame in frames if frame.position.lsn < start]
        assert error is MissingFileError
        hidden.rename(path)


def test_a_missing_first_file_is_named_where_it_is_needed(journal: Journal, frames: list[Recorded]) -> None:
    """Older files may be gone for good (retention): a reader that asks for what is left gets it."""
    second = starts(frames)[1]
    os.unlink(journal.file_path(1))
    left = [frame for frame in frames if frame.position.lsn >= second]
    assert read(journal) == (left, None)
    assert read(journal, journal.start) == ([], PrunedJournalError)
    assert read(journal, frames[0].position) == ([], PrunedJournalError)
    boundary = next(frame for frame in frames if frame.position.lsn == second - 1)
    assert read(journal, boundary.position) == (left, None)


@pytest.mark.usefixtures("frames")
def test_a_file_that_cannot_be_opened_is_not_missing(journal: Journal) -> None:
    """A missing one is taken from elsewhere, and perhaps never missed again; this one is there."""
    opens = fail_at(1, errno.EMFILE, lambda call: call.name == "open" and call.path == journal.file_path(1))
    with faulty(no_fault, reads=opens), pytest.raises(ExhaustedError):
        JournalReader(journal).next_header()


def test_no_file_at_all_is_missing_for_a_position(journal: Journal, frames: list[Recorded]) -> None:
    shutil.rmtree(journal.files_path)
    os.mkdir(journal.files_path)
    assert read(journal, frames[3].position) == ([], MissingFileError)
    assert read(journal) == ([], None)


def test_a_file_cut_at_a_frame_is_not_the_end_when_another_follows(journal: Journal, frames: list[Recorded]) -> None:
    for start in starts(frames)[:-1]:
        path = pathlib.Path(journal.file_path(start))
        whole = path.read_bytes()
        inside = [frame for frame in frames if frame.file_first_lsn == start]
        for size in [HEADER, *(frame.end for frame in inside[:-1])]:
            path.write_bytes(whole[:size])
            got, error = read(journal)
            assert got == [f for f in frames if f.file_first_lsn < start or (f in inside and f.end <= size)]
            assert error in (MissingFileError, CorruptJournalError)
        path.write_bytes(whole)


def test_a_file_of_another_journal_is_named(journal: Journal, frames: list[Recorded], tmp_path: pathlib.Path) -> None:
    other = make_journal(tmp_path / "other")
    writer = open_writer(other, file_bytes=600)
    for number in range(9):
        append(writer, write_batch(number, number))
    for start in starts(frames):
        path = pathlib.Path(journal.file_path(start))
        whole = path.read_bytes()
        header = FileHeader(512, other.uuid, other.lineage, 0, start, 0, 0, 0)
        path.write_bytes(encode_file_header(header) + whole[HEADER:])
        got, error = read(journal)
        assert got == [frame for frame in frames if frame.position.lsn < start]
        assert error is OtherJournalError
        path.write_bytes(whole)
    shutil.copy(other.file_path(1), journal.file_path(1))
    assert read(journal) == ([], OtherJournalError)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("boot", ["same", "other"])
def test_exchanged_and_renamed_files_are_damage(
    journal: Journal, frames: list[Recorded], clean: bool, boot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert frames
    if clean:
        open_writer(journal).close()
    if boot == "other":
        monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    first, *_, middle, last = journal_files(journal.path)
    a, b, c = first.read_bytes(), middle.read_bytes(), last.read_bytes()
    for one, other in [(first, middle), (middle, last), (first, last)]:
        contents = one.read_bytes(), other.read_bytes()
        other.write_bytes(contents[0])
        one.write_bytes(contents[1])
        assert read(Journal(journal.path))[1] is CorruptJournalError
        first.write_bytes(a)
        middle.write_bytes(b)
        last.write_bytes(c)
    shutil.copy(middle, last)
    assert read(Journal(journal.path))[1] is CorruptJournalError


def test_a_frame_of_an_older_file_at_the_same_place_is_refused(journal: Journal, frames: list[Recorded]) -> None:
    """Same journal, same offset, other file: the seed is another."""
    first, *_, last = journal_files(journal.path)
    last.write_bytes(last.read_bytes()[:HEADER] + first.read_bytes()[HEADER:])
    got, error = read(journal)
    assert got == [frame for frame in frames if frame.file_first_lsn < starts(frames)[-1]]
    assert error is CorruptJournalError


@pytest.mark.parametrize(
    "change",
    [
        lambda position: Position(position.lsn, position.chain ^ 1),
        lambda position: Position(position.lsn + 1, position.chain),
        lambda position: Position(position.lsn - 1, position.chain),
    ],
    ids=["chain", "later", "earlier"],
)
def test_a_position_of_another_history_is_a_fork(
    journal: Journal, frames: list[Recorded], change: Callable[[Position], Position]
) -> None:
    for frame in frames:
        assert read(journal, change(frame.position)) == ([], ForkedJournalError)


def test_the_start_has_a_chain_value_too(journal: Journal, frames: list[Recorded]) -> None:
    assert frames
    assert read(journal, Position(0, journal.start.chain ^ 1)) == ([], ForkedJournalError)


def test_a_position_inside_a_frame_or_past_the_end_is_a_fork(journal: Journal) -> None:
    writer = open_writer(journal)
    batch = write_batch(1, 1)
    append(writer, type(batch)(b"\2\2\2", [1, 2, 3], [1, 1, 1]))
    assert read(journal, Position(2, writer.position.chain)) == ([], ForkedJournalError)
    assert read(journal, Position(4, writer.position.chain)) == ([], ForkedJournalError)
    assert read(journal, writer.position) == ([], None)


def test_a_reader_that_cannot_begin_leaves_no_descriptor_open(journal: Journal, frames: list[Recorded]) -> None:
    before = open_descriptors()
    for start in (Position(5, 0), Position(99, 0)):
        with pytest.raises(ForkedJournalError):
            JournalReader(journal, start)
    flip(last_file(journal), 20)
    with pytest.raises(JournalError):
        JournalReader(journal, frames[-1].position)
    with pytest.raises(JournalError):
        JournalReader(journal, first_lsn=starts(frames)[-1])
    assert open_descriptors() == before


def test_a_frame_of_another_history_at_its_very_place_is_refused(journal: Journal, tmp_path: pathlib.Path) -> None:
    """Same uuid, file, offset, LSN and length: only the chain tells them apart."""
    shutil.copytree(journal.path, tmp_path / "other")
    other = Journal(str(tmp_path / "other"))
    for each, value in ((journal, 1), (other, 2)):
        writer = open_writer(each)
        append(writer, write_batch(0, value), time_ns=value)
        second = append(writer, write_batch(1, 3), time_ns=5)
    mine, theirs = last_file(journal), last_file(other).read_bytes()
    assert mine.stat().st_size == len(theirs)
    mine.write_bytes(mine.read_bytes()[: second.offset] + theirs[second.offset :])
    result = read_all(journal)
    assert [frame.time_ns for frame in result.frames] == [1]
    assert isinstance(result.error, CorruptJournalError)


def test_time_that_runs_backwards_is_damage(journal: Journal) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 0), time_ns=5)
    writer.time_ns = 0
    append(writer, write_batch(0, 1), time_ns=4)
    got, error = read(journal)
    assert [frame.time_ns for frame in got] == [5]
    assert error is CorruptJournalError


def test_a_reader_waits_at_a_torn_frame_and_reads_it_once_it_is_whole(journal: Journal) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 0))
    second = append(writer, write_batch(1, 1))
    path = last_file(journal)
    whole = path.read_bytes()
    for size in range(second.offset + 1, second.end):
        cut(path, size)
        with JournalReader(journal) as reader:
            assert reader.next_frame()
            for _ in range(2):
                with pytest.raises(TornJournalError) as caught:
                    reader.next_frame()
                assert caught.value.offset == second.offset
            path.write_bytes(whole)
            frame = reader.next_frame()
            assert frame
            assert frame.header.position == second.position


def test_a_torn_frame_may_become_another_one(journal: Journal, other_boot: None) -> None:  # noqa: ARG001
    """A failed append was cut off, or a torn tail moved away, and the next frame stands in its place."""
    writer = open_writer(journal)
    append(writer, write_batch(0, 0))
    kept, second = last_file(journal).read_bytes(), append(writer, write_batch(1, 1))
    flip(last_file(journal), second.end - 1)
    with JournalReader(journal) as reader:
        assert reader.next_frame()
        with pytest.raises(TornJournalError):
            reader.next_frame()
        last_file(journal).write_bytes(kept)
        writer.abandon()
        other = append(open_writer(Journal(journal.path)), write_batch(2, 2, 3))
        frame = reader.next_frame()
        assert frame
        assert frame.header.position == other.position
        assert reader.next_frame() is None


def when_listed(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """Let something happen just when the reader lists the files for the first time."""
    real = Journal.file_starts

    def list_then(journal: Journal) -> list[int]:
        monkeypatch.setattr(Journal, "file_starts", real)
        happen()
        return real(journal)

    monkeypatch.setattr(Journal, "file_starts", list_then)


@pytest.mark.parametrize("half", [False, True], ids=["not begun", "half written"])
def test_a_frame_and_a_new_file_at_the_same_moment_are_no_damage(
    journal: Journal, tmp_path: pathlib.Path, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder ends a file between two looks of a reader that follows it."""
    writer = open_writer(journal, file_bytes=400)
    frames = [append(writer, write_batch(number, number)) for number in range(4)]
    writer.sync()
    last_of_first = [frame for frame in frames if frame.file_first_lsn == 1][-1]
    assert frames[-1].file_first_lsn > 1
    whole = tmp_path / "whole"
    shutil.copytree(journal.files_path, whole)
    for path in journal_files(journal.path)[1:]:
        path.unlink()
    cut(journal_files(journal.path)[0], last_of_first.end - (20 if half else last_of_first.end - last_of_first.offset))

    def finish() -> None:
        shutil.copytree(whole, journal.files_path, dirs_exist_ok=True)

    with JournalReader(journal) as reader:
        while reader.position.lsn < last_of_first.position.lsn - 1:
            assert reader.next_frame()
        when_listed(monkeypatch, finish)
        got = []
        while (frame := reader.next_frame()) or len(got) < len(frames) - last_of_first.position.lsn + 1:
            if frame:
                got.append(frame.header.position)
        assert got == [frame.position for frame in frames if frame.position.lsn >= last_of_first.position.lsn]


def test_a_file_that_became_shorter_than_what_was_read_is_damage(journal: Journal, frames: list[Recorded]) -> None:
    with JournalReader(journal) as reader:
        while reader.next_frame():
            pass
        cut(last_file(journal), frames[-1].end - 1)
        with pytest.raises(CorruptJournalError, match="was read up to offset"):
            reader.next_frame()


def test_after_a_torn_body_the_reader_stands_before_the_frame(
    journal: Journal, other_boot: None  # noqa: ARG001
) -> None:  # fmt: skip
    writer = open_writer(journal)
    first, second = append(writer, write_batch(0, 0)), append(writer, write_batch(1, 1))
    flip(last_file(journal), second.end - 1)
    with JournalReader(journal) as reader:
        reader.next_frame()
        for _ in range(2):
            assert reader.next_header()
            with pytest.raises(TornJournalError) as caught:
                reader.batch()
            assert caught.value.offset == second.offset
            assert (reader.position, reader.state_sum, reader.offset) == (first.position, first.state_sum, first.end)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journalfile, "_READ_BYTES", 7)


def test_frames_larger_than_the_buffer_are_read(
    journal: Journal, frames: list[Recorded], small_windows: None  # noqa: ARG001
) -> None:  # fmt: skip
    assert read(journal) == (frames, None)


def test_every_magic_is_found_once_also_across_reads(
    journal: Journal, frames: list[Recorded], small_windows: None  # noqa: ARG001
) -> None:  # fmt: skip
    start = starts(frames)[0]
    file = journalfile.JournalFile(journal, start)
    data = pathlib.Path(file.path).read_bytes()
    expected = [place for place in range(1, len(data)) if data.startswith(b"MJF1", place)]
    assert list(file.find_magic(1)) == expected
    assert expected == [frame.offset for frame in frames if frame.file_first_lsn == start]
    file.close()


def test_a_file_of_a_twin_that_went_another_way_is_damage(tmp_path: pathlib.Path) -> None:
    """As where somebody mixes the files of two copies: the file is whole, but does not follow the one before it."""
    one = tmp_path / "one"
    writer = open_writer(make_journal(one), file_bytes=300)
    append(writer, write_batch(0, 1))
    writer.close()
    shutil.copytree(one, tmp_path / "two")
    for value, path in enumerate((one, tmp_path / "two")):
        writer = open_writer(Journal(str(path)), file_bytes=300)
        for page in range(6):
            append(writer, write_batch(page, value))
        writer.close()
    mine, theirs = journal_files(one), journal_files(tmp_path / "two")
    assert len(mine) > 2 and [file.name for file in mine] == [file.name for file in theirs]
    shutil.copy(theirs[-1], mine[-1])
    found = read_all(Journal(str(one)))
    assert isinstance(found.error, CorruptJournalError) and "does not continue the file before it" in str(found.error)
    assert found.frames[-1].end == mine[-2].stat().st_size


@pytest.mark.parametrize("length", [0, layout.FILE_HEADER.size, layout.FILE_HEADER.size + 1])
def test_a_file_that_begins_among_the_frames_of_another_is_damage(
    journal: Journal, frames: list[Recorded], length: int
) -> None:
    """Which of the two holds cannot be known. One that was only begun has no frame, as what a crash left."""
    starts = journal.file_starts()
    longest = max(starts, key=lambda start: sum(frame.file_first_lsn == start for frame in frames))
    inside = Lsn(longest + 1)
    assert inside not in starts
    whole = pathlib.Path(journal.file_path(longest)).read_bytes()
    pathlib.Path(journal.file_path(inside)).write_bytes(whole[:length])
    found, error = read(journal)
    if length > layout.FILE_HEADER.size:
        assert found == [frame for frame in frames if frame.file_first_lsn <= longest]
        assert error is CorruptJournalError
    else:
        assert (found, error) == (frames, None)
