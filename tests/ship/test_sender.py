"""A shipment ends with an equal copy, keeps its slot where the copy is, and continues after every error that passes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool import clock
from mirrortool.errors import (
    ExhaustedError,
    LinkError,
    LockedError,
    MirrortoolError,
    MissingFileError,
    NoSpaceError,
    TornJournalError,
)
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.tail import Tail
from mirrortool.ship import receiver, sender, session
from mirrortool.ship.destination import Destination, parse_destination
from mirrortool.ship.link import Link
from mirrortool.ship.local import LocalLink
from mirrortool.ship.messagestream import SILENCE_SECONDS
from mirrortool.ship.protocol import HEADER, VERSION, Message, MessageKind, NoReceiverError
from mirrortool.ship.sender import Shipment, Shipping, retry_seconds
from mirrortool.ship.shipoptions import RefusedError, ShipOptions
from tests.fakes.disk import FullDisk, faulty
from tests.fakes.journals import Commit, JournalMaker, Write, make_journal, set_boot_id
from tests.fakes.waiting import wait_until
from tests.journal.sample import last_file
from tests.ship.pairs import Cable, assert_same, counted, messages, running, shipment
from tests.ship.shipments import EACH_KIND, copy_shipment, fill, local, maker_at, only_slot


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "retry_seconds", lambda _: 0.01)


@EACH_KIND
def test_one_shot_ships_what_is_there_and_again_what_is_new(tmp_path: Path, kind: str) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 20)
    for expected in (40, 60):
        maker.writer.sync()
        done = copy_shipment(kind, maker.journal, tmp_path / "C")
        done.run()
        assert_same(maker.journal, tmp_path / "C")
        now = done.statistics()
        assert (now.state, now.sent_lsn, now.head_lsn, now.bytes_left) == ("ended", expected, expected, 0)
        slot = only_slot(maker.journal)
        assert (slot.position, slot.kind, slot.name) == (find_end(maker.journal), "ship", now.slot)
        assert now.acknowledged == slot.position
        fill(maker, 10, 20)
    maker.close()


@EACH_KIND
def test_following_keeps_up_with_a_writer_until_it_is_stopped(tmp_path: Path, kind: str) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 3)
    following = copy_shipment(kind, maker.journal, tmp_path / "C", follow=True)
    with running(following.run, following.stop) as errors:
        for start in range(10):
            fill(maker, 5, start)
            wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
        assert following.statistics().state in ("sending", "up to date")
    assert errors == []
    maker.close()
    assert_same(maker.journal, tmp_path / "C")
    assert only_slot(maker.journal).position == find_end(maker.journal)


def test_a_clean_end_travels_once_while_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 3)
    following = local(maker.journal, tmp_path / "C", follow=True)
    ends, waits = counted(monkeypatch, Copy, "note_end"), counted(monkeypatch, Tail, "wait")
    with running(following.run, following.stop) as errors:
        wait_until(lambda: (following.statistics().acknowledged or Position(0, 0)).lsn == 6)
        maker.close()
        wait_until(lambda: Journal(str(tmp_path / "C")).clean_end == maker.journal.clean_end)
        waits.clear()
        wait_until(lambda: len(waits) > 1)
    assert errors == []
    assert len(ends) == 1


class Breaking(Cable):
    """Breaks each connection after some more bytes than the one before."""

    def connect(self, wake: Callable[[], None]) -> Link:
        self.breaks_at = self.carried + 3000
        return super().connect(wake)


@contextmanager
def waiting_for_room(kind: str, maker: JournalMaker, path: Path) -> Iterator[tuple[Shipment, FullDisk]]:
    """A shipment that follows, the disk of whose copy became full; it is stopped afterwards, without an error."""
    fill(maker, 5)
    disk = FullDisk(path)
    following = copy_shipment(kind, maker.journal, path, follow=True)
    with faulty(disk):
        with running(following.run, following.stop) as errors:
            wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
            disk.is_full = True
            fill(maker, 10)
            wait_until(lambda: following.statistics().state == "waiting")
            yield following, disk
        assert errors == []


@EACH_KIND
def test_who_waits_for_a_full_disk_can_be_stopped(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the copy has no room for would be waited for in vain."""
    monkeypatch.setattr(session, "_GOODBYE_SECONDS", 1e9)
    maker = maker_at(tmp_path / "J")
    with waiting_for_room(kind, maker, tmp_path / "C"):
        pass
    maker.close()


