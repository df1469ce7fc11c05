"""What undecodable or absent bytes of a journal mean: a torn tail, which a crash explains, or damage, which none does.

    they have their checksums, and are of a later format            a newer mirrortool wrote them: refused
    another journal file follows                                    damage: a file is durable before its successor is
    they are a sound header of another file                         damage: no crash renames a file
    they begin before the end that a clean stop noted               damage
    a reader holds a position after them                            damage: a position is durable before it is held;
                                                                    not of a copy that has a durable mark
    they begin with an LSN that is known to have been durable       damage: by a COMMIT, wherever it stands, or by the
                                                                    recorder's checkpoint; of a copy that has one, by
                                                                    its durable mark, and by no COMMIT
    the kernel that wrote them still runs                           torn if the file ends inside the frame, else damage:
                                                                    only power loss loses bytes from the middle
    otherwise                                                       torn

What a copy had after its durable mark may be gone again: a receiver that cannot make it durable cuts it off, although
another process may have read it and made it durable. It comes again with the next ship.

Not here: whether bytes can be decoded (journalfile.py), and whether they are looked at again first (reader.py).
"""

from __future__ import annotations

from mirrortool import files, hostinfo
from mirrortool.errors import (
    CorruptJournalError,
    JournalError,
    MissingFileError,
    PrunedJournalError,
    TornJournalError,
)
from mirrortool.journal.codec import FrameError, NewerFrameError, ShortFrameError
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import DurableMark, known_mark
from mirrortool.journal.journalfile import COPY_AGAIN, JournalFile, corrupt, later_format
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.wording import byte_count


def comes_again(journal: Journal, lsn: Lsn) -> bool:
    """Whether a journal that had this LSN may be without it: it is a copy, and its mark, as it is now, lies before."""
    mark = None if journal.known_checkpoint() else known_mark(journal.path)
    return mark is not None and mark.position.lsn < lsn


