"""What a store of exports does beside what every store must: test_conformance.py has that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from mirrortool.errors import InputOutputError, NoSpaceError, ServerError
from mirrortool.journal.point import Until
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.openvolumes import open_store
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.server import Server
from mirrortool.nbd.uri import parse_uri
from mirrortool.store.interface import Store
from mirrortool.store.nbdstore import NbdStore
from mirrortool.volume import place
from tests.fakes.histories import SIZES, make_history
from tests.fakes.journals import PAGE, assert_verifies, images_of, memory_directory, replay_all
from tests.fakes.memory_export import MemoryExport, failing, names
from tests.fakes.nbdservers import nbdkit, qcow2
from tests.fakes.volumes import pattern

ROOM = 90 * PAGE


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(ROOM)


@pytest.fixture
def store(tmp_path: Path, export: MemoryExport) -> Iterator[NbdStore]:
    with ExitStack() as running:
        running.enter_context(Server([export], [f"unix:{tmp_path}/s"], on_event=str))
        yield running.enter_context(closing(opened(f"nbd+unix:///disk?socket={tmp_path}/s", 3 * PAGE + 10)))


def opened(uri: str, size: int, page_size: int = PAGE) -> NbdStore:
    volumes = place([("a", size)], page_size)
    return NbdStore(volumes, {"a": NbdClient(parse_uri(uri), write=True)})


def content(uri: str, length: int) -> bytes:
    with closing(NbdClient(parse_uri(uri), write=False)) as client:
        data = bytearray(length)
        client.read_into(0, [memoryview(data)])
    return bytes(data)


@pytest.mark.parametrize("end", [3 * 4096 + 10, 3 * 4096 + 512, 3 * 4096 + 513, 3 * 4096 - 1, 5, 0])
def test_what_lies_after_the_volume_keeps_its_bytes_also_where_blocks_are_written_whole(end: int) -> None:
    """The last block of a volume is read, and written with what else is in it."""
    size = 8 * 4096
    options = ["blocksize-minimum=512", "blocksize-error-policy=error"]
    with ExitStack() as running:
        data = f"data= ( 0xee )*{size}"
        uri = running.enter_context(nbdkit("--filter=blocksize-policy", "data", data, *options))
        store = running.enter_context(closing(opened(uri, 3 * 4096 + 10, 4096)))
        store.write([(3, [pattern(1, 4096)], 4096)])
        assert content(uri, size)[3 * 4096 :] == pattern(1, 10) + b"\xee" * (5 * 4096 - 10)
        store.zero(3, 1)
        assert content(uri, size)[3 * 4096 :] == bytes(10) + b"\xee" * (5 * 4096 - 10)
        store.write([(0, [pattern(2, 4 * 4096)], 4 * 4096)])
        store.resize("a", end)
        kept = min(3 * 4096 + 10, end - end % 4096 if end < 3 * 4096 + 10 else 3 * 4096 + 10)
        wanted = pattern(2, 4 * 4096)[:kept].ljust(max(end, 3 * 4096 + 10), b"\0").ljust(size, b"\xee")
        assert content(uri, size) == wanted


@pytest.mark.parametrize("error", [InputOutputError("x"), NoSpaceError("x")])
def test_after_a_change_that_failed_no_sync_succeeds(store: NbdStore, export: MemoryExport, error: Exception) -> None:
    store.write([(0, [pattern(1, PAGE)], PAGE)])
    store.sync()
    export.before = failing("change", error)
    for change in (
        lambda: store.write([(0, [pattern(2, PAGE)], PAGE)]),
        lambda: store.zero(1, 1),
        lambda: store.resize("a", PAGE),
    ):
        with pytest.raises(type(error)):
            change()
    export.before = lambda _: None
    flushes = names(export).count("flush")
    for _ in range(2):
        with pytest.raises(type(error), match=r"refuses WRITE|no space left"):
            store.sync()
    assert names(export).count("flush") == flushes


def test_a_read_that_failed_proves_nothing_of_what_was_written(store: NbdStore, export: MemoryExport) -> None:
    store.write([(0, [pattern(1, PAGE)], PAGE)])
    export.before = failing("read", InputOutputError("x"))
    with pytest.raises(InputOutputError):
        store.read_into(0, [memoryview(bytearray(PAGE))])
    export.before = lambda _: None
    store.sync()


def test_a_lost_connection_is_a_failed_sync_and_nothing_is_sent_again(
    tmp_path: Path, store: NbdStore, export: MemoryExport
) -> None:
    store.write([(0, [pattern(1, PAGE)], PAGE)])

    def end_connection(name: str) -> None:
        if name == "change":
            raise ConnectionAbortedError

    export.before = end_connection
    with pytest.raises(ServerError, match="ended the connection"):
        store.write([(1, [pattern(2, PAGE)], PAGE)])
    export.before = lambda _: None
    for _ in range(2):
        with pytest.raises(ServerError, match="ended the connection"):
            store.sync()
    assert names(export) == ["change"]
    with closing(opened(f"nbd+unix:///disk?socket={tmp_path}/s", 3 * PAGE + 10)) as again:
        again.sync()
    assert "flush" in names(export)


SERVERS = {
    "nbdkit": lambda: nbdkit("memory", str(ROOM)),
    "nbdkit with a delay": lambda: nbdkit("--filter=delay", "memory", str(ROOM), "wdelay=1ms"),
    "qcow2": lambda: qcow2(ROOM),
}


@contextmanager
def ours() -> Iterator[dict[str, str]]:
    exports = [MemoryExport(ROOM, name) for name in SIZES]
    with memory_directory() as path, Server(exports, [f"unix:{path}/s"], on_event=str):
        yield {name: f"nbd+unix:///{name}?socket={path}/s" for name in SIZES}


@contextmanager
def theirs(name: str) -> Iterator[dict[str, str]]:
    with ExitStack() as running:
        yield {volume: running.enter_context(SERVERS[name]()) for volume in SIZES}


@pytest.mark.parametrize("name", ["ours", *SERVERS])
def test_one_journal_gives_the_same_bytes_and_sums_as_in_files(name: str) -> None:
    """Also where it stopped half-way, and what was written is overtaken."""
    places: AbstractContextManager[dict[str, str]] = ours() if name == "ours" else theirs(name)
    with memory_directory() as path, places as targets:
        history = make_history(path / "J", seed=7, frames=60)
        half = history.commits[len(history.commits) // 2]
        for until in (Until(lsn=half), None):
            flat = replay_all(history.journal, path / "flat", until=until)
            far = replay_all(history.journal, path / "far", until=until, targets=targets, window_bytes=3000)
            assert (far.position, far.state_sum, far.sizes) == (flat.position, flat.state_sum, flat.sizes)
            assert contents(str(path / "far")) == images_of(path / "flat")
            assert_verifies(path / "far")


def test_what_is_sparse_stays_so_with_one_cluster_for_each_run_of_data() -> None:
    cluster, pages = 64 << 10, 4096
    with qcow2(64 << 20) as uri:
        with closing(opened(uri, 64 << 20, pages)) as store:
            for place_of in range(10):
                store.write([(place_of * 1600, [pattern(place_of, pages)], pages)])
            store.zero(0, 160)
            store.zero(16000, 100)
            store.sync()
            runs = list(store.data_runs(0, (64 << 20) // pages))
        with closing(NbdClient(parse_uri(uri), write=False)) as client:
            data = sum(length for length, is_zero in client.extents(0, 64 << 20) if not is_zero)
    assert data == 9 * cluster and len(runs) == 9


def contents(mirror: str) -> dict[str, bytes]:
    found = {}
    with closing(open_store(Mirror(mirror), write=False)) as store:
        store_of: Store = store
        for volume in store_of.volumes:
            data = bytearray(volume.size)
            store_of.read_bytes(volume.name, 0, memoryview(data))
            found[volume.name] = bytes(data)
    return found
