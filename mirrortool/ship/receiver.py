"""The receiver of one connection: messages in, replies out.

    HELLO         the copy is opened, or begun; WELCOME says where it ends
    BASE, PART    in place of files that the sender no longer has; PLACE says how much of it the copy has already
    DATA          is stored; every SYNC_BYTES, and when nothing more comes (`make_durable`), made durable, then ACK
    END           the recorder stopped cleanly at this position
    DONE          everything is durable and acknowledged: FINISHED

Rule: nothing is acknowledged that is not durable. Used by one thread. Not here: how messages are sent.
"""

from __future__ import annotations

import itertools
import json

from mirrortool import clock
from mirrortool.errors import LinkError, MirrortoolError, NotAJournalError
from mirrortool.journal.copies.basetransfer import Announced
from mirrortool.journal.copies.copy import Copy, check_not_another_primary
from mirrortool.journal.copies.directory import check_is_there
from mirrortool.journal.description import Description, NextScan
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.slots import slots
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.ship.protocol import (
    OBJECT_BYTES_MAX,
    SMALL_OBJECT_BYTES_MAX,
    TEXT_CHARACTERS_MAX,
    VERSION,
    Message,
    MessageKind,
)

SYNC_BYTES = 16 << 20
SLOTS_SECONDS = 3.0