class Judge:
    """What one reader of a journal knows to have been durable, and the errors that follow from it.

    Used by that reader's thread. Of an error that is returned, not raised, the reader decides when it holds.

    Attributes:
        durable_lsn: the newest LSN that was durable, by the COMMITs that were read or by the journal's small files.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.durable_lsn = 0
        self._held_lsn = 0
        self._mark: DurableMark | None = None
        self.read_small_files()

    def read_small_files(self) -> None:
        """Take in what the end of a clean stop, as read last, the recorder's checkpoint and a copy's mark say."""
        end, checkpoint = self._journal.clean_end, self._journal.known_checkpoint()
        self.learn(end.position.lsn if end else NO_LSN)
        self.learn(checkpoint.position.lsn if checkpoint else NO_LSN)
        self._mark = None if checkpoint else known_mark(self._journal.path)
        self.learn(self._mark.position.lsn if self._mark else NO_LSN)

    def learn(self, durable_lsn: Lsn) -> None:
        """A COMMIT says that everything up to this LSN is durable."""
        self.durable_lsn = max(self.durable_lsn, durable_lsn)

    def forget_after(self, lsn: Lsn) -> None:
        """A promotion dropped what was after this LSN, so that it was durable says nothing any more."""
        self.durable_lsn = min(self.durable_lsn, lsn)
        self.read_small_files()

    def hold(self, lsn: Lsn) -> None:
        """The reader's owner has acted on everything up to this LSN."""
        self._held_lsn = NO_LSN if self._mark else lsn

    def is_noted(self, first_lsn: Lsn) -> bool:
        """Whether the header of the file with this LSN is known to have been durable."""
        return self._is_known_durable(first_lsn) or self._is_before_clean_end(first_lsn)

    def is_last(self, first_lsn: Lsn) -> bool:
        """Whether no journal file follows this one."""
        return not any(start > first_lsn for start in self._journal.file_starts())

    def frame(self, file: JournalFile, offset: int, lsn: Lsn, error: FrameError) -> JournalError:
        """What it means that the frame at `offset`, which would begin with `lsn`, cannot be decoded."""
        is_last = self.is_last(file.first_lsn)  # before the size: a file with a successor was finished by then
        file.refresh()
        return self._judge(file, offset, lsn, error, is_suspect=is_last and not self._is_known_durable(lsn))

    def file_header(self, file: JournalFile, error: FrameError) -> JournalError:
        """What it means that the header of a file cannot be decoded."""
        lsn = file.first_lsn
        return self._judge(file, 0, lsn, error, is_suspect=self.is_last(lsn) and not self.is_noted(lsn))

    def end(self, file: JournalFile | None, offset: int, lsn: Lsn, *, is_last: bool) -> JournalError | None:
        """What it means that nothing follows LSN `lsn`, at the end of `file`, or before the first; None if it may be.

        Args:
            is_last: no file was listed after that one before its size was taken.
        """
        following = lsn + 1
        if file and following == file.first_lsn:
            if not is_last:
                return corrupt(file.path, offset, Lsn(following), "no frame, though another file follows")
        elif not is_last or self._is_missing(file, Lsn(following)):
            return self.missing(Lsn(following))
        if following <= self.durable_lsn:
            return CorruptJournalError(
                f"ends at LSN {lsn}, but LSN {self.durable_lsn} was durable",
                where=file.path if file else self._journal.files_path,
                remedy=COPY_AGAIN,
            )
        return None

    def missing(self, lsn: Lsn) -> JournalError:
        """The error for a file with this LSN that is not there; pruning leaves none that is older."""
        starts = self._journal.file_starts()
        if starts and starts[0] > lsn:
            return PrunedJournalError(
                f"begins with LSN {starts[0]}, LSN {lsn} is gone",
                where=self._journal.path,
                remedy="mirrortool replay starts over from a base",
            )
        path = self._journal.file_path(lsn)
        if not starts and comes_again(self._journal, Lsn(lsn - 1)):
            return self.cut_off(path, 0, Lsn(lsn - 1))
        return MissingFileError(f"the journal file with LSN {lsn} is missing", where=path, remedy=COPY_AGAIN)

    def torn(self, file: JournalFile, offset: int, lsn: Lsn, why: str, length: int = 0) -> TornJournalError:
        """The error for a tail of this many bytes, which were never durable."""
        is_copy = not files.exists(files.join(self._journal.path, "recorder.json"))
        return TornJournalError(
            f"torn tail of {byte_count(length)} at offset {offset} (LSN {lsn}): {why}",
            where=file.path,
            remedy="the next mirrortool ship to this copy mends it" if is_copy else "mirrortool record moves it away",
            offset=offset,
        )

    def cut_off(self, path: str, offset: int, lsn: Lsn) -> TornJournalError:
        """The error for a copy that ends at this offset by now, and had this LSN."""
        return TornJournalError(
            f"ends at offset {offset}, and went on to LSN {lsn}: what could not be made durable was cut off",
            where=path,
            remedy="the next mirrortool ship to this copy brings it again",
            offset=offset,
        )

    def _judge(self, file: JournalFile, offset: int, lsn: Lsn, error: FrameError, *, is_suspect: bool) -> JournalError:
        """The table above; `is_suspect` if its rows up to the COMMITs do not say damage."""
        if isinstance(error, NewerFrameError):
            return later_format(file.path, error)
        is_crash = is_suspect and (isinstance(error, ShortFrameError) or self._may_have_lost_power())
        if is_crash and (self._mark or lsn > file.durable_after(offset)):
            return self.torn(file, offset, lsn, str(error), file.size - offset)
        return corrupt(file.path, offset, lsn, str(error))

    def _is_missing(self, file: JournalFile | None, first_lsn: Lsn) -> bool:
        """Whether frames from `first_lsn` on, in a file of their own, are known to have been durable."""
        return self.is_noted(first_lsn) if file is None else self._is_before_clean_end(first_lsn)

    def _is_known_durable(self, lsn: Lsn) -> bool:
        end = self._journal.clean_end
        return lsn <= max(self.durable_lsn, self._held_lsn, end.position.lsn if end else NO_LSN)

    def _is_before_clean_end(self, first_lsn: Lsn) -> bool:
        end = self._journal.clean_end
        return end is not None and end.file_first_lsn >= first_lsn

    def _may_have_lost_power(self) -> bool:
        """Whether the kernel that wrote the last frames is gone; not known on another host, so then too."""
        if self._mark:
            return self._mark.may_have_lost_power
        checkpoint = self._journal.known_checkpoint()
        return checkpoint is None or not checkpoint.boot_id or checkpoint.boot_id != hostinfo.boot_id()
