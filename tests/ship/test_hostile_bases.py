"""A receiver accepts no base but a sound one of its own journal's history, whatever a sender says of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import (
    ForkedJournalError,
    InputOutputError,
    LinkError,
    MirrortoolError,
    OtherJournalError,
)
from mirrortool.journal.bases.basewriter import BaseWriter
from mirrortool.journal.bases.listing import base_lsns, open_base
from mirrortool.journal.copies.basetransfer import Announced
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import RunReader, find_end
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.receiver import Receiver
from tests.fakes.disk import fail_at, faulty
from tests.fakes.journals import PAGE
from tests.ship.pairs import assert_same
from tests.ship.prunedjournal import BASE, Pruned, assert_whole
from tests.ship.shipments import local

pytestmark = pytest.mark.usefixtures("no_directory_sync")


class Hostile:
    """Says what it likes to a receiver."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self.journal, self.receiver = journal, Receiver(str(path))
        end = find_end(journal)
        hello = {"version": 1, "journal": journal.description.identity(), "end": end.to_json()}
        self.receiver.handle(Message(MessageKind.HELLO, {**hello, "is_one_way": False, "follows": False}))
        with open_base(journal, 2 * BASE) as base:
            self.bytes = base.raw(0, base.size)
            first_lsn = journal.file_holding(2 * BASE)
            assert first_lsn
            self.announced = Announced(base.header.position, base.size, base.file_checksum(), first_lsn)

    def announce(self, **changed: object) -> None:
        self.receiver.handle(Message(MessageKind.BASE, {**self.announced.to_json(), **changed}))

    def send(self, offset: int, data: bytes) -> None:
        self.receiver.handle(Message(MessageKind.PART, {"offset": offset}, data))

    def send_file(self, first_lsn: int, offset: int = 0) -> None:
        with RunReader(self.journal, first_lsn=first_lsn) as reader:
            run = reader.next_run(1 << 20)
            assert run
            self.receiver.handle(Message(MessageKind.DATA, {"file": first_lsn, "offset": offset}, bytes(run.data)))


def other_size(hostile: Hostile) -> None:
    hostile.announce(size=100)
    hostile.send(0, hostile.bytes)


def with_a_gap(hostile: Hostile) -> None:
    hostile.announce()
    hostile.send(10, hostile.bytes[10:])


def announced_twice(hostile: Hostile) -> None:
    hostile.announce()
    hostile.announce()


def file_before_the_base(hostile: Hostile) -> None:
    hostile.announce()
    hostile.send_file(hostile.announced.file_first_lsn)


def another_file_than_announced(hostile: Hostile) -> None:
    hostile.announce()
    hostile.send(0, hostile.bytes)
    hostile.send_file(hostile.journal.file_starts()[-1])


def file_without_the_position(hostile: Hostile) -> None:
    hostile.announce(file=hostile.journal.file_starts()[-1])


def file_from_its_middle(hostile: Hostile) -> None:
    hostile.announce()
    hostile.send(0, hostile.bytes)
    hostile.send_file(hostile.announced.file_first_lsn, 64)


def other_position(hostile: Hostile) -> None:
    hostile.announce(position={"lsn": 2 * BASE, "chain": "00" * 8})
    hostile.send(0, hostile.bytes)


def more_than_announced(hostile: Hostile) -> None:
    hostile.announce()
    hostile.send(0, hostile.bytes)
    hostile.send(len(hostile.bytes), b"more")


