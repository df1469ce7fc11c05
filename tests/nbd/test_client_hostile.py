"""The client and a server that is slow, gone, or lies: one line, nothing that waits for ever, and no second connection
that writes while an older one may.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mirrortool.errors import (
    AccessError,
    ChangedOutsideError,
    InputOutputError,
    NoSpaceError,
    ServerError,
    UnusableVolumeError,
)
from mirrortool.nbd import client as client_module
from mirrortool.nbd import clientconnection
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.clientcodec import OLDSTYLE_MAGIC
from mirrortool.nbd.protocol import Command, Option, Reply
from mirrortool.nbd.uri import parse_uri
from tests.fakes.scriptedserver import CAN, SIZE, USUAL, Peer, scripted
from tests.fakes.waiting import PATIENCE_SECONDS, in_thread, join, wait_until

MULTI = USUAL | CAN.CAN_MULTI_CONN


def client_of(uri: str, *, write: bool = True) -> NbdClient:
    return NbdClient(parse_uri(uri), write=write)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is given up soon."""
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(client_module, "FURTHER_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "OVER_SECONDS", 0.1)
    monkeypatch.setattr(clientconnection, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(clientconnection, "FLUSH_SECONDS", 0.6)
    monkeypatch.setattr(clientconnection, "OVER_SECONDS", 0.1)
    monkeypatch.setattr(clientconnection, "GOODBYE_SECONDS", 0.1)


def refused_option(option: int, reply: int, text: bytes = b"") -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.greet()
        while True:
            asked, _ = peer.option()
            peer.reply(asked, reply if asked == option else Reply.ACK, text if asked == option else b"")

    return script


def greeting(data: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.send(data)
        peer.wait_for_end()

    return script


def going(*infos: tuple[int, bytes]) -> Callable[[Peer], None]:
    """Everything is granted, and the export described so."""

    def script(peer: Peer) -> None:
        peer.greet()
        while True:
            option, _ = peer.option()
            if option == Option.GO:
                for reply, data in infos:
                    peer.reply(option, reply, data)
            peer.reply(option)

    return script


WRONG = [
    (greeting(b"SSH-2.0-OpenSSH_9.2 and more"), ServerError, "not an NBD server"),
    (greeting(nbd.GREETING.pack(nbd.MAGIC, OLDSTYLE_MAGIC.rjust(8, b"\0"), 0)), ServerError, "old form"),
    (greeting(b"NBDMAGIC"), ServerError, "does not answer"),
    (lambda _: None, ServerError, "ended the connection"),
    (lambda peer: peer.greet(), ServerError, "ended the connection"),
    (refused_option(Option.GO, Reply.ERR_UNKNOWN), UnusableVolumeError, "no export 'disk'"),
    (refused_option(Option.GO, Reply.ERR_POLICY, b"not\nyou\x1b"), UnusableVolumeError, "does not grant"),
    (refused_option(Option.GO, Reply.ERR_POLICY), UnusableVolumeError, "does not grant the export: ERR_POLICY"),
    (refused_option(Option.GO, Reply.ERR_TLS_REQD), ServerError, "requires TLS"),
    (refused_option(Option.GO, Reply.ERR_UNSUP), UnusableVolumeError, "use a newer server"),
    (refused_option(Option.GO, Reply.ERR_SHUTDOWN), ServerError, "shutting down"),
    (refused_option(Option.STRUCTURED_REPLY, Reply.ERR_TLS_REQD), ServerError, "requires TLS"),
    (refused_option(Option.GO, Reply.INFO, b"\0\0"), ServerError, "does not keep to the NBD protocol"),
    (refused_option(Option.GO, Reply.SERVER, b"x"), ServerError, "not asked for"),
    (refused_option(Option.GO, Reply.ACK, b"x"), ServerError, "with data"),
    (refused_option(Option.SET_META_CONTEXT, Reply.INFO, b"x"), ServerError, "SET_META_CONTEXT"),
    (refused_option(Option.STRUCTURED_REPLY, Reply.INFO), ServerError, "STRUCTURED_REPLY"),
    (refused_option(Option.GO, Reply.ACK), ServerError, "size"),
    (going((Reply.INFO, struct.pack(">HQH", 0, 1 << 63, 1))), ServerError, "bytes"),
    (going(*[(Reply.INFO, b"\0\x77")] * 200), ServerError, "more than 100 times"),
    (lambda peer: (peer.greet(), peer.send(bytes(20)), peer.wait_for_end()), ServerError, "does not answer the option"),
    (
        lambda peer: (
            peer.greet(),
            peer.send(nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, 8, 1, 0xFFFFFFFF)),
            peer.wait_for_end(),
        ),
        ServerError,
        r"with 4.0 GiB \(4294967295 bytes\)",
    ),
]  # fmt: skip


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("script", "error", "text"), WRONG)
def test_a_handshake_that_cannot_be_ends_in_one_line(
    tmp_path: Path, script: Callable[[Peer], None], error: type[Exception], text: str
) -> None:
    with scripted(tmp_path, script) as uri, pytest.raises(error, match=text):
        client_of(uri)


@pytest.mark.parametrize("number", [0, 1])
def test_a_server_that_ends_the_connection_fails_every_caller(tmp_path: Path, number: int) -> None:
    """Also where it did what it never answered: the next connection does not wait, as the server has ended this one."""
    ready = threading.Event()

    def script(peer: Peer) -> None:
        peer.handshake()
        if peer.number == 0:
            asked = [peer.request() for _ in range(4)]
            for each in asked[:number]:
                peer.succeed(each.cookie)
            ready.wait(PATIENCE_SECONDS)
            return
        while True:
            peer.succeed(peer.request().cookie)

    with scripted(tmp_path, script) as uri:
        client, failed = client_of(uri), list[str]()

        def write(at: int) -> None:
            try:
                client.write([(at, [b"x"], 1)])
            except ServerError as error:
                failed.append(str(error))

        writers = [in_thread(lambda at=at: write(at)) for at in range(4)]
        wait_until(lambda: client._connections[0].unanswered == 4 - number)
        ready.set()
        join(*writers)
        assert len(failed) == 4 - number and {"ended the connection" in each for each in failed} == {True}
        with pytest.raises(ServerError, match="ended the connection"):
            client.flush()
        client.close()
        with closing(client_of(uri)) as again:
            again.write([(0, [b"x"], 1)])
            again.flush()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("end", ["answers", "ends"])
def test_nothing_writes_while_a_late_request_may(tmp_path: Path, end: str) -> None:
    """A server that is slow, not dead: it has a write that it may still carry out."""
    may_end, asked = threading.Event(), list[int]()

    def script(peer: Peer) -> None:
        peer.handshake()
        request = peer.request()
        if peer.number == 0:
            asked.append(request.offset)
            assert may_end.wait(PATIENCE_SECONDS)
            if end == "answers":
                peer.succeed(request.cookie)
                peer.wait_for_end()
            return
        peer.succeed(request.cookie)
        peer.wait_for_end()

    with scripted(tmp_path, script) as uri:
        client = client_of(uri)
        with pytest.raises(ServerError, match="does not answer; end its connection at the server"):
            client.write([(5, [b"late"], 4)])
        client.close()
        for _ in range(2):
            with pytest.raises(ServerError, match="may still carry out 1 of its requests; end that connection"):
                client_of(uri)
        with closing(client_of(uri, write=False)) as reader:  # reading does no harm
            reader.write([(0, [b"x"], 1)])
        may_end.set()
        wait_until(lambda: _is_free(uri))
        assert asked == [5]


def _is_free(uri: str) -> bool:
    try:
        with closing(client_of(uri)) as client:
            client.write([(0, [b"x"], 1)])
    except ServerError:
        return False
    return True


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "answer",
    [
        lambda peer, _: peer.send(b"\0" * 16),
        lambda peer, asked: peer.succeed(asked.cookie + 1),
        lambda peer, asked: (peer.succeed(asked.cookie), peer.succeed(asked.cookie)),
        lambda peer, asked: peer.chunk(asked.cookie, 99),
        lambda peer, asked: peer.chunk(asked.cookie, 5, struct.pack(">III", 7, 1, 0)),
    ],
)
def test_a_server_that_lies_is_not_believed(tmp_path: Path, answer: Callable[..., object]) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        answer(peer, peer.request())
        peer.wait_for_end()  # the client has nothing more to say

    with scripted(tmp_path, script) as uri:
        with closing(client_of(uri)) as client:
            with suppress(ServerError):
                client.write([(0, [b"x"], 1)])
            wait_until(lambda: client._connections[0]._lost)
            with pytest.raises(ServerError, match="does not keep to the NBD protocol"):
                client.write([(0, [b"x"], 1)])
        assert parse_uri(uri).place not in client_module._left


