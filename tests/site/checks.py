"""The promises of a site, and how they are looked at; site.py lists them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from mirrortool.errors import (
    MirrortoolError,
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
from tests.fakes.journals import images_of
from tests.ship.pairs import files_of
from tests.site.ledger import bytes_of

if TYPE_CHECKING:
    from tests.site.flow import Flow
    from tests.site.site import Site


class Checks:
    """What is promised of one flow of a site."""

    def __init__(self, site: Site, flow: Flow) -> None:
        self._site, self._flow, self.witness = site, flow, flow.witness
        self.acknowledged = Position(NO_LSN, 0)  # the newest that a receiver has told
        self.may_lose: set[str] = set()  # journals that were pruned behind the backs of slots

    def hear(self, message: Message) -> None:
        """A receiver says something."""
        if message.kind in (MessageKind.ACK, MessageKind.WELCOME):
            position = Position.from_json(message.fields().object("position"))
            if position.lsn > self.acknowledged.lsn:
                self.acknowledged = position
            if message.kind == MessageKind.ACK:
                self._site.seen["acknowledged"] += 1
                self._site.promised("an acknowledgement", self._flow.target)
        if message.kind == MessageKind.PLACE:  # once it is there, slots of what it replaces are lost
            self._site.seen["base is shipped"] += 1
            self.may_lose.add(self._flow.copy)

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
        self._site.check_ends()
        self.witness.update()
        self._look_at_copy()
        self._look_at_mirror()
        self._look_at_slots()

    def _look_at_copy(self) -> None:
        site, flow = self._site, self._flow
        if not os.path.exists(f"{flow.copy}/journal.json"):
            return
        with suppress(UnfinishedArrivalError):
            end = find_end(Journal(flow.copy))
            assert self.witness.find(end), f"the copy ends at {end}, which the primary does not have"
            assert end.lsn >= self.acknowledged.lsn, f"the copy ends at {end}, and {self.acknowledged} was acknowledged"
            site.seen["looked at the copy"] += end.lsn > 0

    def _look_at_mirror(self) -> None:
        site, flow = self._site, self._flow
        if not os.path.exists(f"{flow.mirror}/mirror.json"):
            return
        checkpoint = Mirror(flow.mirror).checkpoint
        known = self.witness.find(checkpoint.position)
        assert known, f"the mirror is at {checkpoint.position}, which the primary does not have"
        if checkpoint.is_consistent:
            assert known.is_commit and known.state_sum == checkpoint.state_sum
            assert images_of(flow.mirror) == known.contents, f"the mirror is not the primary at {checkpoint.position}"
            site.seen["looked at the mirror"] += 1

    def _look_at_slots(self) -> None:
        flow = self._flow
        for path in (flow.journal, flow.copy):
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
            is_there = os.path.exists(f"{self._flow.mirror}/mirror.json")
            durable = Mirror(self._flow.mirror).checkpoint.position if is_there else Position(NO_LSN, 0)
        assert slot.position.lsn <= durable.lsn, f"{slot} is ahead of its owner, which is at {durable}"

    def look_at_needs(self, path: str, oldest: int) -> None:
        """After files were removed: what the slots of a journal need is there.

        Args:
            oldest: the first LSN of the oldest file that was there before: a slot that needed more was lost then.
        """
        with suppress(UnfinishedArrivalError):
            journal = Journal(path)
            for slot in slots(journal):
                if slot.via:  # what the other host's journal keeps for it, or has lost, is looked at there
                    continue
                assert not slot.is_lost or path in self.may_lose or slot.position.lsn + 1 < oldest, slot
                if slot.is_lost:
                    continue
                if slot.resync_lsn:
                    assert slot.resync_lsn in base_lsns(journal), f"the base that {slot} needs is gone"
                    continue
                with JournalReader(journal, slot.position) as reader, suppress(TornJournalError):
                    reader.next_header()
                self._site.seen["slot is kept"] += 1

    # The end.

    def is_stopped_cleanly(self) -> bool:
        return Journal(self._flow.journal).clean_end is not None

    def has_caught_up(self) -> bool:
        """The recorder has stopped, and the mirror is at its last commit."""
        self._site.check_ends()
        if self._flow.source.find("record") is not None or not self.is_stopped_cleanly():
            return False
        self.witness.update()
        if not os.path.exists(f"{self._flow.mirror}/mirror.json"):
            return False
        checkpoint = Mirror(self._flow.mirror).checkpoint
        return checkpoint.is_consistent and checkpoint.position == self.witness.newest_commit().position

    def describe(self) -> str:
        mirror = Mirror(self._flow.mirror).checkpoint if os.path.exists(f"{self._flow.mirror}/mirror.json") else None
        with suppress(MirrortoolError):
            end = find_end(Journal(self._flow.copy))
            return f"primary {self.witness.newest.position}, copy {end}, mirror {mirror}"
        return f"primary {self.witness.newest.position}, mirror {mirror}"

    def look_at_end(self) -> None:
        """The mirror is the primary, and the copy its journal, byte by byte."""
        flow = self._flow
        self.look()
        volumes = bytes_of(flow.volumes)
        assert volumes in flow.client.possible() and volumes == self.witness.newest.contents
        assert images_of(flow.mirror) == volumes
        ours, theirs = files_of(flow.journal), files_of(flow.copy)
        for name in ours.keys() & theirs.keys():
            assert ours[name] == theirs[name], f"{name} differs"
