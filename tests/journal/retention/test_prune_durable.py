"""Pruning keeps its promises whatever a disk loses: no gap, no slot that is not told, and no base that is not there."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.journal import slots
from mirrortool.journal.bases.listing import base_lsns, base_path
from mirrortool.journal.commits import Until, find_commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import Slot, find_slot
from mirrortool.replay.makebase import MakeBase
from tests.fakes.cuts import kill_everywhere, lose_everywhere
from tests.fakes.disk import faulty, no_fault
from tests.fakes.disktrees import rename
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory

FRAMES, OLDER, NEWER, SLOW = 24, 12, 40, 6


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def made(place: Path) -> Journal:
    """Some files, bases of two commits, one of them elsewhere, and the slot of a reader that is slow."""
    maker = JournalMaker(place / "made", {"a": 8 * PAGE}, file_bytes=2700)
    for number in range(FRAMES):
        maker.frame(Write("a", number % 8, random.Random(number).randbytes(PAGE)), Commit())
    journal = maker.close()
    Path(journal.path, "recorder.json").unlink()  # it would be redone from LSN 1
    for lsn in (OLDER, NEWER):
        with MakeBase(journal.path, Until(lsn=lsn)) as making:
            making.run()
    commit = find_commit(journal, Until(lsn=SLOW))
    assert commit and base_lsns(journal) == [OLDER, NEWER]
    with slots.locked(journal):
        slots.save(journal, Slot("slow", "aa" * 16, "mirror", "/m", commit.position, 1, 0))
    return journal


def again(made: Journal, path: Path) -> Callable[[], None]:
    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(made.path, path)

    return prepare


def check(path: Path, has_ended: bool = True) -> None:
    journal = Journal(str(path))
    with JournalReader(journal) as reader:
        lsns = [header.position.lsn for header in iter(reader.next_header, None)]
    assert lsns == list(range(lsns[0], 2 * FRAMES + 1, 2))
    assert NEWER in base_lsns(journal) and lsns[0] <= NEWER
    slow = find_slot(journal, "slow")
    assert slow and (slow.is_lost or journal.file_starts()[0] <= SLOW + 1), "its reader is not told"
    if has_ended:
        assert base_lsns(journal) == [NEWER] and lsns[0] > OLDER and slow.is_lost
    else:
        prune(str(path), Keep(size=0, slot_size=1))
        check(path)


def test_pruning_that_ended_or_not_leaves_a_whole_journal(place: Path, made: Journal) -> None:
    path = place / "J"
    act = lambda: prune(str(path), Keep(size=0, slot_size=1))  # noqa: E731
    lose_everywhere(again(made, path), act, lambda has_ended: check(path, has_ended), least=10)
    kill_everywhere(again(made, path), act, lambda: check(path), least=10)


@pytest.mark.parametrize("what", ["recorder.json", "base"])
def test_what_the_plan_relied_on_is_durable_before_what_only_the_old_needs_is_gone(made: Journal, what: str) -> None:
    """A recorder, or what makes a base, was killed, or has not come further yet, when the new file had its name."""
    journal = made
    base, recorder = Path(base_path(journal, NEWER)), Path(journal.path, "recorder.json")
    with JournalReader(journal) as reader:
        early = reader.read_to(2)
        late = reader.read_to(NEWER)
    for position in (early, late):
        journal.save_recorder_checkpoint(RecorderCheckpoint(position, 0, 1, "", {}))
        recorder.rename(f"{recorder}.{position.lsn}")
    old, new = Path(f"{recorder}.2"), Path(f"{recorder}.{NEWER}")
    (old if what == "recorder.json" else new).rename(recorder)
    if what == "base":
        base.rename(f"{base}.new")
    with faulty(no_fault) as system:
        rename(*((new, recorder) if what == "recorder.json" else (Path(f"{base}.new"), base)))
        prune(journal.path, Keep(size=0, slot_size=1))
        system.disk.lose_all()
    journal = Journal(journal.path)
    checkpoint = journal.recorder_checkpoint()
    assert checkpoint and checkpoint.position.lsn + 1 >= journal.file_starts()[0]
    assert base_lsns(journal) and base_lsns(journal)[-1] + 1 >= journal.file_starts()[0]
