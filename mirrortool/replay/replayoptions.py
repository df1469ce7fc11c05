"""How to replay: what the user, or the program that opens a Replay, chooses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.journal.slots import check_name
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.ratelimit import Pace
from mirrortool.replay.engine import Plan
from mirrortool.replay.planner import Wanted
from mirrortool.replay.tracing import Tracer
from mirrortool.store.backingformat import EXTENT_MAX, EXTENT_MIN, is_extent_size
from mirrortool.wording import byte_count, format_bytes

MAX_BYTES = 16 << 40
"""A journal whose volumes are larger is more likely wrong than right; the user may say otherwise."""
WINDOW_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        plan: a Plan, or what of one is given; the remainder is chosen as the first writes are timed. By default all.
        until: the last commit at or before it is the goal; by default the newest.
        flush_only: only a flush commit or a mark can be the goal; not together with `follow`.
        targets: where a new mirror keeps volumes, by name; by default images in its directory.
        backings: on which a new mirror keeps the others; for a mirror that has some, where they are by now.
        extent_bytes: of an extent on them; by default EXTENT_DEFAULT.
        only: the names of the volumes that a new mirror is to hold; of the others it keeps the sums. By default all.
        overwrite: whether data in those targets and backings may be lost.
        raw: also where it is an image in a container format, such as qcow2.
        max_bytes: the volumes may not be larger together.
        window_bytes: of payload, coalesced at once.
        read_back: whether pages are read back from the device before a checkpoint names them.
        tracer: called with what a trace has of this replay; see tracing.py.
        follow: continue at the journal's end with each commit as it comes, until `cancel` or `until`.
        observer: how the follower is woken; one of tail.OBSERVERS.
        delay_seconds: keep the mirror at the newest commit that is this old; not together with `until`.
        bytes_per_second: read no more of the journal.
        slot: the name of a slot to keep in the journal, or OWN_SLOT; by default none is kept.
        replace_slot: a mirror that was in this place, and that the journal has a slot of, is gone for good; its slot
            goes.
        trusts_times: refuse volumes that were written since, as their times tell; if not, a verification follows.
        is_scratch: the mirror is a temporary one, which may lie in the journal.
        group: the number of a group of users that may read a new mirror; by default no other user may.
        force_known_bad: replay although pages are not as they were left, where a verification has told which.
    """

    until: Until | None = None
    flush_only: bool = False
    plan: Plan | Wanted | None = None
    targets: Mapping[str, str] | None = None
    backings: Sequence[BackTarget] = ()
    extent_bytes: int | None = None
    only: Collection[str] | None = None
    overwrite: bool = False
    raw: bool = False
    force_known_bad: bool = False
    read_back: bool = True
    tracer: Tracer | None = None
    max_bytes: int = MAX_BYTES
    window_bytes: int = WINDOW_BYTES
    follow: bool = False
    observer: str = "auto"
    delay_seconds: float = 0.0
    bytes_per_second: int | None = None
    slot: str | None = None
    replace_slot: bool = False
    trusts_times: bool = True
    is_scratch: bool = False
    group: int | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: a value is not valid.
        """
        self.wanted.check()
        if self.delay_seconds < 0 or self.window_bytes < 1:
            raise UsageError(
                f"a delay of {self.delay_seconds} s and windows of {byte_count(self.window_bytes)} are not possible"
            )
        if self.extent_bytes is not None and not self.backings:
            raise UsageError("a size of extents is for a mirror on backings", remedy="name them with --back")
        if self.extent_bytes is not None and not is_extent_size(self.extent_bytes):
            raise UsageError(
                f"extents of {format_bytes(self.extent_bytes)} are not possible",
                remedy=f"choose a power of two from {format_bytes(EXTENT_MIN)} to {format_bytes(EXTENT_MAX)}",
            )
        Pace(self.bytes_per_second)
        if self.slot:
            check_name(self.slot)

    @property
    def wanted(self) -> Wanted:
        """What is given of the plan."""
        return Wanted.exactly(self.plan) if isinstance(self.plan, Plan) else self.plan or Wanted()
