"""The promises of a site, and how they are looked at; site.py lists them."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from mirrortool.errors import (
    HostError,
    LinkError,
    LockedError,
    MirrortoolError,
    NotAJournalError,
    NotComparableError,
    TornJournalError,
    UnfinishedArrivalError,
)
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slots import Slot, slots
from mirrortool.lsn import NO_LSN
from mirrortool.mirror.directory import Mirror
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.shipoptions import RefusedError
from tests.fakes.journals import images_of
from tests.ship.pairs import files_of
from tests.site.ledger import Witness, bytes_of
from tests.site.strands import Process

if TYPE_CHECKING:
    from tests.site.site import Site

_MAY_END = {
    "record": (),
    "ship": (),
    "receive": (LinkError, LockedError),
    "follow": (),
    "base": (LockedError, NotComparableError, NotAJournalError),
    "prune": (LockedError, NotComparableError, NotAJournalError),
}
"""How a process may end by itself where no disk failed."""


class Checks:
    """What is promised of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.witness = Witness(Journal(site.journal))
        self.wrong: list[str] = []
        self.acknowledged = Position(NO_LSN, 0)  # the newest that a receiver has told
        self.may_lose: set[str] = set()  # journals that were pruned behind the backs of slots

    def judge(self, process: Process) -> None:
        """A process ended by itself."""
        error = process.error
        allowed = _MAY_END[process.name]
        if error is None or isinstance(error, allowed) or self._is_of_fault(process, error):
            self._site.seen[f"{process.name} ended: {type(error).__name__ if error else 'well'}"] += 1
            return
        self.wrong.append(f"{process.name} ended: {error!r}\n{''.join(traceback.format_exception(error))}")

    def _is_of_fault(self, process: Process, error: BaseException) -> bool:
        """Whether a disk that failed explains it."""
        if isinstance(error, RefusedError):
            return self._site.far.has_failed and 30 <= error.exit_code <= 39
        return process.host.has_failed and isinstance(error, HostError)

    def hear(self, message: Message) -> None:
        """A receiver says something."""
        if message.kind in (MessageKind.ACK, MessageKind.WELCOME):
            position = Position.from_json(message.fields().object("position"))
            if position.lsn > self.acknowledged.lsn:
                self.acknowledged = position
            self._site.seen["acknowledged"] += message.kind == MessageKind.ACK
        self._site.seen["base is shipped"] += message.kind == MessageKind.PLACE

    def see(self) -> None:
        """Read what is new in the primary's journal, as no process of its own."""
        strand = self._site.scheduler.current
        process, strand.process = strand.process, None
        try:
            self.witness.update()
        finally:
            strand.process = process

    def look(self) -> None:
        """Whatever holds at any time."""
        assert not self.wrong, self.wrong[0]
        self.witness.update()
        self._look_at_copy()
        self._look_at_mirror()
        self._look_at_slots()

    def _look_at_copy(self) -> None:
        site = self._site
        if not os.path.exists(f"{site.copy}/journal.json"):
            return
        with suppress(UnfinishedArrivalError):
            end = find_end(Journal(site.copy))
            assert self.witness.find(end), f"the copy ends at {end}, which the primary does not have"
            assert end.lsn >= self.acknowledged.lsn, f"the copy ends at {end}, and {self.acknowledged} was acknowledged"
            site.seen["looked at the copy"] += end.lsn > 0

    def _look_at_mirror(self) -> None:
        site = self._site
        if not os.path.exists(f"{site.mirror}/mirror.json"):
            return
        checkpoint = Mirror(site.mirror).checkpoint
        known = self.witness.find(checkpoint.position)
        assert known, f"the mirror is at {checkpoint.position}, which the primary does not have"
        if checkpoint.is_consistent:
            assert known.is_commit and known.state_sum == checkpoint.state_sum
            assert images_of(site.mirror) == known.contents, f"the mirror is not the primary at {checkpoint.position}"
            site.seen["looked at the mirror"] += 1

    def _look_at_slots(self) -> None:
        site = self._site
        for path in (site.journal, site.copy):
            if not os.path.exists(f"{path}/journal.json"):
                continue
            with suppress(UnfinishedArrivalError):
                for slot in slots(Journal(path)):
                    assert self.witness.find(slot.position), f"slot {slot} is at no position of the primary"
                    self._look_at_slot(slot)

    def _look_at_slot(self, slot: Slot) -> None:
        """It is not ahead of what its owner durably has."""
        if slot.kind == "ship":
            durable = self.acknowledged
        else:
            is_there = os.path.exists(f"{self._site.mirror}/mirror.json")
            durable = Mirror(self._site.mirror).checkpoint.position if is_there else Position(NO_LSN, 0)
        assert slot.position.lsn <= durable.lsn, f"{slot} is ahead of its owner, which is at {durable}"

    def look_at_needs(self, path: str) -> None:
        """After files were removed: what the slots of a journal need is there."""
        with suppress(UnfinishedArrivalError):
            journal = Journal(path)
            for slot in slots(journal):
                assert not slot.is_lost or path in self.may_lose, slot
                if slot.via or slot.is_lost:  # what the other host's journal keeps for it is looked at there
                    continue
                if slot.resync_lsn:
                    assert slot.resync_lsn in base_lsns(journal), f"the base that {slot} needs is gone"
                    continue
                with JournalReader(journal, slot.position) as reader, suppress(TornJournalError):
                    reader.next_header()
                self._site.seen["slot is kept"] += 1

    # The end.

    def is_stopped_cleanly(self) -> bool:
        return Journal(self._site.journal).clean_end is not None

    def has_caught_up(self) -> bool:
        """The recorder has stopped, and the mirror is at its last commit."""
        assert not self.wrong, self.wrong[0]
        if self._site.near.find("record") is not None or not self.is_stopped_cleanly():
            return False
        self.witness.update()
        if not os.path.exists(f"{self._site.mirror}/mirror.json"):
            return False
        checkpoint = Mirror(self._site.mirror).checkpoint
        return checkpoint.is_consistent and checkpoint.position == self.witness.newest_commit().position

    def describe(self) -> str:
        mirror = Mirror(self._site.mirror).checkpoint if os.path.exists(f"{self._site.mirror}/mirror.json") else None
        with suppress(MirrortoolError):
            end = find_end(Journal(self._site.copy))
            return f"primary {self.witness.newest.position}, copy {end}, mirror {mirror}"
        return f"primary {self.witness.newest.position}, mirror {mirror}"

    def look_at_end(self) -> None:
        """The mirror is the primary, and the copy its journal, byte by byte."""
        site = self._site
        self.look()
        volumes = bytes_of(site.volumes)
        assert volumes == site.client.model.state() == self.witness.newest.contents
        assert images_of(site.mirror) == volumes
        ours, theirs = files_of(site.journal), files_of(site.copy)
        for name in ours.keys() & theirs.keys():
            assert ours[name] == theirs[name], f"{name} differs"
