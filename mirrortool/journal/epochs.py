"""Which epoch a reader of a journal stands in, and whether a promotion explains what it finds.

Beside judgement.py: that one says what bytes mean in one history, this one which history the files are of by now.
"""

from __future__ import annotations

from mirrortool.errors import ForkedJournalError, UnfinishedArrivalError, UnfinishedPromotionError
from mirrortool.journal.codec import FileHeader, FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import JournalFile
from mirrortool.journal.lineage import Epoch, check_continues
from mirrortool.journal.position import Position


class EpochWatch:
    """The history that one reader follows. Used by that reader's thread.

    Attributes:
        end: where the epoch of the reader's file ends; None in the journal's own.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._history = journal.history  # others that read the same Journal may learn of a new epoch first
        self._newest = journal.epoch
        self.end: Position | None = None

    def has_news(self) -> bool:
        """Whether journal.json has changed, or another reader of the same Journal has read it since."""
        return self._journal.has_news() or self._journal.history is not self._history

    def look(self, position: Position) -> bool | None:
        """Read what journal.json now says; whether it has another history.

        None while a promotion, or a base that takes the place of files in a copy, is running: there is nothing to read
        until it is complete.

        Args:
            position: where the reader stands.
        Raises:
            ForkedJournalError: a promotion dropped what was read here; the message has both positions.
            UnfinishedPromotionError: it was interrupted.
            UnfinishedArrivalError: a base was taking the place of older files when its receiver ended.
        """
        journal = self._journal
        try:
            newer = Journal(journal.path)
        except (UnfinishedPromotionError, UnfinishedArrivalError):
            if journal.is_in_use():
                return None
            newer = Journal(journal.path)  # it may have been completed between the two looks
        check_continues(newer.history, self._history, position, where=journal.path, receiver_name="its reader")
        journal.adopt(newer)
        is_other = newer.history != self._history
        self._history = newer.history
        return is_other

    def find(self, header: FileHeader) -> Epoch | None:
        """The epoch of a journal file; None if the journal has no such epoch."""
        return self._journal.history.find(header.epoch, header.lineage)

    def begins(self, epoch: Epoch) -> bool:
        """Whether this one is newer than all that the reader has met, and is met now."""
        is_newer = epoch.number > self._newest
        self._newest = max(self._newest, epoch.number)
        return is_newer

    def end_of(self, epoch: Epoch | None, header: FileHeader, path: str) -> Position | None:
        """Where that epoch, of a journal file, ends; None for the current one.

        Raises:
            ForkedJournalError: the journal has no such epoch, or not there: the file is of another history.
        """
        end = self._journal.history.end_of(epoch) if epoch else None
        is_before = epoch is not None and header.start.lsn < epoch.start.lsn
        is_other = epoch is not None and header.start.lsn == epoch.start.lsn and header.start != epoch.start
        if epoch is None or is_before or is_other or (end is not None and header.start.lsn >= end.lsn):
            raise self._forked(path, f"begins at position {header.start} in epoch {header.epoch}")
        return end

    def check_before_fork(self, file: JournalFile, header: FrameHeader) -> None:
        """A frame of the reader's file lies before the end of its epoch.

        Raises:
            ForkedJournalError: it does not.
        """
        end, position = self.end, header.position
        if end is not None and position.lsn >= end.lsn and position != end:
            raise self._forked(file.path, f"continues to position {position}, past the end of its epoch at {end}")

    def _forked(self, path: str, what: str) -> ForkedJournalError:
        epoch = self._journal.history.current
        return ForkedJournalError(
            f"{what}, but epoch {epoch.number} of the journal began at position {epoch.start}",
            where=path,
            remedy="this is what a primary that was replaced recorded, or a promotion dropped",
        )
