"""Tells an idle primary from an unreachable one: whether something new was due in a journal and did not come.

    what the journal says                          when its next frame is late
    the frames end cleanly                         never
    ... and repeated scans are run                 when the next scan should have committed
    a scan is running, as this host can tell       never, or as above
    the newest frame is a commit of a recorder     SILENT_SECONDS after it: heartbeats come every HEARTBEAT_SECONDS
    the newest frame is any other                  UNCOMMITTED_SECONDS after it: a scan need not find much

Rule: a lock proves nothing here but that of a scan. The holder of that of a copy only receives, and a recorder that is
stopped, or hangs, holds its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool.errors import HostError, JournalError
from mirrortool.journal.directory import Journal
from mirrortool.lsn import Lsn

HEARTBEAT_SECONDS = 10.0
"""A recorder that serves appends a commit of kind HEARTBEAT when it has appended nothing for that long."""
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
UNCOMMITTED_SECONDS = 300.0
"""Between two frames of a scan, or of an initial scan, this much time may pass in what the journal has already."""
_RUNS_WITHOUT_FRAMES = ("scan", "mark", "promote")


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest frame of a journal.

    Attributes:
        lsn, time_ns: of it; 0 if there is none.
        may_rest: whether a running recorder follows it up with heartbeats, when nothing changes.
    """

    lsn: Lsn
    time_ns: int
    may_rest: bool


def silent_seconds(journal: Journal, heard: Heard, now_ns: int) -> float | None:
    """How long nothing was heard of the recorder, where that is longer than it should be; else None.

    Args:
        journal: with the end that journal.json now tells of.
    """
    if not heard.time_ns:
        return None
    late_ns = _late_ns(journal, heard)
    return (now_ns - heard.time_ns) / 1e9 if late_ns is not None and now_ns > late_ns else None


def _late_ns(journal: Journal, heard: Heard) -> int | None:
    """When the next frame is late; None if none is owed."""
    scan_ns = journal.next_scan.due_ns + round(SILENT_SECONDS * 1e9) if journal.next_scan else None
    if journal.clean_end and journal.clean_end.position.lsn == heard.lsn:
        return scan_ns
    if _is_scanned(journal):
        return scan_ns
    seconds = SILENT_SECONDS if heard.may_rest else UNCOMMITTED_SECONDS
    return max(heard.time_ns + round(seconds * 1e9), scan_ns or 0)


def _is_scanned(journal: Journal) -> bool:
    try:
        worker = journal.worker()
    except HostError:
        return False
    return worker is not None and worker.doing in _RUNS_WITHOUT_FRAMES


class SilenceMeter:
    """Asks again and again, for one journal; reads journal.json only when that is another. Used by one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def silent_seconds(self, heard: Heard, now_ns: int) -> float | None:
        """As the function of this name."""
        try:
            if self._journal.has_news():
                self._journal = Journal(self._journal.path)
        except (JournalError, HostError):  # being promoted, or missing for a moment: its reader says so
            pass
        return silent_seconds(self._journal, heard, now_ns)
