"""The client: what it does to an export of ours, of nbdkit's and of qemu-nbd's, and what it makes of errors."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import (
    AccessError,
    HostError,
    InputOutputError,
    NoSpaceError,
    ServerError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.server import Server
from mirrortool.nbd.tls import server_context
from mirrortool.nbd.uri import parse_uri
from tests.fakes.certificates import certify, make_authority
from tests.fakes.loop import require_tools
from tests.fakes.memory_export import MemoryExport, failing, names
from tests.fakes.nbdservers import nbdkit, qcow2, qemu_nbd
from tests.fakes.volumes import fast_directory

MIB = 1 << 20
SIZE = 8 * MIB


@contextmanager
def client_of(uri: str, *, write: bool = True, connections: int = 4) -> Iterator[NbdClient]:
    with closing(NbdClient(parse_uri(uri), write=write, connections=connections)) as client:
        yield client


@contextmanager
def served(*exports: MemoryExport, events: list[str] | None = None) -> Iterator[str]:
    """The URI of the first, but for its name."""
    with fast_directory() as path, Server(exports, [f"unix:{path}/s"], on_event=(events or []).append):
        yield f"nbd+unix:///{{}}?socket={path}/s"


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(SIZE)


@pytest.fixture
def uri(export: MemoryExport) -> Iterator[str]:
    with served(export) as uri:
        yield uri.format("disk")


def read(client: NbdClient, offset: int, length: int) -> bytes:
    data = bytearray(length)
    client.read_into(offset, [memoryview(data)])
    return bytes(data)


def exercise(client: NbdClient) -> None:
    """Everything that a client does, with content that is looked at."""
    first, large = os.urandom(4096), os.urandom(3 * MIB)
    client.write([(0, [first], 4096), (8192, [first[:100], first[100:]], 4096)])
    client.write([(4 * MIB, [large[: MIB - 1], large[MIB - 1 :]], len(large))])
    client.flush()
    assert read(client, 0, 3 * 4096) == first + bytes(4096) + first
    halves = bytearray(MIB), bytearray(2 * MIB)
    client.read_into(4 * MIB, [memoryview(half) for half in halves])
    assert halves[0] + halves[1] == large
    client.zero(4 * MIB + 4096, 2 * MIB)
    assert read(client, 4 * MIB, 3 * MIB) == large[:4096] + bytes(2 * MIB) + large[4096 + 2 * MIB :]
    if client.tells_zeros:
        found = list(client.extents(0, SIZE))
        assert sum(length for length, _ in found) == SIZE
        at = 0
        for length, is_zero in found:
            assert not is_zero or not any(read(client, at, length))
            at += length
        assert any(is_zero for _, is_zero in found)
    with ThreadPoolExecutor(8) as pool:
        pages = {number: os.urandom(4096) for number in range(400)}
        list(pool.map(lambda number: client.write([(number * 8192, [pages[number]], 4096)]), pages))
        client.flush()
        assert all(pool.map(lambda number: read(client, number * 8192, 4096) == pages[number], pages))


def test_against_our_own_server(uri: str, export: MemoryExport) -> None:
    with client_of(uri) as client:
        assert (client.facts.name, client.facts.size, client.facts.description) == ("disk", SIZE, "in memory")
        assert client.tells_zeros
        exercise(client)
    assert names(export).count("flush") >= 2


def test_against_nbdkit() -> None:
    with nbdkit("memory", str(SIZE)) as uri, client_of(uri) as client:
        exercise(client)


def test_against_an_nbdkit_that_gives_the_least() -> None:
    """No structured replies, no zeros without data, one connection, blocks of 512 bytes."""
    filters = ["--filter=noparallel", "--filter=nozero", "--filter=blocksize-policy", "--filter=multi-conn"]
    options = ["blocksize-minimum=512", "blocksize-error-policy=error", "multi-conn-mode=disable"]
    with nbdkit("--no-sr", *filters, "memory", str(SIZE), *options) as uri, client_of(uri) as client:
        assert not client.tells_zeros and client.facts.block_min == 512
        assert list(client.extents(512, SIZE - 512)) == [(SIZE - 512, False)]
        exercise_in_blocks(client)


def exercise_in_blocks(client: NbdClient) -> None:
    data = os.urandom(2 * MIB)
    client.write([(512, [data], len(data))])
    client.zero(1024, MIB)
    client.flush()
    assert read(client, 0, 3 * MIB) == bytes(512) + data[:512] + bytes(MIB) + data[MIB + 512 :] + bytes(MIB - 512)


def test_against_qemu_nbd_with_qcow2() -> None:
    with qcow2(SIZE) as uri, client_of(uri) as client:
        exercise(client)


def test_one_connection_where_the_server_does_not_say_that_more_agree(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(SIZE))
    with qemu_nbd("-f", "raw", image) as uri, client_of(uri) as client:
        assert len(client._connections) == 1
        exercise(client)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an authority, a server and a client; in `anonymous` only the authority's, in `other` another one's."""
    require_tools("openssl")
    path = tmp_path_factory.mktemp("pki")
    for where in (path, path / "other"):
        make_authority(where)
        certify(where, where, "client")
    certify(path, path, "server")
    (path / "anonymous").mkdir()
    (path / "anonymous/ca-cert.pem").write_bytes((path / "ca-cert.pem").read_bytes())
    return path


