"""Journals made of lists of operations, and mirrors compared with the serial model.

A `JournalMaker` writes frames with the journal's own writer. The state sums it gives them come from a dict of page sums
that it keeps itself, so that replay's sums are compared with something that shares no code with store/pagesums.py.
Pages count from the start of their volume here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mirrortool.address import pages_in
from mirrortool.checksum import page_sums, state_term, unpack_sums
from mirrortool.journal import directory
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.openvolumes import open_store
from mirrortool.operation import Batch, BatchBuilder, CommitKind, Operation
from mirrortool.replay import readback
from mirrortool.replay.engine import Plan
from mirrortool.replay.replayoptions import MAX_BYTES
from mirrortool.replay.session import Replay
from mirrortool.store import parallelread
from mirrortool.store.interface import Store
from mirrortool.verify import Verify, VerifyResult
from mirrortool.volume import Volume, VolumeSet, place
from tests.fakes.serial import volumes_at

START_NS = 1_700_000_000 * 10**9
FRAME_NS = 10**6
PAGE = 512
ONE_TASK = Plan(groups=1, tasks=1)


@dataclass(frozen=True)
class Write:
    """Whole pages; what lies behind the volume's end is made zero, as a recorder does."""

    volume: str
    page: int
    data: bytes

    def __repr__(self) -> str:
        return f"Write({self.volume!r}, {self.page}, {len(self.data)} bytes, {self.data[:1]!r}…)"


@dataclass(frozen=True)
class Zero:
    volume: str
    page: int
    count: int


@dataclass(frozen=True)
class Resize:
    volume: str
    size: int


@dataclass(frozen=True)
class Commit:
    """A commit, or a mark if it has a name."""

    name: str | None = None
    kind: CommitKind = CommitKind.FLUSH


Op = Write | Zero | Resize | Commit


