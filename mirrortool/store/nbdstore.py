"""A store with an export of an NBD server for each volume: a mirror in qcow2, Ceph RBD or iSCSI, or on another host.

An export may be longer than its volume; what is after the volume's end keeps its bytes. Where a server takes whole
blocks only, the last one of a volume is read and written whole.

Rule: a change that failed fails every sync after it, and a connection that was lost is a change that failed
(nbd/client.py): nothing is written again here. A new store begins at the last checkpoint.
Rule: what the server keeps in its own caches is read from there: `drop_caches` cannot reach them.
Second writer: nothing keeps one away. mirror/nbdvolumes.py compares what can be compared when an export is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from mirrortool.errors import HostError, InputOutputError, UnusableVolumeError
from mirrortool.nbd.client import NbdClient
from mirrortool.store.flat import clear_from, page_runs
from mirrortool.store.interface import WriteRun
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import Volume, VolumeSet

_WHY_NOT_DIRECT = "an NBD server does its own writing"


class NbdStore:
    """The store of volumes that are exports.

    Attributes:
        readers: threads that read at once, so that many requests are on their way; each has a buffer of a piece.
    """

    readers = 16

    def __init__(self, volumes: VolumeSet, clients: Mapping[str, NbdClient]) -> None:
        """Take over the clients, one for each volume by name; each takes requests of a page."""
        self.page_size = volumes.page_size
        self._clients = dict(clients)
        self._gate = SyncGate()
        self._volumes = volumes

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def capacity(self, name: str) -> int | None:
        return capacity_of(self._clients[name])

    def find_why_not_direct(self) -> str | None:
        return _WHY_NOT_DIRECT

    def write_direct(self, wanted: bool) -> None:
        if wanted:
            raise UnusableVolumeError(_WHY_NOT_DIRECT, remedy="use --io buffered")

    def write(self, runs: Sequence[WriteRun]) -> None:
        volume, client, _ = self._locate(runs[0][0])
        shift = -volume.start
        placed = [(page * self.page_size + shift, buffers, length) for page, buffers, length in runs]
        offset, buffers, length = placed[-1]
        over = offset + length - volume.size
        if over > 0:
            assert over < self.page_size, "a write may only cut the last page"
            last = [*buffers[:-1], memoryview(buffers[-1])[: len(buffers[-1]) - over]]
            placed[-1] = offset, last, length - over
        with self._changing():
            placed[-1] = _to_whole_blocks(client, placed[-1])
            client.write(placed)

    def zero(self, page: int, count: int) -> None:
        volume, client, offset = self._locate(page)
        with self._changing():
            zero_range(client, offset, min(offset + count * self.page_size, volume.size))

    def resize(self, name: str, size: int) -> None:
        volume, client = self._volumes[name], self._clients[name]
        # From the page that holds a smaller end on all becomes zeros; after the volume's end there may be anything.
        kept = size - size % self.page_size if size < volume.size else volume.size
        with self._changing():
            zero_range(client, kept, max(size, volume.size))
        self._volumes = self._volumes.resized(volume, size)

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        volume, client, offset = self._locate(page)
        inside = max(0, min(sum(map(len, buffers)), volume.size - offset))
        client.read_into(offset, list(_first_bytes(buffers, _up(client, inside))))
        clear_from(buffers, inside)

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        client = self._clients[name]
        first, last = _down(client, offset), _up(client, offset + len(buffer))
        if last > client.facts.size:
            raise InputOutputError(f"volume {name} ends before it should", where=client.uri, remedy="see what cut it")
        whole = memoryview(bytearray(last - first))
        client.read_into(first, [whole])
        buffer[:] = whole[offset - first : offset - first + len(buffer)]

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        if not count:
            return  # an empty volume has no page to begin at
        volume, client, offset = self._locate(page)
        end = min(volume.size, offset + count * self.page_size)
        first_page = volume.start // self.page_size
        for first, last in page_runs(_data_extents(client, offset, end), self.page_size):
            yield first_page + first, last - first

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return ()

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        """The protocol has no word for it: a server that is full says so when it is written."""

    @property
    def frees_late(self) -> bool:
        return False

    @property
    def frees_wait(self) -> bool:
        return False

    def begin_checkpoint(self) -> None:
        """What a server frees is its own."""

    def end_checkpoint(self) -> None:
        """What a server frees is its own."""

    def sync(self) -> None:
        self._gate.run(self._sync)

    def _sync(self) -> None:
        for client in self._clients.values():
            client.flush()

    def drop_caches(self) -> None:
        """The server's caches are its own."""

    def close(self) -> None:
        with ExitStack() as closing:
            for client in self._clients.values():
                closing.callback(client.close)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A change: that it failed is remembered."""
        try:
            yield
        except HostError as error:
            self._gate.fail(error)
            raise

    def _locate(self, page: int) -> tuple[Volume, NbdClient, int]:
        volume = self._volumes.find(page)
        assert volume is not None, "checked where the operation was decoded"
        return volume, self._clients[volume.name], page * self.page_size - volume.start


def capacity_of(client: NbdClient) -> int:
    """The bytes of an export that can be used: whole blocks."""
    return _down(client, client.facts.size)


def _down(client: NbdClient, offset: int) -> int:
    return offset - offset % client.facts.block_min


def _up(client: NbdClient, offset: int) -> int:
    return -(-offset // client.facts.block_min) * client.facts.block_min


def _to_whole_blocks(client: NbdClient, run: WriteRun) -> WriteRun:
    """A run that begins at a block, with what follows it in its last block."""
    offset, buffers, length = run
    end = offset + length
    missing = _up(client, end) - end
    if not missing:
        return run
    block = memoryview(bytearray(client.facts.block_min))
    client.read_into(_down(client, end), [block])
    return offset, [*buffers, block[len(block) - missing :]], length + missing


def zero_range(client: NbdClient, start: int, end: int) -> None:
    """Make bytes `start … end-1` read as zeros, and no others."""
    first, last = _up(client, start), _down(client, end)
    if start >= end:
        return
    if first > last:  # both are inside one block
        _zero_inside(client, last, start, end)
        return
    if start < first:
        _zero_inside(client, _down(client, start), start, first)
    if first < last:
        client.zero(first, last - first)
    if last < end:
        _zero_inside(client, last, last, end)


def _zero_inside(client: NbdClient, block: int, begin: int, stop: int) -> None:
    whole = memoryview(bytearray(client.facts.block_min))
    client.read_into(block, [whole])
    whole[begin - block : stop - block] = bytes(stop - begin)
    client.write([(block, [whole], len(whole))])


def _first_bytes(buffers: Sequence[memoryview], length: int) -> Iterator[memoryview]:
    for buffer in buffers:
        if length <= 0:
            return
        yield buffer[:length]
        length -= len(buffer)


def _data_extents(client: NbdClient, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """What may not read as zeros: (start, one past the end) of each run of bytes."""
    if offset >= end:
        return
    for length, is_zero in client.extents(offset, _up(client, end) - offset):
        if not is_zero:
            yield offset, min(end, offset + length)
        offset += length
