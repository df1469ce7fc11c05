"""The memory of all clients: counted to the byte, given back however a client is lost, and never waited for."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirrortool.errors import InputOutputError, NoSpaceError, UsageError
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.channel import EndOfStreamError
from mirrortool.nbd.connection import Connection
from mirrortool.nbd.memorybudget import SHARE_BYTES, Budget, Share, default_bytes
from mirrortool.nbd.negotiation import ExportTable, Security
from mirrortool.nbd.protocol import Command, CommandFlag, Error, Option
from mirrortool.nbd.serverevents import Events
from mirrortool.nbd.transmission import READ_PIECE_BYTES, WRITE_PIECE_BYTES
from tests.fakes.memory_export import MemoryExport
from tests.fakes.waiting import wait_until
from tests.nbd.wire import Client, encode_info_request, encode_option, encode_request, serving, write

MIB = 1 << 20


class Books(RuleBasedStateMachine):
    """A budget beside a model of it: clients come, borrow, give back and go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: dict[Share, int] = {}
        self.gone: list[Share] = []
        self.refused = 0

    @initialize(clients=st.integers(1, 4), pool=st.integers(0, 100))
    def begin(self, clients: int, pool: int) -> None:
        self.clients_max, self.pool = clients, pool
        self.budget = Budget(clients * SHARE_BYTES + pool, clients)

    @rule()
    def come(self) -> None:
        share = self.budget.share()
        assert (share is None) == (len(self.clients) == self.clients_max)
        if share:
            self.clients[share] = 0

    @precondition(lambda self: any(not loan for loan in self.clients.values()))
    @rule(data=st.data(), length=st.integers(1, 120))
    def borrow(self, data: st.DataObject, length: int) -> None:
        share = data.draw(st.sampled_from([each for each, loan in self.clients.items() if not loan]))
        free = self.pool - sum(self.clients.values())
        is_lent = share.borrow(length)
        assert is_lent == (length <= free - length), "a loan is at most half of the pool"
        self.refused += not is_lent
        self.clients[share] = length if is_lent else 0

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        share = data.draw(st.sampled_from(list(self.clients)))
        share.give_back()
        self.clients[share] = 0

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        share = data.draw(st.sampled_from(list(self.clients)))
        del self.clients[share]
        share.close()
        self.gone.append(share)

    @precondition(lambda self: self.gone)
    @rule()
    def go_again(self) -> None:
        self.gone[-1].close()
        self.gone[-1].give_back()

    @invariant()
    def balance(self) -> None:
        if not hasattr(self, "budget"):
            return
        use = self.budget.use()
        assert use.bytes_used == sum(SHARE_BYTES + loan for loan in self.clients.values()) <= use.bytes_max
        assert use.refused_loans == self.refused


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_every_client_must_have_a_share() -> None:
    with pytest.raises(UsageError, match="raise it, or lower --max-connections"):
        Budget(3 * SHARE_BYTES - 1, 3)
    assert default_bytes(1) == default_bytes(64) == 256 * MIB
    assert default_bytes(500) == 2000 * MIB
    for clients in (1, 64, 128, 10_000):
        assert Budget(default_bytes(clients), clients).share()


