"""Slots: the readers of a journal, and up to where each has read, so that the journal keeps what they still need.

`JOURNAL/slots/NAME.json`, one for each mirror and for each copy that is shipped to, replaced atomically by its reader.

Rule: a slot is never after what its owner has durably. It may be before that: it is saved once in SLOT_SECONDS.
Rule: a slot that is lost stays lost until its owner is at a position from which the journal continues: because the
owner started over, or got there with files that it had open. Only retention makes a slot lost, or a promotion that
dropped what its owner has. An owner that finds that out saves its slot as lost too, because the slot may have been
saved before the fork, or after the promotion.
Locks: `slots/lock`, on this host, is held while all slots are read and acted on, and for each save; so saves and
retention are never at the same time. A reader that finds it held saves with its next position.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum

from mirrortool import clock, files, jsonfile, lockholder
from mirrortool.errors import (
    AccessError,
    DamagedSlotError,
    ForkedJournalError,
    HostError,
    JournalError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    PrunedJournalError,
    UsageError,
)
from mirrortool.files import File
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.directory import Journal
from mirrortool.journal.lineage import check_continues
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import MARK_NAME
from mirrortool.wording import quoted_word

SLOT_SECONDS = 1.0
SLOTS_MAX = 1024
_LOCK_SECONDS = 5.0
_SUFFIX = ".json"


class SlotState(Enum):
    """What a slot keeps for its owner; `TRANSITIONS` says how it comes from one state to another."""

    READING = "reading"
    """The journal keeps what comes after its position."""
    LOST = "lost"
    """What comes next was removed, or dropped by a promotion; nothing is kept."""
    STARTING_OVER = "starting over"
    """The owner reads a base anew; the journal keeps that, and what comes after it."""
    REMOTE = "remote"
    """The owner reads a copy; the journal keeps nothing, as the copy's own slot does that."""


TRANSITIONS = {
    (SlotState.READING, "lose"): SlotState.LOST,
    (SlotState.READING, "advance"): SlotState.READING,
    (SlotState.READING, "resync"): SlotState.STARTING_OVER,
    (SlotState.LOST, "lose"): SlotState.LOST,
    (
        SlotState.LOST,
        "advance",
    ): SlotState.READING,  # the owner had the old files open, and is now where the journal has files
    (SlotState.LOST, "resync"): SlotState.STARTING_OVER,
    (SlotState.LOST, "start_over"): SlotState.READING,
    (SlotState.STARTING_OVER, "lose"): SlotState.LOST,
    (SlotState.STARTING_OVER, "advance"): SlotState.STARTING_OVER,
    (SlotState.STARTING_OVER, "resync"): SlotState.STARTING_OVER,
    (SlotState.STARTING_OVER, "start_over"): SlotState.READING,
    (SlotState.REMOTE, "lose"): SlotState.REMOTE,
    (SlotState.REMOTE, "advance"): SlotState.REMOTE,
}
"""What `lose`, and each method of SlotKeeper, makes of a slot where the journal has what comes after its position."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A reader of a journal.

    Attributes:
        owner: uuid of the mirror or of the copy, in hexadecimal: two owners cannot share a slot.
        kind: `mirror` or `ship`.
        where: the mirror's path, or where the journal is shipped to; for people.
        position: what the owner durably has.
        time_ns: of the frame that ends there.
        updated_ns: when the slot was saved.
        is_lost: what it needs was removed.
        resync_lsn: of the base from which the owner is starting over: that base, and the files after it, are kept for
            the owner. 0 otherwise.
        via: for a mirror that reads a copy, the name of the slot of that copy; the mirror's slot holds nothing back
            here. Empty for a reader of this journal.
    """

    name: str
    owner: str
    kind: str
    where: str
    position: Position
    time_ns: int
    updated_ns: int
    is_lost: bool = False
    via: str = ""
    resync_lsn: Lsn = NO_LSN

    @property
    def state(self) -> SlotState:
        """What is kept for the owner."""
        if self.via:
            return SlotState.REMOTE
        if self.resync_lsn:
            return SlotState.STARTING_OVER
        return SlotState.LOST if self.is_lost else SlotState.READING

    @property
    def holds_back(self) -> bool:
        """Whether journal files that its owner needs must stay."""
        return self.state in (SlotState.READING, SlotState.STARTING_OVER)

    def losing(self) -> Slot:
        """This slot as it is when nothing that the owner needs is kept any more."""
        return replace(self, is_lost=True, resync_lsn=NO_LSN)

    @property
    def needs_lsn(self) -> Lsn:
        """The first LSN that the owner is going to read."""
        return Lsn((self.resync_lsn or self.position.lsn) + 1)

    def to_json(self) -> dict[str, object]:
        return {
            "owner": self.owner,
            "kind": self.kind,
            "where": self.where,
            "position": self.position.to_json(),
            "time_ns": self.time_ns,
            "updated_ns": self.updated_ns,
            "is_lost": self.is_lost,
            "via": self.via,
            "resync_lsn": self.resync_lsn,
        }

    @classmethod
    def from_json(cls, name: str, fields: Fields) -> Slot:
        return cls(
            name,
            fields.text("owner"),
            fields.text("kind"),
            fields.text("where"),
            Position.from_json(fields.object("position")),
            fields.integer("time_ns"),
            fields.integer("updated_ns"),
            fields.flag("is_lost"),
            fields.text("via"),
            Lsn(fields.integer("resync_lsn")),
        )


