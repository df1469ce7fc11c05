"""How far mirrors and copies are behind their journal, as their checkpoints and slots tell."""

from __future__ import annotations

from mirrortool import clock
from mirrortool.journal.commits import Commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.slotplaces import SlotPlaces
from mirrortool.journal.slots import Slot, slots
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.replay.lag import behind
from mirrortool.status.found import Found, MirrorStatus, SlotStatus, Unseen


def lag(checkpoint: Checkpoint, newest: Commit, now_ns: int) -> tuple[int, float]:
    """Operations and seconds that a mirror is behind the newest commit; see replay.lag.behind."""
    return behind(checkpoint.position.lsn, checkpoint.time_ns, newest.lsn, newest.time_ns, now_ns)


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


def readers_of(journal: Journal, newest: Commit | None, places: SlotPlaces) -> list[SlotStatus]:
    """Who reads a journal by slots, and how far behind its newest commit each is.

    Args:
        places: knows which of their positions the journal contains.
    Raises:
        NotAJournalError: the file of a slot makes no sense.
    """
    now_ns = clock.now_ns()
    found = slots(journal)
    contained = places.is_contained(journal, found)
    return [_reader(slot, newest, contained.get(slot.name), now_ns) for slot in found]


def _reader(slot: Slot, newest: Commit | None, is_contained: bool | None, now_ns: int) -> SlotStatus:
    if slot.is_lost or slot.resync_lsn or newest is None or is_contained is False:
        return SlotStatus(slot, None, None, is_contained)
    behind_by = behind(slot.position.lsn, slot.time_ns, newest.lsn, newest.time_ns, now_ns)
    return SlotStatus(slot, *behind_by, is_contained)
