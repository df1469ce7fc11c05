"""Up to where a replay goes, and what it does where the journal ends before that.

    FromBase   a base first (resync.py), and then as one of these:
    UpTo       one commit that the journal has: to end before it is damage
    Following  wherever the journal goes: waits at its end until there is more (journal/tail.py); or, with a scout,
               only as far as that says

A course belongs to the thread that reads ahead; `stop` and the attributes are for any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mirrortool.errors import CorruptJournalError, TornJournalError
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.tail import SLOW_SECONDS, Seen, Tail
from mirrortool.journal.unfinished import check_no_promotion
from mirrortool.operation import Batch
from mirrortool.replay.commitlimit import Scout
from mirrortool.replay.resync import Resync

DecodedFrame = tuple[FrameHeader, Batch]


class Course(Protocol):
    """Gives the frames of a replay, one after another."""

    @property
    def sure_lsn(self) -> int:
        """A commit that the journal has, which the replay will not stop before if it can help it."""

    @property
    def waits_for(self) -> str:
        """What keeps the replay from going on, other than the journal's end, or nothing."""

    def next_frame(self, on_rest: Callable[[], None]) -> DecodedFrame | None:
        """The next frame; None at the end of the course, or once it was stopped.

        Args:
            on_rest: called before the course waits for the journal.
        Raises:
            JournalError: damage, after the frames before it.
        """

    def stop(self) -> None:
        """End `next_frame` soon, and let it give nothing more."""


class FromBase:
    """A base, and what follows it."""

    def __init__(self, resync: Resync, then: Course) -> None:
        self._first, self._then = resync.frames(), then
        self._is_stopped = False

    @property
    def sure_lsn(self) -> int:
        """See Course."""
        return self._then.sure_lsn

    @property
    def waits_for(self) -> str:
        """See Course."""
        return self._then.waits_for

    def next_frame(self, on_rest: Callable[[], None]) -> DecodedFrame | None:
        """See Course."""
        if self._is_stopped:
            return None
        return next(self._first, None) or self._then.next_frame(on_rest)

    def stop(self) -> None:
        """See Course."""
        self._is_stopped = True
        self._then.stop()


class UpTo:
    """To a commit that the journal has.

    Attributes:
        sure_lsn: that commit's.
        waits_for: nothing.
    """

    waits_for = ""

    def __init__(self, reader: JournalReader, target_lsn: int) -> None:
        self._reader = reader
        self.sure_lsn = target_lsn
        self._is_stopped = False

    def next_frame(self, on_rest: Callable[[], None]) -> DecodedFrame | None:
        """See Course."""
        reader = self._reader
        if self._is_stopped or reader.position.lsn >= self.sure_lsn:
            return None
        header = reader.next_header()
        if header is None:
            check_no_promotion(reader.journal.path)
            raise CorruptJournalError(
                f"ends at LSN {reader.position.lsn}, before LSN {self.sure_lsn}", where=reader.journal.path
            )
        return header, reader.batch()

    def stop(self) -> None:
        """See Course."""
        self._is_stopped = True


class Following:
    """Wherever the journal goes.

    Attributes:
        sure_lsn: the newest commit that was read.
        waits_for: a torn tail that nobody mends, in words; or nothing.
    """

    def __init__(self, reader: JournalReader, tail: Tail, scout: Scout | None = None) -> None:
        self._reader, self._tail, self._scout = reader, tail, scout
        self.sure_lsn = reader.position.lsn
        self.waits_for = ""
        self._is_torn = False
        self._is_stopped = False
        self._seen: Seen | None = None  # what the files were before the end was found there

    def next_frame(self, on_rest: Callable[[], None]) -> DecodedFrame | None:
        """See Course."""
        while not self._is_stopped:
            frame = self._try()
            if frame:
                return frame
            if self._scout and self._scout.is_over and not self._may_read():
                return None
            now = self._tail.look()
            if now != self._seen:  # it may have grown between the end that was found and this look
                self._seen = now
                continue
            on_rest()
            self._wait(now)
        return None

    def stop(self) -> None:
        """See Course."""
        self._is_stopped = True
        self._tail.wake()

    def _may_read(self) -> bool:
        return self._scout is None or self._reader.position.lsn < self._scout.limit_lsn

    def _try(self) -> DecodedFrame | None:
        """The next frame, if it is there, whole, and may be read."""
        if self._scout and not self._may_read():
            self._scout.look()
        if not self._may_read():
            return None
        try:
            header = self._reader.next_header()
            frame = (header, self._reader.batch()) if header else None
        except TornJournalError:  # one that is being appended, or that the next recorder takes away
            self._is_torn = True
            return None
        self._is_torn, self.waits_for = False, ""
        if header and header.is_commit:
            self.sure_lsn = header.position.lsn
        return frame

    def _wait(self, seen: Seen) -> None:
        """Until the files change, the scout wants to look again, or the course is stopped."""
        while not self._is_stopped:
            if self._scout and self._scout.ahead_seconds():
                self.waits_for = "the journal's times are ahead of this host's clock: one of them was set wrong"
            seconds = self._scout.due_seconds() if self._scout else SLOW_SECONDS
            if self._tail.wait(seen, seconds) or (self._scout and self._scout.is_due()):
                return
            if self._reader.journal.has_news():  # a promotion that was at work at the last look
                return
            if self._is_torn and not self._reader.journal.is_at_work():
                self.waits_for = "the journal ends in a torn tail; its recorder has not come back"
