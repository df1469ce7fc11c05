"""What a new epoch drops is in `forked/` before it is gone from the journal, whatever stops that, and stays dropped."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal import format as layout
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.setaside import fork, frame_end_at
from mirrortool.replay.makebase import MakeBase
from tests.fakes.cuts import kill_everywhere, lose_everywhere
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory

END = 4
"""The frames up to this LSN stay; after it are frames of the same file, two files, and a base."""


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def made(place: Path) -> Journal:
    maker = JournalMaker(place / "made", {"a": 8 * PAGE}, file_bytes=3000)
    for number in range(12):
        maker.frame(Write("a", number % 8, random.Random(number).randbytes(PAGE)), Commit())
    journal = maker.abandon()
    Path(journal.path, "recorder.json").unlink()  # it would be redone from LSN 1
    with MakeBase(journal.path, Until(lsn=12)) as making:
        making.run()
    return journal


def end_of(journal: Journal) -> FrameEnd:
    with JournalReader(journal) as reader:
        return frame_end_at(journal, reader.read_to(END))


class Forking:
    """A fork of a journal, and what must be true of it whenever it is stopped."""

    def __init__(self, made: Journal, path: Path) -> None:
        self._made, self.path, self._end = made, path, end_of(made)
        assert len(made.file_starts()) > 2 and made.file_starts()[1] > END + 2
        self._bytes = {name: Path(made.files_path, name).read_bytes() for name in files.list_directory(made.files_path)}

    def prepare(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._made.path, self.path)

    def act(self) -> None:
        fork(Journal(str(self.path)), self._end, 0)

    def check(self, has_ended: bool = True) -> None:
        for name, data in self._bytes.items():
            where = self._end.offset if name == layout.file_name(self._end.file_first_lsn) else 0
            where = max(where, layout.FILE_HEADER.size)
            stays, forked = self.path / "files" / name, self.path / "forked" / f"{name}-0"
            copies = [each.read_bytes()[where:] for each in (stays, forked) if each.exists()]
            assert data[where:] in copies, f"of {name} nobody has what was dropped"
            if has_ended:
                assert forked.read_bytes()[where:] == data[where:]
        if has_ended:
            journal = Journal(str(self.path))
            with JournalReader(journal) as reader:
                while reader.next_header():
                    pass
                assert reader.position.lsn == END
            assert not base_lsns(journal) and (self.path / f"forked/{12:016x}.base-0").exists()
        else:
            self.act()
            self.check()


def test_what_is_dropped_is_in_forked_before_it_is_gone(place: Path, made: Journal) -> None:
    forking = Forking(made, place / "J")
    lose_everywhere(forking.prepare, forking.act, forking.check, least=10)


def test_what_a_killed_fork_left_is_completed_durably(place: Path, made: Journal) -> None:
    forking = Forking(made, place / "J")
    kill_everywhere(forking.prepare, forking.act, forking.check, least=10)
