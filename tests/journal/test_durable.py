"""What is noted in a journal, and made or removed beside it, stays so after a power cut, once the call has returned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import NotAJournalError
from mirrortool.journal import slots
from mirrortool.journal.bases.listing import bases_path, link_elsewhere, lock_bases
from mirrortool.journal.copies.directory import load_id, lock_copy
from mirrortool.journal.directory import Journal, create, share_slots
from mirrortool.journal.durablemark import drop_mark, load_mark, save_mark
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint
from mirrortool.journal.slots import Slot, find_slot, lose_after_fork
from mirrortool.journal.unfinished import PromotionNote, load_note, remove_note, save_note
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.missingsegments import NotedSegments, forget_noted, load_noted
from mirrortool.volume import place as placed
from tests.fakes.cuts import lose_after, lose_everywhere
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory

HERE = Position(2, 7)
END = FrameEnd(HERE, 1, 128)
NOTE = PromotionNote("/m", b"u" * 16, END, Epoch(1, b"l" * 16, HERE), 1)
SLOT = Slot("mine", "aa" * 16, "mirror", "/m", HERE, 1, 0)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def journal(place: Path) -> Journal:
    maker = JournalMaker(place / "J", {"a": 8 * PAGE})
    maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    return maker.close()


def again(journal: Journal) -> Journal:
    return Journal(journal.path)


def save_slot(journal: Journal) -> None:
    with slots.locked(journal):
        slots.save(journal, SLOT)


def remove_slot(journal: Journal) -> None:
    with slots.locked(journal):
        slots.remove(journal, SLOT.name)


SAVED: dict[str, tuple[Callable[[Journal], object], Callable[[Journal], object]]] = {
    "where the volumes are": (
        lambda j: j.save_volume_paths({"a": "/there"}),
        lambda j: again(j).volume_paths() == {"a": "/there"},
    ),
    "the recorder's checkpoint": (
        lambda j: j.save_recorder_checkpoint(RecorderCheckpoint(HERE, 1, 2, "boot", {})),
        lambda j: again(j).recorder_checkpoint().position == HERE,
    ),
    "that frames will be appended": (lambda j: j.save_clean_end(None), lambda j: again(j).clean_end is None),
    "a clean end": (lambda j: j.save_clean_end(END), lambda j: again(j).clean_end == END),
    "a slot": (save_slot, lambda j: find_slot(again(j), "mine") == SLOT),
    "the directory of shared slots": (lambda j: share_slots(j.path), lambda j: os.path.isdir(f"{j.path}/slots")),
    "the directory of bases": (lambda j: lock_bases(j).close(), lambda j: os.path.isdir(bases_path(j))),
    "the link to a base": (
        lambda j: link_elsewhere("/there", f"{bases_path(j)}/1.base"),
        lambda j: os.readlink(f"{bases_path(j)}/1.base") == "/there",
    ),
    "what a promotion has to do": (lambda j: save_note(j.path, NOTE), lambda j: load_note(j.path) == NOTE),
    "segments that are missing": (
        lambda j: NotedSegments(j).add({3, 5}),
        lambda j: load_noted(j).segments == {3, 5},
    ),
    "up to where a copy is durable": (
        lambda j: save_mark(j.path, HERE, {}),
        lambda j: (found := load_mark(j.path)) and found.position == HERE,
    ),
}


@pytest.mark.parametrize("what", SAVED)
def test_what_was_noted_is_durable_when_the_call_returns(journal: Journal, what: str) -> None:
    act, is_there = SAVED[what]
    if what == "the directory of bases":
        shutil.rmtree(bases_path(journal))
    assert not (what != "the directory of shared slots" and _holds(is_there, journal)), "it is so before, too"
    lose_after(lambda: act(journal))
    assert is_there(journal)


def _holds(is_there: Callable[[Journal], object], journal: Journal) -> bool:
    try:
        return bool(is_there(journal))
    except OSError:
        return False


def test_a_log_of_segments_that_was_deleted_is_made_anew_durably(journal: Journal) -> None:
    NotedSegments(journal).add({3})
    os.remove(journal.detached_log_path)
    lose_after(lambda: NotedSegments(journal).add({5}))
    assert load_noted(journal).segments >= {5}


REMOVED: dict[str, tuple[Callable[[Journal], object], Callable[[Journal], object], Callable[[Journal], object]]] = {
    "a slot": (save_slot, remove_slot, lambda j: find_slot(again(j), "mine") is None),
    "the slot of what was promoted": (
        save_slot,
        lambda j: lose_after_fork(j, HERE, SLOT.owner),
        lambda j: find_slot(again(j), "mine") is None,
    ),
    "what a promotion had to do": (
        lambda j: save_note(j.path, NOTE),
        lambda j: remove_note(j.path),
        lambda j: load_note(j.path) is None,
    ),
    "up to where a copy was durable": (
        lambda j: save_mark(j.path, HERE, {}),
        lambda j: drop_mark(j.path),
        lambda j: load_mark(j.path) is None,
    ),
    "segments that were missing": (
        lambda j: NotedSegments(j).add({3, 5}),
        lambda j: NotedSegments(j).remove(3),
        lambda j: load_noted(j).segments == {5},
    ),
    "that any segment was missing": (
        lambda j: NotedSegments(j).add({3, 5}),
        forget_noted,
        lambda j: not os.path.exists(j.detached_path) and not os.path.exists(j.detached_log_path),
    ),
}


@pytest.mark.parametrize("what", REMOVED)
def test_what_was_forgotten_does_not_come_back(journal: Journal, what: str) -> None:
    prepare, act, is_gone = REMOVED[what]
    prepare(journal)
    assert not is_gone(journal)
    lose_after(lambda: act(journal))
    assert is_gone(journal)


def test_a_slot_that_a_promotion_lost_is_lost_durably(journal: Journal) -> None:
    save_slot(journal)
    lose_after(lambda: lose_after_fork(journal, replace(HERE, lsn=1), "ff" * 16))
    assert find_slot(again(journal), "mine").is_lost


def test_a_list_of_segments_that_is_written_anew_leaves_none_out(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is cut only when the list that has what it said is durable."""
    monkeypatch.setattr("mirrortool.record.missingsegments.RECORDS_MIN", 2)
    noted: set[int] = set()

    def prepare() -> None:
        noted.clear()
        forget_noted(journal)

    def act() -> None:
        opened = NotedSegments(journal)
        for number in range(5):
            opened.add({number})
            noted.add(number)
            if number % 2:
                noted.discard(number)
                opened.remove(number)

    def check(has_ended: bool) -> None:
        found = load_noted(journal).segments
        assert found >= noted
        assert not has_ended or found == noted

    lose_everywhere(prepare, act, check, least=20)


