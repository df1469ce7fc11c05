"""How far a mirror is behind its journal, while it is replayed: in operations, bytes and seconds, and for how long.

Not here: a mirror that is not being replayed (status/lags.py), by the same rule.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import clock
from mirrortool.errors import HostError
from mirrortool.journal.directory import Journal
from mirrortool.journal.newest import Head, HeadWatch
from mirrortool.journal.overdue import Heard, SilenceMeter
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.mirrorlag import behind

LOOK_SECONDS = 1.0
"""The journal's head is looked at this often, at most."""
_RATE_LOOKS = 30
_RATE_SECONDS_MIN = 2.0


@dataclass(frozen=True, slots=True)
class ReplayLag:
    """How far a mirror is behind.

    Attributes:
        operations: from the mirror's checkpoint to the journal's newest commit, heartbeats left out at its end.
        bytes: of the journal after the mirror's checkpoint.
        seconds: the age of the state that the mirror holds; 0 if it is up to date; but while news of the journal
            is overdue, at least the silence.
        eta_seconds: until the mirror has caught up, at the rates of the last seconds; None where the lag
            does not shrink, or that is not known yet.
        head_lsn, head_time_ns: of the journal's newest frame: when its recorder was last heard of.
        silent_seconds: how long nothing was heard of it, if news is overdue; else None. See journal/overdue.py.
    """

    operations: int
    bytes: int
    seconds: float
    eta_seconds: float | None
    head_lsn: Lsn
    head_time_ns: int
    silent_seconds: float | None


class LagMeter:
    """Measures one replay's lag; from any thread. `with` closes what it has open."""

    def __init__(self, journal: Journal, first_lsn: Lsn, offset: int) -> None:
        """Measure nothing yet.

        Args:
            first_lsn, offset: where the replay begins: a journal file, and an offset in it.
        """
        self._journal = journal
        # _lock protects everything below. Held while headers are read.
        self._lock = threading.Lock()
        self._watch = HeadWatch(journal, first_lsn, offset)
        self._listener = SilenceMeter(journal)
        self._head = Head(NO_LSN, 0, NO_LSN, 0, 0)
        self._looked_at = -math.inf
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_LOOKS)  # when, and bytes of the lag then

    def __enter__(self) -> LagMeter:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._watch.close()

    def measure(self, checkpoint: Checkpoint, journal_bytes: int) -> ReplayLag:
        """The lag now.

        Args:
            journal_bytes: replayed since the replay began, up to this checkpoint or one before it.
        """
        with self._lock:
            now = clock.monotonic()
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                with suppress(HostError):  # the replay reads the journal too, and says what is wrong
                    self._head = self._watch.look()
                self._rates.append((now, max(0, self._head.frame_bytes - journal_bytes)))
            now_ns, head = clock.now_ns(), self._head
            at = checkpoint.position.lsn
            operations, seconds = behind(at, checkpoint.time_ns, head.commit_lsn, head.commit_time_ns, now_ns)
            lsn = max(head.lsn, at)
            remainder = max(0, head.frame_bytes - journal_bytes) if operations else 0
            heard = head.heard if head.lsn >= at else Heard(at, checkpoint.time_ns, may_rest=True)
            silence = self._listener.silent_seconds(heard, now_ns)
            seconds = max(seconds, silence or 0.0)
            return ReplayLag(operations, remainder, seconds, self._eta(remainder), lsn, heard.time_ns, silence)

    def _eta(self, remainder: int) -> float | None:
        """From how fast the bytes of the lag became fewer."""
        if not remainder:
            return 0.0
        (first, most), (last, least) = self._rates[0], self._rates[-1]
        if last - first < _RATE_SECONDS_MIN or least >= most:
            return None
        return remainder * (last - first) / (most - least)
