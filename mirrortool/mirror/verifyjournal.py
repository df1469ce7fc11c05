"""Proves a journal: what its audit proves, that each frame's state sum follows from its operations, and the recorder's
own table of sums, where the journal is not being recorded.

For the state sums a table is made in the directory for temporary files, 8 bytes for each page that is not zero. Where
there is no room for it, they are not proved, and the result says so. A journal that was pruned is proved from its
oldest base on: what the pages before that held is not known.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import CorruptJournalError, HostError, NoSpaceError
from mirrortool.journal.audit import Audit, AuditResult
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journaledsums import journaled_sums
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch
from mirrortool.store.pagesums import PageSums
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class JournalProof:
    """What was proved.

    Attributes:
        proved_after: the state sums of all frames after this LSN were proved; None if those of none were.
        why_not: why not, as a phrase; empty if they were.
        is_table_proved: whether the recorder's table of sums was proved as well; it is not while that runs.
    """

    audit: AuditResult
    proved_after: int | None
    why_not: str
    is_table_proved: bool


class VerifyJournal:
    """A verification of a journal; `run` it once."""

    def __init__(self, path: str) -> None:
        """Open the journal.

        Raises:
            JournalError: it is none.
        """
        self._proof: _StateSums | None = None
        self._why_not = ""
        self._audit = Audit(path, on_begin=self._begin, on_frame=self._check_frame)
        self.journal = self._audit.journal

    def run(self) -> JournalProof:
        """Read everything.

        Raises:
            JournalError: at the first thing that is wrong.
            AuditCancelled: after `cancel`.
        """
        with ExitStack() as self._scratch:
            result = self._audit.run()
            proof = self._proof
            is_table_proved = proof is not None and _prove_table(self.journal, proof.sums, proof.position)
            return JournalProof(result, proof.start.lsn if proof else None, self._why_not, is_table_proved)

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._audit.cancel()

    def statistics(self) -> AuditResult:
        """How far it is; from any thread."""
        return self._audit.statistics()

    def _begin(self) -> None:
        """The audit begins, or begins anew as the oldest files went."""
        self._scratch.close()
        self._proof = None
        try:
            directory = self._scratch.enter_context(files.temporary_directory())
            self._proof = _StateSums(self.journal, directory)
            self._scratch.enter_context(closing(self._proof.sums))
        except HostError as error:
            self._give_up(error)

    def _check_frame(self, header: FrameHeader, batch: Batch) -> None:
        if self._proof:
            try:
                self._proof.add(header, batch)
            except NoSpaceError as error:
                self._give_up(error)

    def _give_up(self, error: HostError) -> None:
        self._scratch.close()
        self._proof, self._why_not = None, str(error)


class _StateSums:
    """The state sum after each frame, from the operations alone."""

    def __init__(self, journal: Journal, directory: str) -> None:
        self._journal = journal
        starts = journal.file_starts()
        oldest = min((lsn for lsn in base_lsns(journal) if starts and lsn >= starts[0] - 1), default=0)
        self.sums, self.start = journaled_sums(journal, directory, Lsn(oldest))
        self.position = self.start

    def add(self, header: FrameHeader, batch: Batch) -> None:
        """The next frame; those before the table's own position prove nothing.

        Raises:
            CorruptJournalError: it has another state sum than its operations give.
        """
        if header.position.lsn <= self.start.lsn:
            return
        self.sums.apply_batch(batch)
        if self.sums.state_sum != header.state_sum:
            path = self._journal.path
            raise CorruptJournalError(
                f"the state sum of the frame with LSN {header.first_lsn} is not what its operations give",
                where=path,
                remedy=f"it can be replayed up to there: mirrortool replay {quoted_word(path)} MIRROR --until "
                f"{header.first_lsn - 1}; mirrortool init makes a journal to continue with",
            )
        self.position = header.position


def _prove_table(journal: Journal, sums: PageSums, position: Position) -> bool:
    """Whether the recorder's own table was found to be that of the journal's end; False where it is being recorded.

    Raises:
        CorruptJournalError: it is not; the message names the file.
    """
    checkpoint = journal.known_checkpoint()
    if checkpoint is None or checkpoint.position != position or journal.is_in_use():
        return False
    try:
        with closing(PageSums(journal.sums_path, sums.volumes, sums.state_sum, write=False)) as table:
            proof = table.prove()
            wrong = [table.segments_path(name) for name in proof.contradicted]
            if proof.state_sum != sums.state_sum:
                differ = (volume.name for volume in sums.volumes if not table.is_like(sums, volume))
                wrong = [table.sums_path(name) for name in differ]
    except HostError:
        return False  # the next recording makes it anew
    if not wrong:
        return True
    again = Journal(journal.path)
    if journal.is_in_use() or again.known_checkpoint() != checkpoint:
        return False  # a recorder began meanwhile
    raise CorruptJournalError(
        "the recorder's table of sums is damaged; the journal's frames are right",
        where=", ".join(wrong),
        remedy=f"mirrortool record {quoted_word(journal.path)} makes it anew",
    )
