"""Remote slots: those of a copy, as its receiver lists them, saved beside the journal's own, to be seen on the primary.

Each is saved under `SLOT.NAME`, where SLOT is the one of the copy, with `via` set to that; it keeps no journal files
here, as the copy's own slot does that. One that the receiver does not list any more is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import xxhash

from mirrortool.errors import HostError, LockedError, NotAJournalError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import SLOTS_MAX, Slot
from mirrortool.jsonfile import Fields
from mirrortool.operation import MARK_NAME

FAR_SLOTS_MAX = 64
"""A receiver may list more; the first of them are saved."""
_NAME_LENGTH_MAX = 64


def parse(fields: Fields) -> list[Slot]:
    """The slots in a message.

    Raises:
        LinkError: they are not valid.
    """
    listed = fields.objects("slots")
    if len(listed) > SLOTS_MAX:
        raise fields.wrong("slots")
    found = [Slot.from_json(each.text("name"), each) for each in listed]
    if not all(MARK_NAME.fullmatch(slot.name) for slot in found):
        raise fields.wrong("slots")
    return found


def save(journal: Journal, via: str, told: Sequence[Slot]) -> None:
    """Let the journal have these slots, and no others, of the copy whose slot is `via`.

    A journal that cannot be written for a while keeps the older ones; the receiver sends them again.
    """
    wanted = {name_of(via, slot): replace(slot, name=name_of(via, slot), via=via) for slot in told}
    try:
        with slots.locked(journal):
            known = {slot.name: slot for slot in slots.slots(journal)}
            for slot in known.values():
                if slot.via == via and slot.name not in wanted:
                    slots.remove(journal, slot.name)
            room = FAR_SLOTS_MAX - sum(slot.via == via for slot in known.values())
            for name, slot in wanted.items():
                if name not in known and room > 0:
                    room -= 1
                    slots.save(journal, slot)
                elif name in known and known[name].via == via and known[name] != slot:
                    slots.save(journal, slot)
    except (LockedError, HostError, NotAJournalError):
        return


def name_of(via: str, slot: Slot) -> str:
    """The name that a slot of a copy has in this journal."""
    name = f"{via}.{slot.name}"
    if len(name) <= _NAME_LENGTH_MAX:
        return name
    short = xxhash.xxh64_hexdigest(name.encode())
    return f"{name[: _NAME_LENGTH_MAX - len(short) - 1]}-{short}"
