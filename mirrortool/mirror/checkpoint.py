"""The checkpoint of a mirror: the position up to which its volumes durably hold the journal, and what it records with
that.

Order of durability, which every writer keeps: the LSN that the store may reach is raised first; then the store is
written and made durable; then the sums; then the checkpoint. So after a crash every page that differs from its sum was
touched by an operation in `position.lsn + 1 … reached_lsn`, and redo from `position` mends it.

A mirror that starts over from a base raises `reached_lsn` to that, with `resync_lsn`; replay/resync.py says why what
the sums tell is enough to continue after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import CommitKind

_KINDS = {kind.name.lower(): kind for kind in CommitKind}


class MirrorState(Enum):
    """How a mirror is, as its checkpoint says: `TRANSITIONS` says how it comes from one state to another."""

    EMPTY = "empty"
    """Nothing was replayed into it yet: LSN 0."""
    CONSISTENT = "consistent"
    """Exactly at a commit. A fuzzy or incomplete commit is one, too; `is_fuzzy` and `is_incomplete` tell."""
    ROLLING_FORWARD = "rolling forward"
    """Between two commits, or its store may hold more than the position says: replay finishes it."""
    STARTING_OVER = "starting over"
    """Some of its pages are of a base already, others of the position before that: replay finishes it."""


TRANSITIONS = {
    (MirrorState.EMPTY, "reaching"): MirrorState.ROLLING_FORWARD,
    (MirrorState.EMPTY, "resyncing"): MirrorState.STARTING_OVER,
    (MirrorState.CONSISTENT, "reaching"): MirrorState.ROLLING_FORWARD,
    (MirrorState.CONSISTENT, "resyncing"): MirrorState.STARTING_OVER,
    (MirrorState.ROLLING_FORWARD, "reaching"): MirrorState.ROLLING_FORWARD,
    (MirrorState.ROLLING_FORWARD, "resyncing"): MirrorState.STARTING_OVER,
    (MirrorState.STARTING_OVER, "reaching"): MirrorState.STARTING_OVER,
    (MirrorState.STARTING_OVER, "resyncing"): MirrorState.STARTING_OVER,
}
"""What the methods of Checkpoint make of it. From each state a commit that was made durable leads to CONSISTENT."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A mirror's checkpoint.

    Attributes:
        position: store and sums hold everything up to it.
        state_sum: of the primary there.
        time_ns: of the frame that ends there.
        is_commit: whether the position is a commit; if not, the mirror is rolling forward.
        commit_lsn: the newest commit at or before the position; 0 if there is none.
        reached_lsn: the newest LSN of which pages may be in the store already.
        sizes: of the volumes by name, in bytes, as of the position.
        commit_kind: of the newest commit; None if there is none.
        resync_lsn: of the base from which the mirror is starting over: some pages are as of that, others as of the
            position. 0 otherwise.
        resync_all: whether the sums say nothing of what the store holds meanwhile.
    """

    position: Position
    state_sum: int
    time_ns: int
    is_commit: bool
    commit_lsn: Lsn
    reached_lsn: Lsn
    sizes: Mapping[str, int]
    commit_kind: CommitKind | None = None
    resync_lsn: Lsn = NO_LSN
    resync_all: bool = False

    @property
    def is_fuzzy(self) -> bool:
        """Whether a volume changed under the newest commit, so that it is not a state that the volume ever had."""
        return self.commit_kind == CommitKind.FUZZY

    @property
    def is_incomplete(self) -> bool:
        """Whether the journal lacked some of what the volumes had at the newest commit: their base was not read yet."""
        return self.commit_kind == CommitKind.INCOMPLETE

    @property
    def is_finished(self) -> bool:
        """Whether nothing past the position can be in the store."""
        return self.reached_lsn <= self.position.lsn

    @property
    def state(self) -> MirrorState:
        """How the mirror is."""
        if self.resync_lsn:
            return MirrorState.STARTING_OVER
        if not self.is_finished:
            return MirrorState.ROLLING_FORWARD
        if not self.position.lsn:
            return MirrorState.EMPTY
        return MirrorState.CONSISTENT if self.is_commit else MirrorState.ROLLING_FORWARD

    @property
    def is_consistent(self) -> bool:
        """Whether the mirror is a committed state of the primary."""
        return self.state == MirrorState.CONSISTENT

    def reaching(self, lsn: Lsn) -> Checkpoint:
        """The same, with the store allowed to go as far as `lsn`."""
        return replace(self, reached_lsn=max(lsn, self.reached_lsn))

    def resyncing(self, lsn: Lsn, *, ignores_table: bool) -> Checkpoint:
        """The same, with the store allowed to go to the base of this LSN.

        What it reached past that base, before a crash, it still holds, unless every page is written.
        """
        reached = lsn if ignores_table else max(lsn, self.reached_lsn)
        return replace(self, reached_lsn=reached, resync_lsn=lsn, resync_all=ignores_table)

    def to_json(self) -> dict[str, object]:
        return {
            "position": self.position.to_json(),
            "state_sum": f"{self.state_sum:016x}",
            "time_ns": self.time_ns,
            "is_commit": self.is_commit,
            "commit_lsn": self.commit_lsn,
            "reached_lsn": self.reached_lsn,
            "sizes": dict(self.sizes),
            "commit_kind": self.commit_kind.name.lower() if self.commit_kind else "none",
            "resync_lsn": self.resync_lsn,
            "resync_all": self.resync_all,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Checkpoint:
        sizes = fields.object("sizes")
        return cls(
            Position.from_json(fields.object("position")),
            int.from_bytes(fields.hexadecimal("state_sum", 8), "big"),
            fields.integer("time_ns"),
            fields.flag("is_commit"),
            Lsn(fields.integer("commit_lsn")),
            Lsn(fields.integer("reached_lsn")),
            {name: sizes.integer(name) for name in sizes.names()},
            _KINDS.get(fields.text("commit_kind")),
            Lsn(fields.integer("resync_lsn") if "resync_lsn" in fields else 0),
            fields.flag("resync_all") if "resync_all" in fields else False,
        )


def describe(checkpoint: Checkpoint, *, is_running: bool = False) -> str:
    """How a mirror is, as a phrase; with what is to be done, unless a replay of it is running."""
    finishes = "" if is_running else "; replay finishes it"
    lsn = checkpoint.position.lsn
    match checkpoint.state:
        case MirrorState.EMPTY:
            return "the mirror is empty"
        case MirrorState.STARTING_OVER:
            return f"the mirror is starting over from base {checkpoint.resync_lsn}{finishes}"
        case MirrorState.ROLLING_FORWARD:
            return f"the mirror is rolling forward after LSN {lsn}, between two commits{finishes}"
    if checkpoint.is_incomplete:
        return f"the mirror is at LSN {lsn}, before the primary's initial scan ended"
    if checkpoint.is_fuzzy:
        return f"the mirror is at LSN {lsn}, a FUZZY commit: a state that the primary never had"
    return f"the mirror is at LSN {lsn}"
