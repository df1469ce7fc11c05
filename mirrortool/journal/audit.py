"""Audits a journal: every frame decodes, continues the one before, and its pages have the sums that it gives them."""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool.checksum import page_sums
from mirrortool.errors import CorruptJournalError
from mirrortool.journal.check import check_inside
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended


class AuditCancelled(Exception):
    """The audit was told to stop."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit read; `lsn` is the last one, `pages` were compared with their sums."""

    lsn: int
    frames: int
    operations: int
    commits: int
    pages: int


class Audit:
    """An audit of a journal, from its oldest file to its end."""

    def __init__(self, path: str) -> None:
        self.journal = Journal(path)
        self._result = AuditResult(0, 0, 0, 0, 0)
        self._is_cancelled = False

    def run(self) -> AuditResult:
        """Read everything.

        Raises:
            JournalError: at the first thing that is wrong.
            AuditCancelled: after `cancel`.
        """
        volumes = self.journal.volumes
        with up_to_what_is_appended(self.journal), JournalReader(self.journal) as reader:
            while header := reader.next_header():
                if self._is_cancelled:
                    raise AuditCancelled
                batch = reader.batch()
                volumes = check_inside(header, batch, volumes, self.journal.path)
                self._check_sums(memoryview(batch.payload), bytes(batch.sums), header.first_lsn)
                now = self._result
                self._result = AuditResult(
                    header.position.lsn,
                    now.frames + 1,
                    now.operations + len(batch),
                    now.commits + header.is_commit,
                    now.pages + batch.page_count,
                )
        return self._result

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def statistics(self) -> AuditResult:
        """How far it is; from any thread."""
        return self._result

    def _check_sums(self, payload: memoryview, sums: bytes, lsn: int) -> None:
        size = self.journal.page_size
        if page_sums([payload[i : i + size] for i in range(0, len(payload), size)], size) != sums:
            raise CorruptJournalError(
                f"a page of the frame with LSN {lsn} has not the sum that the frame gives it",
                where=self.journal.path,
                remedy="the recorder's memory was damaged: record --scan journals the volume's pages again",
            )
