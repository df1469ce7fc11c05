"""A receiver acknowledges what is durable, when it is, and tells of slots when they change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirrortool.errors import CorruptJournalError, LinkError, NotAJournalError
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import Run, RunReader, find_end
from mirrortool.journal.slots import Slot, SlotKeeper
from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.ship import receiver as module
from mirrortool.ship.protocol import VERSION, Message, MessageKind
from mirrortool.ship.receiver import SLOTS_SECONDS, Receiver
from tests.conftest import FakeClock
from tests.fakes.disk import faulty
from tests.fakes.journals import Commit, JournalMaker, Write, make_journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return make_journal(tmp_path / "J", {"disk": 512}, [[Commit()] for _ in range(5)])


@pytest.fixture
def receiver(journal: Journal, tmp_path: Path) -> Iterator[Receiver]:
    """One that was greeted."""
    made = Receiver(str(tmp_path / "C"))
    hello = {"version": VERSION, "journal": journal.description.identity(), "end": find_end(journal).to_json()}
    (welcome,) = made.handle(Message(MessageKind.HELLO, {**hello, "is_one_way": False, "follows": True}))
    assert welcome.kind == MessageKind.WELCOME
    yield made
    made.close()


def data_of(journal: Journal) -> list[tuple[Run, Message]]:
    """A message for each frame."""
    found = []
    with RunReader(journal) as reader:
        while run := reader.next_run(1):
            values = {"file": run.file_first_lsn, "offset": run.offset}
            found.append((run, Message(MessageKind.DATA, values, bytes(run.data))))
    return found


def acknowledged(replies: list[Message]) -> list[Position]:
    return [Position.from_json(each.fields().object("position")) for each in replies if each.kind == MessageKind.ACK]


def test_what_is_acknowledged_survives_a_power_cut(journal: Journal, receiver: Receiver) -> None:
    with faulty(lambda _: None) as system:
        for run, message in data_of(journal):
            assert receiver.handle(message) == []
            assert any(path.endswith(".mj") for path in system.disk.dirty()), "it is still in the page cache"
            assert acknowledged(receiver.make_durable()) == [run.position]
            assert not any(path.endswith(".mj") for path in system.disk.dirty())
        assert receiver.make_durable() == []


def test_a_sender_that_never_rests_is_acknowledged_now_and_then(
    journal: Journal, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(journal)
    monkeypatch.setattr(module, "SYNC_BYTES", len(data[0][1].data) + len(data[1][1].data))
    assert receiver.handle(data[0][1]) == []
    assert acknowledged(receiver.handle(data[1][1])) == [data[1][0].position]
    assert receiver.handle(data[2][1]) == []


def test_slots_are_told_when_they_change(fake_clock: FakeClock, journal: Journal, receiver: Receiver) -> None:
    receiver.handle(data_of(journal)[0][1])
    receiver.make_durable()
    for lsn in (1, 2):
        owner = Slot("m", "aa" * 16, "mirror", "/m", Position(lsn, 0), 0, 0)
        SlotKeeper(Journal(receiver.path), owner)
        assert receiver.make_durable() == []
        fake_clock.advance(SLOTS_SECONDS)
        (told,) = receiver.make_durable()
        assert [each.object("position").integer("lsn") for each in told.fields().objects("slots")] == [lsn]
        fake_clock.advance(SLOTS_SECONDS)
        assert receiver.make_durable() == []


def test_a_message_that_is_not_expected_is_none_of_a_sender(receiver: Receiver) -> None:
    with pytest.raises(LinkError, match="a message WELCOME that was not expected"):
        receiver.handle(Message(MessageKind.WELCOME, {}))


def test_a_sender_of_another_version_is_refused(tmp_path: Path) -> None:
    refused = f"the sender speaks version {VERSION + 1} of the protocol, this receiver {VERSION}; upgrade the older one"
    with pytest.raises(NotAJournalError, match=refused):
        Receiver(str(tmp_path / "C")).handle(Message(MessageKind.HELLO, {"version": VERSION + 1}))
    assert not (tmp_path / "C").exists()


def _outside(path: Path) -> Journal:
    """A journal of a commit, and of a page beyond the end of its volume with a commit after it."""
    maker = JournalMaker(path, {"disk": 512})
    maker.frame(Write("disk", 0, b"x" * 512), Commit())
    builder = BatchBuilder(512)
    builder.write(7, b"y" * 512)
    builder.commit(CommitKind.FLUSH, maker.writer.durable.lsn)
    maker.append(builder.build())
    return maker.abandon()


@pytest.mark.parametrize("connections", [1, 2])
def test_a_page_outside_the_volumes_is_not_stored(tmp_path: Path, connections: int) -> None:
    journal = _outside(tmp_path / "J")
    hello = {"version": VERSION, "journal": journal.description.identity(), "end": find_end(journal).to_json()}
    greeting = Message(MessageKind.HELLO, {**hello, "is_one_way": False, "follows": True})
    first, second = (message for _, message in data_of(journal))
    receiver = Receiver(str(tmp_path / "C"))
    receiver.handle(greeting)
    receiver.handle(first)
    if connections == 2:
        receiver.close()
        receiver = Receiver(str(tmp_path / "C"))
        receiver.handle(greeting)
    with closing(receiver), pytest.raises(CorruptJournalError, match="outside the volumes"):
        receiver.handle(second)