class JournalMaker:
    """A journal in the making; `close` it, or `abandon` it as a crash would.

    Attributes:
        commits: LSNs of the commits so far.
    """

    def __init__(
        self,
        path: str | Path,
        sizes: Mapping[str, int],
        *,
        page_size: int = PAGE,
        file_bytes: int = 64 << 20,
        paths: Mapping[str, str] | None = None,
        sync_commits: bool = True,
        bases: Mapping[str, int] | None = None,
    ) -> None:
        self.page_size = page_size
        self.volumes = place(list(sizes.items()), page_size)
        if bases:
            self.volumes = VolumeSet([Volume(name, bases[name], size) for name, size in sizes.items()], page_size)
        self.journal = directory.create(str(path), self.volumes, dict(paths or {}), {})
        with JournalReader(self.journal) as end:
            self.writer = JournalWriter(self.journal, end, file_bytes=file_bytes)
        self.commits: list[int] = []
        self._sync_commits = sync_commits
        self._sums: dict[int, int] = {}
        self._state_sum = self.journal.first_state_sum
        self._frames = 0

    def frame(self, *operations: Op, captured: bool = True) -> Position:
        """Append one frame."""
        builder = BatchBuilder(self.page_size)
        for operation in operations:
            self._add(builder, operation)
        batch = builder.build()
        position = self.append(batch, captured=captured)
        if batch.is_commit and self._sync_commits:
            self.writer.sync()
        return position

    def append(self, batch: Batch, *, state_sum: int | None = None, captured: bool = True) -> Position:
        """Append a batch as it is, whatever it says; by default with the state sum of what `frame` was given."""
        self._frames += 1
        position = self.writer.append(
            batch,
            captured=captured,
            state_sum=self._state_sum if state_sum is None else state_sum,
            time_ns=START_NS + self._frames * FRAME_NS,
        )
        if batch.is_commit:
            self.commits.append(position.lsn)
        return position

    def close(self) -> Journal:
        """A clean stop."""
        self.writer.close()
        return self.journal

    def abandon(self) -> Journal:
        """No clean stop, though everything is durable."""
        self.writer.sync()
        self.writer.abandon()
        return self.journal

    def first_page(self, name: str) -> int:
        """Where a volume begins in the address space."""
        return self.volumes.first_page(self.volumes[name])

    def _add(self, builder: BatchBuilder, operation: Op) -> None:
        match operation:
            case Commit(name, kind):
                builder.commit(kind, self.writer.durable.lsn, name)
            case Zero(volume, page, count):
                first = self.first_page(volume) + page
                builder.zero(first, count)
                self._set(range(first, first + count), [0] * count)
            case Resize(volume, size):
                builder.resize(self.first_page(volume), size)
                self._resize(volume, size)
            case Write(volume, page, data):
                first = self.first_page(volume) + page
                data = self._padded(volume, page, data)
                pages = [data[i : i + self.page_size] for i in range(0, len(data), self.page_size)]
                sums = page_sums(pages, self.page_size)
                builder.write(first, data, sums)
                self._set(range(first, first + len(pages)), unpack_sums(sums))

    def _padded(self, volume: str, page: int, data: bytes) -> bytes:
        room = self.volumes[volume].size - page * self.page_size
        return data if len(data) <= room else data[:room] + bytes(len(data) - room)

    def _set(self, pages: Sequence[int], sums: Sequence[int]) -> None:
        old = [self._sums.get(page, 0) for page in pages]
        self._state_sum ^= state_term(pages, old) ^ state_term(pages, sums)
        self._sums.update(zip(pages, sums, strict=True))

    def _resize(self, name: str, size: int) -> None:
        volume, first = self.volumes[name], self.first_page(name)
        if size < volume.size:
            gone = range(first + size // self.page_size, first + pages_in(volume.size, self.page_size))
            held = [page for page in self._sums if page in gone]
            self._set(held, [0] * len(held))
        self.volumes = self.volumes.resized(volume, size)
        self._state_sum ^= volume.term ^ self.volumes[name].term


@contextmanager
def making(path: Path, volumes: dict[str, int], *operations: Write | Zero | Resize | Commit) -> Iterator[JournalMaker]:
    """A journal with one frame of these operations, which is still being written."""
    maker = JournalMaker(path, volumes)
    maker.frame(*operations)
    yield maker
    maker.abandon()


def make_journal(
    path: str | Path,
    sizes: Mapping[str, int],
    frames: Iterable[Sequence[Op]],
    *,
    page_size: int = PAGE,
    file_bytes: int = 64 << 20,
    clean: bool = True,
) -> Journal:
    """A journal of these frames."""
    maker = JournalMaker(path, sizes, page_size=page_size, file_bytes=file_bytes)
    for operations in frames:
        maker.frame(*operations)
    return maker.close() if clean else maker.abandon()


def commits_of(journal: Journal) -> list[int]:
    """LSNs of all commits."""
    with JournalReader(journal, journal.start) as reader:
        return [header.position.lsn for header in iter(reader.next_header, None) if header.is_commit]


def set_boot_id(journal: Journal, boot_id: str) -> None:
    """Let the recorder have run under another kernel."""
    checkpoint = journal.recorder_checkpoint()
    assert checkpoint is not None
    journal.save_recorder_checkpoint(replace(checkpoint, boot_id=boot_id))


def replay_all(
    journal: Journal | str,
    mirror: str | Path,
    *,
    plan: Plan | None = ONE_TASK,
    window_bytes: int = 32 << 20,
    read_back: bool = True,
    until: object = None,
    targets: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
    **others: Any,
) -> Checkpoint:
    """Replay to the newest commit, or to `until`."""
    path = journal.path if isinstance(journal, Journal) else journal
    with Replay(
        path,
        str(mirror),
        plan=plan,
        window_bytes=window_bytes,
        read_back=read_back,
        until=until,
        targets=targets,
        max_bytes=max_bytes,
        **others,
    ) as replay:
        return replay.run()


def images_of(mirror: str | Path) -> dict[str, bytes]:
    """The bytes of each volume that it holds, those of its file where it has one."""
    opened = Mirror(str(mirror))
    paths = {kept.name: kept.place.file_path(opened.path) for kept in opened.kept if kept.is_held}
    found = {name: Path(path).read_bytes() for name, path in paths.items() if path}
    if len(found) < len(paths):
        with closing(open_store(opened, write=False)) as store:
            found |= {name: _content(store, name) for name in paths if name not in found}
    return found


def _content(store: Store, name: str) -> bytes:
    found = memoryview(bytearray(store.volumes[name].size))
    if found:
        store.read_bytes(name, 0, found)
    return bytes(found)


def assert_is_commit(journal: Journal, mirror: str | Path) -> int:
    """The mirror says that it is a commit, and is what serial replay makes of it. Returns its LSN."""
    checkpoint = Mirror(str(mirror)).checkpoint
    lsn = checkpoint.position.lsn
    assert checkpoint.is_consistent or (checkpoint.is_finished and not lsn), checkpoint
    assert lsn == 0 or lsn in commits_of(journal)
    assert images_of(mirror) == volumes_at(journal, lsn)
    return lsn


def verified(mirror: str | Path) -> VerifyResult:
    """What verify says of it."""
    with Verify(str(mirror)) as verify:
        return verify.run()


def assert_verifies(mirror: str | Path) -> None:
    """Verify compares everything, the primary's state sum included, and finds nothing."""
    result = verified(mirror)
    assert result.is_right and result.table_is_right and not result.pages_in_flight, result


def assert_truthful(journal: Journal, mirror: str | Path) -> Checkpoint:
    """Whatever the mirror says of itself is so: a commit byte for byte, or rolling forward without a bad page."""
    checkpoint = Mirror(str(mirror)).checkpoint
    if checkpoint.is_consistent:
        assert_is_commit(journal, mirror)
    result = verified(mirror)
    assert result.is_right, result
    return checkpoint


def shrink_pieces(patch: pytest.MonkeyPatch) -> None:
    """Read stores in small pieces; making buffers of 1 MiB is most of what replaying a tiny journal costs."""
    for module in (parallelread, readback):
        patch.setattr(module, "PIECE_BYTES", 16 * PAGE)


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory in memory, where there is such a file system: for thousands of small files without a disk."""
    path = Path(tempfile.mkdtemp(prefix="mirrortool-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def operations(journal: Journal, after: int = 0) -> list[Operation]:
    """Those after an LSN."""
    found: list[Operation] = []
    with JournalReader(journal, journal.start) as reader:
        while frame := reader.next_frame():
            found += frame.batch.operations(frame.header.first_lsn)
    return [operation for operation in found if operation.lsn > after]
