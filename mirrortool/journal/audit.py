"""Audits a journal: every frame decodes, continues the one before, and its pages have the sums that it gives them.

So do the frames of each base, which also is what the journal had at its commit. A journal that was pruned is audited
from its oldest file on, and must have a base from which it continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mirrortool.errors import CorruptJournalError, HostError, MissingFileError
from mirrortool.journal.bases.basefile import REMEDY, check_sums
from mirrortool.journal.bases.listing import Base, base_lsns, base_path, bases, open_base
from mirrortool.journal.bounds import check_inside, of_unknown_size
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch
from mirrortool.volume import VolumeSet


class AuditCancelled(Exception):
    """The audit was told to stop."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit read; `lsn` is the last one, `pages` were compared with their sums, those of bases included."""

    lsn: Lsn
    frames: int
    operations: int
    commits: int
    pages: int
    bases: int = 0


class Audit:
    """An audit of a journal, from its oldest file to its end."""

    def __init__(
        self,
        path: str,
        *,
        on_begin: Callable[[], None] = lambda: None,
        on_frame: Callable[[FrameHeader, Batch], None] = lambda _header, _batch: None,
    ) -> None:
        """Open the journal.

        Args:
            on_begin: called before the first frame, and again if the audit has to begin anew.
            on_frame: called for each frame, in order, that was found sound.
        """
        self.journal = Journal(path)
        self._on_begin, self._on_frame = on_begin, on_frame
        self._result = AuditResult(NO_LSN, 0, 0, 0, 0)
        self._is_cancelled = False

    def run(self) -> AuditResult:
        """Read everything; begin anew where what comes next was pruned meanwhile.

        Raises:
            JournalError: at the first thing that is wrong.
            AuditCancelled: after `cancel`.
        """
        while True:
            oldest = self._oldest()
            try:
                return self._run()
            except MissingFileError:
                if self._oldest() <= oldest:
                    raise
                self._result = AuditResult(NO_LSN, 0, 0, 0, 0)

    def _oldest(self) -> int:
        return next(iter(self.journal.file_starts()), 0)

    def _run(self) -> AuditResult:
        left = {base.lsn: base for base in bases(self.journal)}
        volumes = self._volumes_at_start(list(left))
        self._on_begin()
        with up_to_what_is_appended(self.journal), JournalReader(self.journal) as reader:
            while header := reader.next_header():
                self._check_cancelled()
                batch = reader.batch()
                volumes = check_inside(header, batch, volumes, self.journal.path)
                if base := left.get(header.position.lsn):
                    volumes = _check_base(base, reader)
                if not check_sums(batch, self.journal.page_size):
                    raise _wrong_sum(
                        header.first_lsn,
                        self.journal.path,
                        "the recorder's memory was damaged: record --scan journals the volume's pages again",
                    )
                self._on_frame(header, batch)
                now = self._result
                self._result = AuditResult(
                    header.position.lsn,
                    now.frames + 1,
                    now.operations + len(batch),
                    now.commits + header.is_commit,
                    now.pages + batch.page_count,
                )
        for lsn in left:
            try:
                self._audit_base(lsn)
            except HostError as error:
                if not isinstance(error.__cause__, FileNotFoundError) or lsn in base_lsns(self.journal):
                    raise  # else it was pruned meanwhile
        return self._result

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def statistics(self) -> AuditResult:
        """How far it is; from any thread."""
        return self._result

    def _volumes_at_start(self, base_lsns: list[int]) -> VolumeSet:
        """With their sizes before the oldest frame, as far as these are known.

        Raises:
            MissingFileError: older files are gone, and no base stands for them.
        """
        starts = self.journal.file_starts()
        if not starts or starts[0] == 1:
            return self.journal.volumes
        if not base_lsns or base_lsns[-1] + 1 < starts[0]:
            raise MissingFileError(
                f"begins with LSN {starts[0]}, and no base stands for what was before",
                where=self.journal.path,
                remedy="copy the older files, or a base, from the primary or a backup",
            )
        return of_unknown_size(self.journal.volumes)

    def _audit_base(self, lsn: Lsn) -> None:
        with open_base(self.journal, lsn) as base:
            for _, batch in base.frames():
                self._check_cancelled()
                if not check_sums(batch, self.journal.page_size):
                    raise _wrong_sum(lsn, base.path, REMEDY)
                self._result = replace(self._result, pages=self._result.pages + batch.page_count)
        self._result = replace(self._result, bases=self._result.bases + 1)

    def _check_cancelled(self) -> None:
        if self._is_cancelled:
            raise AuditCancelled


def _check_base(base: Base, reader: JournalReader) -> VolumeSet:
    """A base is of the commit that the journal has there; returns the volumes with their sizes."""
    if base.position != reader.position or base.header.state_sum != reader.state_sum:
        raise CorruptJournalError(
            f"base {base.lsn} is not of the state that the journal has at that LSN",
            where=base_path(reader.journal, base.lsn),
            remedy=REMEDY,
        )
    return VolumeSet(base.header.volumes, base.header.page_size)


def _wrong_sum(lsn: Lsn, path: str, remedy: str) -> CorruptJournalError:
    return CorruptJournalError(
        f"a page of the frame with LSN {lsn} has not the sum that the frame gives it",
        where=path,
        remedy=remedy,
    )
