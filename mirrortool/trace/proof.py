"""Reads a trace file, proves what can be proved from it, and sums it up.

Rule: the file is read once, from its begin to its end as it is then; a replay may still append to it.
Rule: a last line without its end is where a replay was killed, or is about to write more: the trace ends before it.
Bound: a line of LINE_BYTES_MAX, and one section (section.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mirrortool import files
from mirrortool.errors import AccessError, BadLogError
from mirrortool.replay.tracing import TraceRecord
from mirrortool.trace.check import NAME_A_TRACE, Checker
from mirrortool.trace.jsonlines import decode
from mirrortool.trace.section import SectionFigures
from mirrortool.trace.summary import Summary
from mirrortool.trace.violation import Rule, Violation

LINE_BYTES_MAX = 1 << 20
"""A unit has at most some hundred runs of pages, and is waited for by at most as many tasks."""
VIOLATIONS_KEPT = 10
_CHUNK_BYTES = 1 << 18


class TraceCancelled(Exception):
    """The reading was told to stop; nothing was proved."""


@dataclass(frozen=True, slots=True)
class TraceProgress:
    """Bytes read, of those that the file had at first, and what was found."""

    bytes_done: int
    bytes_total: int
    units: int
    violations: int


@dataclass(slots=True)
class TraceProof:
    """What a trace proves.

    Attributes:
        violations: the first VIOLATIONS_KEPT.
        broken: how many there are of each rule.
        replays: in the file.
        cut_off: of these, the ones of which the end is missing.
    """

    summary: Summary = field(default_factory=Summary)
    violations: list[Violation] = field(default_factory=list)
    broken: Counter[Rule] = field(default_factory=Counter)
    replays: int = 0
    cut_off: int = 0

    @property
    def is_proved(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.broken

    def note(self, violation: Violation) -> None:
        """Count a violation."""
        self.broken[violation.rule] += 1
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(violation)


class TraceReader:
    """The records of a trace file; `with` closes it."""

    def __init__(self, path: str) -> None:
        """Open the file.

        Raises:
            HostError: it cannot be read, or is not a file.
        """
        self._path = path
        self._file = files.open_file(path)
        facts = self._file.facts()
        if facts.kind != "file":
            self._file.close()
            remedy = "save it into a file first" if facts.kind == "FIFO" else NAME_A_TRACE
            raise AccessError(f"is a {facts.kind}, not a trace", where=path, remedy=remedy)
        self.size = facts.size
        self.offset = 0  # of the next byte to be read
        self.line = 0  # the number of the newest

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def where(self) -> str:
        """The file and the newest line, for errors."""
        return f"{self._path}, line {self.line}" if self.line else self._path

    def records(self) -> Iterator[TraceRecord]:
        """Each record, up to the last whole line.

        Raises:
            BadLogError: the file is not a trace, or damaged.
        """
        for line in self._lines():
            self.line += 1
            try:
                yield decode(line, self.where)
            except BadLogError as error:
                if self.line == 1:  # it is another file, rather than a damaged one
                    error.remedy = NAME_A_TRACE
                raise

    def _lines(self) -> Iterator[bytes]:
        left = b""
        while chunk := self._file.pread(_CHUNK_BYTES, self.offset):
            self.offset += len(chunk)
            first, *others = chunk.split(b"\n")
            left += first
            for line in others:
                yield left
                left = line
            if len(left) > LINE_BYTES_MAX:
                self.line += 1
                raise BadLogError("is not a line of a trace: it is too long", where=self.where)


class Prover:
    """Proves one trace. `run` in one thread; `cancel` and `progress` from any."""

    def __init__(self, path: str) -> None:
        """Prove the file at `path`."""
        self._path = path
        self._reader: TraceReader | None = None
        self._proof = TraceProof()
        self._is_cancelled = False

    def cancel(self) -> None:
        """Stop soon."""
        self._is_cancelled = True

    def progress(self) -> TraceProgress:
        """How far it is."""
        reader, proof = self._reader, self._proof
        done, total = (reader.offset, reader.size) if reader else (0, 0)
        return TraceProgress(done, total, proof.summary.units, sum(proof.broken.values()))

    def run(self) -> TraceProof:
        """Read the whole file.

        Raises:
            HostError: it cannot be read.
            BadLogError: it is not a trace, or damaged.
            TraceCancelled: `cancel` was called.
        """
        proof, checker = self._proof, Checker(self._proof.note)
        with TraceReader(self._path) as self._reader:
            try:
                for record in self._reader.records():
                    if self._is_cancelled:
                        raise TraceCancelled
                    replay, figures = checker.replays, checker.add(record)
                    self._count(replay, figures)
                    proof.summary.add(record)
                self._count(checker.replays, checker.finish())
            except BadLogError as error:
                if error.where is None:  # of what the lines say together
                    raise BadLogError(error.what, where=self._reader.where, remedy=error.remedy) from None
                raise
        proof.summary.finish()
        proof.replays, proof.cut_off = checker.replays, checker.cut_off
        return proof

    def _count(self, replay: int, figures: SectionFigures | None) -> None:
        if figures:
            self._proof.summary.add_section(replay, figures)