class Receiver:
    """A copy that is sent to, once; `close` it.

    Attributes:
        is_one_way: the sender hears no replies.
        follows: the sender continues until it is stopped.
        is_finished: the sender has said that it is done.
    """

    def __init__(self, path: str, group: int | None = None) -> None:
        self.path = path
        self._group = group
        self.is_one_way = self.follows = self.is_finished = False
        self._copy: Copy | None = None
        self._acknowledged = Position(NO_LSN, 0)
        self._unsynced = 0
        self._is_checking_base = False
        self._slots_told: list[object] = []
        self._slots_at = clock.monotonic()

    @property
    def has_copy(self) -> bool:
        """Whether the sender has named itself, and the copy is open."""
        return self._copy is not None

    @property
    def position(self) -> Position:
        """The end of what the copy has; after `make_durable`, that is durable."""
        return self._copy.position if self._copy else Position(NO_LSN, 0)

    def handle(self, message: Message) -> list[Message]:
        """Do what a message asks for; returns the replies.

        Raises:
            NoSpaceError: of DATA and PART, nothing was stored; the same message may be handled again.
            LockedError, AccessError, JournalError: the copy does not fit the sender, or is in use.
            LinkError: the message is not valid.
        """
        match message.kind:
            case MessageKind.HELLO if self._copy is None:
                return self._greet(message)
            case MessageKind.ALIVE:
                return []
            case MessageKind.DATA if self._copy:
                return self._store(self._copy, message)
            case MessageKind.BASE if self._copy:
                return self._begin_base(self._copy, message)
            case MessageKind.PART if self._copy:
                self._copy.append_base(message.fields().integer("offset"), memoryview(message.data))
                return self._stored(len(message.data))
            case MessageKind.END if self._copy:
                fields = message.fields()
                end = FrameEnd.from_json(fields)
                next_scan = NextScan.from_json(fields.object("next_scan")) if "next_scan" in fields else None
                self._copy.note_end(end, next_scan)
                return self.make_durable()
            case MessageKind.DONE if self._copy:
                self.is_finished = True
                replies = self.make_durable() + self._slots(is_due=True)
                return [] if self.is_one_way else [*replies, Message(MessageKind.FINISHED, {})]
        raise LinkError(f"a message {message.kind.name} that was not expected")

    def make_durable(self) -> list[Message]:
        """Make everything durable that arrived; returns the acknowledgement and, now and then, the copy's slots.

        Raises:
            HostError: it is not durable; nothing more can be handled.
        """
        if self._copy is None or self._copy.journal is None:
            return []
        place = self._base_place(self._copy)
        durable = self._copy.sync()
        self._unsynced = 0
        is_due = clock.monotonic() - self._slots_at >= SLOTS_SECONDS
        replies = [*place, *self._slots(is_due)]
        if durable != self._acknowledged:
            self._acknowledged = durable
            replies.insert(0, Message(MessageKind.ACK, {"position": durable.to_json()}))
        return [] if self.is_one_way else replies

    def close(self) -> None:
        """Make durable what can be, and close the copy."""
        if self._copy:
            self._copy.close()

    def _greet(self, message: Message) -> list[Message]:
        fields = message.fields()
        version = fields.integer("version")
        if version != VERSION:
            raise NotAJournalError(
                f"the sender speaks version {version} of the protocol, this receiver {VERSION}",
                where=self.path,
                remedy="upgrade the older one",
            )
        self.is_one_way, self.follows = fields.flag("is_one_way"), fields.flag("follows")
        sender = Description.from_json(fields.object("journal"), self.path)
        end = Position.from_json(fields.object("end"))
        if "copy" in fields:
            check_is_there(self.path, fields.text("slot"), fields.text("where"))
        check_not_another_primary(self.path, sender)
        copy = Copy(self.path, self._group)
        try:
            copy.begin(sender)
        except BaseException:
            copy.close()
            raise
        self._copy, self._acknowledged = copy, copy.durable
        return [] if self.is_one_way else [self._welcome(copy, end)]

    def _welcome(self, copy: Copy, end: Position) -> Message:
        values = {
            "version": VERSION,
            "id": copy.id.hex(),
            "position": copy.durable.to_json(),
            "file": copy.file_first_lsn,
            "offset": copy.offset,
            "is_ahead": copy.durable.lsn > end.lsn and copy.contains(end),
        }
        return Message(MessageKind.WELCOME, values)

    def _store(self, copy: Copy, message: Message) -> list[Message]:
        if message.run:
            copy.append_run(message.run)
        else:
            fields = message.fields()
            copy.append(Lsn(fields.integer("file")), fields.integer("offset"), memoryview(message.data))
        return self._stored(len(message.data))

    def _begin_base(self, copy: Copy, message: Message) -> list[Message]:
        announced = Announced.from_json(message.fields())
        if copy.begin_base(announced, anew=self.is_one_way):
            self._is_checking_base = not self.is_one_way
            return self._base_place(copy)
        return [] if self.is_one_way else [Message(MessageKind.PLACE, {"offset": announced.size})]

    def _base_place(self, copy: Copy) -> list[Message]:
        """Where the base continues, if that was asked for and is known by now."""
        place = copy.base_place() if self._is_checking_base else None
        if place is None:
            return []
        self._is_checking_base = False
        return [Message(MessageKind.PLACE, {"offset": place})]

    def _stored(self, length: int) -> list[Message]:
        self._unsynced += length
        return self.make_durable() if self._unsynced >= SYNC_BYTES else []

    def _slots(self, is_due: bool) -> list[Message]:
        """The slots of the copy, if they are due and changed since they were last sent."""
        assert self._copy is not None and self._copy.journal is not None
        if not is_due:
            return []
        self._slots_at = clock.monotonic()
        now = _that_fit([{"name": slot.name, **slot.to_json()} for slot in slots(self._copy.journal)])
        if now == self._slots_told:
            return []
        self._slots_told = now
        return [Message(MessageKind.SLOTS, {"slots": now})]


def _that_fit(told: list[dict[str, object]]) -> list[object]:
    """As many as one message holds; only very long paths make that fewer than all."""
    lengths = itertools.accumulate(len(json.dumps(each)) + 1 for each in told)
    return [
        each for each, length in zip(told, lengths, strict=True) if length < OBJECT_BYTES_MAX - SMALL_OBJECT_BYTES_MAX
    ]


def refusal(error: MirrortoolError) -> Message:
    """The message that tells the sender why the receiver ends."""
    return Message(MessageKind.REFUSED, {"exit_code": error.exit_code, "what": str(error)[:TEXT_CHARACTERS_MAX]})


def problem(error: MirrortoolError | None) -> Message:
    """The message that tells the sender that the receiver cannot continue for now, or that it can again."""
    return Message(MessageKind.STATE, {"problem": str(error)[:TEXT_CHARACTERS_MAX] if error else ""})
