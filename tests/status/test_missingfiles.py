"""A journal file that is missing in the middle is told by a look that reads only the ends of files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.errors import MissingFileError
from mirrortool.journal.format import FRAME_MAGIC
from mirrortool.journal.journalfile import JournalFile
from mirrortool.status import Watch, journal_status
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE}, file_bytes=1500)
    for number in range(12):
        made.frame(Write("a", number, FRAME_MAGIC + random.Random(number).randbytes(PAGE - len(FRAME_MAGIC))), Commit())
    yield made
    made.abandon()


@pytest.mark.parametrize("place", [1, 2, -2])
def test_a_file_that_is_missing_in_the_middle_is_12(
    maker: JournalMaker, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = maker.journal.file_starts()
    assert len(starts) >= 5
    Path(maker.journal.file_path(starts[place])).unlink()
    assert main(["status", maker.journal.path]) == MissingFileError.exit_code
    assert f"the journal file with LSN {starts[place]} is missing" in capsys.readouterr().err


def test_a_journal_that_was_pruned_misses_nothing(maker: JournalMaker) -> None:
    for start in maker.journal.file_starts()[:2]:
        Path(maker.journal.file_path(start)).unlink()
    assert journal_status(maker.journal.path).damage is None


def test_a_watch_finds_what_goes_missing_and_reads_each_end_once(
    maker: JournalMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = JournalFile.last_frame
    monkeypatch.setattr(JournalFile, "last_frame", lambda self: (looked.append(self.first_lsn), real(self))[1])
    with Watch() as watch:
        assert watch.look_at_journal(maker.journal.path).damage is None
        assert looked == maker.journal.file_starts()[:-1]
        looked.clear()
        assert watch.look_at_journal(maker.journal.path).damage is None
        assert not looked
        Path(maker.journal.file_path(maker.journal.file_starts()[2])).unlink()
        assert isinstance(watch.look_at_journal(maker.journal.path).damage, MissingFileError)


def test_only_the_end_of_an_older_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = JournalMaker(tmp_path / "journal", {"a": 4000 * PAGE}, file_bytes=1 << 20)
    noise = bytes(range(256)) * (PAGE // 256)
    while len(maker.journal.file_starts()) < 3:
        maker.frame(Write("a", 0, noise * 100), Commit())
    read: list[int] = []
    real = files.File.pread

    def counted(self: files.File, length: int, offset: int) -> bytes:
        read.append(length)
        return real(self, length, offset)

    monkeypatch.setattr(files.File, "pread", counted)
    for start in maker.journal.file_starts()[:-1]:
        file = JournalFile(maker.journal, start, headers_only=True)
        assert file.last_frame() is not None
        file.close()
    assert sum(read) < 300 << 10
    maker.abandon()


def test_places_that_look_like_frames_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    maker.frame(Write("a", 0, FRAME_MAGIC * (PAGE // 4)), Commit())
    path = Path(maker.journal.file_path(1))
    path.write_bytes(path.read_bytes() + FRAME_MAGIC * 1_000_000)
    file = JournalFile(maker.journal, 1, headers_only=True)
    tried, real = [0], JournalFile.frame_header
    monkeypatch.setattr(JournalFile, "frame_header", lambda *place: (tried.append(1), real(*place))[1])
    assert file.last_frame() is None
    assert sum(tried) <= 1000
    file.close()
    maker.abandon()
