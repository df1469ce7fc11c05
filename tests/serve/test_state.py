"""A mirror is shown if it is a state of the primary, and only pages of it that have their sums; else it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import clock
from mirrortool.errors import (
    ChangedOutsideError,
    FuzzyCommitError,
    LockedError,
    MirrortoolError,
    NotAJournalError,
    NotComparableError,
    PromotedError,
    UsageError,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.lsn import Lsn
from mirrortool.mirror.directory import Mirror, Promoted
from mirrortool.mirror.newmirror import create
from mirrortool.operation import CommitKind
from mirrortool.serve.state import ShownState, open_state
from tests.fakes.journals import PAGE, Commit, Op, Write, Zero, make_journal, memory_directory, replay_all

PAGES = 40
SIZE = PAGES * PAGE - 100


def page(letter: str, count: int = 1) -> bytes:
    return letter.encode() * PAGE * count


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def make_mirror(place: Path, *last: Op) -> Mirror:
    """Two volumes, of which one has zeros in the middle, at the commit that `last` ends with."""
    frames = [[Write("a", 0, page("x", 10)), Write("a", 30, page("y", 10)), Write("b", 0, page("z"))], [Commit()]]
    journal = make_journal(place / "J", {"a": SIZE, "b": PAGE}, [*frames, list(last or [Commit("here")])])
    replay_all(journal, place / "M")
    return Mirror(str(place / "M"))


def read(state: ShownState, name: str) -> bytes:
    """All of a volume that may not be zeros; the rest as zeros."""
    volume = state.volume(name)
    first = state.reader.volumes.first_page(volume)
    found = bytearray(state.reader.volumes.page_count(volume) * PAGE)
    for start, count in state.reader.data_runs(first, state.reader.volumes.page_count(volume)):
        at = (start - first) * PAGE
        state.reader.read_into(start, [memoryview(found)[at : at + count * PAGE]])
    return bytes(found[: volume.size])


def test_a_mirror_is_as_its_images(place: Path) -> None:
    mirror = make_mirror(place)
    with open_state(mirror.path) as state:
        assert (state.lsn, state.time_ns) == (mirror.checkpoint.position.lsn, mirror.checkpoint.time_ns)
        for name in ("a", "b"):
            assert read(state, name) == (place / f"M/volumes/{name}.img").read_bytes()
        assert not state.is_fuzzy and not state.warnings


def test_while_it_is_shown_nothing_is_replayed_into_it(place: Path) -> None:
    mirror = make_mirror(place)
    with open_state(mirror.path), pytest.raises(LockedError):
        replay_all(Journal(mirror.journal_path), mirror.path)
    with mirror.lock(exclusive=True), pytest.raises(LockedError):
        open_state(mirror.path)
    replay_all(Journal(mirror.journal_path), mirror.path)


def test_two_can_show_it_at_once(place: Path) -> None:
    mirror = make_mirror(place)
    with open_state(mirror.path) as one, open_state(mirror.path) as other:
        assert read(one, "b") == read(other, "b")


@pytest.mark.parametrize("volume_page", [0, 9, 20, PAGES - 1])
def test_a_page_that_was_changed_outside_is_not_shown(place: Path, volume_page: int) -> None:
    """Also one that was zeros."""
    mirror = make_mirror(place)
    with open(place / "M/volumes/a.img", "r+b") as image:
        image.seek(volume_page * PAGE)
        image.write(b"!")
    with open_state(mirror.path) as state, pytest.raises(ChangedOutsideError, match=f"page {volume_page} of volume a"):
        read(state, "a")


def test_a_page_that_became_a_hole_is_not_taken_for_zeros(place: Path) -> None:
    mirror = make_mirror(place)
    with open(place / "M/volumes/a.img", "r+b") as image:
        image.truncate(0)
        image.truncate(SIZE)
    with open_state(mirror.path) as state, pytest.raises(ChangedOutsideError, match="page 0 of volume a"):
        read(state, "a")


def test_a_sum_that_rotted_is_found(place: Path) -> None:
    mirror = make_mirror(place)
    with open(place / "M/sums/b.sums", "r+b") as sums:
        sums.write(b"rotten!!")
    with open_state(mirror.path) as state, pytest.raises(ChangedOutsideError, match="verify"):
        read(state, "b")


def change_checkpoint(mirror: Mirror, **values: object) -> None:
    mirror.save_checkpoint(replace(mirror.checkpoint, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"reached_lsn": Lsn(99)}, "rolling forward after LSN .*between two commits.*replay .*brings it to one"),
        ({"is_commit": False}, "rolling forward"),
        ({"resync_lsn": Lsn(9)}, "starting over"),
        ({"commit_kind": CommitKind.INCOMPLETE}, "before the primary's initial scan ended"),
    ],
)
def test_a_mirror_that_is_no_state_of_the_primary_is_refused(place: Path, values: dict[str, object], says: str) -> None:
    mirror = make_mirror(place)
    change_checkpoint(mirror, **values)
    with pytest.raises(NotComparableError, match=says):
        open_state(mirror.path, allow_fuzzy=True)


def test_a_mirror_that_is_empty_is_refused(place: Path) -> None:
    journal = make_journal(place / "J", {"a": SIZE}, [[Commit()]])
    create(str(place / "M"), journal)
    with pytest.raises(NotComparableError, match="empty"):
        open_state(str(place / "M"))


def test_a_fuzzy_mirror_is_shown_if_that_is_asked_for(place: Path) -> None:
    mirror = make_mirror(place, Zero("b", 0, 1), Commit(kind=CommitKind.FUZZY))
    with pytest.raises(FuzzyCommitError, match="--allow-fuzzy"):
        open_state(mirror.path)
    with open_state(mirror.path, allow_fuzzy=True) as state:
        assert state.is_fuzzy and read(state, "b") == page("\0")
        assert any("FUZZY" in warning for warning in state.warnings)


def test_what_was_promoted_is_refused(place: Path) -> None:
    mirror = make_mirror(place)
    mirror.save_promoted(Promoted(mirror.history.current, "elsewhere", clock.now_ns()))
    with pytest.raises(PromotedError, match="elsewhere"):
        open_state(mirror.path)


def test_a_mirror_has_no_other_points(place: Path) -> None:
    with pytest.raises(UsageError, match=r"name its journal, .*J"):
        open_state(make_mirror(place).path, Until.parse("here"))


def test_a_volume_that_is_not_there_is_refused_with_those_that_are(place: Path) -> None:
    with open_state(make_mirror(place).path) as state, pytest.raises(UsageError, match="its volumes are a, b"):
        state.volume("disk")


@pytest.mark.parametrize("name", ["nowhere", "", "."])
def test_what_is_neither_is_refused(place: Path, name: str) -> None:
    with pytest.raises(NotAJournalError):
        open_state(str(place / name) if name else name)


def test_what_was_refused_is_free(place: Path) -> None:
    mirror = make_mirror(place)
    change_checkpoint(mirror, reached_lsn=Lsn(99))
    with pytest.raises(MirrortoolError):
        open_state(mirror.path)
    mirror.lock(exclusive=True).close()
