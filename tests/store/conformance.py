"""The drivers that store/test_conformance.py holds to what store/interface.py promises: one entry of DRIVERS each.

An entry opens a store of new volumes and says what else the suite may do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from mirrortool import files
from mirrortool.errors import InputOutputError
from mirrortool.files import File
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.server import Server
from mirrortool.nbd.uri import parse_uri
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import Store
from mirrortool.store.joined import JoinedStore
from mirrortool.store.nbdstore import NbdStore
from mirrortool.volume import VolumeSet
from tests.fakes.backings import leave_no_room, make_backings
from tests.fakes.memory_export import MemoryExport, failing
from tests.fakes.memorystore import MemoryDisk, MemoryStore, io_error
from tests.fakes.nbdservers import nbdkit, qcow2
from tests.fakes.volumes import fast_directory, loop_device, write_file
from tests.fakes.waiting import wait_until

ROOM = 1 << 20
"""Bytes that each volume of a driver can grow to, at least."""


@dataclass
class Opened:
    """A store of new volumes, which read as zeros; whoever opened it closes `store`.

    Attributes:
        reopen: opens the same volumes again, with sizes as they are by now, after `store` was closed.
        failing: while it is entered, a sync fails as it does where the storage loses writes.
        fill: leaves no room but for what was written or reserved; None where that is not tried. What is zeroed from
            then on is room after a checkpoint only.
    """

    store: Store
    reopen: Callable[[VolumeSet], Store]
    failing: Callable[[Store], AbstractContextManager[None]]
    fill: Callable[[], None] | None = None


@dataclass(frozen=True)
class Driver:
    """A kind of store.

    Attributes:
        open: makes and opens the volumes; a context manager that removes them.
        page_sizes: those that are tried with random steps.
        examples: how many times, by default.
    """

    open: Callable[[VolumeSet], AbstractContextManager[Opened]]
    page_sizes: tuple[int, ...] = (4096,)
    examples: int = 15


@contextmanager
def _failing_fdatasync(_store: Store) -> Iterator[None]:
    def fail(_file: File) -> None:
        raise InputOutputError("cannot make durable", where="here")

    with patch.object(File, "fdatasync", fail):
        yield


def _open_paths(volumes: VolumeSet, paths: Mapping[str, str]) -> Store:
    return FlatStore(volumes, {name: files.open_file(path, write=True) for name, path in paths.items()})


@contextmanager
def flat_files(volumes: VolumeSet) -> Iterator[Opened]:
    """A file for each volume."""
    with fast_directory() as directory:
        paths = {volume.name: f"{directory}/{volume.name}" for volume in volumes}
        for volume in volumes:
            write_file(paths[volume.name], volume.size)
        yield Opened(_open_paths(volumes, paths), lambda now: _open_paths(now, paths), _failing_fdatasync)


@contextmanager
def flat_devices(volumes: VolumeSet) -> Iterator[Opened]:
    """A loop device for each volume, longer than that."""
    with fast_directory() as directory, ExitStack() as devices:
        paths = {
            volume.name: devices.enter_context(loop_device(directory, 2 * ROOM, volume.name)) for volume in volumes
        }
        yield Opened(_open_paths(volumes, paths), lambda now: _open_paths(now, paths), _failing_fdatasync)


@contextmanager
def memory(volumes: VolumeSet) -> Iterator[Opened]:
    """The double that fails on demand."""
    disk = MemoryDisk()

    def fill() -> None:
        disk.page_most = len(disk.pages)

    yield Opened(MemoryStore(volumes, disk), lambda now: MemoryStore(now, disk), _failing_memory, fill)


@contextmanager
def _failing_memory(store: Store) -> Iterator[None]:
    assert isinstance(store, MemoryStore)
    store.failing["sync"] = io_error()
    yield
    del store.failing["sync"]


@contextmanager
def joined(volumes: VolumeSet) -> Iterator[Opened]:
    """Every other volume in files, the others in memory."""
    names = [volume.name for volume in volumes]
    with flat_files(_some(volumes, names[::2])) as first, ExitStack() as others:
        if not names[1:]:
            yield first
            return
        second = others.enter_context(memory(_some(volumes, names[1::2])))

        def reopen(now: VolumeSet) -> Store:
            return JoinedStore([first.reopen(_some(now, names[::2])), second.reopen(_some(now, names[1::2]))])

        yield Opened(JoinedStore([first.store, second.store]), reopen, _failing_fdatasync)


@contextmanager
def our_exports(volumes: VolumeSet) -> Iterator[Opened]:
    """An export in memory for each volume, longer than that, of a server of ours."""
    exports = {volume.name: MemoryExport(2 * ROOM, volume.name) for volume in volumes}
    with fast_directory() as directory, Server(list(exports.values()), [f"unix:{directory}/s"], on_event=str) as server:

        def reopen(now: VolumeSet) -> Store:
            wait_until(lambda: not any(each.clients for each in server.statistics().exports))
            return _open_exports(now, {name: f"nbd+unix:///{name}?socket={directory}/s" for name in exports})

        @contextmanager
        def fail(_store: Store) -> Iterator[None]:
            for export in exports.values():
                export.before = failing("flush", io_error())
            yield
            for export in exports.values():
                export.before = lambda _: None

        yield Opened(reopen(volumes), reopen, fail)


def _opens_servers(serve: Callable[[], AbstractContextManager[str]]) -> Callable[..., AbstractContextManager[Opened]]:
    """An export of a server of its own for each volume."""

    @contextmanager
    def opening(volumes: VolumeSet) -> Iterator[Opened]:
        with ExitStack() as servers:
            uris = {volume.name: servers.enter_context(serve()) for volume in volumes}
            yield Opened(_open_exports(volumes, uris), lambda now: _open_exports(now, uris), _failing_flush)

    return opening


@contextmanager
def _failing_flush(_store: Store) -> Iterator[None]:
    with patch.object(NbdClient, "flush", side_effect=io_error()):
        yield


def nbdkit_in_blocks() -> AbstractContextManager[str]:
    """It takes nothing but whole blocks, and knows no zeros without data; its last block is not whole."""
    filters = ["--filter=nozero", "--filter=blocksize-policy"]
    options = ["blocksize-minimum=512", "blocksize-error-policy=error"]
    return nbdkit(*filters, "memory", str(2 * ROOM + 100), *options)


def _open_exports(volumes: VolumeSet, uris: Mapping[str, str]) -> Store:
    return NbdStore(volumes, {volume.name: NbdClient(parse_uri(uris[volume.name]), write=True) for volume in volumes})


def spanned(*cells: int) -> Callable[[VolumeSet], AbstractContextManager[Opened]]:
    """Backings of these sizes, with extents of four pages."""

    @contextmanager
    def opened(volumes: VolumeSet) -> Iterator[Opened]:
        with fast_directory() as directory:
            backings = make_backings(directory, *cells, extent=4 * volumes.page_size)
            store = backings.open(volumes)
            yield Opened(store, backings.open, _failing_fdatasync, lambda: leave_no_room(store))

    return opened


def _some(volumes: VolumeSet, names: list[str]) -> VolumeSet:
    return VolumeSet([volumes[name] for name in names], volumes.page_size)


DRIVERS: Mapping[str, Driver] = {
    "flat": Driver(flat_files, page_sizes=(512, 4096, 65536), examples=30),
    "device": Driver(flat_devices, examples=5),
    "joined": Driver(joined),
    "spanned, one": Driver(spanned(40), page_sizes=(512, 4096, 65536)),
    "spanned, five": Driver(spanned(20, 3, 1, 8, 5), page_sizes=(512, 4096, 65536), examples=20),
    "double": Driver(memory),
    "nbd": Driver(our_exports, page_sizes=(512, 4096)),
    "nbdkit": Driver(_opens_servers(lambda: nbdkit("memory", str(2 * ROOM))), examples=5),
    "nbdkit in blocks": Driver(_opens_servers(nbdkit_in_blocks), page_sizes=(512, 4096), examples=8),
    "qcow2": Driver(_opens_servers(lambda: qcow2(2 * ROOM)), examples=4),
}
"""A driver whose needs are not met here calls `unavailable` while it is opened."""
