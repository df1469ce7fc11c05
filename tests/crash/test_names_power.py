"""The power fails while files are made, renamed and removed: of the names that nobody synced any may be lost.

Bases, here and in another directory, what ships one, pruning, and replay. The next call ends right whatever is left,
and what was said to be done is done after a cut that leaves only what was synced.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns, base_path, bases_path, lock_bases, open_base, remove_base
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.replay.makebase import MakeBase
from mirrortool.ship.shipoptions import RefusedError
from mirrortool.store import flat
from tests.fakes.cuts import WAYS
from tests.fakes.disk import Call, PowerCut, cut_at, faulty, no_fault
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Write,
    assert_is_commit,
    memory_directory,
    replay_all,
    verified,
)
from tests.ship.prunedjournal import PAGES, assert_sound, assert_whole, make_pruned
from tests.ship.shipments import local

CHANCES = 3
"""Of what a cut at one call leaves."""


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def make_journal(path: Path, frames: int = 12) -> Journal:
    """Some files of a journal that nobody records."""
    maker = JournalMaker(path, {"a": PAGES * PAGE}, file_bytes=1500)
    for number in range(frames):
        maker.frame(Write("a", number % PAGES, random.Random(number).randbytes(PAGE)), Commit())
    journal = maker.close()
    (path / "recorder.json").unlink()  # it would be redone from LSN 1
    return journal


def make_base(journal: Journal, to: Path | None = None) -> int:
    with MakeBase(journal.path, to=str(to) if to else None) as making:
        making.run()
        return making.commit.lsn


def cut_everywhere(
    prepare: Callable[[], None],
    act: Callable[[], object],
    check: Callable[[], None],
    least: int,
    *,
    step: int = 1,
    chances_max: int = CHANCES,
) -> None:
    """Cut before calls of `act`, and at last after it; of what was not synced something is left, or nothing.

    Args:
        least: calls that it must make.
        step: of this many calls one is cut before.
    """
    for number in itertools.count(1, step):
        for chances in range(chances_max):
            prepare()
            with faulty(cut_at(number)) as system:
                try:
                    act()
                    is_done = True
                except PowerCut:
                    is_done = False
                system.disk.cut_power(random.Random(f"{number} {chances}")) if chances else system.disk.lose_all()
            check()
        if is_done:
            assert number > least
            return


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_base_is_made_after_a_power_cut_and_nothing_else_is_left(place: Path, is_elsewhere: bool) -> None:
    made = make_journal(place / "made")
    lsn = make_base(made)
    path, there = place / "J", place / "there"

    def prepare() -> None:
        for each in (path, there):
            shutil.rmtree(each, ignore_errors=True)
        shutil.copytree(made.path, path)
        shutil.rmtree(path / "bases")
        there.mkdir()

    def act() -> None:
        make_base(Journal(str(path)), there if is_elsewhere else None)

    def check() -> None:
        journal = Journal(str(path))
        assert base_lsns(journal) in ([], [lsn])
        act()
        assert set(os.listdir(bases_path(journal))) == {"lock", f"{lsn:016x}.base"}
        assert len(os.listdir(there)) == is_elsewhere
        assert Path(base_path(journal, lsn)).read_bytes() == Path(base_path(made, lsn)).read_bytes()

    cut_everywhere(prepare, act, check, 10, step=7)


def test_a_base_that_is_made_is_there_after_a_power_cut(place: Path) -> None:
    for to in (None, place / "there"):
        if to:
            to.mkdir()
        journal = make_journal(place / f"J{to is None}")
        with faulty(cut_at(1000)) as system:
            lsn = make_base(journal, to)
            system.disk.lose_all()
        assert base_lsns(journal) == [lsn] and Audit(journal.path).run().bases == 1


def test_a_base_elsewhere_that_is_removed_leaves_nothing_that_nobody_knows_of(place: Path) -> None:
    """The link is the only thing that says where it is: it goes last, also after a power cut."""
    path, there = place / "J", place / "there"
    journal = make_journal(path)

    def prepare() -> None:
        shutil.rmtree(there, ignore_errors=True)
        shutil.rmtree(path / "bases", ignore_errors=True)
        there.mkdir()
        make_base(journal, there)

    def act() -> None:
        with lock_bases(journal):
            for lsn in base_lsns(journal):
                remove_base(journal, lsn)
            files.sync_directory(bases_path(journal))

    def check() -> None:
        for lsn in base_lsns(journal):  # what is no base any more has not its name
            open_base(journal, lsn).close()
        act()
        make_base(journal)  # which removes what a crash left
        assert not os.listdir(there)

    cut_everywhere(prepare, act, check, 3)


def test_what_is_elsewhere_is_named_here_from_the_first_moment_to_the_last(place: Path) -> None:
    """Else a cut would leave a file, as large as the volumes, of which nobody knows."""
    journal, there = make_journal(place / "J"), place / "there"
    bases = Path(bases_path(journal))

    def prepare() -> None:
        shutil.rmtree(there, ignore_errors=True)
        shutil.rmtree(bases, ignore_errors=True)
        there.mkdir()

    prepare()
    with faulty(no_fault) as system:
        make_base(journal, there)
    near = {
        call.number + step for call in system.calls for step in range(3) if os.path.dirname(call.path) == str(there)
    }
    assert len(near) > 10
    for number, lose in itertools.product(sorted(near), WAYS):
        prepare()
        with faulty(cut_at(number)) as system:
            with suppress(PowerCut):
                make_base(journal, there)
            lose(system.disk)
        named = {os.path.basename(path.readlink()) for path in bases.iterdir() if path.is_symlink()}
        assert set(os.listdir(there)) <= named, number


def test_what_ships_a_base_goes_on_after_a_power_cut_that_left_only_what_was_synced(place: Path) -> None:
    original = make_pruned(place)
    copy = place / "C"

    def prepare() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        original.copy(copy)

    def act() -> None:
        local(original.journal, copy, has_slot=False).run()

    def check() -> None:
        Copy(str(copy)).close()  # finishes what is due, and cuts what is torn
        assert_sound(copy)
        with suppress(RefusedError):  # what is left of the base is damaged, and goes; then it begins anew
            act()
        act()
        assert_whole(original, copy)

    cut_everywhere(prepare, act, check, 30, chances_max=1)


def test_pruning_leaves_no_gap_after_a_power_cut(place: Path) -> None:
    path = place / "J"
    made = make_journal(place / "made", 20)
    lsn = make_base(made)
    older = len(made.file_starts())

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(made.path, path)

    def act() -> None:
        prune(str(path), Keep(size=0))

    def check() -> None:
        journal = Journal(str(path))
        with JournalReader(journal) as reader:
            lsns = [header.position.lsn for header in iter(reader.next_header, None)]
        assert lsns == list(range(lsns[0], 41, 2))
        assert base_lsns(journal) == [lsn]
        assert_sound(path)
        act()
        assert len(journal.file_starts()) < older

    cut_everywhere(prepare, act, check, 5)


def test_how_the_volumes_were_left_is_forgotten_durably_before_they_are_touched(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next replay takes what this one did to them for another program's work."""
    monkeypatch.setattr(flat, "RESERVE_MARGIN", 1 << 60)  # always reserve, which touches them before any checkpoint
    maker = JournalMaker(place / "J", {"a": PAGES * PAGE})
    maker.frame(Write("a", 0, bytes(PAGE)), Commit())
    replay_all(maker.journal, place / "M")
    assert (place / "M/seen.json").exists()
    maker.frame(Write("a", 1, b"b" * PAGE), Commit())

    def fault(call: Call) -> None:
        if "/volumes/" in call.path:
            raise PowerCut

    with faulty(fault) as system:
        with pytest.raises(PowerCut):
            replay_all(maker.journal, place / "M")
        system.disk.lose_all()
    (volume,) = (place / "M/volumes").iterdir()
    os.utime(volume)  # as the first call to touch it would have
    replay_all(maker.journal, place / "M")
    assert assert_is_commit(maker.journal, place / "M")


def test_a_label_is_given_to_the_volumes_once_it_is_forgotten_how_they_were_left(place: Path) -> None:
    """A copy's volumes get labels of their own, which looks like a write of another program."""
    maker = JournalMaker(place / "J", {"a": PAGES * PAGE})
    maker.frame(Write("a", 0, bytes(PAGE)), Commit())
    replay_all(maker.journal, place / "M")
    shutil.copytree(place / "M", place / "copied")
    assert verified(place / "copied").is_right  # and notes how it found them
    maker.frame(Write("a", 1, b"b" * PAGE), Commit())

    def fault(call: Call) -> None:
        if call.path.endswith("seen.json"):
            raise PowerCut

    with faulty(fault), pytest.raises(PowerCut):
        replay_all(maker.journal, place / "copied")
    assert (place / "copied/seen.json").exists()
    replay_all(maker.journal, place / "copied")
    assert assert_is_commit(maker.journal, place / "copied")