def check_name(name: str) -> None:
    """Raise UsageError unless a slot can have this name."""
    if not MARK_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a slot's name: a letter, then letters, digits, '.', '_', '-', at most 64")


def slots_path(journal: Journal) -> str:
    return files.join(journal.path, "slots")


def find_slot(journal: Journal, name: str) -> Slot | None:
    """The slot of this name.

    Raises:
        DamagedSlotError: its file is not valid.
    """
    try:
        fields = jsonfile.load(_path(journal, name), DamagedSlotError)
        return None if fields is None else Slot.from_json(name, fields)
    except DamagedSlotError as error:
        error.remedy = (
            "the next replay or ship of its owner writes it anew, "
            f"and mirrortool slot drop {quoted_word(journal.path)} {name} forgets it"
        )
        raise


def slots(journal: Journal) -> list[Slot]:
    """All slots that have a valid file, by name; `damaged_slots` has the others."""
    return _look(journal)[0]


def damaged_slots(journal: Journal) -> dict[str, DamagedSlotError]:
    """The slots of which nothing is known, because their files are not valid: what is wrong, by name."""
    return _look(journal)[1]


def _look(journal: Journal) -> tuple[list[Slot], dict[str, DamagedSlotError]]:
    names = [name.removesuffix(_SUFFIX) for name in files.list_directory(slots_path(journal)) if name.endswith(_SUFFIX)]
    found, damaged = [], {}
    for name in filter(MARK_NAME.fullmatch, names):
        try:
            slot = find_slot(journal, name)
        except DamagedSlotError as error:
            damaged[name] = error
        else:
            found += [slot] if slot else []
    return found, damaged


def is_there(journal: Journal, name: str) -> bool:
    """Whether there is a slot of this name, whether its file is damaged or not."""
    return files.exists(_path(journal, name))


def find_sound(journal: Journal, name: str) -> Slot | None:
    """The slot of this name, if there is one of which anything is known."""
    with suppress(DamagedSlotError):
        return find_slot(journal, name)
    return None


@contextmanager
def locked(journal: Journal) -> Iterator[None]:
    """No other process saves or removes a slot, or removes what slots need, until the block ends.

    Raises:
        LockedError: another process does, for longer than any of that takes.
        AccessError: the journal cannot be written; a mirror of it needs no slot.
    """
    ends = clock.monotonic() + _LOCK_SECONDS
    while True:
        try:
            file = _try_lock(journal)
            break
        except LockedError:
            if clock.monotonic() > ends:
                raise
            clock.sleep(0.01)
    with file:
        yield


def save(journal: Journal, slot: Slot) -> None:
    """Replace a slot; under `locked`."""
    jsonfile.save(_path(journal, slot.name), slot.to_json())


def remove(journal: Journal, name: str) -> None:
    """Remove a slot; under `locked`."""
    files.remove(_path(journal, name))
    files.remove(lockholder.beside(slots_path(journal), name))
    files.sync_directory(slots_path(journal))


def drop(journal: Journal, name: str) -> Slot | None:
    """Forget a slot: what it held back may go. None if its file was not valid.

    Raises:
        UsageError: there is none of this name.
    """
    check_name(name)
    with locked(journal):
        slot = find_sound(journal, name)
        if slot is None and not is_there(journal, name):
            raise UsageError(f"no slot {name}", where=journal.path, remedy="mirrortool slot list shows what there is")
        remove(journal, name)
    return slot


