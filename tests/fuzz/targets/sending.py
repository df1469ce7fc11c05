"""What a receiver answers to a sender: session.py, with a journal that begins at a base, and slots that it keeps.

The first byte says how is shipped; the rest are the messages of the receiver, after which the link breaks.
"""

from __future__ import annotations

import functools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from mirrortool.errors import LinkError
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import slots
from mirrortool.replay.makebase import MakeBase
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.receiver import Receiver
from mirrortool.ship.session import Session
from mirrortool.ship.shipoptions import ShipOptions
from mirrortool.ship.shipprogress import ShipProgress
from tests.fakes.journals import PAGE, Commit, Write
from tests.fuzz.memoryfiles import WritableFiles
from tests.fuzz.place import journal_maker, known_numbers, scratch
from tests.fuzz.targets.messages import EXAMPLES, decoded, encoded, mutate_messages

MODULES = ("mirrortool.ship.session", "mirrortool.ship.protocol", "mirrortool.ship.remoteslots")
BYTES_MAX = 3000
TOKENS = (b"MJS1", b'"position"', b'"problem": "no room"', b'"offset": 0')
SIZES = {"a": 8 * PAGE, "b": 5 * PAGE + 100}
NOTHING = Message(MessageKind.ALIVE, {})
"""In an input: nothing has come when the sender looks, which it does more often than there are replies."""
COMMITS, BASE = 10, 12
"""How many there are, and of which LSN the base is."""


@functools.cache
def shipped() -> tuple[Journal, dict[str, bytes], dict[str, bytes]]:
    """A journal that was pruned up to a base; its files, and those of a copy that ends before that, by path."""
    maker = journal_maker("shipped/J", SIZES, file_bytes=400)
    for number in range(COMMITS):
        maker.frame(Write("a", number % 8, bytes([number + 1]) * PAGE), Commit())
        if number == 2:
            maker.writer.sync()
            with known_numbers():
                run_session(maker.journal, Connection(Receiver(str(scratch() / "shipped/C"))))
    journal = maker.close()
    Path(journal.path, "recorder.json").unlink()
    with MakeBase(journal.path, Until(lsn=BASE)) as making:
        making.run()
    prune(journal.path, Keep())
    assert journal.file_starts()[0] > 1
    return Journal(journal.path), _contents(scratch() / "shipped/J"), _contents(scratch() / "shipped/C")


def _contents(path: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()}


class Connection:
    """A link to a receiver in the same process, of which both directions are kept."""

    is_one_way = False

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.sent: list[Message] = []
        self.replies: list[Message] = []
        self._waiting: deque[Message] = deque()

    def send(self, message: Message, _meanwhile: Callable[[], None]) -> None:
        whole = Message(message.kind, message.values, bytes(message.data))
        self.sent.append(whole)
        self._waiting.extend(self._receiver.handle(whole))
        if message.kind == MessageKind.DONE:
            self._receiver.close()

    def receive(self, _seconds: float) -> Message | None:
        found = self._waiting.popleft() if self._waiting else None
        self.replies.append(found or NOTHING)
        return found

    def flush(self) -> None:
        self._waiting.extend(self._receiver.make_durable())

    def close(self) -> None:
        return


class Answers:
    """A link whose receiver says what it was given, whatever it is sent; then it breaks."""

    def __init__(self, data: bytes, *, is_one_way: bool) -> None:
        self.is_one_way = is_one_way
        self._messages = decoded(data, 1 << 16)

    def send(self, message: Message, _meanwhile: Callable[[], None]) -> None:
        assert encoded(Message(message.kind, message.values, bytes(message.data)))

    def receive(self, _seconds: float) -> Message | None:
        for message in self._messages:
            return None if message.kind == MessageKind.ALIVE else message
        raise LinkError("the other side ended")

    def flush(self) -> None:
        return

    def close(self) -> None:
        return


class NeverWaits(threading.Event):
    """An event that nobody waits for."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def run_session(journal: Journal, link: Connection | Answers, **options: object) -> ShipProgress:
    """One connection of `mirrortool ship`."""
    tail = SimpleNamespace(look=lambda: None, wait=lambda *_: True, wake=lambda: None)
    progress = ShipProgress("copy")
    progress.slot = "ship-copy"
    given = ShipOptions(**options)  # type: ignore[arg-type]
    Session(journal, "copy", given, link, tail, progress, NeverWaits()).run()  # type: ignore[arg-type]
    return progress


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    journal, contents, _ = shipped()
    way = data[0]
    link = Answers(data[1:], is_one_way=bool(way & 7 == 7))
    with WritableFiles(contents, [f"{journal.path}/slots", f"{journal.path}/bases"]):
        try:
            run_session(
                Journal(journal.path), link, follow=bool(way & 1), has_slot=not way & 2, replace_slot=bool(way & 4)
            )
        finally:
            for slot in slots(journal):
                assert slot.position.lsn <= 2 * COMMITS or slot.via


def conversation(*, is_behind: bool) -> Connection:
    """What is said when the journal is shipped: to a new copy, or to one that lacks what the base stands for."""
    journal, contents, behind = shipped()
    path = str(scratch() / "shipped/C")
    with WritableFiles({**contents, **(behind if is_behind else {})}, [str(scratch() / "shipped")]), known_numbers():
        connection = Connection(Receiver(path))
        run_session(Journal(journal.path), connection)
    return connection


def seeds() -> Iterator[bytes]:
    for is_behind in (False, True):
        replies = conversation(is_behind=is_behind).replies
        for way in (b"\0", b"\1", b"\2", b"\4"):
            yield way + encoded(*replies)
    yield b"\1" + encoded(*replies[:2], Message(MessageKind.STATE, {"problem": "no room"}), *replies[2:])
    yield b"\0" + encoded(replies[0], EXAMPLES[6], *replies[1:])
    yield b"\0" + encoded(Message(MessageKind.REFUSED, {"exit_code": 13, "what": "copy: forked"}))


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    if chance.randrange(2):
        data = bytes(libfuzzer(data, bytes_max))
    return data[:1] + mutate_messages(data[1:], chance)
