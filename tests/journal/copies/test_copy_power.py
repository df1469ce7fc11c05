"""What a copy was said to have durably it has after a power cut at any call, and the next shipment completes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.journal import format as layout
from mirrortool.journal.copies.basetransfer import drop_base_transfer
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.rawframes import Run, RunReader
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.unfinished import arriving_path, due_file
from mirrortool.lsn import Lsn
from tests.fakes.cuts import kill_everywhere, lose_everywhere
from tests.fakes.disk import faulty, no_fault
from tests.fakes.journals import Commit, JournalMaker, Write, memory_directory


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def journal(place: Path) -> Journal:
    maker = JournalMaker(place / "J", {"disk": 64 * 512}, file_bytes=500)
    for number in range(6):
        maker.frame(Write("disk", number, bytes([number + 1]) * 512), Commit())
    return maker.close()


def runs_of(journal: Journal) -> list[Run]:
    found = []
    with RunReader(journal) as reader:
        while run := reader.next_run(1):
            found.append(replace(run, data=memoryview(bytes(run.data))))
    return found


def contents(path: Path | str) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(Path(path, "files").iterdir())}


def end_of(journal: Journal) -> FrameEnd:
    assert journal.clean_end
    return journal.clean_end


class Shipping:
    """What arrives in a copy, run by run, and what was acknowledged of it."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self._journal, self._path, self._runs = journal, path, runs_of(journal)
        self.acknowledged = 0

    def prepare(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        self.acknowledged = 0

    def act(self) -> None:
        copy = Copy(str(self._path))
        try:
            copy.begin(Journal(self._journal.path).description)
            for number, run in enumerate(self._runs):
                copy.append(run.file_first_lsn, run.offset, run.data)
                if number % 3 == 1:
                    self.acknowledged = copy.sync().lsn
            copy.note_end(end_of(self._journal))
            self.acknowledged = copy.durable.lsn
        finally:
            copy.close()

    def check(self, has_ended: bool = True) -> None:
        if (self._path / "journal.json").exists():
            left = Journal(str(self._path))
            copy = Copy(str(self._path))
            assert copy.position.lsn >= self.acknowledged
            copy.close()
            if left.clean_end:
                assert contents(self._path) == contents(self._journal.path)
            assert left.clean_end or not has_ended
        else:
            assert not self.acknowledged
        self.act()
        assert contents(self._path) == contents(self._journal.path)


def test_what_was_acknowledged_is_there(place: Path, journal: Journal) -> None:
    shipping = Shipping(journal, place / "C")
    lose_everywhere(shipping.prepare, shipping.act, shipping.check, least=30)


def test_what_a_killed_receiver_left_is_completed_durably(place: Path, journal: Journal) -> None:
    """Also where it was killed in a file whose name was not durable yet."""
    shipping = Shipping(journal, place / "C")
    kill_everywhere(shipping.prepare, shipping.act, shipping.check, least=30)


def test_what_arrived_is_durable_when_a_copy_is_closed(place: Path, journal: Journal) -> None:
    runs = runs_of(journal)
    with faulty(no_fault) as system:
        copy = Copy(str(place / "C"))
        copy.begin(Journal(journal.path).description)
        copy.append(runs[0].file_first_lsn, runs[0].offset, runs[0].data)
        copy.close()
        system.disk.lose_all()
    again = Copy(str(place / "C"))
    assert again.position == runs[0].position
    again.close()


def test_a_torn_tail_that_was_cut_does_not_come_back_before_a_later_file(place: Path, journal: Journal) -> None:
    """Else it would be damage, and hide the frames in that file."""
    runs = runs_of(journal)
    later = next(number for number, run in enumerate(runs) if number and run.offset == 0)
    copy = Copy(str(place / "C"))
    copy.begin(Journal(journal.path).description)
    for run in runs[:later]:
        copy.append(run.file_first_lsn, run.offset, run.data)
    copy.close()
    newest = sorted((place / "C/files").iterdir())[-1]
    newest.write_bytes(newest.read_bytes() + b"MJF1 torn")
    with faulty(no_fault) as system:
        copy = Copy(str(place / "C"))
        copy.append(runs[later].file_first_lsn, 0, runs[later].data)
        acknowledged = copy.sync()
        copy.close()
        system.disk.lose_all()
    with JournalReader(Journal(str(place / "C"))) as reader:
        while reader.next_header():
            pass
        assert reader.position == acknowledged


def test_what_arrived_of_a_base_is_not_taken_for_due_while_it_goes(journal: Journal) -> None:
    """A journal file there without the part of the base beside it is due in the place of all others."""
    arriving = Path(arriving_path(journal.path))

    def prepare() -> None:
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        for name in (f"{1:016x}-9-{1:016x}.part", layout.file_name(Lsn(5))):
            (arriving / name).write_bytes(b"x")

    def check(has_ended: bool) -> None:
        assert due_file(journal.path) is None
        assert not has_ended or not list(arriving.iterdir())

    lose_everywhere(prepare, lambda: drop_base_transfer(journal), check, least=2)
