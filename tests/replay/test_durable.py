"""What a mirror says of itself is so after a power cut at any call, in the ways that show a missing sync; see cuts.py.

Its slot is never ahead of it, and the next replay ends at the primary's state. Many cuts at random: tests/crash.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import slots
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.makebase import MakeBase
from mirrortool.replay.session import Replay
from tests.fakes.cuts import EACH_CALL, lose_everywhere
from tests.fakes.journals import (
    ONE_TASK,
    PAGE,
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    assert_is_commit,
    assert_truthful,
    assert_verifies,
    memory_directory,
    shrink_pieces,
)

PAGES = 12


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shrink_pieces(monkeypatch)
    with memory_directory() as path:
        yield path


def make_journal(path: Path) -> Journal:
    """Frames with commits, a RESIZE and a ZERO, in several files."""
    maker = JournalMaker(path, {"a": PAGES * PAGE}, file_bytes=4000)
    draw = random.Random(1)
    for number in range(6):
        maker.frame(Write("a", number, draw.randbytes(3 * PAGE)), Commit())
    maker.frame(Zero("a", 0, 2), Resize("a", 9 * PAGE), Commit())
    maker.frame(Write("a", 1, draw.randbytes(PAGE)), Commit())
    journal = maker.close()
    Path(journal.path, "recorder.json").unlink()  # a base could not be made before what is to be redone
    return journal


def replay(journal: Journal, mirror: Path, until: int | None = None) -> None:
    """In windows of a frame or two."""
    wanted = Until(lsn=until) if until else None
    with Replay(journal.path, str(mirror), plan=ONE_TASK, window_bytes=4 * PAGE, until=wanted, slot="mine") as opened:
        opened.run()


class Replaying:
    """A mirror of a journal; before each cut both are as they were."""

    def __init__(self, place: Path, make: Callable[[Path], None]) -> None:
        self._saved, self.path = place / "saved", place / "run"
        self._saved.mkdir()
        make(self._saved)

    @property
    def journal(self) -> Journal:
        return Journal(str(self.path / "J"))

    @property
    def mirror(self) -> Path:
        return self.path / "M"

    @property
    def whole(self) -> Journal:
        """Before it was pruned, if it was."""
        before = self._saved / "whole"
        return Journal(str(before)) if before.exists() else self.journal

    def prepare(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._saved, self.path)

    def act(self) -> None:
        replay(self.journal, self.mirror)

    def check(self, has_ended: bool) -> None:
        is_there = (self.mirror / "mirror.json").exists()
        assert is_there or not has_ended
        if is_there:
            checkpoint = assert_truthful(self.whole, self.mirror)
            assert not has_ended or checkpoint.position.lsn == 17
            here = [slot for slot in slots(self.journal) if slot.owner == Mirror(str(self.mirror)).uuid.hex()]
            assert all(slot.position.lsn <= checkpoint.position.lsn for slot in here), "its slot is ahead of it"
        self.act()
        assert assert_is_commit(self.whole, self.mirror) == 17
        assert_verifies(self.mirror)


@EACH_CALL
def test_a_mirror_says_what_it_is(place: Path, step: int) -> None:
    run = Replaying(place, lambda path: make_journal(path / "J") and None)
    lose_everywhere(run.prepare, run.act, run.check, least=60, step=step)


def make_behind(path: Path) -> None:
    """A mirror that lost its place: the journal begins after it, and has a base."""
    journal = make_journal(path / "J")
    replay(journal, path / "M", until=2)
    shutil.rmtree(path / "J/slots")
    shutil.copytree(path / "J", path / "whole")
    with MakeBase(journal.path, Until(lsn=12)) as making:
        making.run()
    assert prune(journal.path, Keep()).plan.files


@EACH_CALL
def test_a_mirror_that_starts_over_says_what_it_is(place: Path, step: int) -> None:
    run = Replaying(place, make_behind)
    lose_everywhere(run.prepare, run.act, run.check, least=40, step=step)
