"""The head of a journal is what its newest frame and commit are, found without reading or syncing what lies before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirrortool import files
from mirrortool.journal.format import FILE_HEADER
from mirrortool.journal.newest import HeadWatch
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import CommitKind
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory
from tests.fakes.tails import Torn

SIZES = {"a": 40 * PAGE}


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", SIZES, file_bytes=3000)
    yield made
    made.abandon()


def noise(number: int) -> bytes:
    return random.Random(number).randbytes(PAGE)


def frame_bytes(maker: JournalMaker) -> int:
    sizes = [Path(maker.journal.file_path(start)).stat().st_size for start in maker.journal.file_starts()]
    return sum(size - FILE_HEADER.size for size in sizes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["write", "commit", "look"]), max_size=60))
@example(["look", "commit", *["write"] * 20])
@example(["commit", *["write"] * 3, "look", *["write"] * 3, "commit", *["write"] * 20])
def test_the_head_is_that_of_a_reader_that_reads_everything(steps: list[str]) -> None:
    with memory_directory() as path:
        maker = JournalMaker(path / "journal", SIZES, file_bytes=3000)
        with HeadWatch(maker.journal) as watch:
            for number, step in enumerate([*steps, "look"]):
                if step == "write":
                    maker.frame(Write("a", number % 40, noise(number)))
                elif step == "commit":
                    maker.frame(Commit())
                else:
                    head = watch.look()
                    assert head.lsn == maker.writer.position.lsn
                    assert head.commit_lsn == (maker.commits[-1] if maker.commits else 0)
                    assert head.frame_bytes == frame_bytes(maker)
        maker.abandon()


def test_bytes_count_from_where_the_watch_began(maker: JournalMaker) -> None:
    for number in range(7):
        maker.frame(Write("a", number, noise(number)), Commit())
    with JournalReader(maker.journal, maker.journal.start) as reader:
        while reader.position.lsn < 6:
            reader.next_header()
        before = frame_bytes(maker)
        with HeadWatch(maker.journal, reader.file_first_lsn, reader.offset) as watch:
            rest = watch.look().frame_bytes
            assert 0 < rest < before
            maker.frame(Commit())
            assert watch.look().frame_bytes == rest + frame_bytes(maker) - before


def test_nothing_is_made_durable_and_no_payload_read(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        maker.frame(Write("a", 0, noise(number) * 40), Commit())
    lengths: list[int] = []
    read = files.File.pread_into

    def counted(self: files.File, buffers: list[memoryview], offset: int) -> int:
        lengths.append(sum(map(len, buffers)))
        return read(self, buffers, offset)

    monkeypatch.setattr(files.File, "pread_into", counted)
    monkeypatch.setattr(files.File, "fdatasync", lambda _: pytest.fail("it was made durable"))
    with HeadWatch(maker.journal) as watch:
        assert watch.look().commit_lsn == maker.commits[-1]
        assert max(lengths) <= 4096
        lengths.clear()
        watch.look()
        assert not lengths, "nothing was appended"
    monkeypatch.undo()


def test_files_behind_are_passed_over(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.frame(Write("a", 0, noise(1)), Commit())
    with HeadWatch(maker.journal) as watch:
        watch.look()
        for number in range(60):
            maker.frame(Write("a", number % 40, noise(number)), Commit())
        opened: list[int] = []
        real = JournalReader._open
        monkeypatch.setattr(JournalReader, "_open", lambda self, lsn: (opened.append(lsn), real(self, lsn))[1])
        assert watch.look().commit_lsn == maker.commits[-1]
        assert opened == [maker.journal.file_starts()[-1]]


def test_a_torn_tail_and_damage_end_what_it_sees(maker: JournalMaker) -> None:
    maker.frame(Write("a", 0, noise(1)), Commit())
    torn = Torn(maker)
    torn.write(90)
    with HeadWatch(maker.journal) as watch:
        assert watch.look().lsn == 2
        torn.cut()
        maker.frame(Commit())
        assert watch.look().lsn == 3
    Path(maker.journal.file_path(1)).write_bytes(b"garbage" * 100)
    with HeadWatch(maker.journal) as watch:
        assert watch.look().lsn == 0


def test_a_heartbeat_is_no_commit_that_a_mirror_could_lack(maker: JournalMaker) -> None:
    with HeadWatch(maker.journal) as watch:
        assert not watch.look().may_rest
        maker.frame(Write("a", 0, noise(1)), Commit())
        changed = watch.look()
        assert (changed.commit_lsn, changed.may_rest, changed.is_heartbeat) == (2, True, False)
        maker.frame(Commit(kind=CommitKind.HEARTBEAT))
        beaten = watch.look()
        assert (beaten.lsn, beaten.commit_lsn, beaten.commit_time_ns) == (3, 2, changed.commit_time_ns)
        assert (beaten.may_rest, beaten.is_heartbeat) == (True, True)
        maker.frame(Commit(kind=CommitKind.INCOMPLETE))
        incomplete = watch.look()
        assert (incomplete.commit_lsn, incomplete.may_rest, incomplete.is_heartbeat) == (4, False, False)
