"""Where the frames of a replay come from, and what happens at the journal's end.

    FramesFromBase    a base first (resync.py), and then as one of these:
    FramesUpTo        up to one commit that the journal has: an end before it is damage
    FramesAsTheyCome  as far as the journal goes: waits at its end for more (journal/tail.py); with a limit
                      (commitlimit.py), only as far as that allows

A source belongs to the thread that reads ahead; `stop` and the attributes are for any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mirrortool.errors import CorruptJournalError, TornJournalError
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.tail import SLOW_SECONDS, Seen, Tail
from mirrortool.journal.unfinished import check_finished
from mirrortool.lsn import Lsn
from mirrortool.replay.commitlimit import CommitLimit
from mirrortool.replay.resync import DecodedFrame, Resync


class FrameSource(Protocol):
    """Gives the frames of a replay, one after another, as data port services (920) do."""

    @property
    def sure_lsn(self) -> Lsn:
        """A commit that the journal has, and that the replay reaches unless it is stopped."""

    @property
    def waits_for(self) -> str:
        """What the replay waits for, other than the journal to grow; empty if for nothing."""

    def next_frame(self, on_pause: Callable[[], None]) -> DecodedFrame | None:
        """The next frame (810); None at the end, or once it was stopped.

        Args:
            on_pause: called before the source waits for the journal.
        Raises:
            JournalError: damage, after the frames before it.
        """

    def stop(self) -> None:
        """End `next_frame` soon; after that it gives nothing more."""


class FramesFromBase:
    """A base, and what follows it."""

    def __init__(self, resync: Resync, then: FrameSource) -> None:
        self._first, self._then = resync.frames(), then
        self._is_stopped = False

    @property
    def sure_lsn(self) -> Lsn:
        """See FrameSource."""
        return self._then.sure_lsn

    @property
    def waits_for(self) -> str:
        """See FrameSource."""
        return self._then.waits_for

    def next_frame(self, on_pause: Callable[[], None]) -> DecodedFrame | None:
        """See FrameSource."""
        if self._is_stopped:
            return None
        return next(self._first, None) or self._then.next_frame(on_pause)

    def stop(self) -> None:
        """See FrameSource."""
        self._is_stopped = True
        self._then.stop()


class FramesUpTo:
    """To a commit that the journal has.

    Attributes:
        sure_lsn: that commit's LSN.
        waits_for: nothing.
    """

    waits_for = ""

    def __init__(self, reader: JournalReader, goal_lsn: Lsn) -> None:
        self._reader = reader
        self.sure_lsn = goal_lsn
        self._is_stopped = False

    def next_frame(self, on_pause: Callable[[], None]) -> DecodedFrame | None:
        """See FrameSource."""
        reader = self._reader
        if self._is_stopped or reader.position.lsn >= self.sure_lsn:
            return None
        header = reader.next_header()
        if header is None:
            check_finished(reader.journal.path)
            raise CorruptJournalError(
                f"ends at LSN {reader.position.lsn}, before LSN {self.sure_lsn}", where=reader.journal.path
            )
        return header, reader.batch()

    def stop(self) -> None:
        """See FrameSource."""
        self._is_stopped = True


class FramesAsTheyCome:
    """As far as the journal goes.

    Attributes:
        sure_lsn: the newest commit that was read.
        waits_for: a torn tail that no running process mends, or a clock, in words; or nothing.
    """

    def __init__(self, reader: JournalReader, tail: Tail, limit: CommitLimit | None = None) -> None:
        self._reader, self._tail, self._limit = reader, tail, limit
        self.sure_lsn = reader.position.lsn
        self.waits_for = ""
        self._torn: TornJournalError | None = None
        self._is_stopped = False
        self._seen: Seen | None = None  # the files' sizes before their end was found

    def next_frame(self, on_pause: Callable[[], None]) -> DecodedFrame | None:
        """See FrameSource."""
        while not self._is_stopped:
            frame = self._try()
            if frame:
                return frame
            if self._limit and self._limit.is_over and not self._may_read():
                return None
            now = self._tail.look()
            if now != self._seen:  # it may have grown between the end that was found and this look
                self._seen = now
                continue
            on_pause()
            self._wait(now)
        return None

    def stop(self) -> None:
        """See FrameSource."""
        self._is_stopped = True
        self._tail.wake()

    def _may_read(self) -> bool:
        return self._limit is None or self._reader.position.lsn < self._limit.limit_lsn

    def _try(self) -> DecodedFrame | None:
        """The next frame, if the journal has it whole, and it may be read."""
        if self._limit and not self._may_read():
            self._limit.look()
        if not self._may_read():
            return None
        try:
            header = self._reader.next_header()
            frame = (header, self._reader.batch()) if header else None
        except TornJournalError as error:  # one that is being appended, or that the next recorder or receiver removes
            self._torn = error
            return None
        self._torn, self.waits_for = None, ""
        if header and header.is_commit:
            self.sure_lsn = header.position.lsn
        return frame

    def _wait(self, seen: Seen) -> None:
        """Until the files change, the limit is to be looked at again, or the source is stopped."""
        while not self._is_stopped:
            if self._limit and self._limit.ahead_seconds():
                self.waits_for = "the journal's times are ahead of this host's clock: one of them was set wrong"
            seconds = self._limit.due_seconds() if self._limit else SLOW_SECONDS
            if self._tail.wait(seen, seconds) or (self._limit and self._limit.is_due()):
                return
            if self._reader.journal.has_news():  # a promotion that was running at the last look
                return
            if self._torn and not self._reader.journal.is_in_use():
                self.waits_for = f"{self._torn.what}; {self._torn.remedy}"
