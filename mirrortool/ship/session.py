"""The session of one connection, on the sender's side: greets, finds where to continue, and sends until all is there.

Rule: only durable frames are sent (journal/reader.py). Rule: an acknowledgement counts only if it names a position that
was sent; the slot never moves past it. Bound: OUTSTANDING_MAX runs sent and not acknowledged.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from mirrortool import clock, files
from mirrortool.errors import (
    EXIT_CODE_MAX,
    ForkedJournalError,
    LinkError,
    NoSpaceError,
    PrunedJournalError,
    TornJournalError,
)
from mirrortool.files import Facts
from mirrortool.journal import slots
from mirrortool.journal.bases.listing import Base, open_base
from mirrortool.journal.copies.basetransfer import Announced
from mirrortool.journal.copies.directory import ID_BYTES, is_primary
from mirrortool.journal.description import NextScan
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.rawframes import Run, RunReader, find_end
from mirrortool.journal.slots import Slot, SlotKeeper
from mirrortool.journal.tail import Tail
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.ratelimit import Pace
from mirrortool.ship import remoteslots
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.firstframes import checked_parts, first_after
from mirrortool.ship.link import Link
from mirrortool.ship.messagestream import ALIVE_SECONDS
from mirrortool.ship.protocol import RUN_BYTES, TEXT_CHARACTERS_MAX, VERSION, Message, MessageKind
from mirrortool.ship.shipoptions import ConnectAgain, RefusedError, ShipOptions
from mirrortool.ship.shipprogress import FilePlace, ShipProgress
from mirrortool.wording import byte_count

OUTSTANDING_MAX = 4096
_PAUSE_SECONDS = 1.0
_GOODBYE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 2.0


class _Sent(NamedTuple):
    """The end of what was sent: position and time of its last frame, and the place in the journal files."""

    position: Position
    time_ns: int
    place: FilePlace


class Session:
    """One connection; `run` it once."""

    def __init__(
        self,
        journal: Journal,
        name: str,
        options: ShipOptions,
        link: Link,
        tail: Tail,
        progress: ShipProgress,
        ending: threading.Event,
    ) -> None:
        """Prepare.

        Args:
            name: the destination, for people.
            tail: wakes when there is a reply, and when `ending` is set.
            ending: when set, send no more, wait until what was sent is acknowledged, and end.
        """
        self._journal, self._name, self._options = journal, name, options
        self._link, self._tail, self._progress, self._ending = link, tail, progress, ending
        self._pace = Pace(options.bytes_per_second)
        self._keeper: SlotKeeper | None = None
        # Where each run ended that was sent and not acknowledged; oldest first.
        self._outstanding: deque[_Sent] = deque()
        self._said_at = clock.monotonic()
        self._has_said_done = False
        self._is_finished = False
        self._noted_end: tuple[FrameEnd, NextScan | None] | None = None
        self._noted_at: tuple[Position, Facts | None] | None = None  # where, and of which journal.json
        self._base_offset: int | None = None

    def run(self) -> None:
        """Ship what the journal had at the start, or, to follow, until `ending`.

        Raises:
            LinkError: the link broke.
            RefusedError: the receiver refused.
            JournalError: the journal here is damaged, or not the one that the copy is of.
            ConnectAgain: the journal changed in a way that needs a new connection.
        """
        try:
            self._run()
        except PrunedJournalError:
            raise ConnectAgain from None
        except ForkedJournalError:
            self._give_up_slot()
            raise
        except RefusedError as error:
            if error.exit_code == ForkedJournalError.exit_code and self._options.has_slot and not self._keeper:
                slots.lose(self._journal, self._progress.slot, self._name)
            raise

    def _run(self) -> None:
        goal = find_end(self._journal)
        self._progress.head_lsn = max(self._progress.head_lsn, goal.lsn)
        self._say(Message(MessageKind.HELLO, self._greeting(goal)))
        position = self._options.start if self._link.is_one_way else self._welcomed(goal)
        first = first_after(self._journal, position, self._name)
        with first.reader as reader:
            reader.on_epoch = _start_again
            if first.base:
                self._begin(_Sent(position or self._journal.start, 0, FilePlace(NO_LSN, 0)), reader, first.base)
                self._send_base(first.base, reader.file_first_lsn)
            else:
                here = _Sent(reader.position, reader.time_ns, FilePlace(reader.file_first_lsn, reader.offset))
                self._begin(here, reader, None)
            self._ship(reader, goal)

    def _greeting(self, end: Position) -> dict[str, object]:
        return {
            "version": VERSION,
            "journal": self._journal.description.identity(),
            "end": end.to_json(),
            "is_one_way": self._link.is_one_way,
            "follows": self._options.follow,
            **self._known_copy(),
        }

    def _known_copy(self) -> dict[str, object]:
        """The copy that the slot is of, so that no new one is begun where that one is just not mounted.

        Raises:
            UsageError: the slot is a mirror's.
        """
        if self._link.is_one_way or (self._options.replace_slot and not self._progress.connections):
            return {}
        name = self._options.slot or parse_destination(self._name).slot_name()
        found = slots.find_sound(self._journal, name)
        if found and found.kind == "ship":
            return {"copy": found.owner, "slot": name, "where": found.where}
        if found and self._options.has_slot:
            raise slots.belongs_to_another(self._journal, found, self._name)
        return {}

    def _welcomed(self, goal: Position) -> Position:
        """Where the copy durably ends."""
        fields = self._reply_of(MessageKind.WELCOME).fields()
        if fields.integer("version") != VERSION:
            raise LinkError(
                f"the receiver speaks version {fields.integer('version')} of the protocol, this sender {VERSION}"
            )
        position = Position.from_json(fields.object("position"))
        if position.lsn > goal.lsn:
            self._explain_ahead(position, goal, is_ahead=fields.flag("is_ahead"))
        self._copy_id = fields.hexadecimal("id", ID_BYTES)
        return position

    def _explain_ahead(self, position: Position, goal: Position, *, is_ahead: bool) -> None:
        """The copy has more than this journal: if this is another copy, it may catch up; a primary has lost frames."""
        if is_ahead and not is_primary(self._journal.path):
            raise LinkError(f"the copy {self._name} is at position {position}, ahead of this one, at {goal}")
        raise ForkedJournalError(
            f"ends at position {goal}, but the copy {self._name} has position {position}",
            where=self._journal.path,
            remedy="frames that were durable are gone here, or the copy follows another history",
        )

    def _begin(self, there: _Sent, reader: RunReader, base: Base | None) -> None:
        """The positions fit: from now on the connection counts as made."""
        self._progress.connected()
        self._progress.sent_lsn = there.position.lsn
        self._progress.bytes_left = _bytes_after(self._journal, reader) + (base.size if base else 0)
        if self._link.is_one_way:
            return
        self._acknowledge(there)
        if self._options.has_slot:
            self._register(there.position, there.time_ns, base)

    def _register(self, position: Position, time_ns: int, base: Base | None) -> None:
        slot = Slot(
            self._progress.slot,
            self._copy_id.hex(),
            "ship",
            self._name,
            position,
            time_ns,
            clock.now_ns(),
        )
        self._keeper = SlotKeeper(self._journal, slot, may_adopt=self._options.replace_slot)
        self._progress.on_registered()
        if base:  # it and the files after it stay until the copy has them
            self._keeper.resync(base.lsn)
        elif self._keeper.was_lost:  # the journal has the frames that it needs, as the reader found the position
            self._keeper.start_over(position, time_ns)

    def _send_base(self, base: Base, file_first_lsn: Lsn) -> None:
        """Send what the receiver lacks of a base; all of it into a pipe."""
        self._progress.state = "sending"
        with open_base(self._journal, base.lsn) as opened:
            announced = Announced(base.position, base.size, opened.file_checksum(), file_first_lsn)
            self._say(Message(MessageKind.BASE, announced.to_json()))
            start = self._told_base_offset(base.size)
            self._progress.bytes_left -= start
            for offset, data in checked_parts(opened, start, self._run_bytes()):
                self._send_part(offset, data)
                if self._ending.is_set():
                    return

    def _told_base_offset(self, size: int) -> int:
        """Where the receiver wants the base to continue; it may first check what it has of it."""
        while not (self._link.is_one_way or self._ending.is_set()):
            self._link.flush()
            self._hear(_PAUSE_SECONDS)
            self._keep_alive()
            if self._base_offset is not None:
                if self._base_offset > size:
                    raise LinkError(f"the receiver has {byte_count(self._base_offset)} of a base of {byte_count(size)}")
                return self._base_offset
        return 0

    def _send_part(self, offset: int, data: bytes) -> None:
        if not data:
            self._hear()
            self._keep_alive()
            return
        self._pause(self._pace.consume(len(data)))
        if not self._ending.is_set():
            self._say(Message(MessageKind.PART, {"offset": offset}, data))
            self._progress.sent(Lsn(self._progress.sent_lsn), len(data))
            self._hear()
            self._wait_for_room()

    def _ship(self, reader: RunReader, goal: Position) -> None:
        torn: TornJournalError | None = None
        while not self._ending.is_set():
            seen = self._tail.look()
            torn = self._send_all(reader, goal)
            self._note_clean_end(reader)
            self._link.flush()
            self._hear()
            if not self._options.follow:
                torn = torn or _torn_after(reader)
                break
            if not self._progress.problem:
                self._progress.state = "sending" if self._outstanding else "up to date"
            self._save_slot()
            self._keep_alive()
            self._tail.wait(seen, _PAUSE_SECONDS)
        self._finish()
        if torn and not self._options.follow and not self._journal.is_in_use():
            raise torn

    def _send_all(self, reader: RunReader, goal: Position) -> TornJournalError | None:
        """Send all frames; without `follow`, up to the goal. Returns the torn tail if they end with one."""
        while not self._ending.is_set() and (self._options.follow or reader.position.lsn < goal.lsn):
            try:
                run = reader.next_run(self._run_bytes())
            except TornJournalError as error:
                return error
            if run is None:
                return None
            self._progress.state = "sending"
            self._send(run)
        return None

    def _send(self, run: Run) -> None:
        self._pause(self._pace.consume(len(run.data)))
        if self._ending.is_set():
            return
        self._say(Message(MessageKind.DATA, {"file": run.file_first_lsn, "offset": run.offset}, run.data, run))
        self._progress.sent(run.position.lsn, len(run.data))
        place = FilePlace(run.file_first_lsn, run.offset + len(run.data))
        sent = _Sent(run.position, run.time_ns, place)
        if self._link.is_one_way:
            self._acknowledge(sent)
            return
        self._outstanding.append(sent)
        self._hear()
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        while (self._progress.problem or len(self._outstanding) >= OUTSTANDING_MAX) and not self._ending.is_set():
            self._link.flush()
            self._hear(_PAUSE_SECONDS)
            if self._progress.problem:
                self._pause(_PAUSE_SECONDS)

    def _run_bytes(self) -> int:
        rate = self._options.bytes_per_second
        return RUN_BYTES if rate is None else max(1, min(RUN_BYTES, rate // 8))

    def _note_clean_end(self, reader: RunReader) -> None:
        """Send END, once, if the recorder stopped cleanly where the reader is; again if the next scan is another."""
        at = reader.position, files.find_facts(files.join(self._journal.path, "journal.json"))
        if at == self._noted_at:
            return
        self._noted_at = at
        now = Journal(self._journal.path)
        end, following = now.clean_end, now.next_scan
        here = FrameEnd(reader.position, reader.file_first_lsn, reader.offset)
        if end == here and self._noted_end != (here, following):
            self._noted_end = here, following
            next_scan = {"next_scan": following.to_json()} if following else {}
            self._say(Message(MessageKind.END, {**here.to_json(), **next_scan}))

    def _finish(self) -> None:
        """Wait until everything that was sent is acknowledged; when told to end, for _GOODBYE_SECONDS at most."""
        gives_up_at = clock.monotonic() + _GOODBYE_SECONDS
        self._has_said_done = True
        self._say(Message(MessageKind.DONE, {}))
        while not (self._is_finished or self._link.is_one_way):
            self._hear(_PAUSE_SECONDS)
            self._keep_alive()
            if self._ending.is_set() and (self._progress.problem or clock.monotonic() > gives_up_at):
                break
        self._save_slot(now=True)

    def _say(self, message: Message) -> None:
        try:
            self._link.send(message, self._hear_blocked)
        except LinkError:
            while reply := self._link.receive(_LAST_WORDS_SECONDS):  # the receiver may have said why, before it ended
                self._handle(reply)
            raise
        self._said_at = clock.monotonic()

    def _hear_blocked(self) -> None:
        """The receiver does not read what is sent: it may have said why, and this session may have been told to end."""
        self._hear()
        is_late = clock.monotonic() - self._said_at > _GOODBYE_SECONDS
        if self._ending.is_set() and (is_late or self._progress.problem):
            raise LinkError("stopped while the receiver read nothing")

    def _keep_alive(self) -> None:
        if clock.monotonic() - self._said_at >= ALIVE_SECONDS and not self._link.is_one_way:
            self._say(Message(MessageKind.ALIVE, {}))

    def _pause(self, seconds: float) -> None:
        """Wait; replies are handled meanwhile."""
        ends = clock.monotonic() + seconds
        while (left := ends - clock.monotonic()) > 0 and not self._ending.wait(min(left, _PAUSE_SECONDS)):
            self._hear()
            self._keep_alive()

    def _hear(self, seconds: float = 0.0) -> None:
        """Handle the replies that have come, or the first that comes within the time."""
        while not self._is_finished and (reply := self._link.receive(seconds)):
            self._handle(reply)
            seconds = 0.0

    def _reply_of(self, kind: MessageKind) -> Message:
        ends = clock.monotonic() + self._options.silence_seconds
        while clock.monotonic() < ends and not self._ending.is_set():
            reply = self._link.receive(_PAUSE_SECONDS)
            if reply and reply.kind == kind:
                return reply
            if reply:
                self._handle(reply)
        raise LinkError("no answer")

    def _handle(self, reply: Message) -> None:
        match reply.kind:
            case MessageKind.ACK:
                self._handle_acknowledgement(Position.from_json(reply.fields().object("position")))
            case MessageKind.SLOTS:
                told = remoteslots.parse(reply.fields())
                if self._keeper:
                    remoteslots.save(self._journal, self._keeper.slot.name, told)
            case MessageKind.PLACE:
                self._base_offset = reply.fields().integer("offset")
            case MessageKind.STATE:
                self._handle_state(reply.fields().text("problem"))
            case MessageKind.REFUSED:
                fields = reply.fields()
                code = fields.integer("exit_code")
                what = _of_copy(self._name, fields.text("what")[:TEXT_CHARACTERS_MAX])
                raise RefusedError(what, code if 2 <= code <= EXIT_CODE_MAX else LinkError.exit_code)
            case MessageKind.FINISHED if self._has_said_done:  # before that, nothing more would be heard
                self._is_finished = True
            case MessageKind.ALIVE:
                return
            case _:
                raise LinkError(f"a message {reply.kind.name} that was not expected")

    def _handle_acknowledgement(self, position: Position) -> None:
        found: _Sent | None = None
        while self._outstanding and self._outstanding[0].position.lsn <= position.lsn:
            found = self._outstanding.popleft()
        if found is None or found.position != position:
            raise LinkError(f"position {position} was acknowledged, which was not sent")
        self._acknowledge(found)

    def _acknowledge(self, there: _Sent) -> None:
        now = self._progress
        now.acknowledged, now.acknowledged_time_ns, now.acknowledged_at = there
        self._save_slot()

    def _save_slot(self, *, now: bool = False) -> None:
        known = self._progress.acknowledged
        if not self._keeper or not known:
            return
        if 0 < self._keeper.slot.resync_lsn <= known.lsn:  # the copy has the base that it started over from
            self._keeper.start_over(known, self._progress.acknowledged_time_ns)
        else:
            self._keeper.advance(known, self._progress.acknowledged_time_ns, now=now)

    def _give_up_slot(self) -> None:
        """A promotion dropped frames that were sent; a copy that has none of them starts over from its position."""
        if self._keeper and Journal(self._journal.path).history != self._journal.history:
            self._keeper.give_up()

    def _handle_state(self, text: str) -> None:
        if text and not self._options.follow:
            raise NoSpaceError(_of_copy(self._name, text[:TEXT_CHARACTERS_MAX]))
        self._progress.problem = text[:TEXT_CHARACTERS_MAX]
        self._progress.state = "waiting" if text else "sending"


def _torn_after(reader: RunReader) -> TornJournalError | None:
    """The torn tail right after the reader's position; the reader cannot be used any more."""
    try:
        reader.next_header()
    except TornJournalError as error:
        return error
    return None


def _bytes_after(journal: Journal, reader: RunReader) -> int:
    """Bytes of journal files that the reader has not read yet."""
    starts = [start for start in journal.file_starts() if start >= reader.file_first_lsn]
    found = [files.find_facts(journal.file_path(start)) for start in starts]
    return max(0, sum(facts.size for facts in found if facts) - reader.offset)


def _start_again() -> None:
    raise ConnectAgain


def _of_copy(name: str, text: str) -> str:
    """What a receiver says, with the copy named once: its text may begin with the path as the receiver has it."""
    path = name.rpartition(":")[2]
    return f"the copy {name}: {text.removeprefix(f'{name}: ').removeprefix(f'{path}: ')}"