def test_a_journal_that_is_made_is_whole_or_can_be_made(place: Path) -> None:
    path, volume = place / "made", place / "volumes" / "a.img"
    volume.parent.mkdir()

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        volume.unlink(missing_ok=True)

    def act() -> None:
        init(str(path), [NewVolume("a", str(volume), 8 * PAGE)])

    def check(has_ended: bool = True) -> None:
        if has_ended:
            journal = Journal(str(path))
            assert journal.volume_paths() == {"a": str(volume)} and journal.recorder_checkpoint()
            assert {"files", "sums", "torn", "bases"} <= set(os.listdir(path))
            assert volume.stat().st_size == 8 * PAGE
            return
        volume.unlink(missing_ok=True)
        try:
            Journal(str(path))
        except NotAJournalError:
            act()
            check()

    lose_everywhere(prepare, act, check, least=10)


def test_a_copy_that_is_begun_has_its_id_and_place(place: Path) -> None:
    lose_after(lambda: lock_copy(str(place / "C")).close())
    assert (place / "C").is_dir()
    found: list[bytes] = []
    lose_after(lambda: found.append(load_id(str(place / "C"))))
    assert load_id(str(place / "C")) == found[0]


def test_what_a_journal_is_made_of_is_there_when_it_is(place: Path) -> None:
    lose_after(lambda: create(str(place / "new"), placed([("a", 8 * PAGE)], PAGE), {}, {}))
    assert {"files", "sums", "torn", "bases", "journal.json"} <= set(os.listdir(place / "new"))