def test_following_goes_on_through_links_that_break(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 30)
    cable = Breaking(str(tmp_path / "C"))
    following = shipment(maker.journal, cable, follow=True)
    with running(following.run, following.stop) as errors:
        wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
    assert errors == []
    assert following.statistics().connections > 5
    maker.close()


class Refusing:
    """A link whose far end had said why before it ended."""

    is_one_way = False

    def __init__(self, said: list[Message]) -> None:
        self._said = said

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        raise LinkError("the other side is gone")

    def receive(self, seconds: float) -> Message | None:
        return self._said.pop(0) if self._said else None

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_last_words_of_a_receiver_say_more_than_a_broken_link(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    said = [receiver.refusal(LockedError("the copy is in use"))]
    with pytest.raises(RefusedError, match="in use") as caught:
        Shipment(journal.path, Destination("far:x"), ShipOptions(), lambda _: Refusing(said)).run()
    assert caught.value.exit_code == LockedError.exit_code
    with pytest.raises(LinkError, match="is gone"):
        Shipment(journal.path, Destination("far:x"), ShipOptions(), lambda _: Refusing([])).run()


class Answering(Refusing):
    """A link whose far end answers whatever it is told."""

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        pass


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([Message(MessageKind.WELCOME, {"version": VERSION + 1})], f"speaks version {VERSION + 1} of the protocol"),
        ([Message(MessageKind.HELLO, {})], "a message HELLO that was not expected"),
        (
            [Message(MessageKind.FINISHED, {})],
            "a message FINISHED that was not expected",
        ),  # else nothing is heard again
        ([], "no answer"),
    ],
)
def test_answers_that_make_no_sense_break_the_link(tmp_path: Path, said: list[Message], why: str) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    options = ShipOptions(silence_seconds=0.01)
    with pytest.raises(LinkError, match=why):
        Shipment(journal.path, Destination("far:x"), options, lambda _: Answering(said)).run()


def test_nothing_is_sent_to_a_directory_once_it_was_given_back(tmp_path: Path) -> None:
    link = LocalLink(str(tmp_path / "C"))
    link.close()
    with pytest.raises(LinkError, match="the receiver has ended"):
        link.send(Message(MessageKind.ALIVE, {}), lambda: None)