@pytest.mark.usefixtures("soon")
def test_a_server_that_drips_without_an_answer_is_given_up(tmp_path: Path) -> None:
    stopped = threading.Event()

    def script(peer: Peer) -> None:
        peer.handshake()
        asked = peer.request()
        peer.send(struct.pack(">IHHQI", nbd.CHUNK_MAGIC, 0, 1, asked.cookie, 8 + 4096) + bytes(8))
        while not stopped.wait(0.01):
            peer.send(b"x")

    with scripted(tmp_path, script) as uri:
        client = client_of(uri)
        with pytest.raises(ServerError, match="does not answer"):
            client.read_into(0, [memoryview(bytearray(4096))])
        stopped.set()
        client.close()


def fails(act: Callable[[], None]) -> None:
    with pytest.raises(ServerError):
        act()


@pytest.mark.usefixtures("soon")
def test_a_server_that_reads_nothing_is_given_up(tmp_path: Path) -> None:
    stopped = threading.Event()

    def script(peer: Peer) -> None:
        peer.handshake(64 << 20)
        stopped.wait(PATIENCE_SECONDS)

    with scripted(tmp_path, script) as uri:
        client = client_of(uri)
        others = [in_thread(lambda: fails(client.flush)) for _ in range(2)]
        with pytest.raises(ServerError, match="does not answer"):
            client.write([(0, [os.urandom(32 << 20)], 32 << 20)])
        join(*others)
        stopped.set()
        client.close()


