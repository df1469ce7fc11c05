"""Where a replay begins: at the mirror's position, if the journal still has what follows, or at a base.

Rule: a mirror that has begun to start over continues with a base, whatever the journal has.
Rule: of the bases that will do, and for a mirror that holds nothing yet also the whole journal, the one after which
least is to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mirrortool import files
from mirrortool.errors import HostError, JournalError, MissingFileError, PrunedJournalError
from mirrortool.journal.bases.listing import Base, bases
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.jsonfile import INTEGER_MAX
from mirrortool.lsn import LAST_LSN, Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class Start:
    """Where a replay begins.

    Attributes:
        base: what the mirror starts over from; None if it continues from its position.
        position: what the frames of the journal are read after.
        ignores_table: whether all pages of the base are written, not only those that differ.
        base_bytes, journal_bytes: to be read, at most.
    """

    base: Base | None
    position: Position
    ignores_table: bool
    base_bytes: int
    journal_bytes: int


def choose_start(
    journal: Journal, checkpoint: Checkpoint, last_lsn: Lsn = LAST_LSN, last_ns: int = INTEGER_MAX
) -> Start:
    """Where a replay of a mirror begins.

    Args:
        last_lsn, last_ns: it ends there at the latest; by default as far as the journal does, or ever will.
    Raises:
        PrunedJournalError: what the mirror needs next is gone, and no base helps.
        JournalError: the header of a base is damaged.
    """
    sizes = _FileSizes(journal)
    continues = not checkpoint.resync_lsn and sizes.reach(checkpoint.position.lsn)
    here = Start(None, checkpoint.position, False, 0, sizes.between(checkpoint.position.lsn, last_lsn))
    if continues and (checkpoint.position.lsn or not checkpoint.is_finished):
        return here
    if checkpoint.position.lsn >= last_lsn and not checkpoint.resync_lsn:
        return here  # nothing is to be read
    missing: list[MissingFileError] = []
    later = [base for base in bases(journal, missing) if base.lsn > checkpoint.position.lsn and sizes.reach(base.lsn)]
    fit = [_start_at(base, checkpoint, sizes, last_lsn) for base in later if _is_allowed(base, last_lsn, last_ns)]
    if fit:
        fit[-1] = _without_what_precedes(journal, fit[-1])
    if continues:
        fit.append(here)
    if not fit and missing:
        raise missing[0]
    if not fit:
        raise _no_base(journal, checkpoint, later, sizes.first_lsn)
    return min(fit, key=lambda start: (start.ignores_table, start.base_bytes + start.journal_bytes))


def _is_allowed(base: Base, last_lsn: Lsn, last_ns: int) -> bool:
    return base.lsn <= last_lsn and base.header.time_ns <= last_ns


def _start_at(base: Base, checkpoint: Checkpoint, sizes: _FileSizes, last_lsn: Lsn) -> Start:
    if checkpoint.resync_lsn:
        ignores_table = checkpoint.resync_all or checkpoint.resync_lsn != base.lsn
    else:
        ignores_table = not checkpoint.is_finished
    return Start(base, base.position, ignores_table, base.size, sizes.between(base.lsn, last_lsn))


def _without_what_precedes(journal: Journal, start: Start) -> Start:
    """A start that does not count what lies before it in its journal file; of the newest base that may be all."""
    if not start.journal_bytes:
        return start
    try:
        with JournalReader(journal, start.position, headers_only=True) as reader:
            is_counted = reader.file_first_lsn <= start.position.lsn
            return replace(start, journal_bytes=start.journal_bytes - reader.offset) if is_counted else start
    except (JournalError, HostError):
        return start  # the replay reads the same, and tells


def _no_base(journal: Journal, checkpoint: Checkpoint, later: list[Base], first_lsn: Lsn) -> PrunedJournalError:
    if later:
        return PrunedJournalError(
            f"begins with LSN {first_lsn}; the oldest point that can be restored is base {later[0].lsn}",
            where=journal.path,
            remedy="ask for a later one",
        )
    what = f"begins with LSN {first_lsn}, the mirror is at LSN {checkpoint.position.lsn}"
    return PrunedJournalError(
        f"{what}, and the journal has no base after that",
        where=journal.path,
        remedy=f"mirrortool base {quoted_word(journal.path)} makes one",
    )


class _FileSizes:
    """The journal files, and their bytes."""

    def __init__(self, journal: Journal) -> None:
        self._starts = journal.file_starts()
        found = [files.find_facts(journal.file_path(start)) for start in self._starts]
        self._bytes = [facts.size if facts else 0 for facts in found]

    @property
    def first_lsn(self) -> Lsn:
        """Of the oldest file."""
        return Lsn(self._starts[0] if self._starts else 1)

    def reach(self, lsn: Lsn) -> bool:
        """Whether the journal has what follows an LSN, or will have it."""
        return self.first_lsn <= lsn + 1

    def between(self, lsn: Lsn, last_lsn: Lsn) -> int:
        """Bytes of the files that hold LSNs after `lsn` up to `last_lsn`."""
        if last_lsn <= lsn:
            return 0
        ends = [*(start - 1 for start in self._starts[1:]), max(last_lsn, lsn + 1)]
        rows = zip(self._starts, ends, self._bytes, strict=False)
        return sum(size for start, end, size in rows if start <= last_lsn and end > lsn)
