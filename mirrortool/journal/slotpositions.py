"""Checks that each slot's position, LSN and chain value, is in this journal, and not in another history with the same
LSN.

Cost: of the positions in one journal file, the headers of that file up to the furthest of them, once. What was found is
kept as long as the journal's history is the same, so that the next look reads only what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirrortool.errors import HostError, JournalError
from mirrortool.journal.directory import Journal
from mirrortool.journal.judgement import comes_again
from mirrortool.journal.lineage import History
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slots import Slot
from mirrortool.lsn import Lsn


class SlotPlaces:
    """Answers of one journal; one thread's."""

    def __init__(self) -> None:
        self._known: dict[Position, bool] = {}
        self._history: tuple[bytes, History] | None = None

    def is_contained(self, journal: Journal, slots: Iterable[Slot]) -> dict[str, bool]:
        """Of each slot by name, whether the journal contains its position.

        Left out are slots that are lost, or that have an owner that is starting over, and those for which it cannot be
        known: what lies at their position was pruned, is damaged, or was cut off from a copy and comes again.
        """
        history = journal.uuid, journal.history
        if self._history != history:
            self._known, self._history = {}, history
        wanted = {slot.name: slot.position for slot in slots if not (slot.is_lost or slot.resync_lsn)}
        known = {position: self._known[position] for position in wanted.values() if position in self._known}
        known |= _contained(journal, sorted(set(wanted.values()) - known.keys()))
        # What is ahead of the journal's end may come yet, where the journal is a copy.
        self._known = {position: True for position, is_there in known.items() if is_there}
        return {name: known[position] for name, position in wanted.items() if position in known}


def _contained(journal: Journal, positions: Sequence[Position]) -> dict[Position, bool]:
    """What is known of ascending positions."""
    found: dict[Position, bool] = {}
    by_file: dict[Lsn, list[Position]] = {}
    starts = set(journal.file_starts())
    for position in positions:
        # The header of a file has the position before it.
        first_lsn = position.next_lsn if position.next_lsn in starts else journal.file_holding(position.lsn)
        if first_lsn is not None:
            by_file.setdefault(first_lsn, []).append(position)
        elif not position.lsn:
            found[position] = position == journal.start
    for first_lsn, group in by_file.items():
        found |= _contained_in_file(journal, first_lsn, group)
    return found


def _contained_in_file(journal: Journal, first_lsn: Lsn, positions: Sequence[Position]) -> dict[Position, bool]:
    found: dict[Position, bool] = {}
    try:
        with JournalReader(journal, first_lsn=first_lsn, headers_only=True) as reader:
            for position in positions:
                there = reader.read_to(position.lsn)
                if there.lsn >= position.lsn or not comes_again(journal, position.lsn):
                    found[position] = there == position
    except (JournalError, HostError):
        pass  # the reader that meets damage tells of it; of what lies after it nothing is known
    return found
