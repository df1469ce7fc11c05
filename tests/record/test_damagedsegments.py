"""A damaged table of sums never gets into a frame: each process that finds it stops, and the remedy helps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool import jsonfile
from mirrortool.errors import CorruptJournalError, MirrortoolError, NoSpaceError
from mirrortool.files import File
from mirrortool.record import scan as scan_module
from mirrortool.record.damagedsegments import SegmentCheck
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.store import parallelread
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import place
from tests.fakes.recorders import based, check_everywhere
from tests.fakes.volumes import PAGE, Primary, make_primary, pattern

pytestmark = pytest.mark.usefixtures("small")
PAGES = 40


@pytest.fixture
def primary(directory: str) -> Primary:
    return make_primary(directory, {"a": pattern(1, PAGES * PAGE)})


@contextmanager
def every_piece_is_tried(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """As two threads may do: a piece is compared although the one before it failed; the first error counts."""

    def for_each_piece(
        store: FlatStore, page_size: int, todo: Iterable[parallelread.Run], work: parallelread.Work
    ) -> None:
        errors, reader = list[MirrortoolError](), parallelread.PieceReader(store, page_size)
        for piece in todo:
            reader.read(*piece)
            try:
                work(reader, *piece)
            except MirrortoolError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    with patch.context() as patched:
        patched.setattr(scan_module, "for_each_piece", for_each_piece)
        yield


def lose_sums(primary: Primary) -> None:
    os.unlink(Path(primary.journal.sums_path) / "a.sums")


def zero_sums(primary: Primary) -> None:
    path = Path(primary.journal.sums_path) / "a.sums"
    path.write_bytes(bytes(64) + path.read_bytes()[64:])


def change_terms(primary: Primary) -> None:
    path = Path(primary.journal.sums_path) / "a.segments"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


DAMAGE = pytest.mark.parametrize("damage", [lose_sums, zero_sums, change_terms])
Damage = Callable[[Primary], None]


def test_a_segment_counts_as_checked_only_when_it_was_right(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PageSums(directory, place([("a", PAGES * PAGE)], PAGE), 0, write=True)
    table.apply({1: 5})
    asked: list[int] = []
    answers = iter([False, False, True])
    monkeypatch.setattr(table, "is_segment_right", lambda page: asked.append(page) or next(answers))
    check = SegmentCheck(table)
    for _ in range(2):
        with pytest.raises(CorruptJournalError, match="damaged"):
            check.require_right(1, 1)
    for _ in range(2):
        check.require_right(1, PAGES - 1)
    assert asked == [1, 1, 1]


@DAMAGE
def test_a_scan_that_meets_damage_journals_nothing_more_and_the_next_one_mends_it(
    primary: Primary, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary.scan()
    primary.write("a", 0, pattern(2, PAGES * PAGE))
    damage(primary)
    before = primary.journal.recorder_checkpoint().position
    with every_piece_is_tried(monkeypatch), pytest.raises(CorruptJournalError, match="run record again"):
        primary.scan()
    assert primary.journal.recorder_checkpoint().position == before
    primary.scan()
    primary.check()


@DAMAGE
def test_a_scan_does_not_shrink_a_volume_by_damaged_sums(primary: Primary, damage: Damage) -> None:
    primary.scan()
    primary.resize("a", 3 * PAGE)
    damage(primary)
    before = primary.journal.recorder_checkpoint().position
    with pytest.raises(CorruptJournalError, match="run record again"):
        primary.scan()
    assert primary.journal.recorder_checkpoint().position == before
    primary.scan()
    primary.check()


@DAMAGE
def test_a_large_zero_does_not_use_damaged_sums(primary: Primary, damage: Damage) -> None:
    based(primary)
    damage(primary)
    with Recorder(primary.journal_path, background=False) as recorder:
        with pytest.raises(CorruptJournalError):
            recorder.zero("a", 0, 20 * PAGE)
        assert isinstance(recorder.failure, CorruptJournalError)
    with Recorder(primary.journal_path, background=False) as recorder:
        recorder.zero("a", 0, 20 * PAGE)
    check_everywhere(primary, {"a": bytes(20 * PAGE) + pattern(1, PAGES * PAGE)[20 * PAGE :]})


@DAMAGE
def test_an_initial_scan_does_not_use_damaged_sums(primary: Primary, damage: Damage) -> None:
    based(primary)
    damage(primary)
    primary.write("a", 0, pattern(2, PAGES * PAGE))
    with Recorder(primary.journal_path, background=False, take_over=True) as recorder:
        with pytest.raises(CorruptJournalError):
            InitialScan(recorder).run()
        assert isinstance(recorder.failure, CorruptJournalError)
    based(primary)
    check_everywhere(primary, {"a": pattern(2, PAGES * PAGE)})


@contextmanager
def no_room_for(name: str, patch: pytest.MonkeyPatch, times: int = 1) -> Iterator[None]:
    """The next replacements of a small file fail."""
    real, left = jsonfile.save, times

    def save(path: str, *values: object) -> None:
        nonlocal left
        if os.path.basename(path) == name and left:
            left -= 1
            raise NoSpaceError("cannot write: No space left on device", where=path)
        real(path, *values)

    with patch.context() as patched:
        patched.setattr(jsonfile, "save", save)
        yield


def test_what_could_not_be_noted_does_not_pass_for_noted(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the journal has less than the volumes is in recorder.json before the first frame of a scan."""
    primary.scan()
    primary.write("a", 0, pattern(2, PAGES * PAGE))
    noted: list[frozenset[str]] = []
    real = File.pwritev

    def pwritev(self: File, *args: object) -> None:
        noted.append(primary.journal.recorder_checkpoint().incomplete)
        real(self, *args)

    monkeypatch.setattr(File, "pwritev", pwritev)
    with every_piece_is_tried(monkeypatch), no_room_for("recorder.json", monkeypatch), pytest.raises(NoSpaceError):
        primary.scan()
    assert noted
    assert set(noted) == {frozenset({"a"})}


def test_a_stop_without_its_checkpoint_is_no_clean_one(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    based(primary)
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write("a", 0, b"new")
    with no_room_for("recorder.json", monkeypatch, times=9), pytest.raises(NoSpaceError):
        recorder.close()
    journal = primary.journal
    assert journal.clean_end is None
    with Recorder(primary.journal_path, background=False) as again:
        assert again.read("a", 0, 3) == b"new"
    check_everywhere(primary, {"a": b"new" + pattern(1, PAGES * PAGE)[3:]})
