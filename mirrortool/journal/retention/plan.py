"""Retention: what of a journal may go, and why the remainder stays. Planning only; prune.py carries it out.

A journal loses its oldest files first, so a plan is a first LSN that must stay, and why. A *promise* is a point in time
from which on every commit stays restorable: that needs the newest base at or before it, and everything after that base.

Rule: after any plan, every promised commit can be restored, and every slot that holds back can continue.
Rule: without a base that stands for what went before, nothing goes. The newest base stays, as does the newest file.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mirrortool.journal.slots import Slot
from mirrortool.lsn import NO_LSN, Lsn


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A journal file, or a base: the first LSN of the one, the LSN of the other."""

    lsn: Lsn
    size: int


@dataclass(frozen=True, slots=True)
class SlotLag:
    """How far a slot is behind.

    Attributes:
        seconds: since the first frame that it lacks was written; 0 if it lacks none.
    """

    slot: Slot
    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Everything from an LSN on is needed, and by which reader; for people.

    Attributes:
        base_lsn: of a base that is needed, too; 0 if none is.
    """

    lsn: Lsn
    why: str
    base_lsn: Lsn = NO_LSN


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be kept beyond what is needed.

    Attributes:
        promised_lsn: every commit from this one on stays restorable; 0 for all that there are. None promises only
            those from the newest base on.
        size: journal files that nothing needs stay while all together have no more bytes; None keeps none of them.
        slot_size, slot_seconds: a slot that is further behind holds nothing back.
    """

    promised_lsn: Lsn | None = None
    size: int | None = None
    slot_size: int | None = None
    slot_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What goes and what stays.

    Attributes:
        files: first LSNs of the journal files that go: the oldest ones.
        bases: LSNs of the bases that go.
        lost: slots that need one of these files.
        holds: why the remainder stays, the one that reaches back furthest first.
        needs_base: whether files stay only because no base stands for them.
    """

    files: tuple[int, ...]
    bases: tuple[int, ...]
    lost: tuple[Slot, ...]
    holds: tuple[Hold, ...]
    needs_base: bool


def plan(
    files: Sequence[KeptFile], bases: Sequence[KeptFile], lags: Sequence[SlotLag], others: Sequence[Hold], wish: Wish
) -> PrunePlan:
    """PrunePlan what goes.

    Args:
        files, bases: all of them, ascending.
        lags: of all slots.
        others: what else holds back, such as the recorder.
    """
    if not files:
        return PrunePlan((), (), (), (), False)
    floor = _floor([base for base in bases if base.lsn + 1 >= files[0].lsn], wish.promised_lsn)
    holding = [lag.slot for lag in lags if lag.slot.holds_back and not _is_too_far(lag, files, wish)]
    holds = [
        *others,
        *(Hold(slot.needs_lsn, f"slot {slot.name}, which is at LSN {slot.position.lsn}") for slot in holding),
        Hold(files[-1].lsn, "it is being appended to"),
        _hold_of(floor, wish.promised_lsn),
    ]
    holds.sort(key=lambda hold: hold.lsn)
    kept = _extended(files, _index_of(files, holds[0].lsn), wish.size)
    needs_base = floor is None and _index_of(files, min(holds[1].lsn, wish.promised_lsn or holds[1].lsn)) > 0
    gone = tuple(file.lsn for file in files[:kept])
    first = files[kept].lsn
    lost = tuple(
        slot
        for slot in (lag.slot for lag in lags)
        if slot.holds_back and slot not in holding and slot.needs_lsn < first
    )
    return PrunePlan(
        gone,
        _bases_gone(bases, floor, first, _bases_read(holding, others), wish),
        lost,
        tuple(holds),
        needs_base and wish.promised_lsn != 0,
    )


def _floor(bases: Sequence[KeptFile], promised_lsn: Lsn | None) -> KeptFile | None:
    """The base that the promise is restored from: the newest that is not after it."""
    fit = [base for base in bases if promised_lsn is None or base.lsn <= promised_lsn]
    return fit[-1] if fit else None


def _hold_of(floor: KeptFile | None, promised_lsn: Lsn | None) -> Hold:
    if floor is None:
        return Hold(
            NO_LSN, "every commit is within --keep" if promised_lsn == 0 else "no base stands for what is before"
        )
    # The file with the base's own commit stays, so that the point in time can be named.
    return Hold(floor.lsn, f"base {floor.lsn} is restored with it")


def _is_too_far(lag: SlotLag, files: Sequence[KeptFile], wish: Wish) -> bool:
    """Whether a slot is further behind than it may be, or than the journal reaches back."""
    if lag.slot.needs_lsn < files[0].lsn:
        return True
    is_far = wish.slot_size is not None and bytes_from(files, lag.slot.needs_lsn) > wish.slot_size
    return is_far or (wish.slot_seconds is not None and lag.seconds > wish.slot_seconds)


def _extended(files: Sequence[KeptFile], kept: int, size: int | None) -> int:
    """The index of the first file that stays: the newest of those before `kept` that fit stay, too."""
    if size is None:
        return kept
    total = sum(file.size for file in files[kept:])
    while kept and total + files[kept - 1].size <= size:
        kept -= 1
        total += files[kept].size
    return kept


def _bases_gone(
    bases: Sequence[KeptFile], floor: KeptFile | None, first_lsn: Lsn, read: Collection[Lsn], wish: Wish
) -> tuple[int, ...]:
    """Bases before the promise go, but those that are read, and those that --keep-size restores."""
    if floor is None:
        return ()
    older = (base.lsn for base in bases if base.lsn < floor.lsn and base.lsn not in read)
    return tuple(lsn for lsn in older if wish.size is None or lsn < first_lsn)


def _bases_read(holding: Sequence[Slot], others: Sequence[Hold]) -> set[Lsn]:
    """LSNs of the bases from which a slot starts over, or that another reader needs."""
    return {slot.resync_lsn for slot in holding} | {hold.base_lsn for hold in others}


def bytes_from(files: Sequence[KeptFile], lsn: Lsn) -> int:
    """Bytes of the file that holds an LSN, and of all after it."""
    return sum(file.size for file in files[_index_of(files, lsn) :])


def _index_of(files: Sequence[KeptFile], lsn: Lsn) -> int:
    """The file in which an LSN is; of one before the first file, the first."""
    return max(0, bisect.bisect_right([file.lsn for file in files], lsn) - 1)
