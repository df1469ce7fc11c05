"""Backings are added, drained and removed while the mirror stays what it is, whatever stops the call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool.errors import (
    ChangedOutsideError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.managebackings import (
    DrainBacking,
    add_backing,
    find_backing,
    list_backings,
    remove_backing,
)
from mirrortool.mirror.newmirror import create
from mirrortool.mirror.volumelabels import belonging
from mirrortool.replay.session import Replay
from tests.fakes.cuts import EACH_CALL
from tests.fakes.disk import Disk, PowerCut, cut_at, faulty
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Write,
    Zero,
    assert_is_commit,
    assert_verifies,
    memory_directory,
    replay_all,
)
from tests.fakes.spannedmirrors import EXTENT, small_extents, targets
from tests.fakes.volumes import make_primary, pattern


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path, small_extents():
        yield path


@pytest.fixture
def maker(place: Path) -> Iterator[JournalMaker]:
    maker = JournalMaker(place / "J", {"a": 30 * EXTENT})
    maker.frame(*(Write("a", 4 * number, pattern(number, 3 * PAGE)) for number in range(6)), Commit())
    yield maker
    maker.abandon()


@pytest.fixture
def journal(maker: JournalMaker) -> Journal:
    return maker.journal


@pytest.fixture
def mirror(place: Path, journal: Journal) -> Mirror:
    replay_all(journal, place / "M", backings=targets(place, [6, 3]), extent_bytes=EXTENT)
    return Mirror(str(place / "M"))


def new(place: Path, cells: int, name: str = "new") -> BackTarget:
    return BackTarget(str(place / name), targets(place, [cells])[0].size)


def drain(mirror: Mirror, name: str) -> int:
    with DrainBacking(mirror, name) as draining:
        return draining.run()


def uses(mirror: Mirror) -> list[tuple[str, int | None, int | None]]:
    return [(use.state, use.used, use.free) for use in list_backings(Mirror(mirror.path))]


def test_backings_are_listed_with_what_lies_there(place: Path, mirror: Mirror) -> None:
    assert uses(mirror) == [("in use", 4, 2), ("in use", 2, 1)]
    os.rename(place / "b1", place / "away")
    assert uses(mirror) == [("in use", 4, 2), ("missing", None, None)]
    (place / "b1").write_bytes(b"something else")
    assert uses(mirror) == [("in use", 4, 2), ("changed", None, None)]


def test_one_is_added_and_another_drained_and_removed(
    place: Path, maker: JournalMaker, journal: Journal, mirror: Mirror
) -> None:
    added = add_backing(mirror, new(place, 7))
    assert (added.state, added.used, added.free) == ("in use", 0, 7)
    assert assert_is_commit(journal, mirror.path)
    assert drain(mirror, str(place / "b0")) == 0
    assert uses(mirror)[0] == ("drained", 0, 6)
    with pytest.raises(UnusableVolumeError, match=r"extents? lies? on backing .*") as there:
        remove_backing(mirror, str(place / "b1"))
    assert f"mirrortool backing drain {mirror.path}" in str(there.value)
    assert_verifies(mirror.path)
    maker.frame(*(Write("a", 4 * number, pattern(number, PAGE)) for number in range(10, 13)), Commit())
    replay_all(journal, mirror.path)
    assert uses(mirror)[0] == ("drained", 0, 6), "it gets nothing more"
    removed = remove_backing(Mirror(mirror.path), find_backing(mirror, str(place / "b0")).short)
    assert removed.path == str(place / "b0")
    assert belonging(removed.path) is None
    assert len(uses(mirror)) == 2
    os.remove(removed.path)
    replay_all(journal, mirror.path)
    assert assert_is_commit(journal, mirror.path)
    assert_verifies(mirror.path)


def test_what_was_removed_can_be_used_again(place: Path, mirror: Mirror) -> None:
    add_backing(mirror, new(place, 7))
    drain(mirror, str(place / "b0"))
    remove_backing(Mirror(mirror.path), str(place / "b0"))
    assert add_backing(Mirror(mirror.path), BackTarget(str(place / "b0"))).free == 6


def test_a_full_mirror_goes_on_when_a_backing_was_added(
    place: Path, maker: JournalMaker, journal: Journal, mirror: Mirror
) -> None:
    maker.frame(*(Write("a", 4 * number, pattern(number, PAGE)) for number in range(6, 13)), Commit())
    with pytest.raises(NoSpaceError, match="mirrortool backing add"):
        replay_all(journal, mirror.path)
    add_backing(Mirror(mirror.path), new(place, 9))
    replay_all(journal, mirror.path)
    assert assert_is_commit(journal, mirror.path)
    assert_verifies(mirror.path)


def test_where_the_others_have_no_room_nothing_changes(place: Path, journal: Journal, mirror: Mirror) -> None:
    with pytest.raises(NoSpaceError, match="1 extent is free, 4 more are needed"):
        DrainBacking(mirror, str(place / "b0"))
    assert uses(mirror) == [("in use", 4, 2), ("in use", 2, 1)]
    replay_all(journal, mirror.path)


def test_what_cannot_be_a_backing_is_refused(place: Path, journal: Journal, mirror: Mirror) -> None:
    def why(target: BackTarget, **options: bool) -> str:
        with pytest.raises(MirrortoolError) as refused:
            add_backing(mirror, target, **options)
        assert len(Mirror(mirror.path).holders()) == 2
        return str(refused.value)

    (place / "full").write_bytes(b"data" * EXTENT)
    replay_all(journal, place / "M2", backings=[new(place, 6, "other")], extent_bytes=EXTENT)
    os.symlink(place / "b1", place / "link")
    assert "of this mirror already" in why(BackTarget(str(place / "b1")), overwrite=True)
    assert "of this mirror already" in why(BackTarget(str(place / "link")), overwrite=True)
    assert "the target holds data" in why(BackTarget(str(place / "full")))
    assert "needs a size" in why(BackTarget(str(place / "none")))
    assert "belongs to the mirror" in why(BackTarget(str(place / "other")), overwrite=True, raw=True)
    assert "lies inside the journal" in why(BackTarget(f"{journal.path}/x", 9 * EXTENT))
    assert "lies in the mirror's directory" in why(BackTarget(f"{mirror.path}/sums/x", 9 * EXTENT))
    assert_verifies(mirror.path)


def test_the_primarys_volume_is_no_backing(place: Path) -> None:
    primary = make_primary(place, {"disk": bytes(100 * EXTENT)})
    primary.scan()
    mirror = primary.mirror(backings=targets(place, [4]), extent_bytes=EXTENT)
    with pytest.raises(UnusableVolumeError, match="the primary's own volume"):
        add_backing(mirror, BackTarget(primary.paths["disk"]), overwrite=True)


def test_a_backing_is_named_by_path_or_by_the_beginning_of_its_uuid(place: Path, mirror: Mirror) -> None:
    assert mirror.backings
    first, second = mirror.backings.each
    assert find_backing(mirror, str(place / "b1")) == second
    assert find_backing(mirror, first.uuid.hex()[:6].upper()) == first
    for name in ("", first.uuid.hex()[:3], "zzzz", str(place / "nothing")):
        with pytest.raises(UsageError, match="no backing has"):
            find_backing(mirror, name)


def test_the_last_backing_stays(place: Path, journal: Journal) -> None:
    create(str(place / "M"), journal, backings=targets(place, [6]), extent_bytes=EXTENT)
    with pytest.raises(UsageError, match="the only backing"):
        remove_backing(Mirror(str(place / "M")), str(place / "b0"))
    replay_all(journal, place / "M")


def test_a_mirror_without_backings_has_none(place: Path, journal: Journal) -> None:
    replay_all(journal, place / "flat")
    for call in (
        lambda m: list_backings(m),
        lambda m: add_backing(m, new(place, 4)),
        lambda m: remove_backing(m, "b0"),
        lambda m: DrainBacking(m, "b0"),
    ):
        with pytest.raises(UsageError, match="has no backings"):
            call(Mirror(str(place / "flat")))


def test_nothing_is_changed_while_a_replay_runs(place: Path, journal: Journal, mirror: Mirror) -> None:
    with Replay(journal.path, mirror.path):
        for call in (
            lambda: add_backing(mirror, new(place, 4)),
            lambda: remove_backing(mirror, "b0"),
            lambda: DrainBacking(mirror, "b0"),
        ):
            with pytest.raises(LockedError):
                call()
        assert uses(mirror) == [("in use", 4, 2), ("in use", 2, 1)]


def test_what_another_program_wrote_is_not_passed_over(place: Path, mirror: Mirror) -> None:
    os.utime(place / "b1")
    with pytest.raises(ChangedOutsideError, match="changed outside of mirrortool"):
        drain(mirror, str(place / "b1"))
    with pytest.raises(ChangedOutsideError, match="changed outside of mirrortool"):
        add_backing(mirror, new(place, 4))


def test_after_a_call_that_was_refused_what_another_program_writes_is_still_found(
    place: Path, journal: Journal, mirror: Mirror
) -> None:
    with pytest.raises(UsageError):
        drain(mirror, "none")
    os.utime(place / "b1")
    with pytest.raises(ChangedOutsideError):
        replay_all(journal, mirror.path)


def test_a_backing_is_drained_while_the_mirror_is_rolling_forward(
    place: Path, maker: JournalMaker, journal: Journal, mirror: Mirror
) -> None:
    """What was written after the checkpoint is moved as it is, and the next replay completes it."""
    add_backing(mirror, new(place, 9))
    maker.frame(*(Write("a", 4 * number, pattern(99, PAGE)) for number in range(3, 9)), Zero("a", 0, 4), Commit())
    with faulty(cut_at(30)) as system:
        with suppress(PowerCut):
            replay_all(journal, mirror.path, window_bytes=PAGE)
        system.disk.lose_all_but_newest()
    drain(Mirror(mirror.path), str(place / "b0"))
    replay_all(journal, mirror.path)
    assert assert_is_commit(journal, mirror.path)
    assert_verifies(mirror.path)


def add(place: Path, mirror: Mirror) -> None:
    add_backing(mirror, new(place, 9))


def add_and_drain(place: Path, mirror: Mirror) -> None:
    if len(mirror.holders()) == 2:
        add_backing(mirror, new(place, 9))
    drain(Mirror(mirror.path), str(place / "b0"))


def add_drain_and_remove(place: Path, mirror: Mirror) -> None:
    """As one who tries each step again."""
    if "b0" in {Path(holder.path).name for holder in mirror.holders()}:
        add_and_drain(place, mirror)
    remove_backing(Mirror(mirror.path), str(place / "b0"))


@EACH_CALL
@pytest.mark.parametrize(
    ("act", "states"),
    [
        (add, ["in use", "in use", "in use"]),
        (add_and_drain, ["drained", "in use", "in use"]),
        (add_drain_and_remove, ["in use", "in use"]),
    ],
    ids=["add", "drain", "remove"],
)
def test_what_a_power_cut_stopped_is_completed_by_the_same_call(
    place: Path, journal: Journal, act: Callable[[Path, Mirror], None], states: list[str], step: int
) -> None:
    for number, lose in enumerate([Disk.lose_all, Disk.lose_all_but_newest]):
        for cut in range(1, 1000, step):
            here = place / f"{number}-{cut}"
            here.mkdir()
            replay_all(journal, here / "M", backings=targets(here, [6, 3]), extent_bytes=EXTENT)
            with faulty(cut_at(cut)) as system:
                try:
                    act(here, Mirror(str(here / "M")))
                    has_ended = True
                except PowerCut:
                    has_ended = False
                lose(system.disk)
            assert_verifies(here / "M")
            if not has_ended:
                with suppress(UsageError):  # it was complete, and nothing is left to do
                    act(here, Mirror(str(here / "M")))
            assert [use.state for use in list_backings(Mirror(str(here / "M")))] == states
            assert_verifies(here / "M")
            replay_all(journal, here / "M")
            assert assert_is_commit(journal, here / "M")
            if has_ended:
                assert cut > 5
                break
