"""TLS: required on TCP, with certificates made by openssl; a client that has none, or a wrong one, gets nothing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.errors import AccessError, UsageError
from mirrortool.nbd.protocol import Command, Option, Reply
from mirrortool.nbd.server import Server
from mirrortool.nbd.tls import server_context
from tests.fakes.certificates import certify, make_authority
from tests.fakes.loop import call, require_tools
from tests.fakes.memory_export import MemoryExport
from tests.fakes.waiting import wait_until
from tests.nbd.wire import TIMEOUT_SECONDS, Client, encode_info_request, encode_option, encode_request, write


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an authority, a server and a client, and in `other` of another authority and its client."""
    require_tools("openssl")
    path = tmp_path_factory.mktemp("pki")
    for where in (path, path / "other"):
        make_authority(where)
        certify(where, where, "client")
    certify(path, path, "server")
    return path


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def server(certificates: Path, events: list[str], tmp_path: Path) -> Iterator[Server]:
    addresses = ["tcp:127.0.0.1:0", f"unix:{tmp_path}/s"]
    context = server_context(str(certificates))
    with Server([MemoryExport()], addresses, tls=context, on_event=events.append) as server:
        yield server


def client_context(certificates: Path, own: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    if own:
        context.load_cert_chain(own / "client-cert.pem", own / "client-key.pem")
    return context


@contextlib.contextmanager
def encrypted(server: Server, context: ssl.SSLContext, number: int = 0) -> Iterator[Client]:
    with Client(server.addresses[number]) as client:
        assert client.ask(Option.STARTTLS) == [(Reply.ACK, b"")]
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        client.socket.settimeout(TIMEOUT_SECONDS)
        yield client


def test_encrypted_client_is_served(server: Server, certificates: Path) -> None:
    data = bytes(range(256)) * 1200
    for number in (0, 1):
        with encrypted(server, client_context(certificates, certificates), number) as client:
            client.go(structured=True, contexts=True)
            client.send(b"".join(write(n, n * len(data), data) for n in range(3)))
            assert [client.answer()[:2] for _ in range(3)] == [(0, 0), (1, 0), (2, 0)]
            assert client.do(Command.READ, len(data), len(data)).payload[8:] == data
            client.send(encode_request(Command.DISC))
            with contextlib.suppress(ssl.SSLError):
                assert client.socket.recv(1) == b""


def test_nothing_is_said_before_tls(server: Server) -> None:
    with Client(server.addresses[0]) as client:
        for option in (Option.LIST, Option.GO, Option.INFO, Option.STRUCTURED_REPLY, 99):
            assert client.ask(option, encode_info_request("", []))[0][0] == Reply.ERR_TLS_REQD
        assert client.ask(Option.STARTTLS, b"x")[0][0] == Reply.ERR_INVALID
        client.send(encode_option(Option.EXPORT_NAME, b""))
        assert client.is_closed()
    with Client(server.addresses[0], greet=False) as client:
        client.receive(18)
        client.send(bytes(4) + encode_option(Option.STARTTLS))
        assert client.is_closed()


def test_local_socket_does_without(server: Server) -> None:
    with Client(server.addresses[1]) as client:
        client.go()
        assert client.do(Command.FLUSH).error == 0


def test_second_tls_is_invalid_and_the_first_forgets_what_was_agreed(server: Server, certificates: Path) -> None:
    with Client(server.addresses[1]) as client:
        client.ask(Option.STRUCTURED_REPLY)
        assert client.ask(Option.STARTTLS)[0][0] == Reply.ACK
        client.socket = client_context(certificates, certificates).wrap_socket(
            client.socket, server_hostname="localhost"
        )
        assert client.ask(Option.STARTTLS)[0][0] == Reply.ERR_INVALID
        client.go()
        assert client.do(Command.READ, 0, 1).kind is None


@pytest.mark.parametrize("own", [None, "other"])
def test_client_without_a_certificate_of_ours_gets_nothing(
    server: Server, certificates: Path, events: list[str], own: str | None
) -> None:
    context = client_context(certificates, certificates / own if own else None)
    with pytest.raises(OSError), encrypted(server, context) as client:
        client.ask(Option.LIST)
    test_encrypted_client_is_served(server, certificates)
    wait_until(lambda: events)  # told by the client's thread, while ours continues
    assert len(events) == 1 and "TLS failed" in events[0]


@pytest.mark.parametrize("sent", [b"plain text" * 10, encode_option(Option.LIST), b""])
def test_plain_text_after_starttls_is_never_obeyed(server: Server, sent: bytes) -> None:
    with Client(server.addresses[0]) as client:
        client.send(encode_option(Option.STARTTLS) + sent)
        assert client.reply()[1] == Reply.ACK
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
            heard = client.socket.recv(4096)
            assert heard[:1] in (b"", b"\x15"), "a TLS alert, and no reply"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(server: Server, certificates: Path) -> None:
    context = client_context(certificates, certificates)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError), encrypted(server, context):
        pass


