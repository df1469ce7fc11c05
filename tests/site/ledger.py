"""What must be true of a site: a plain model of the volumes, and one of the journal, that share no code with the tool.

Client    the bytes that the client wrote, with every state since the newest flush
Witness   the positions of the primary's journal, with the bytes of the volumes at each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mirrortool.change import Change
from mirrortool.errors import JournalError
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from tests.fakes.recorders import Model
from tests.fakes.serial import apply

Contents = dict[str, bytes]


class Client:
    """What the client knows.

    Attributes:
        acknowledged, flushed: the newest state that was acknowledged, and that a flush made durable.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.model = Model(contents, remember=True)
        self.acknowledged = self.flushed = 0

    def begins(self, name: str, change: Change) -> None:
        """A change is on its way: it may be made from now on."""
        self.model.change(name, [change])

    def was_acknowledged(self) -> None:
        self.acknowledged = len(self.model.states) - 1

    def was_flushed(self, state: int) -> None:
        """All up to this state is durable."""
        self.flushed = max(self.flushed, state)

    def was_refused(self, contents: Contents) -> None:
        """A change failed: some of it may be made."""
        assert contents in self.model.states[self.acknowledged :], "what is read was never written"
        self.model.contents = {name: bytearray(content) for name, content in contents.items()}
        self.model.states.append(self.model.state())
        self.was_acknowledged()

    def possible(self, *, lost_power: bool = False) -> list[Contents]:
        """What the volumes may be: the newest state that must be left, and those with what is not acknowledged."""
        return self.model.states[self.flushed if lost_power else self.acknowledged :]

    def recovers(self, contents: Contents, *, lost_power: bool) -> None:
        """After a crash the volumes have a state from the newest that must be left on."""
        assert contents in self.possible(lost_power=lost_power), "not a state since the flush or acknowledgement"
        self.model = Model(contents, remember=True)
        self.acknowledged = self.flushed = 0

    def forget(self) -> None:
        """States before the newest flush need not be known any more."""
        if self.flushed:
            del self.model.states[: self.flushed]
            self.acknowledged -= self.flushed
            self.flushed = 0


@dataclass(frozen=True)
class Known:
    """The journal at one position."""

    position: Position
    state_sum: int
    is_commit: bool
    contents: Contents


class Witness:
    """The primary's journal, read frame by frame as it grows, with what the volumes are at each."""

    def __init__(self, journal: Journal) -> None:
        self._path = journal.path
        volumes = journal.volumes
        self._page_size = journal.page_size
        self._places = {volume.name: volume.start // journal.page_size for volume in volumes}
        empty = {volume.name: bytes(volume.size) for volume in volumes}
        self._all = [Known(journal.start, journal.first_state_sum, False, empty)]
        self._by_lsn = {0: self._all[0]}

    def continues(self, journal: Journal, position: Position) -> Witness:
        """Of the journal of a new primary, which was promoted at a position of this one."""
        new = Witness(journal)
        new._all = [each for each in self._all if each.position.lsn <= position.lsn]
        new._by_lsn = {each.position.lsn: each for each in new._all}
        return new

    @property
    def newest(self) -> Known:
        return self._all[-1]

    def newest_commit(self) -> Known:
        return next(each for each in reversed(self._all) if each.is_commit or each is self._all[0])

    def find(self, position: Position) -> Known | None:
        """What is known at a position; None if the journal does not have it."""
        known = self._by_lsn.get(position.lsn)
        return known if known and known.position == position else None

    def update(self) -> None:
        """Read what is new; what a power cut took is forgotten."""
        journal = Journal(self._path)
        reader = self._open(journal)
        with reader:
            while True:
                try:
                    frame = reader.next_frame()
                except JournalError:  # what is torn, or was never durable: the recorder judges it
                    return
                if frame is None:
                    return
                contents = {name: bytearray(content) for name, content in self.newest.contents.items()}
                for operation in frame.batch.operations(frame.header.first_lsn):
                    apply(operation, self._places, contents, self._page_size)
                self._add(
                    Known(
                        frame.header.position,
                        frame.header.state_sum,
                        frame.header.is_commit,
                        {name: bytes(content) for name, content in contents.items()},
                    )
                )

    def _open(self, journal: Journal) -> JournalReader:
        while True:
            try:
                return JournalReader(journal, self.newest.position)
            except JournalError:
                if len(self._all) == 1:
                    raise
                lost = self._all.pop()
                del self._by_lsn[lost.position.lsn]

    def _add(self, known: Known) -> None:
        self._all.append(known)
        self._by_lsn[known.position.lsn] = known


def bytes_of(paths: Mapping[str, str]) -> Contents:
    return {name: Path(path).read_bytes() for name, path in paths.items()}