class ScriptedChannel:
    """What a client says, up to where its connection breaks; what it is told is forgotten, and breaks in its turn."""

    is_encrypted = False

    def __init__(self, said: bytes, sends_max: int) -> None:
        self._said = memoryview(said)
        self._sends_left = sends_max
        self.is_closed = False

    def receive_into(self, view: memoryview) -> int:
        part = self._said[: len(view)]
        view[: len(part)] = part
        self._said = self._said[len(part) :]
        return len(part)

    def receive_exactly(self, view: memoryview) -> None:
        if self.receive_into(view) < len(view):
            raise EndOfStreamError

    def receive(self, length: int) -> bytes:
        data = bytearray(length)
        self.receive_exactly(memoryview(data))
        return bytes(data)

    def skip(self, length: int) -> None:
        self.receive(length)

    def send(self, _data: object) -> None:
        self._sends_left -= 1
        if self._sends_left < 0:
            raise ConnectionResetError

    def no_deadline(self) -> None: ...

    def say_goodbye(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True


LARGE_READ, LARGE_WRITE = READ_PIECE_BYTES + 5, WRITE_PIECE_BYTES + 5
CONVERSATION = b"".join(
    [
        struct.pack(">I", 3),
        encode_option(Option.LIST),
        encode_option(Option.GO, encode_info_request("", [3])),
        write(1, 0, b"small"),
        write(2, 3, bytes(LARGE_WRITE), CommandFlag.FUA),
        encode_request(Command.READ, 3, 7, LARGE_READ),
        encode_request(Command.FLUSH, 4),
        encode_request(Command.DISC),
    ]
)
HEADERS = len(CONVERSATION) - LARGE_WRITE


def converse(budget: Budget, said: bytes, sends_max: int = 1000, export: MemoryExport | None = None) -> list[str]:
    """Serve a client from its first byte to its last; what there was to tell."""
    events: list[str] = []
    channel = ScriptedChannel(said, sends_max)
    connection = Connection(channel, "it", Events(events.append), lambda _: budget.share())  # type: ignore[arg-type]  # as scripted
    connection.run(ExportTable([export or MemoryExport(2 * MIB)]), Security(), lambda: False)
    assert channel.is_closed
    assert not any("unexpected" in line for line in events), events
    return events


@pytest.fixture(params=[0, 4 * LARGE_READ], ids=["in pieces", "at once"])
def budget(request: pytest.FixtureRequest) -> Iterator[Budget]:
    made = Budget(SHARE_BYTES + request.param, 1)
    yield made
    assert made.use().bytes_used == 0
    assert bool(made.use().refused_loans) == (request.param == 0)


def test_nothing_leaks_whichever_byte_is_the_last(budget: Budget) -> None:
    at_large = CONVERSATION.index(write(2, 3, bytes(LARGE_WRITE))[28:100])
    cuts = {*range(at_large + 2), *range(at_large, len(CONVERSATION), 40_000), len(CONVERSATION) - 1}
    cuts.update(range(len(CONVERSATION) - 3 * nbd.REQUEST.size - 2, len(CONVERSATION) + 1))
    for cut in sorted(cuts):
        converse(budget, CONVERSATION[:cut])
        assert budget.use().bytes_used == 0, cut


@given(cut=st.integers(0, len(CONVERSATION)), sends=st.integers(0, 12), broken=st.sampled_from(["", "change", "read"]))
@settings(max_examples=60, deadline=None)
def test_nothing_leaks_however_a_client_is_lost(cut: int, sends: int, broken: str) -> None:
    def fail(name: str) -> None:
        if name == broken:
            raise NoSpaceError("full")

    for pool in (0, 4 * LARGE_READ):
        budget, export = Budget(SHARE_BYTES + pool, 1), MemoryExport(2 * MIB)
        export.before = fail
        converse(budget, CONVERSATION[:cut], sends, export)
        assert budget.use().bytes_used == 0


def test_a_bug_in_an_export_leaks_nothing() -> None:
    def fail(_name: str) -> None:
        raise RuntimeError("a bug")

    export, budget = MemoryExport(2 * MIB), Budget(SHARE_BYTES + 8 * MIB, 1)
    events: list[str] = []
    export.before = fail
    channel = ScriptedChannel(CONVERSATION, 1000)
    connection = Connection(channel, "it", Events(events.append), lambda _: budget.share())  # type: ignore[arg-type]  # as scripted
    connection.run(ExportTable([export]), Security(), lambda: False)
    assert "unexpected RuntimeError" in events[0]
    assert budget.use().bytes_used == 0


@contextlib.contextmanager
def short_of_memory(tmp_path: Path, export: MemoryExport) -> Iterator[Client]:
    """A client for whose large requests there is no memory but its own share."""
    with (
        serving(tmp_path, export, max_connections=1, max_memory=SHARE_BYTES) as server,
        Client(server.addresses[0]) as client,
    ):
        yield client
        use = server.statistics()
        assert use.requests_in_pieces and use.memory_bytes <= use.memory_bytes_max == SHARE_BYTES


SIZES = [
    max(READ_PIECE_BYTES, WRITE_PIECE_BYTES) + 1, 2 * READ_PIECE_BYTES, 2 * READ_PIECE_BYTES + 1, 8 * MIB,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_pieces_are_the_same_bytes(tmp_path: Path, size: int) -> None:
    export = MemoryExport(size + 3)
    data = (os.urandom(1 << 16) * (size // (1 << 16) + 1))[:size]
    with short_of_memory(tmp_path, export) as client:
        client.go()
        client.send(write(1, 0, b"abcd") + write(2, 3, data) + encode_request(Command.READ, 3, 1, size))
        assert [client.answer()[:2] for _ in range(3)] == [(1, 0), (2, 0), (3, 0)]
        assert client.receive(size) == b"bc" + data[: size - 2]
    assert export.data == b"abc" + data


def test_pieces_of_one_chunk(tmp_path: Path) -> None:
    export = MemoryExport(3 * MIB)
    export.data[:] = os.urandom(3 * MIB)
    with short_of_memory(tmp_path, export) as client:
        client.go(structured=True)
        answer = client.do(Command.READ, 1, 3 * MIB - 1, CommandFlag.DF)
        assert answer.is_last and answer.payload[8:] == export.data[1:]


def test_a_write_in_pieces_is_durable_as_one(tmp_path: Path) -> None:
    export = MemoryExport(3 * MIB)
    with short_of_memory(tmp_path, export) as client:
        client.go()
        assert client.do(Command.WRITE, 0, 2 * MIB, CommandFlag.FUA, b"x" * (2 * MIB)).error == 0
    pieces = [sum(change.length for change in changes) for name, changes in export.calls if name == "change"]
    assert pieces == [WRITE_PIECE_BYTES] * (2 * MIB // WRITE_PIECE_BYTES)
    assert [name for name, _ in export.calls] == ["change"] * len(pieces) + ["flush"]


def failing_from(number: int, name: str, error: Exception) -> Callable[[str], None]:
    """Fails the calls of a name from the one of that number on."""
    left = number

    def fail(called: str) -> None:
        nonlocal left
        left -= called == name
        if called == name and left < 0:
            raise error

    return fail


@pytest.mark.parametrize("number", range(4))
def test_a_write_that_fails_in_the_middle_keeps_the_stream_in_step(tmp_path: Path, number: int) -> None:
    export = MemoryExport(3 * MIB)
    export.before = failing_from(number, "change", NoSpaceError("full"))
    with short_of_memory(tmp_path, export) as client:
        client.go()
        assert client.do(Command.WRITE, 0, 2 * MIB, 0, b"x" * (2 * MIB)).error == Error.ENOSPC
        assert client.do(Command.FLUSH).error == 0
    assert export.data.count(b"x") == number * WRITE_PIECE_BYTES


@pytest.mark.parametrize("structured", [False, True])
def test_a_read_that_fails_gets_an_error_or_ends_the_connection(tmp_path: Path, structured: bool) -> None:
    export = MemoryExport(3 * MIB)
    with short_of_memory(tmp_path, export) as client:
        client.go(structured=structured)
        flags = CommandFlag.DF if structured else 0
        export.before = failing_from(0, "read", InputOutputError("bad"))
        assert client.do(Command.READ, 0, 3 * MIB, flags).error == Error.EIO
        export.before = failing_from(1, "read", InputOutputError("bad"))
        client.send(encode_request(Command.READ, 1, 0, 3 * MIB, flags=flags))
        with pytest.raises(EOFError):
            client.receive(3 * MIB)


def test_clients_that_stall_use_no_more_than_the_budget_and_delay_nobody(tmp_path: Path) -> None:
    """Large writes that stop in the middle, and large reads that nobody receives."""
    export = MemoryExport(16 * MIB)
    budget, stalled = 64 * MIB, 10
    with (
        serving(tmp_path, export, max_connections=stalled + 1, max_memory=budget) as server,
        contextlib.ExitStack() as stack,
    ):
        for number in range(stalled):
            client = stack.enter_context(Client(server.addresses[0]))
            client.go()
            if number % 2:
                client.send(write(1, 0, bytes(16 * MIB))[: 15 * MIB])
            else:
                client.send(encode_request(Command.READ, 1, 0, 16 * MIB))
        wait_until(lambda: server.statistics().requests_in_pieces > 3)
        honest = stack.enter_context(Client(server.addresses[0]))
        honest.go()
        assert honest.do(Command.WRITE, 0, 16 * MIB, data=b"h" * (16 * MIB)).error == 0
        assert honest.do(Command.READ, 0, 16 * MIB).error == 0
        assert honest.receive(16 * MIB) == b"h" * (16 * MIB)
        use = server.statistics()
        assert (stalled + 1) * SHARE_BYTES < use.memory_bytes <= use.memory_bytes_max == budget
        stack.close()
        wait_until(lambda: server.statistics().memory_bytes == 0)