def lose_after_fork(journal: Journal, end: Position, promoted: str) -> None:
    """Save the slots after `end` as lost: that part was dropped, so the journal will never have what their owners have.

    Args:
        promoted: the owner that became the primary; it needs no slot any more.
    """
    if not files.exists(slots_path(journal)):
        return
    with locked(journal):
        for slot in slots(journal):
            if slot.owner == promoted:
                files.remove(_path(journal, slot.name))
            elif slot.position.lsn > end.lsn or (slot.position.lsn == end.lsn and slot.position != end):
                save(journal, replace(slot, is_lost=True))
        files.sync_directory(slots_path(journal))


def lose(journal: Journal, name: str, where: str) -> None:
    """Save a slot as lost: a promotion dropped what the owner at `where` has, so that needs nothing; best effort."""
    with suppress(LockedError, HostError, JournalError), locked(journal):
        found = find_slot(journal, name)
        if found and found.where == where:
            save(journal, replace(found.losing(), updated_ns=clock.now_ns()))


class SlotKeeper:
    """Keeps one slot where its owner is. Used by one thread."""

    def __init__(self, journal: Journal, slot: Slot, *, is_confirmed: bool = True, may_adopt: bool = False) -> None:
        """Register; a slot that the owner had before moves to where the owner is now.

        If what comes next there is gone already, the slot is lost from the start; `was_lost` says so.

        Args:
            is_confirmed: whether the journal is known to contain the position. While that is not known, a slot that the
                owner had is not moved forward, and `withdraw` restores it; the caller calls `confirm` or `resync` then.
            may_adopt: if another owner has this name, it is gone for good: its slot becomes this owner's.
        Raises:
            UsageError: the slot belongs to another owner, or there are too many slots.
            AccessError: the journal cannot be written.
        """
        check_name(slot.name)
        self._journal = journal
        with _saying_no_slot(), locked(journal):
            found = find_sound(journal, slot.name)  # a file that is not valid is written anew here
            self._former = found
            if found and found.owner != slot.owner:
                if not may_adopt:
                    raise belongs_to_another(journal, found, slot.where)
                found = None
            if not self._former and sum(not slot.via for slot in slots(journal)) >= SLOTS_MAX:
                raise UsageError(f"there are {SLOTS_MAX} slots already", where=journal.path, remedy="drop some")
            resync_lsn = found.resync_lsn if found else NO_LSN
            self.was_lost = (found is not None and found.is_lost) or _is_gone(journal, slot.position.next_lsn)
            if not is_confirmed and found is None and is_there(journal, slot.name):  # damaged: it stays until `confirm`
                self._slot, self._saved_at = replace(slot, is_lost=self.was_lost), clock.monotonic()
                return
            if found and not is_confirmed and found.position.lsn <= slot.position.lsn:  # it keeps all that is needed
                self._slot, self._saved_at = found, clock.monotonic()
                return
            try:
                self._save(replace(slot, is_lost=self.was_lost, resync_lsn=resync_lsn))
            except NoSpaceError:  # a full journal still has what an older position needs
                if found is None or self.was_lost or found.position.lsn > slot.position.lsn:
                    raise
                self._slot, self._saved_at = found, clock.monotonic()

    @property
    def slot(self) -> Slot:
        """The slot as it was saved last."""
        return self._slot

    def withdraw(self) -> None:
        """Restore the slot that was there before, or remove it: this is not the owner's journal; best effort."""
        with suppress(MirrortoolError), locked(self._journal):
            found = find_slot(self._journal, self._slot.name)
            if found is None or found.owner != self._slot.owner or found == self._former:
                return
            if self._former:
                save(self._journal, self._former)
            else:
                remove(self._journal, self._slot.name)

    def confirm(self, position: Position, time_ns: int, where: str) -> None:
        """The journal contains the position, and continues there: the slot counts, also if it was lost before."""
        if self.was_lost or self._slot.resync_lsn:
            self._slot = replace(self._slot, where=where)
            self.start_over(position, time_ns)
        else:
            # A full journal still has what an older position needs; so it may be kept.
            with suppress(NoSpaceError), _saying_no_slot(), locked(self._journal):
                self._save(replace(self._slot, position=position, time_ns=time_ns, where=where))

    def advance(self, position: Position, time_ns: int, *, now: bool = False) -> None:
        """The owner durably has everything up to here; saved if SLOT_SECONDS have passed, or `now`.

        A journal that cannot be written for a while, full or being pruned, keeps the older position.
        """
        is_due = now or clock.monotonic() - self._saved_at >= SLOT_SECONDS
        if not is_due or position == self._slot.position:
            return
        try:
            with _try_lock(self._journal):
                found = find_slot(self._journal, self._slot.name)
                if found is None or found.owner != self._slot.owner:  # dropped by the user
                    return
                # What others saved in it meanwhile stays, except that it is lost: with files that it had open, the
                # owner may have come to where the journal continues.
                is_dropped = self._is_dropped(position)
                is_lost = is_dropped or (found.is_lost and not self._continues(found, position))
                resync_lsn = NO_LSN if is_dropped else found.resync_lsn
                self._save(replace(found, position=position, time_ns=time_ns, is_lost=is_lost, resync_lsn=resync_lsn))
        except (LockedError, HostError, JournalError):
            return

    def _is_dropped(self, position: Position) -> bool:
        """Whether a promotion has dropped what the owner has; it may have had the old files open until now."""
        newer = Journal(self._journal.path)
        try:
            check_continues(newer.history, self._journal.history, position, where=newer.path)
        except ForkedJournalError:
            return True
        return False

    def _continues(self, found: Slot, position: Position) -> bool:
        """Whether the journal has what follows a position, and was not promoted meanwhile."""
        if found.resync_lsn or _is_gone(self._journal, position.next_lsn):
            return False
        return Journal(self._journal.path).history == self._journal.history

    def resync(self, lsn: Lsn) -> None:
        """The owner is about to start over from the base of this LSN: the base and the files after it are kept.

        Raises:
            PrunedJournalError: one of them was removed meanwhile; choose again.
        """
        with locked(self._journal):
            if lsn not in base_lsns(self._journal) or _is_gone(self._journal, Lsn(lsn + 1)):
                raise PrunedJournalError(f"base {lsn} was just removed", where=self._journal.path, remedy="try again")
            self._save(replace(self._slot, resync_lsn=lsn))

    def start_over(self, position: Position, time_ns: int) -> None:
        """The owner had lost its place, and is durably at a position again from which the journal continues."""
        with locked(self._journal):
            self.was_lost = _is_gone(self._journal, position.next_lsn)
            self._save(
                replace(self._slot, position=position, time_ns=time_ns, is_lost=self.was_lost, resync_lsn=NO_LSN)
            )

    def give_up(self) -> None:
        """Save the slot as lost: a promotion dropped what the owner has, so the owner needs nothing; best effort."""
        with suppress(LockedError, HostError, JournalError), locked(self._journal):
            found = find_slot(self._journal, self._slot.name)
            if found and found.owner == self._slot.owner:
                self.was_lost = True
                self._save(found.losing())

    def _save(self, slot: Slot) -> None:
        slot = replace(slot, updated_ns=clock.now_ns())
        save(self._journal, slot)
        self._slot, self._saved_at = slot, clock.monotonic()  # only now: else what failed would never be tried again


def belongs_to_another(journal: Journal, found: Slot, where: str) -> UsageError:
    """The error for an owner at `where` that asks for a slot of another owner."""
    kind = "mirror" if found.kind == "mirror" else "copy"
    at = f", {found.where}," if found.where != where else ""
    return UsageError(
        f"slot {found.name} is of another {kind}{at} than the one at {where}",
        where=journal.path,
        remedy="choose another name with --slot, or, if that one is gone for good, give --replace-slot",
    )


def _is_gone(journal: Journal, lsn: Lsn) -> bool:
    """Whether the journal begins after this LSN."""
    starts = journal.file_starts()
    return bool(starts) and starts[0] > lsn


def _path(journal: Journal, name: str) -> str:
    return files.join(slots_path(journal), name + _SUFFIX)


def _try_lock(journal: Journal) -> File:
    directory = slots_path(journal)
    if not files.exists(directory):
        files.make_directory(directory, exist_ok=True)
    return files.open_locked(files.join(directory, "lock"), "the journal's slots")


@contextmanager
def _saying_no_slot() -> Iterator[None]:
    try:
        yield
    except AccessError as error:
        error.remedy = "let this user write there, or give --no-slot: then nothing is kept back for this mirror"
        raise