def test_one_shot_says_why_the_link_broke(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    with pytest.raises(LinkError) as caught:
        shipment(journal, Cable(str(tmp_path / "C"), breaks_at=100)).run()
    assert caught.value.exit_code == 40 and str(caught.value).startswith("far:")


class Unconnectable(Cable):
    """Nothing can be started for a connection, from the k-th on."""

    works = 0

    def connect(self, wake: Callable[[], None]) -> Link:
        self.works -= 1
        if self.works < 0:
            raise ExhaustedError("cannot run ssh: no processes left")
        self.breaks_at = self.carried + 3000
        return super().connect(wake)


def test_a_host_that_has_nothing_left_is_waited_for_by_who_was_connected(tmp_path: Path) -> None:
    """Before, it is more likely a wrong command; then the user is told at once."""
    maker = maker_at(tmp_path / "J")
    fill(maker, 30)
    cable = Unconnectable(str(tmp_path / "C"))
    with pytest.raises(ExhaustedError):
        shipment(maker.journal, cable, follow=True).run()
    cable.works = 1
    following = shipment(maker.journal, cable, follow=True)
    with running(following.run, following.stop) as errors:
        wait_until(lambda: "no processes left" in following.statistics().problem)
        cable.works = 100
        wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
    assert errors == []
    maker.close()


class Talkative(Cable):
    """By turns a receiver, whose link breaks, and what is none."""

    answers: list[bool]

    def connect(self, wake: Callable[[], None]) -> Link:
        if not self.answers.pop(0):
            raise NoReceiverError("what arrives is not a message: 'Welcome'")
        self.breaks_at = self.carried + 3000
        return super().connect(wake)


def test_what_is_no_receiver_ends_who_was_never_connected_and_others_after_a_while(tmp_path: Path) -> None:
    """A program that is being replaced comes back; a login script that prints stays."""
    maker = maker_at(tmp_path / "J")
    fill(maker, 30)
    cable = Talkative(str(tmp_path / "C"))
    cable.answers = [False, True]
    with pytest.raises(NoReceiverError, match="Welcome"):
        shipment(maker.journal, cable, follow=True).run()
    assert cable.answers == [True]
    cable.answers = [True, *[False] * (sender.NO_RECEIVER_ATTEMPTS + 1), True]
    with pytest.raises(NoReceiverError, match="Welcome"):
        shipment(maker.journal, cable, follow=True).run()
    assert cable.answers == [True]
    cable.answers = [True, *[False] * sender.NO_RECEIVER_ATTEMPTS, *[True] * 100]
    following = shipment(maker.journal, cable, follow=True)
    with running(following.run, following.stop) as errors:
        wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
    assert errors == []
    maker.close()


def test_an_idle_sender_says_that_it_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a receiver would give it up."""
    monkeypatch.setattr(session, "ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(session, "_PAUSE_SECONDS", 0.01)
    maker = maker_at(tmp_path / "J")
    fill(maker, 3)
    cable = Cable(str(tmp_path / "C"))
    following = shipment(maker.journal, cable, follow=True)
    with running(following.run, following.stop) as errors:
        wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
        wait_until(lambda: following.statistics().state == "up to date")
        before = cable.carried
        wait_until(lambda: cable.carried > before + 10 * HEADER.size, SILENCE_SECONDS / 2)
    assert errors == []
    maker.close()


def test_waiting_times_double_to_half_a_minute() -> None:
    for attempt, longest in [(0, 1), (1, 2), (4, 16), (5, 30), (1000, 30)]:
        found = [retry_seconds(attempt) for _ in range(50)]
        assert longest / 2 <= min(found) < max(found) <= longest


def test_files_that_were_pruned_are_named(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 30)
    journal = maker.close()
    oldest = journal.file_starts()[0]
    os.remove(journal.file_path(oldest))
    with pytest.raises(MissingFileError) as caught:
        local(journal, tmp_path / "C").run()
    assert str(journal.file_starts()[0]) in str(caught.value) and "needs LSN 1" in str(caught.value)


def test_a_torn_tail_is_not_shipped(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J", file_bytes=1 << 20)
    fill(maker, 5)
    journal = maker.abandon()
    path = last_file(journal)
    with path.open("ab") as file:
        file.write(b"MJF1 torn")
    set_boot_id(journal, "another")
    with pytest.raises(TornJournalError):
        local(journal, tmp_path / "C").run()
    copied = last_file(Journal(str(tmp_path / "C"))).read_bytes()
    assert path.read_bytes() == copied + b"MJF1 torn"


@EACH_KIND
def test_a_full_disk_there_is_a_state(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mirrortool.ship import local as local_link
    from mirrortool.ship import receiverprocess, session

    for module in (local_link, receiverprocess):
        monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(session, "_PAUSE_SECONDS", 0.01)
    maker = maker_at(tmp_path / "J")
    with waiting_for_room(kind, maker, tmp_path / "C") as (following, disk):
        assert "No space left" in following.statistics().problem
        disk.is_full = False
        wait_until(lambda: following.statistics().acknowledged == maker.writer.position)
        assert following.statistics().problem == ""
        assert following.statistics().connections == 1
    fill(maker, 10)
    maker.close()
    disk.is_full = True
    with faulty(disk):
        with pytest.raises(NoSpaceError) as caught:
            copy_shipment(kind, maker.journal, tmp_path / "C").run()
        assert caught.value.exit_code == 30
        disk.is_full = False
        copy_shipment(kind, maker.journal, tmp_path / "C").run()
    assert_same(maker.journal, tmp_path / "C")


class Liar:
    """A receiver that acknowledges what it never got."""

    is_one_way = False

    def __init__(self, start: Position, claim: Position) -> None:
        self._start, self._claim = start, claim
        self._replies: list[Message] = []

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        if message.kind == MessageKind.HELLO:
            values = {"version": 1, "id": "00" * 16, "position": self._start.to_json()}
            self._replies = [Message(MessageKind.WELCOME, {**values, "file": 0, "offset": 0, "is_ahead": False})]
        elif message.kind == MessageKind.DATA:
            self._replies.append(Message(MessageKind.ACK, {"position": self._claim.to_json()}))

    def receive(self, seconds: float) -> Message | None:
        return self._replies.pop(0) if self._replies else None

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_an_acknowledgement_of_what_was_not_sent_moves_no_slot(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()], [Commit()]])
    for claim in (Position(99, 1), Position(2, 1)):
        lying = Shipment(
            journal.path, parse_destination("x:y"), ShipOptions(slot="s"), lambda _, c=claim: Liar(journal.start, c)
        )
        with pytest.raises(LinkError, match="was not sent"):
            lying.run()
        assert only_slot(journal).position == journal.start


def test_one_destination_that_is_dead_does_not_stop_the_others(tmp_path: Path) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 20)
    journal = maker.close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    each = [local(journal, tmp_path / name) for name in ("A", "full", "B")]
    with pytest.raises(MirrortoolError) as caught:
        Shipping(each).run()
    assert caught.value.exit_code == 32
    for name in "AB":
        assert_same(journal, tmp_path / name)


@pytest.mark.usefixtures("fake_clock")
def test_rate_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 40)
    journal = maker.close()
    limited = local(journal, tmp_path / "C", bytes_per_second=2000)
    monkeypatch.setattr(limited, "_ending", _SleepingEvent())
    began = clock.monotonic()
    limited.run()
    size = sum(len(each.read_bytes()) for each in (tmp_path / "C/files").iterdir())
    assert size / (clock.monotonic() - began) < 2000 * 1.3
    assert_same(journal, tmp_path / "C")


class _SleepingEvent(threading.Event):
    """An event that passes time on the fake clock while it is waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        clock.sleep(timeout or 0)
        return self.is_set()


def test_slots_of_absurd_lengths_still_make_a_message() -> None:
    told: list[dict[str, object]] = [{"name": f"n{number}", "where": "\udcff" * 4000} for number in range(100)]
    fit = receiver._that_fit(told)
    assert 0 < len(fit) < len(told)
    assert messages(Message(MessageKind.SLOTS, {"slots": fit}))


@pytest.mark.parametrize("follow", [False, True])
def test_a_receiver_that_takes_nothing_does_not_keep_a_sender(tmp_path: Path, follow: bool) -> None:
    """More than the pipes hold waits after frames that found no room; a sender that waits still hears and ends."""
    maker = JournalMaker(tmp_path / "J", {"disk": 64 << 20})
    for number in range(12):
        maker.frame(Write("disk", number * 2048, os.urandom(1 << 20)), Commit())
    journal = maker.close()
    disk = FullDisk(tmp_path / "C")
    disk.is_full = True
    shipping = shipment(journal, Cable(str(tmp_path / "C")), follow=follow)
    with faulty(disk):
        with running(shipping.run, shipping.stop) as errors:
            if follow:
                wait_until(lambda: "No space left" in shipping.statistics().problem)
            else:
                wait_until(lambda: bool(errors))
        assert [type(error) for error in errors] == ([] if follow else [NoSpaceError])
