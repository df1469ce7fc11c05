"""A small journal, what is true of it, and ways to damage it.

Pages have 512 bytes, and payloads compress well, so that a frame is some 120 bytes.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mirrortool.checksum import page_sums, state_term, unpack_sums
from mirrortool.errors import JournalError
from mirrortool.files import Identity
from mirrortool.journal import directory
from mirrortool.journal import format as layout
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.journal.writer import JournalWriter
from mirrortool.operation import Batch, BatchBuilder, CommitKind, Kind, Operation
from mirrortool.record.recovery import OpenJournal
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet, place

PAGE = 512
HEADER = layout.FILE_HEADER.size
VOLUMES = place([("disk", 64 * PAGE), ("log", 10 * PAGE + 100)], PAGE)
LOG_PAGE = VOLUMES.first_page(VOLUMES["log"])

Facts = tuple[Any, ...]


def page_of(value: int, count: int = 1) -> bytes:
    """Pages that differ from each other, and by value."""
    return b"".join(bytes([value % 255 + 1, number % 256]) * (PAGE // 2) for number in range(count))


def facts_of(operation: Operation) -> Facts:
    """Everything about an operation, comparable."""
    return (
        operation.lsn, operation.kind, operation.page, operation.count, bytes(operation.data),
        operation.commit_kind, operation.name,
    )  # fmt: skip


def make_journal(path: pathlib.Path) -> Journal:
    return directory.create(str(path), VOLUMES, {}, {})


def open_writer(journal: Journal, **options: Any) -> JournalWriter:
    """A writer at the end of a journal that is whole."""
    with JournalReader(journal) as end:
        while end.next_header():
            pass
        return JournalWriter(journal, end, **options)


def write_batch(page: int, value: int, count: int = 1) -> Batch:
    builder = BatchBuilder(PAGE)
    builder.write(page, page_of(value, count))
    return builder.build()


def commit_batch(durable_lsn: int = 0, name: str | None = None, kind: CommitKind = CommitKind.FLUSH) -> Batch:
    builder = BatchBuilder(PAGE)
    builder.commit(kind, durable_lsn, name)
    return builder.build()


@dataclass(frozen=True)
class Recorded:
    """A frame as it was written, and where."""

    file_first_lsn: int
    offset: int
    end: int
    position: Position
    time_ns: int
    state_sum: int
    operations: tuple[Facts, ...]

    @property
    def is_commit(self) -> bool:
        return self.operations[-1][1] >= Kind.COMMIT


def append(writer: JournalWriter, batch: Batch, state_sum: int | None = None, **options: Any) -> Recorded:
    """Append a frame; without a state sum, with one that no other frame has."""
    first_lsn, file_before, offset = writer.position.lsn + 1, writer.file_first_lsn, writer.offset
    given = first_lsn * 0x9E3779B97F4A7C15 % (1 << 64) if state_sum is None else state_sum
    position = writer.append(batch, captured=True, state_sum=given, **options)
    file = writer.file_first_lsn
    operations = tuple(map(facts_of, batch.operations(first_lsn)))
    begin = offset if file == file_before else layout.FILE_HEADER.size
    return Recorded(file, begin, writer.offset, position, writer.time_ns, given, operations)


def journal_files(path: pathlib.Path | str) -> list[pathlib.Path]:
    return sorted(pathlib.Path(path, "files").iterdir())


def last_file(journal: Journal) -> pathlib.Path:
    return journal_files(journal.path)[-1]


def flip(path: pathlib.Path, offset: int, mask: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def cut(path: pathlib.Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@dataclass
class Read:
    """What a reader gave before it ended, and the error that it ended with."""

    frames: list[Recorded] = field(default_factory=list)
    error: JournalError | None = None


def read_all(journal: Journal, start: Position | None = None) -> Read:
    """Read everything; an error other than JournalError is a bug and goes through."""
    result = Read()
    try:
        with JournalReader(journal, start) as reader:
            while frame := reader.next_frame():
                header = frame.header
                operations = tuple(map(facts_of, frame.batch.operations(header.first_lsn)))
                result.frames.append(
                    Recorded(
                        frame.file_first_lsn,
                        frame.offset,
                        reader.offset,
                        header.position,
                        header.time_ns,
                        header.state_sum,
                        operations,
                    )
                )
    except JournalError as error:
        result.error = error
    return result


class Model:
    """Sums and sizes, kept in the plainest way: what PageSums must agree with."""

    def __init__(self) -> None:
        self.sums: dict[int, int] = {}
        self.volumes: VolumeSet = VOLUMES

    @property
    def state_sum(self) -> int:
        result = state_term(list(self.sums), list(self.sums.values()))
        for volume in self.volumes:
            result ^= volume.term
        return result

    def apply(self, operations: Sequence[Facts]) -> None:
        for _, kind, page, count, data, _, _ in operations:
            if kind == Kind.WRITE:
                pages = [data[i : i + PAGE] for i in range(0, len(data), PAGE)]
                self.sums.update(zip(range(page, page + count), unpack_sums(page_sums(pages, PAGE)), strict=True))
            elif kind == Kind.ZERO:
                self._clear(page, page + count)
            elif kind == Kind.RESIZE:
                volume = self.volumes.starting_at(page)
                assert volume
                self._clear(page + count // PAGE, page + self.volumes.page_count(volume))
                self.volumes = self.volumes.resized(volume, count)

    def check(self, sums: PageSums) -> None:
        """The table holds just these sums, and the state sum is the one that they give."""
        assert sums.volumes == self.volumes
        for volume in self.volumes:
            first, count = self.volumes.first_page(volume), self.volumes.page_count(volume)
            expected = [self.sums.get(page, 0) for page in range(first, first + count)]
            assert list(unpack_sums(sums.read(first, count))) == expected
        assert sums.state_sum == sums.compute_state_sum() == self.state_sum

    def _clear(self, first: int, end: int) -> None:
        for page in range(first, end):
            self.sums.pop(page, None)


def random_batch(chance: random.Random, volumes: VolumeSet, durable_lsn: int, name: str | None = None) -> Batch:
    """Some operations that a recorder may write, a third of the time with a commit."""
    builder = BatchBuilder(PAGE)
    sizes = {volume.name: volume.size for volume in volumes}
    for _ in range(chance.randint(1, 3)):
        volume = volumes[chance.choice(list(sizes))]
        first, count = volumes.first_page(volume), -(-sizes[volume.name] // PAGE)
        page = chance.randrange(count)
        number = chance.randint(1, min(3, count - page))
        match chance.randrange(6):
            case 0:
                builder.zero(first + page, number)
            case 1:
                sizes[volume.name] = chance.randint(3, 70) * PAGE + chance.choice([0, 100])
                builder.resize(first, sizes[volume.name])
            case _:
                builder.write(first + page, page_of(chance.randrange(255), number))
    if name or chance.randrange(3) == 0:
        builder.commit(chance.choice(list(CommitKind)), durable_lsn, name)
    return builder.build()


class Recording:
    """A recorder of the simplest kind on OpenJournal; knows all that it wrote."""

    def __init__(self, path: pathlib.Path, *, file_bytes: int, seed: int = 1) -> None:
        make_journal(path)
        self.frames: list[Recorded] = []
        self.model = Model()
        self._pending: list[Batch] = []
        self._chance = random.Random(seed)
        self.opened = OpenJournal(str(path))
        self.opened.writer._file_bytes = file_bytes

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        self.opened.__exit__(*exc)

    def append(self, batch: Batch | None = None, *, sync: bool = True) -> None:
        """Write a frame; with `sync` it is durable then, and its sums taken in."""
        writer = self.opened.writer
        batch = batch or random_batch(self._chance, self.model.volumes, writer.durable.lsn)
        self.model.apply(list(map(facts_of, batch.operations(writer.position.lsn + 1))))
        self.frames.append(append(writer, batch, self.model.state_sum))
        self._pending.append(batch)
        if sync:
            self.sync()

    def sync(self) -> None:
        self.opened.writer.sync()
        for batch in self._pending:
            self.opened.sums.apply_batch(batch)
        self._pending = []

    def checkpoint(self) -> None:
        self.opened.save_checkpoint(recorded_sizes(self.model.volumes))


def recorded_sizes(volumes: VolumeSet) -> dict[str, VolumeRecord]:
    """Records of volumes that have only a size."""
    nowhere = Identity(0, 0, False)
    return {volume.name: VolumeRecord(volume.size, nowhere, 0, 0) for volume in volumes}


def model_after(frames: Sequence[Recorded]) -> Model:
    model = Model()
    for frame in frames:
        model.apply(frame.operations)
    return model


def record_steps(
    path: pathlib.Path,
    steps: Sequence[tuple[int, str]],
    file_bytes: int,
    start_ns: int,
    commit_of: Callable[[int, str], tuple[str | None, CommitKind]],
) -> tuple[Journal, list[Recorded]]:
    """A journal of a frame a step: nanoseconds after the one before, and "write" or what a commit is made of.

    `commit_of` says the name and the kind of the commit, by the number of the frame and the word.
    """
    journal = make_journal(path)
    writer = open_writer(journal, file_bytes=file_bytes)
    written: list[Recorded] = []
    time_ns = start_ns
    for step, what in steps:
        time_ns += step
        durable = written[-1].position.lsn if written else 0
        if what == "write":
            batch = write_batch(len(written) % 64, len(written))
        else:
            batch = commit_batch(durable, *commit_of(len(written), what))
        written.append(append(writer, batch, time_ns=time_ns))
    writer.abandon()
    return journal, written