def test_stop_ends_encrypted_clients(server: Server, certificates: Path) -> None:
    with encrypted(server, client_context(certificates, certificates)) as client, Client(server.addresses[0]) as half:
        client.go()
        half.ask(Option.STARTTLS)
        server.stop(grace_seconds=0.1)
        assert server.statistics().connections == 0


@pytest.mark.parametrize("dangling", [False, True])
def test_anonymous_clients_are_let_in_only_where_that_was_asked_for(
    certificates: Path, tmp_path: Path, dangling: bool
) -> None:
    for name in ("server-cert.pem", "server-key.pem"):
        shutil.copy(certificates / name, tmp_path)
    if dangling:
        (tmp_path / "ca-cert.pem").symlink_to("gone")
    with pytest.raises(UsageError, match=r"ca-cert\.pem is missing.* give --tls-anonymous"):
        server_context(str(tmp_path))
    server_context(str(tmp_path), anonymous=True)


def test_anonymous_clients_are_let_in_whatever_authority_there_is(certificates: Path) -> None:
    context = server_context(str(certificates), anonymous=True)
    server = Server([MemoryExport()], ["tcp:127.0.0.1:0"], tls=context, on_event=print)
    with server, encrypted(server, client_context(certificates, None)) as client:
        client.go()


def test_silent_clients_keep_nobody_out_before_tls(certificates: Path) -> None:
    """As many as may have an export are connected, and more than may be in the handshake; none has said a word."""
    context = server_context(str(certificates))
    limits = {"max_connections": 1, "max_handshakes": 4, "handshake_seconds": TIMEOUT_SECONDS}
    server = Server([MemoryExport()], ["tcp:127.0.0.1:0"], tls=context, on_event=lambda _: None, **limits)
    with server, contextlib.ExitStack() as stack:
        for number in range(8):
            silent = stack.enter_context(Client(server.addresses[0]))
            if number % 2:
                silent.ask(Option.STARTTLS)
        with encrypted(server, client_context(certificates, certificates)) as client:
            client.go()
            assert client.do(Command.FLUSH).error == 0


def test_unusable_certificates_are_named(certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(AccessError):
        server_context(str(tmp_path))
    shutil.copy(certificates / "server-cert.pem", tmp_path)
    for key in (certificates / "client-key.pem", certificates / "server-cert.pem"):
        shutil.copy(key, tmp_path / "server-key.pem")
        with pytest.raises(UsageError):
            server_context(str(tmp_path))
    call(
        "openssl",
        "ec",
        "-aes128",
        "-passout",
        "pass:x",
        "-in",
        certificates / "server-key.pem",
        "-out",
        tmp_path / "server-key.pem",
    )
    with pytest.raises(UsageError):
        server_context(str(tmp_path))