@pytest.mark.usefixtures("soon")
def test_a_flush_may_take_longer_than_other_requests_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was asked to flush is not taken for dead as soon as another; the next one never comes."""
    monkeypatch.setattr(clientconnection, "ANSWER_SECONDS", 0.02)

    def script(peer: Peer) -> None:
        peer.handshake()
        asked = peer.request()
        peer.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.receive(1)
        peer.socket.settimeout(PATIENCE_SECONDS)
        peer.succeed(asked.cookie)
        peer.wait_for_end()

    with scripted(tmp_path, script) as uri:
        client = client_of(uri)
        client.flush()
        with pytest.raises(ServerError, match="does not answer"):
            client.flush()
        client.close()


@pytest.mark.usefixtures("soon")
def test_a_server_that_was_asked_nothing_for_long_has_its_time_from_the_next_request_on(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        asked = peer.request()
        peer.socket.settimeout(0.15)  # longer than the client looks at its clock again
        with pytest.raises(TimeoutError):
            peer.receive(1)
        peer.succeed(asked.cookie)
        peer.socket.settimeout(PATIENCE_SECONDS)
        peer.wait_for_end()

    with scripted(tmp_path, script) as uri, closing(client_of(uri)) as client:
        client._connections[0]._answered_at -= 1000
        client.write([(0, [b"x"], 1)])


@pytest.mark.usefixtures("soon")
def test_who_waits_for_room_hears_that_the_connection_is_lost(tmp_path: Path) -> None:
    stopped = threading.Event()

    def script(peer: Peer) -> None:
        peer.handshake()
        for _ in range(clientconnection.UNANSWERED_MAX):
            peer.request()
        stopped.wait(PATIENCE_SECONDS)

    with scripted(tmp_path, script) as uri:
        client = client_of(uri)
        with pytest.raises(ServerError, match="does not answer"):
            client.write([(at, [b"x"], 1) for at in range(2 * clientconnection.UNANSWERED_MAX)])
        stopped.set()
        client.close()


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (1, AccessError, "refuses WRITE of 1 byte at offset 5: not permitted"),
        (28, NoSpaceError, "the server has no space left; free some space there"),
        (22, InputOutputError, r"refuses WRITE of 1 byte at offset 5 \(error 22\); see the server's own log"),
        (108, ServerError, "shutting down"),
    ],
)
def test_each_error_of_a_server_has_its_class(tmp_path: Path, number: int, error: type[Exception], text: str) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        peer.succeed(peer.request().cookie, number)
        peer.wait_for_end()

    with scripted(tmp_path, script) as uri, closing(client_of(uri)) as client, pytest.raises(error, match=text):
        client.write([(5, [b"x"], 1)])


def test_no_more_is_in_flight_than_the_bound(tmp_path: Path) -> None:
    """Requests beyond it are sent when answers come."""
    most = clientconnection.UNANSWERED_MAX

    def script(peer: Peer) -> None:
        peer.handshake()
        asked = [peer.request() for _ in range(most)]
        peer.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.request()
        peer.socket.settimeout(PATIENCE_SECONDS)
        for each in asked:
            peer.succeed(each.cookie)
        while True:
            peer.succeed(peer.request().cookie)

    with scripted(tmp_path, script) as uri, closing(client_of(uri)) as client:
        client.write([(2 * at, [b"x"], 1) for at in range(3 * most)])
        client.flush()


@pytest.mark.usefixtures("soon")
def test_a_server_that_takes_fewer_connections_gets_fewer(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        if peer.number >= 2:
            peer.wait_for_end()
            return
        peer.handshake(flags=MULTI)
        while True:
            peer.succeed(peer.request().cookie)

    with scripted(tmp_path, script) as uri, closing(client_of(uri)) as client:
        assert len(client._connections) == 2
        client.write([(0, [b"x"], 1)])
        client.flush()


def test_a_server_that_shows_each_connection_another_export_is_refused(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.handshake(SIZE + peer.number, MULTI)
        peer.wait_for_end()

    with scripted(tmp_path, script) as uri, pytest.raises(ChangedOutsideError, match="differently"):
        client_of(uri)


def test_a_flush_goes_out_on_each_connection(tmp_path: Path) -> None:
    flushed = list[int]()

    def script(peer: Peer) -> None:
        peer.handshake(flags=MULTI)
        while True:
            asked = peer.request()
            if asked.command == Command.FLUSH:
                flushed.append(peer.number)
            peer.succeed(asked.cookie)

    with scripted(tmp_path, script) as uri, closing(client_of(uri)) as client:
        client.flush()
        assert sorted(flushed) == [0, 1, 2, 3]


def test_zeros_are_never_left_to_trim_and_need_no_hole(tmp_path: Path) -> None:
    said = list[tuple[int, int, int]]()

    def script(peer: Peer) -> None:
        peer.handshake(
            flags=CAN.HAS_FLAGS | CAN.SEND_FLUSH | CAN.SEND_TRIM | (CAN.SEND_WRITE_ZEROES * (peer.number == 0))
        )
        while True:
            asked = peer.request()
            said.append((peer.number, asked.command, asked.flags))
            assert asked.data == bytes(len(asked.data))
            peer.succeed(asked.cookie)

    with scripted(tmp_path, script) as uri:
        for _ in range(2):
            with closing(client_of(uri)) as client:
                client.zero(0, SIZE)
    assert said[0] == (0, Command.WRITE_ZEROES, 0)
    assert {each[1:] for each in said if each[0] == 1} == {(Command.WRITE, 0), (Command.DISC, 0)}
