"""A course gives every frame that it may, and waits only where there is nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mirrortool.errors import CorruptJournalError, UnfinishedPromotionError
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.unfinished import PromotionNote, save_note
from mirrortool.replay.framesource import FramesAsTheyCome, FramesFromBase, FramesUpTo
from tests.fakes.journals import Commit, JournalMaker


class QuietTail:
    """A journal's tail where nothing wakes anybody; what `between` does comes between the end and the next look."""

    def __init__(self, between: list[Callable[[], object]]) -> None:
        self._between, self._changes = between, 0
        self.waits = 0

    def look(self) -> int:
        if self._between:
            self._between.pop(0)()
            self._changes += 1
        return self._changes

    def wake(self) -> None:
        pass

    def wait(self, seen: int, seconds: float) -> bool:
        self.waits += 1
        assert self.waits < 100, "it waits for ever"
        return seen != self._changes


@pytest.fixture
def reader(maker: JournalMaker) -> Iterator[JournalReader]:
    with JournalReader(maker.journal) as made:
        yield made


def lsn_of(frame: Any) -> int:
    return int(frame[0].position.lsn)


def test_what_came_between_the_end_and_the_look_is_not_waited_for(maker: JournalMaker, reader: JournalReader) -> None:
    tail: Any = QuietTail([lambda: maker.frame(Commit())])
    rests: list[int] = []
    course = FramesAsTheyCome(reader, tail)
    assert lsn_of(course.next_frame(lambda: rests.append(1))) == 2
    assert lsn_of(course.next_frame(lambda: rests.append(1))) == 3
    assert (tail.waits, rests, course.sure_lsn) == (0, [], 3)


def test_a_journal_json_that_changed_ends_a_wait(reader: JournalReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion that was running at the last look may add nothing to the files."""
    tail: Any = QuietTail([])
    course = FramesAsTheyCome(reader, tail)
    course.next_frame(lambda: None)
    tries: list[int] = []
    real = reader.next_header

    def counted() -> Any:
        tries.append(1)
        if len(tries) == 3:
            course.stop()
        return real()

    monkeypatch.setattr(reader, "next_header", counted)
    monkeypatch.setattr(reader.journal, "has_news", lambda: True)
    assert course.next_frame(lambda: None) is None
    assert len(tries) == 3


def test_a_stopped_course_gives_nothing_more(reader: JournalReader) -> None:
    resync: Any = SimpleNamespace(frames=lambda: iter(["a frame of the base"]))
    then = FramesUpTo(reader, 2)
    course = FramesFromBase(resync, then)
    assert course.sure_lsn == 2
    course.stop()
    assert course.next_frame(lambda: None) is None
    assert then.next_frame(lambda: None) is None


def test_after_the_base_comes_what_follows_it(reader: JournalReader) -> None:
    resync: Any = SimpleNamespace(frames=lambda: iter(["a frame of the base"]))
    course = FramesFromBase(resync, FramesUpTo(reader, 2))
    assert course.next_frame(lambda: None) == "a frame of the base"
    assert lsn_of(course.next_frame(lambda: None)) == 2
    assert course.next_frame(lambda: None) is None


def test_a_journal_that_ends_before_the_commit_is_damaged_unless_it_is_being_promoted(
    maker: JournalMaker, reader: JournalReader
) -> None:
    course = FramesUpTo(reader, 9)
    assert lsn_of(course.next_frame(lambda: None)) == 2
    with pytest.raises(CorruptJournalError, match="ends at LSN 2, before LSN 9"):
        course.next_frame(lambda: None)
    end = FrameEnd(maker.writer.position, 1, 500)
    save_note(maker.journal.path, PromotionNote("/srv/m", b"m" * 16, end, Epoch(1, b"l" * 16, end.position), 0))
    with pytest.raises(UnfinishedPromotionError):
        course.next_frame(lambda: None)
