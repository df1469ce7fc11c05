"""The epochs of a journal, and whether one journal may continue where another, or a mirror of it, stands.

Each promotion begins an epoch, with a random lineage, at the position of the commit that was promoted. Up to there the
new primary's journal and the old one's are the same; what the old one has after it is another history.

    sender's epochs    receiver's epochs   may the sender's frames follow what the receiver has?
    0                  0                   yes
    0 1                0                   yes, if the receiver is not past the position where epoch 1 began
    0                  0 1                 no: a stale primary's
    0 1                0 1'                no: promoted apart
    another uuid                           no: another journal

Not here: whether the sender still has the frames. The reader finds a position in a journal, or that it is not there,
by its chain value; that also tells two recorders of one epoch apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mirrortool.errors import ForkedJournalError, OtherJournalError, UsageError
from mirrortool.journal import format as layout
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.wording import counted

EPOCH_MAX = (1 << 32) - 1
LINEAGE_BYTES = 16
EPOCHS_KEPT_MAX = 1000
"""No journal is promoted more often: each epoch is kept in its journal.json."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What was recorded between two promotions.

    Attributes:
        number: counts promotions.
        lineage: random, 16 bytes.
        start: the commit that was promoted; for a journal that never was, the position before LSN 1.
    """

    number: int
    lineage: bytes
    start: Position

    def to_json(self) -> dict[str, object]:
        return {"epoch": self.number, "lineage": self.lineage.hex(), "position": self.start.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> Epoch:
        return cls(
            fields.integer("epoch", EPOCH_MAX),
            fields.hexadecimal("lineage", LINEAGE_BYTES),
            Position.from_json(fields.object("position")),
        )


@dataclass(frozen=True, slots=True)
class History:
    """A journal's uuid and its epochs, oldest first; the last is the one that is recorded, or followed."""

    uuid: bytes
    epochs: tuple[Epoch, ...]

    @classmethod
    def begun(cls, uuid: bytes, lineage: bytes, number: int = 0) -> History:
        """Of a journal that was never promoted, as far as is known."""
        return cls(uuid, (Epoch(number, lineage, Position(NO_LSN, layout.first_chain(uuid))),))

    @property
    def current(self) -> Epoch:
        return self.epochs[-1]

    def promoted(self, start: Position, lineage: bytes) -> History:
        """With one epoch more, and without those that began after that.

        Raises:
            UsageError: there are as many as there may be.
        """
        number = self.current.number + 1
        if len(self.epochs) >= EPOCHS_KEPT_MAX or number > EPOCH_MAX:
            raise UsageError(f"the journal was promoted {counted(number - 1, 'time')}; make a new one")
        kept = (each for each in self.epochs if each.start.lsn <= start.lsn)
        return History(self.uuid, (*kept, Epoch(number, lineage, start)))

    def find(self, number: int, lineage: bytes) -> Epoch | None:
        """The epoch of this number and lineage."""
        return next((each for each in self.epochs if (each.number, each.lineage) == (number, lineage)), None)

    def end_of(self, epoch: Epoch) -> Position | None:
        """Where the epoch after one of these began; None for the current one, which continues."""
        following = self.epochs.index(epoch) + 1
        return self.epochs[following].start if following < len(self.epochs) else None

    def continues(self, older: History) -> bool:
        """Whether this is the same history, with the same epochs or later ones."""
        return self.uuid == older.uuid and self.epochs[: len(older.epochs)] == older.epochs

    def to_json(self) -> list[dict[str, object]]:
        """The epochs; `load_history` reads them."""
        return [epoch.to_json() for epoch in self.epochs]


def load_history(fields: Fields, uuid: bytes) -> History:
    """The history in an object with `epoch`, `lineage`, and, if it was ever promoted, the list `history`.

    Raises:
        the error class of `fields`: it is not valid.
    """
    number = fields.integer("epoch", EPOCH_MAX)
    lineage = fields.hexadecimal("lineage", LINEAGE_BYTES)
    if "history" not in fields:
        return History.begun(uuid, lineage, number)
    listed = fields.objects("history")
    if not 1 <= len(listed) <= EPOCHS_KEPT_MAX:
        raise fields.wrong("history")
    epochs = tuple(map(Epoch.from_json, listed))
    steps = itertools.pairwise(epochs)
    is_ordered = all(one.number < other.number and one.start.lsn <= other.start.lsn for one, other in steps)
    if not is_ordered or (epochs[-1].number, epochs[-1].lineage) != (number, lineage):
        raise fields.wrong("history")
    return History(uuid, epochs)


def check_continues(
    sender: History,
    receiver: History,
    position: Position,
    *,
    reached_lsn: Lsn = NO_LSN,
    where: str,
    receiver_name: str = "the mirror",
) -> None:
    """The frames of the sender's journal may follow what the receiver has.

    Args:
        position: where the receiver stands.
        reached_lsn: the newest LSN of which it may have some already; by default that of `position`.
        where: the sender's journal, for the message.
        receiver_name: the receiver, for the message.
    Raises:
        OtherJournalError: they are of different journals.
        ForkedJournalError: they are of different histories; the message has both positions.
    """
    if sender.uuid != receiver.uuid:
        raise OtherJournalError(
            f"the journal has uuid {sender.uuid.hex()}, that of {receiver_name} {receiver.uuid.hex()}",
            where=where,
            remedy="name the right journal",
        )
    shared = _shared(sender.epochs, receiver.epochs)
    if shared < len(receiver.epochs):
        raise _stale_or_apart(sender, receiver, shared, position, where, receiver_name)
    if shared == len(sender.epochs):
        return
    following = sender.epochs[shared]
    if max(position.lsn, reached_lsn) > following.start.lsn or (
        position.lsn == following.start.lsn and position != following.start
    ):
        at = f"at position {position}" + (f" with some of LSN {reached_lsn}" if reached_lsn > position.lsn else "")
        raise ForkedJournalError(
            f"its epoch {following.number} began at position {following.start}, but {receiver_name} is {at}, past that",
            where=where,
            remedy="it holds what the promotion dropped: remove it, and make it anew from here with --replace-slot",
        )


def _shared(one: Sequence[Epoch], other: Sequence[Epoch]) -> int:
    """How many epochs two histories have in common, from the first on."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _stale_or_apart(
    sender: History, receiver: History, shared: int, position: Position, where: str, receiver_name: str
) -> ForkedJournalError:
    theirs = receiver.epochs[shared]
    if shared == len(sender.epochs):
        return ForkedJournalError(
            f"is of epoch {sender.current.number}, which ended at position {theirs.start}; {receiver_name} is of epoch "
            f"{receiver.current.number}, at position {position}",
            where=where,
            remedy="this is the journal of a primary that was replaced: use that of the new one",
        )
    ours = sender.epochs[shared]
    return ForkedJournalError(
        f"its epoch {ours.number} of lineage {ours.lineage.hex()[:8]} began at position {ours.start}, "
        f"that of {receiver_name} of lineage {theirs.lineage.hex()[:8]} at {theirs.start}",
        where=where,
        remedy="two mirrors were promoted apart: keep one, and make the others anew from its journal",
    )
