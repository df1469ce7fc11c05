"""The loop of an import: feeds a log to a recorder: writes and discards as operations, flushes as commits.

Rule: the whole log is checked before anything is changed, without reading its data.
Rule: a commit is where the log has a flush, and the log's end is one. None of them waits for the disk, as what the log
tells of happened long ago; the last makes everything durable.
Bound: a batch, BATCH_BYTES and BATCH_CHANGES, and RENAMED_MAX names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mirrortool.change import Change
from mirrortool.errors import UnusableVolumeError
from mirrortool.journal.position import Position
from mirrortool.operation import MARK_NAME
from mirrortool.record.importers.logstep import PIECE_BYTES, Action, Log, Piece, Step
from mirrortool.volume import VolumeSet

BATCH_BYTES = PIECE_BYTES
BATCH_CHANGES = 256
RENAMED_MAX = 100
"""This many marks that had to be renamed are listed; all are counted."""

_NO_MARK_CHARACTER = re.compile(r"[^A-Za-z0-9._-]")
_MARK_LENGTH_MAX = 64


class FedRecorder(Protocol):
    """The methods of a Recorder that an import calls."""

    @property
    def volumes(self) -> VolumeSet: ...

    def change(self, volume: str, changes: Sequence[Change]) -> None: ...

    def commit(self, name: str | None = None, *, durable: bool = True) -> Position: ...

    def flush(self) -> None: ...


class ImportCancelled(Exception):
    """The import was told to stop; what came before is in the journal, at the end without a commit."""


@dataclass(frozen=True, slots=True)
class ImportStatistics:
    """An import at one moment.

    Attributes:
        log_bytes, log_bytes_done: of the log, and how many of them are imported.
        number: of the entry or line that it has reached; -1 before the first.
        writes, zeros: of the log, not of the journal, where large ones are cut.
        bytes: written.
        position: of the newest commit of the import, None before the first.
        marks_renamed: marks whose text is not a mark's name.
    """

    log_bytes: int = 0
    log_bytes_done: int = 0
    number: int = -1
    writes: int = 0
    bytes: int = 0
    zeros: int = 0
    commits: int = 0
    marks: int = 0
    marks_renamed: int = 0
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class RenamedMark:
    """A mark's text and the name that was made of it."""

    text: str
    name: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        entries: of the log; in a log of lines, its lines.
        commit: the last, of everything.
        renamed: the first RENAMED_MAX marks whose text is not a mark's name.
    """

    entries: int
    commit: Position
    statistics: ImportStatistics
    renamed: Sequence[RenamedMark]


class Import:
    """One import of one log: `check` it, then `run`."""

    def __init__(self, recorder: FedRecorder, log: Log) -> None:
        self._recorder = recorder
        self._log = log
        self._volume = ""
        self._batch: list[Change] = []
        self._batch_bytes = 0
        self._is_committed = False
        self._is_cancelled = False
        self._renamed: list[RenamedMark] = []
        # Written by run's thread alone; another may see some of them a step ahead of the others.
        self._at = self._end = 0
        self._number = -1
        self._writes = self._bytes = self._zeros = self._commits = self._marks = self._marks_renamed = 0
        self._position: Position | None = None

    def check(self) -> None:
        """Read the log without its data, and check that it is valid and fits.

        Raises:
            BadLogError, UsageError, UnusableVolumeError: it does not.
            ImportCancelled: after `cancel`.
        """
        sizes = self._recorder.volumes.sizes
        for step in self._log.steps():
            self._stop_if_cancelled()
            self._end = step.at
            if step.length and step.offset + step.length > sizes[step.volume]:
                raise UnusableVolumeError(
                    f"{self._log.unit} {step.number} at byte {step.at} reaches to byte {step.offset + step.length}, "
                    f"and volume {step.volume} has {sizes[step.volume]}",
                    where=self._log.path,
                    remedy="import it into a volume of the size that the logged one had",
                )

    def run(self) -> ImportResult:
        """Feed the log, which was checked.

        Raises:
            MirrortoolError: what came before is in the journal.
            ImportCancelled: after `cancel`.
        """
        try:
            for step in self._log.steps():
                self._stop_if_cancelled()
                self._feed(step)
                self._number, self._at = step.number, step.at
        except ImportCancelled:
            self._hand_over()
            raise
        self._hand_over()
        position = self._position if self._position and self._is_committed else self._commit(None)
        self._recorder.flush()
        self._at = self._end
        return ImportResult(self._log.count(), position, self.statistics(), tuple(self._renamed))

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def statistics(self) -> ImportStatistics:
        """How far it is; from any thread."""
        return ImportStatistics(
            self._end, self._at, self._number, self._writes, self._bytes, self._zeros, self._commits, self._marks,
            self._marks_renamed, self._position,
        )  # fmt: skip

    def _stop_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise ImportCancelled

    def _feed(self, step: Step) -> None:
        match step.action:
            case Action.WRITE:
                for piece in self._log.pieces(step):
                    self._stop_if_cancelled()
                    self._add(step.volume, piece)
                self._writes += 1
                self._bytes += step.length
            case Action.ZERO:
                self._add(step.volume, Piece(step.offset, step.length, None))
                self._zeros += 1
            case Action.FLUSH:
                self._hand_over()
                if not self._is_committed:
                    self._commit(None)
            case Action.MARK:
                self._hand_over()
                self._commit(self._mark_of(step.text))
                self._marks += 1

    def _add(self, volume: str, piece: Piece) -> None:
        """Put a change into the batch, which is handed over before it would become too large."""
        data_bytes = len(piece.data) if piece.data else 0
        is_full = len(self._batch) == BATCH_CHANGES or self._batch_bytes + data_bytes > BATCH_BYTES
        if is_full or volume != self._volume:
            self._hand_over()
        self._volume = volume
        self._batch.append(Change(piece.offset, piece.length, piece.data))
        self._batch_bytes += data_bytes
        self._is_committed = False

    def _hand_over(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._recorder.change(self._volume, batch)

    def _commit(self, name: str | None) -> Position:
        self._position = self._recorder.commit(name, durable=False)
        self._commits += name is None
        self._is_committed = True
        return self._position

    def _mark_of(self, text: str) -> str:
        name = mark_name(text)
        if name != text:
            self._marks_renamed += 1
            if len(self._renamed) < RENAMED_MAX:
                self._renamed.append(RenamedMark(text, name))
        return name


def mark_name(text: str) -> str:
    """The text of a mark if it is a name; otherwise a name made of it.

    Each character that a name cannot have becomes `-`; what does not begin with a letter gets `mark-` before it; what
    is too long is cut.
    """
    name = _NO_MARK_CHARACTER.sub("-", text)
    name = name if name[:1].isalpha() else f"mark-{name}".rstrip("-")
    name = name[:_MARK_LENGTH_MAX]
    assert MARK_NAME.fullmatch(name)
    return name