ATTACKS = [
    other_size, with_a_gap, announced_twice, file_before_the_base, another_file_than_announced,
    file_without_the_position, file_from_its_middle, other_position, more_than_announced,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_hostile_sender_says_is_not_taken(
    original: Pruned, place: Path, attack: Callable[[Hostile], None]
) -> None:
    """Each of these ends the connection, and the copy is what it was."""
    copy = original.copy(place / "C")
    hostile = Hostile(original.journal, copy)
    with pytest.raises(MirrortoolError):
        attack(hostile)
    hostile.receiver.close()
    assert base_lsns(Journal(str(copy))) == []
    assert_same(original.behind, copy)
    local(original.journal, copy, has_slot=False).run()
    assert_whole(original, copy)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"uuid": b"x" * 16}, OtherJournalError),
        ({"lineage": b"x" * 16}, ForkedJournalError),
        ({"position": Position(2 * BASE, 7)}, LinkError),
        ({"state_sum": 1}, LinkError),
        ({}, None),
    ],
)
def test_a_base_of_something_else_that_is_sound_in_itself_is_not_taken(
    original: Pruned, place: Path, changed: dict[str, Any], error: type[MirrortoolError] | None
) -> None:
    copy = original.copy(place / "C")
    hostile = Hostile(original.journal, copy)
    data = sealed_again(original.journal, place / "other", changed)
    hostile.announce(size=len(data))
    if error:
        with pytest.raises(error):
            hostile.send(0, data)
    else:
        hostile.send(0, data)
    hostile.receiver.close()
    assert base_lsns(Journal(str(copy))) == []
    assert [each.suffix for each in (copy / "bases/arriving").iterdir()] == ([] if error else [".part"])
    local(original.journal, copy, has_slot=False).run()
    assert_whole(original, copy)


def test_a_base_of_another_history_than_the_files_behind_it_is_not_taken(original: Pruned, place: Path) -> None:
    copy, other = original.copy(place / "C"), Position(2 * BASE, 7)
    hostile = Hostile(original.journal, copy)
    data = sealed_again(original.journal, place / "other", {"position": other})
    hostile.announce(size=len(data), position=other.to_json())
    hostile.send(0, data)
    with pytest.raises(LinkError, match="where the base has"):
        hostile.send_file(hostile.announced.file_first_lsn)
    hostile.receiver.close()
    assert base_lsns(Journal(str(copy))) == []
    assert_same(original.behind, copy)


def test_a_base_with_other_pages_than_its_sums_say_is_not_taken(original: Pruned, place: Path) -> None:
    copy = original.copy(place / "C")
    hostile = Hostile(original.journal, copy)
    data = sealed_again(original.journal, place / "other", {}, spoil=b"spoiled")
    hostile.announce(size=len(data))
    with pytest.raises(LinkError, match="pages do not have their sums"):
        hostile.send(0, data)
    hostile.receiver.close()
    assert base_lsns(Journal(str(copy))) == []
    assert list((copy / "bases/arriving").iterdir()) == []


def test_what_a_disk_did_not_keep_of_a_base_is_sent_again(original: Pruned, place: Path) -> None:
    """The kernel may have dropped what it could not write, and say nothing of it the next time."""
    copy = original.copy(place / "C")
    hostile = Hostile(original.journal, copy)
    hostile.announce()
    hostile.send(0, hostile.bytes[: len(hostile.bytes) // 2])
    with faulty(fail_at(1, errno.EIO, lambda call: call.name == "fdatasync")), pytest.raises(InputOutputError):
        hostile.receiver.make_durable()
    with suppress(MirrortoolError):
        hostile.receiver.close()
    assert list((copy / "bases/arriving").iterdir()) == []
    local(original.journal, copy, has_slot=False).run()
    assert_whole(original, copy)


def sealed_again(journal: Journal, path: Path, changed: dict[str, Any], *, spoil: bytes = b"") -> bytes:
    """The base once more, of another size, with another header, and with `spoil` at the start of each page."""
    with open_base(journal, 2 * BASE) as base:
        header = replace(base.header, **changed)
        batches = [batch for _, batch in base.frames()]
    writer = BaseWriter(journal, str(path), header)
    for batch in batches:
        done = 0
        for page, count in zip(batch.pages, batch.counts, strict=True):
            for each in range(count):
                place, sums = (done + each) * PAGE, batch.sums[(done + each) * 8 : (done + each + 1) * 8]
                content = spoil + bytes(memoryview(batch.payload)[place + len(spoil) : place + PAGE])
                writer.add(page + each, memoryview(content), sums)
            done += count
    with suppress(MirrortoolError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "remove", lambda _: None)
        writer.finish()
    written = path if path.exists() else Path(f"{path}.new")
    return written.read_bytes()
