"""For status: the lag of each mirror and copy, calculated from checkpoints and slots on disk.

Rule: a mirror that lacks only heartbeats lacks nothing. Rule: while news of the journal is overdue, each reader
of it is at least that long behind.
"""

from __future__ import annotations

from mirrortool.journal.commits import Commit, newest_change
from mirrortool.journal.directory import Journal
from mirrortool.journal.slotpositions import SlotPlaces
from mirrortool.journal.slots import Slot, slots
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.mirrorlag import behind
from mirrortool.status.activity import work_of_slot
from mirrortool.status.snapshot import Found, MirrorStatus, SlotStatus, Unseen


class Changes:
    """The newest commit of one journal that is not a heartbeat, looked for only as far back as is asked for.

    Attributes:
        has_commit: whether the journal has any commit.
    """

    def __init__(self, newest: Commit | None = None) -> None:
        self.has_commit = newest is not None
        self._newest: Commit | None = None
        self._searched_lsn: Lsn | None = None  # with _newest None: nothing but heartbeats follows this

    def note(self, commit: Commit) -> None:
        """A commit that was read just now: the newest."""
        self.has_commit = True
        if not commit.is_heartbeat:
            self._newest = commit

    def after(self, journal: Journal, lsn: Lsn) -> Commit | None:
        """The newest one, if it is after this LSN."""
        if self._newest is None and (self._searched_lsn is None or lsn < self._searched_lsn):
            self._newest, self._searched_lsn = newest_change(journal, lsn), lsn
        return self._newest if self._newest and self._newest.lsn > lsn else None


def lag(checkpoint: Checkpoint, newest: Commit | None, now_ns: int, silent: float | None = None) -> tuple[int, float]:
    """Operations and seconds that a mirror is behind; see mirror.mirrorlag.behind.

    Args:
        newest: the newest commit that it lacks and that is not a heartbeat; None if there is none.
        silent: for how long the journal was not heard of, if that is too long.
    """
    return _lag(checkpoint.position.lsn, checkpoint.time_ns, newest, now_ns, silent)


def _lag(lsn: Lsn, time_ns: int, newest: Commit | None, now_ns: int, silent: float | None) -> tuple[int, float]:
    newest_lsn, newest_ns = (newest.lsn, newest.time_ns) if newest else (NO_LSN, 0)
    operations, seconds = behind(lsn, time_ns, newest_lsn, newest_ns, now_ns)
    return operations, max(seconds, silent or 0.0)


def lags_of(status: Found) -> list[tuple[str, float | None]]:
    """The mirrors and copies that a status tells of, each with the seconds that it is behind; None if not known.

    That is so, too, of one that lacks something while the journal's times are ahead of this host's clock.
    """
    if isinstance(status, Unseen):
        return []
    if isinstance(status, MirrorStatus):
        is_ahead = status.journal is not None and status.journal.ahead_seconds is not None
        return [(status.mirror.path, None if is_ahead and status.lag_operations else status.lag_seconds)]
    is_ahead = status.ahead_seconds is not None
    return [
        (f"slot {reader.slot.name}", None if is_ahead and reader.lag_operations else reader.lag_seconds)
        for reader in status.readers
    ]


def readers_of(
    journal: Journal, changes: Changes, places: SlotPlaces, now_ns: int, silent: float | None
) -> list[SlotStatus]:
    """The readers of a journal that have slots, and how far behind its newest commit each is.

    Args:
        places: knows which of their positions the journal contains.
        silent: for how long the journal was not heard of, if that is too long.
    """
    found = slots(journal)
    contained = places.is_contained(journal, found)

    def reader(slot: Slot) -> SlotStatus:
        is_contained, work = contained.get(slot.name), work_of_slot(journal, slot)
        if slot.is_lost or slot.resync_lsn or not changes.has_commit or is_contained is False:
            return SlotStatus(slot, None, None, is_contained, work)
        newest = changes.after(journal, slot.position.lsn)
        return SlotStatus(slot, *_lag(slot.position.lsn, slot.time_ns, newest, now_ns, silent), is_contained, work)

    return [reader(slot) for slot in found]
