"""A mirror's slot in the journal that it is replayed from.

Rule: it is registered before the journal is read, so that nothing goes that the replay needs; and it follows the
mirror's checkpoint, and is never ahead of it.
Rule: until the journal was found to contain the mirror's position, nothing is moved forward, dropped or noted in the
mirror; `withdraw` leaves the slot as it was before.
"""

from __future__ import annotations

import re
from contextlib import suppress

from mirrortool import files
from mirrortool.errors import DamagedSlotError, ForkedJournalError, HostError, LockedError, MirrortoolError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot, SlotKeeper
from mirrortool.lsn import Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror

OWN_SLOT = ""
"""In place of a name: that of the slot which the mirror has, or one made from the mirror's path."""
_NAME_CHARACTERS_MAX = 64
_UUID_DIGITS = 8


class Registration:
    """The slot of one replay. Used by one thread at a time: the delegator's, or that of the checkpoint it waits for."""

    def __init__(self, journal: Journal, mirror: Mirror, name: str, *, may_adopt: bool = False) -> None:
        """Register where the mirror is.

        Args:
            name: OWN_SLOT for the slot that it has, or one named after it.
            may_adopt: another mirror that has a slot of this name is gone for good.
        Raises:
            UsageError: the name is another mirror's, or not a valid one.
            AccessError: the journal cannot be written.
        """
        checkpoint = mirror.checkpoint
        self._journal, self._mirror = journal, mirror
        name = name or mirror.slot or default_name(mirror)
        slot = Slot(name, mirror.uuid.hex(), "mirror", self._where, checkpoint.position, checkpoint.time_ns, 0)
        self._keeper = SlotKeeper(journal, slot, is_confirmed=False, may_adopt=may_adopt)

    @property
    def name(self) -> str:
        return self._keeper.slot.name

    @property
    def _where(self) -> str:
        return files.absolute(self._mirror.path)

    def withdraw(self) -> None:
        """The journal is not this mirror's after all: leave no trace of it."""
        self._keeper.withdraw()

    def resync(self, base_lsn: Lsn) -> None:
        """The mirror is about to start over from a base; see SlotKeeper.resync."""
        self._keeper.resync(base_lsn)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """The journal continues from the mirror's checkpoint: the slot counts, also if it was lost before."""
        self._keeper.confirm(checkpoint.position, checkpoint.time_ns, self._where)

    def keep(self) -> None:
        """The journal is this mirror's: the mirror notes the slot, and has no other slot in this journal."""
        self._drop_former(self._mirror, self.name)
        self._mirror.keep_slot(self.name)

    def advance(self, checkpoint: Checkpoint, is_idle: bool) -> None:
        """The mirror durably has this checkpoint; see SlotKeeper.advance."""
        if self._keeper.slot.resync_lsn and not checkpoint.resync_lsn:
            with suppress(LockedError, HostError):  # then with the next checkpoint
                self._keeper.start_over(checkpoint.position, checkpoint.time_ns)
            return
        self._keeper.advance(checkpoint.position, checkpoint.time_ns, now=is_idle)

    def give_up(self, mirror: Mirror) -> None:
        """The replay ended as its journal forked: the slot is lost, unless the journal continues the mirror."""
        try:
            mirror.check_is_of(Journal(self._journal.path))
        except ForkedJournalError:
            self._keeper.give_up()
        except MirrortoolError:
            return

    def _drop_former(self, mirror: Mirror, name: str) -> None:
        """A slot that this mirror had by another name would hold the journal back for ever."""
        if mirror.slot is None or mirror.slot == name:
            return
        with suppress(LockedError, HostError, DamagedSlotError):
            former = slots.find_slot(self._journal, mirror.slot)
            if former and former.owner == mirror.uuid.hex():
                slots.drop(self._journal, mirror.slot)


def default_name(mirror: Mirror) -> str:
    """The last part of the mirror's path, as a slot can be named, and the beginning of its uuid."""
    text = re.sub(r"[^A-Za-z0-9._-]", "-", files.base_name(files.absolute(mirror.path)))
    if not re.match(r"[A-Za-z]", text):
        text = f"mirror-{text}"
    return f"{text[: _NAME_CHARACTERS_MAX - 1 - _UUID_DIGITS]}-{mirror.uuid.hex()[:_UUID_DIGITS]}"
