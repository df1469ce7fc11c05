"""Room: how large a journal is, what each slot holds back of it, and what its file system has left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import HostError, MirrortoolError, NoSpaceError
from mirrortool.journal.bases.listing import base_lsns, base_path
from mirrortool.journal.directory import Journal
from mirrortool.journal.holds import JournalHold
from mirrortool.journal.slots import Slot, slots
from mirrortool.wording import exact_bytes, quoted_word

FULL_BYTES = 64 << 10
"""With less than that free, no frame with a few pages is sure to find room."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a journal takes, and what there is.

    Attributes:
        file_bytes: of its files, by their first LSNs, ascending.
        base_bytes: of its bases.
        free_bytes: that this user may still allocate in its file system; None if that is not known.
    """

    file_bytes: Sequence[tuple[int, int]] = ()
    base_bytes: int = 0
    free_bytes: int | None = None

    def held_bytes(self, holder: Slot | JournalHold) -> int:
        """How many bytes of older files could go, but for this one; the newest file stays anyhow."""
        if not holder.holds_back:
            return 0
        older = self.file_bytes[:-1]
        return sum(
            size
            for (first, size), (following, _) in zip(older, self.file_bytes[1:], strict=True)
            if following > holder.needs_lsn
        )

    @property
    def is_full(self) -> bool:
        """Whether nothing more finds room, as far as the file system says."""
        return self.free_bytes is not None and self.free_bytes < FULL_BYTES


NO_ROOM = Room()
"""Nothing is known of it."""


def room_of(journal: Journal) -> Room:
    """The room of a journal now."""
    sizes = [(first, _size(journal.file_path(first))) for first in journal.file_starts()]
    bases = sum(_size(base_path(journal, lsn)) for lsn in base_lsns(journal))
    try:
        free = files.free_bytes(journal.path)
    except HostError:
        free = None
    return Room(sizes, bases, free)


def _size(path: str) -> int:
    facts = files.find_facts(path)
    return facts.size if facts else 0  # gone just now


def way_out(journal: Journal, holders: Sequence[Slot], room: Room) -> str:
    """How a journal on a full file system gets room again: the remedy for an error that the lack of room caused."""
    path = quoted_word(journal.path)
    held, name = max(((room.held_bytes(slot), slot.name) for slot in holders), default=(0, ""))
    if not held:
        return f"free some space, or mirrortool base {path} --to DIRECTORY, on another disk, and then mirrortool prune"
    return (
        f"slot {name} holds back {exact_bytes(held)}: mirrortool base {path} --to DIRECTORY on another disk, then "
        f"mirrortool slot drop {path} {name} and mirrortool prune {path} --keep 1d, make room without any"
    )


@contextmanager
def adding_space_remedy(journal: Journal) -> Iterator[None]:
    """Where the journal has no room, the error says what makes some."""
    try:
        yield
    except NoSpaceError as error:
        inside = files.join(files.absolute(journal.path), "")
        if error.where and files.absolute(error.where).startswith(inside):
            with suppress(MirrortoolError):
                error.remedy = way_out(journal, slots(journal), room_of(journal))
        raise
