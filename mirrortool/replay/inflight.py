"""Counts the writes handed to the tasks and not finished: limits them by credits, waits until none is left, and keeps
the first error.

Rule: pending counts what was admitted and not yet finished. It is the only sound test for "quiet": queues and tables
may all be empty while a task holds a unit in its hands.
Bound: `bytes_max`, where a unit costs its payload and a little. A unit larger than that is admitted alone.
Fail-stop: after the first error no further unit is applied, but all are finished, so that no thread waits for ever.
What was applied by then is not a prefix of the journal; redo from the checkpoint makes it one.

One thread, the receiver, admits and waits. Any task finishes and fails; anyone may cancel. Run the receiver in a thread
of its own: an exception that a signal raises between two of its statements would lose a wake-up, and signals arrive
only in the main thread. The main thread stops it with `cancel`.

Not here: durability (the checkpoint), and the queues themselves (taskgroup.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from mirrortool.replay.threads import THREADS, Gate, ThreadSeam
from mirrortool.replay.writeunit import WriteUnit


class Cancelled(Exception):
    """The receiver was told to stop waiting. It is not an error of the mirror, and never leaves the engine."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The first error of any task; `sequence` is the unit's number, None when it was the protocol itself."""

    sequence: int | None
    error: BaseException


@dataclass(frozen=True, slots=True)
class InFlightStatistics:
    """`pending_units` and `pending_bytes` of at most `bytes_max`; `waits`: how often the receiver ran out of credit."""

    pending_units: int
    pending_bytes: int
    bytes_max: int
    waits: int


class InFlight:
    """Credits and quiescence of one engine."""

    def __init__(self, bytes_max: int, seam: ThreadSeam = THREADS) -> None:
        """Admit units of at most `bytes_max` in all, or a single larger one."""
        self._bytes_max = bytes_max
        self._seam = seam
        # _lock protects everything below. It is held for a few statements, never while another lock is held.
        self._lock = seam.lock()
        self._units = 0
        self._bytes = 0
        self._waits = 0
        self._failure: Failure | None = None
        self._cancelled = False
        # The receiver's gate while it waits until at most _wanted bytes are pending. A new one for each wait; the
        # thread that removes it from here opens it, so it is opened once. A failure and a cancellation open it as well.
        self._gate: Gate | None = None
        self._wanted = 0

    @property
    def failure(self) -> Failure | None:
        """The first error, or None.

        A task reads this without the lock before it applies a unit. One that overlaps the failed unit never runs: it
        reaches its task through the group's lock or a gate, after the failed one's task has stored the error.
        """
        return self._failure

    def admit(self, units: Sequence[WriteUnit], start: int = 0) -> int:
        """Wait for credit for the unit at `start`; admit it, and as many of the following as there is credit for.

        Returns:
            The index of the first unit not admitted. The ones before it must now be put on their main queues:
            credit that is held back starves the receiver itself.
        Raises:
            Cancelled: `cancel` was called; nothing was admitted.
            BaseException: the first error of a task; nothing was admitted.
        """
        while True:
            with self._lock:
                self._raise_if_over()
                admitted = self._acquire_credit(units, start)
                if admitted > start:
                    return admitted
                gate = self._wait_for(self._credit_mark(units[start]))
            gate.wait()

    def finished(self, unit: WriteUnit) -> None:
        """A unit was applied, or skipped after an error. Called by its task, without the group's lock."""
        gate = None
        with self._lock:
            self._units -= 1
            self._bytes -= unit.cost
            if self._gate is not None and self._bytes <= self._wanted:
                gate = self._pop_gate()
        if gate is not None:
            gate.open()

    def fail(self, sequence: int | None, error: BaseException) -> None:
        """Store the first error and wake the receiver; called by the task before it finishes the unit."""
        with self._lock:
            if self._failure is None:
                self._failure = Failure(sequence, error)
            gate = self._pop_gate()
        if gate is not None:
            gate.open()

    def wait_drained(self) -> None:
        """Block until nothing is pending: every admitted unit was applied.

        Raises:
            Cancelled: `cancel` was called.
            BaseException: the first error of a task, as soon as it is known.
        """
        while True:
            with self._lock:
                self._raise_if_over()
                if self._units == 0:
                    return
                gate = self._wait_for(0)
            gate.wait()

    def is_drained(self) -> bool:
        """Whether nothing is pending now."""
        with self._lock:
            return self._units == 0

    def cancel(self) -> None:
        """Make `admit` and `wait_drained` raise Cancelled from now on; from any thread, any number of times.

        What was admitted is still applied: closing the groups drains them.
        """
        with self._lock:
            self._cancelled = True
            gate = self._pop_gate()
        if gate is not None:
            gate.open()

    def statistics(self) -> InFlightStatistics:
        """What is pending now."""
        with self._lock:
            return InFlightStatistics(self._units, self._bytes, self._bytes_max, self._waits)

    def _raise_if_over(self) -> None:
        if self._failure is not None:
            raise self._failure.error
        if self._cancelled:
            raise Cancelled

    def _acquire_credit(self, units: Sequence[WriteUnit], start: int) -> int:
        """Admit from `start` on while there is credit. Index of the first unit not admitted."""
        admitted = start
        for unit in islice(units, start, None):
            if self._bytes and self._bytes + unit.cost > self._bytes_max:
                break
            self._bytes += unit.cost
            admitted += 1
        self._units += admitted - start
        return admitted

    def _credit_mark(self, unit: WriteUnit) -> int:
        """How little must be pending before the receiver is woken: half, so that it is not woken for every unit."""
        return max(0, min(self._bytes_max - unit.cost, self._bytes_max // 2))

    def _wait_for(self, wanted: int) -> Gate:
        self._waits += 1
        self._wanted = wanted
        self._gate = self._seam.gate()
        return self._gate

    def _pop_gate(self) -> Gate | None:
        gate, self._gate = self._gate, None
        return gate