@pytest.fixture
def encrypted(certificates: Path, export: MemoryExport, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """URIs of a server that requires TLS on TCP."""
    with Server(
        [export], ["tcp:127.0.0.1:0", f"unix:{tmp_path}/s"], tls=server_context(str(certificates)), on_event=str
    ) as server:

        def uri(own: Path = certificates, host: str = "127.0.0.1", scheme: str = "nbds") -> str:
            port = server.addresses[0].port  # type: ignore[union-attr]
            return f"{scheme}://{host}:{port}/disk" + (f"?tls-certificates={own}" if scheme == "nbds" else "")

        yield uri


def test_under_tls(encrypted: Callable[..., str], certificates: Path, tmp_path: Path) -> None:
    with client_of(encrypted()) as client:
        exercise(client)
    with client_of(f"nbds+unix:///disk?socket={tmp_path}/s&tls-certificates={certificates}") as client:
        exercise(client)


def test_without_what_tls_needs_nothing_is_reached(encrypted: Callable[..., str], certificates: Path, uri: str) -> None:
    for wrong, error, text in [
        (
            encrypted(certificates / "other"),
            ServerError,
            "TLS failed: (self-signed|unable to get)",
        ),
        (encrypted(certificates / "anonymous"), ServerError, "TLS failed|ended|reset"),
        (encrypted(host="localhost."), ServerError, "TLS failed: Hostname mismatch|cannot be reached"),
        (encrypted(scheme="nbd"), ServerError, "requires TLS; begin the URI with nbds"),
        (encrypted(certificates / "absent"), AccessError, "cannot read ca-cert.pem"),
        (uri.replace("nbd+", "nbds+") + f"&tls-certificates={certificates}", ServerError, "does not offer TLS"),
    ]:
        with pytest.raises(error, match=text) as caught, client_of(wrong) as client:
            client.flush()  # in TLS 1.3 a client learns only now that its certificate was refused
        assert "\n" not in str(caught.value)
    (certificates / "anonymous/client-key.pem").write_text("no key")
    with pytest.raises((UsageError, AccessError)), client_of(encrypted(certificates / "anonymous")):
        pass
    (certificates / "anonymous/client-key.pem").unlink()


def test_no_server_or_no_such_export(tmp_path: Path, uri: str) -> None:
    for wrong in (f"nbd+unix:///disk?socket={tmp_path}/none", "nbd://127.0.0.1:1/disk", "nbd://no-host.invalid/disk"):
        with (
            pytest.raises(ServerError, match=r"the NBD server cannot be reached: .*; check that it runs"),
            client_of(wrong),
        ):
            pass
    with pytest.raises(UnusableVolumeError, match="the server has no export 'absent'; nbdinfo --list"):
        NbdClient(parse_uri(uri.replace("disk", "absent")), write=True)


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [(NoSpaceError("full"), NoSpaceError, "no space left"), (InputOutputError("x"), InputOutputError, "refuses WRITE")],
)
def test_what_the_server_refuses_fails_the_caller(
    uri: str, export: MemoryExport, error: HostError, expected: type[HostError], text: str
) -> None:
    with client_of(uri) as client:
        export.before = failing("change", error)
        with pytest.raises(expected, match=text):
            client.write([(0, [b"x"], 1), (5, [b"y"], 1)])
        export.before = failing("flush", error)
        with pytest.raises(expected):
            client.flush()


def test_a_read_that_failed_fails_alone(uri: str, export: MemoryExport) -> None:
    with client_of(uri) as client:
        export.before = failing("read", InputOutputError("x"))
        with pytest.raises(InputOutputError, match=r"refuses READ of 10 bytes at offset 5: input/output error"):
            read(client, 5, 10)
        export.before = lambda _: None
        client.write([(0, [b"x"], 1)])
        client.flush()


def test_a_flush_waits_for_nothing_but_reaches_each_connection(uri: str, export: MemoryExport) -> None:
    with client_of(uri) as client:
        assert len(client._connections) == 4
        client.write([(0, [b"x"], 1)])
        client.flush()
    assert 1 <= names(export).count("flush") <= 4


def test_many_requests_are_in_flight_at_once_and_each_gets_its_own_answer(uri: str) -> None:
    data = os.urandom(3000 * 16)
    with client_of(uri, connections=1) as client:
        client.write([(16 * n * 2, [data[16 * n : 16 * n + 16]], 16) for n in range(3000)])
        got = bytearray(len(data) * 2)
        client.read_into(0, [memoryview(got)[at : at + 16] for at in range(0, len(got), 16)])
    assert b"".join(got[at : at + 16] for at in range(0, len(got), 32)) == data


RUNS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=20)


@given(RUNS, st.integers(1, 3))
@settings(max_examples=30)
def test_any_writes_and_zeros_leave_what_a_model_has(runs: list[tuple[int, int, int]], cut: int) -> None:
    """Pieces as small as the server wants them."""
    export = MemoryExport(64)
    model = bytearray(64)
    with served(export) as uri, client_of(uri.format("disk"), connections=2) as client:
        object.__setattr__(client.facts, "payload_max", cut)
        fill = itertools.cycle(b"abcdefghijk")
        for offset, length, kind in runs:
            length = min(length, 64 - offset)
            if kind == 0:
                client.zero(offset, length)
                model[offset : offset + length] = bytes(length)
            else:
                data = bytes(itertools.islice(fill, length))
                half = length // kind
                client.write([(offset, [data[:half], data[half:]], length)])
                model[offset : offset + length] = data
        assert read(client, 0, 64) == model == export.data
