"""The values that one look at a journal or mirror finds; data classes only, no code that reads files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirrortool.errors import JournalError, LockedError, MirrortoolError
from mirrortool.journal.commits import Commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.diskspace import NO_ROOM, Room
from mirrortool.journal.holds import JournalHold
from mirrortool.journal.position import Position
from mirrortool.journal.slots import Slot
from mirrortool.mirror.backingvolumes import FoundBacking
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import Finding
from mirrortool.mirror.lastreplay import LastReplay
from mirrortool.mirror.receipts import Receipt
from mirrortool.status.activity import UNKNOWN, Work
from mirrortool.volume import VolumeSet


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """A reader of a journal, and how far it is behind the newest commit, as far as its slot tells.

    Attributes:
        work: what uses it, as far as this host can tell.
        lag_operations, lag_seconds: None if the slot is lost, and its owner has to start over; or if nothing is
            committed that it could lack, or its position is not in the journal.
        is_contained: whether the journal contains its position; None if that cannot be known.
    """

    slot: Slot
    lag_operations: int | None
    lag_seconds: float | None
    is_contained: bool | None = None
    work: Work = UNKNOWN


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """A journal, idle or being recorded.

    Attributes:
        recorder: what its running recorder says of itself; None if none is running, or it does not answer.
        head: after the newest whole frame.
        commit: the newest one.
        damage: what stops a reader before the end of the newest file; None if nothing does.
        size: of all journal files, in bytes.
        silent_seconds: how long nothing was heard of its recorder; None if one is running, as far as this host can
            tell.
        ahead_seconds: how far its times are ahead of this host's clock; None if that is little.
        readers: by the names of their slots.
        work: what records it, or receives it.
        room: what it uses, and what is free.
        holds: what running processes read of it, so that it stays.
        unanswered: that a recorder has the journal and does not answer; None if it does, or none is running.
    """

    journal: Journal
    volumes: VolumeSet
    head: Position
    time_ns: int
    commit: Commit | None
    damage: JournalError | None
    file_count: int
    size: int
    recorder: Mapping[str, Any] | None = None
    silent_seconds: float | None = None
    readers: Sequence[SlotStatus] = ()
    ahead_seconds: float | None = None
    unanswered: LockedError | None = None
    work: Work = UNKNOWN
    room: Room = NO_ROOM
    holds: Sequence[JournalHold] = ()


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """A mirror, and how far behind its journal it is.

    Attributes:
        journal: None if the journal is not at hand, or does not contain the mirror's position.
        work: what replays into it.
        last_replay: what the last replay did; None if that is not known.
        damage: of its journal, or why that is not this mirror's any more; of a promoted one, that it was replaced.
        verified: the newest receipt of a verification; None if there is none.
        known_bad: what verifications found wrong that is not put right.
        lag_operations, lag_seconds: from the mirror's commit to the journal's newest; None without the journal, and
            while it has no commit.
        backings: on which some of its volumes lie, and where each was found.
    """

    mirror: Mirror
    checkpoint: Checkpoint
    last_replay: LastReplay | None
    journal: JournalStatus | None
    lag_operations: int | None
    lag_seconds: float | None
    damage: MirrortoolError | None = None
    verified: Receipt | None = None
    known_bad: Sequence[Finding] = ()
    work: Work = UNKNOWN
    backings: Sequence[FoundBacking] = ()


@dataclass(frozen=True, slots=True)
class Unseen:
    """A path of which nothing can be said.

    Attributes:
        error: why; that there is neither a journal nor a mirror, or that it may not be read.
    """

    path: str
    error: MirrortoolError


Found = JournalStatus | MirrorStatus | Unseen
