"""A log of fio's, imported into volumes that only count: fiolog.py and importloop.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from mirrortool.change import Change
from mirrortool.journal.position import Position
from mirrortool.openfile import File
from mirrortool.record.importers import readwindow
from mirrortool.record.importers.importloop import Import
from mirrortool.record.importers.logstep import Action
from mirrortool.record.importers.openlog import LogFormat, open_log
from mirrortool.volume import place

MODULES = ("mirrortool.record.importers.fiolog", "mirrortool.record.importers.importloop")
BYTES_MAX = 2048
TOKENS = (
    b"fio version 3 iolog\n", b"fio version 2 iolog\n", b" write ", b" trim ", b" sync ", b" datasync ", b" syncfs ",
    b" wait ", b" read ", b" sync_file_range ", b" open\n", b" close\n", b" add\n", b"disk", b"other", b"a.img",
    b" 0 4096\n", b" 4611686018427387904 ", b"\xd9\xa3",
)  # fmt: skip
VOLUMES = place([("disk", 1 << 20), ("other", 1000), ("third", 1 << 40)], 512)
MADE_UP_BYTES_MAX = 1 << 16


class MemoryLog(File):
    """A file that holds given bytes; with holes where a run of 64 KiB or more is zeros."""

    def __init__(self, data: bytes) -> None:
        super().__init__("log", -1)
        self._data = data

    def pread(self, length: int, offset: int) -> bytes:
        return self._data[offset : offset + length]

    def pread_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        (buffer,) = buffers
        data = self._data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def size(self) -> int:
        return len(self._data)

    def data_extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        middle = (start + end) // 2
        yield start, middle


class CountingRecorder:
    """Checks each change, and keeps none."""

    volumes = VOLUMES
    sizes: ClassVar[dict[str, int]] = {volume.name: volume.size for volume in VOLUMES}

    def __init__(self) -> None:
        self.data_bytes = 0
        self.position = Position(0, 0)

    def change(self, volume: str, changes: Sequence[Change]) -> None:
        for offset, length, data, _ in changes:
            assert offset >= 0 and length > 0 and offset + length <= self.sizes[volume]
            assert data is None or len(data) == length
            self.data_bytes += length if data is not None else 0

    def commit(self, name: str | None = None, *, durable: bool = True) -> Position:
        self.position = Position(self.position.lsn + 1, 0)
        return self.position

    def flush(self) -> None:
        return


def import_into_nothing(data: bytes, kind: LogFormat, **options: object) -> None:
    """What `mirrortool import` does with a log; a log of much made-up data is only checked."""
    recorder, window = CountingRecorder(), readwindow.DATA_BYTES
    readwindow.DATA_BYTES = readwindow.HEADER_BYTES  # memory for more costs more than all else
    try:
        log = open_log(MemoryLog(data), kind, VOLUMES, **options)  # type: ignore[arg-type]
    finally:
        readwindow.DATA_BYTES = window
    work = Import(recorder, log)
    work.check()
    is_made_up = kind == LogFormat.FIO
    if is_made_up and sum(step.length for step in log.steps() if step.action == Action.WRITE) > MADE_UP_BYTES_MAX:
        return
    result = work.run()
    assert result.commit == recorder.position
    assert is_made_up or recorder.data_bytes <= len(data)


def fuzz_one(data: bytes) -> None:
    import_into_nothing(data, LogFormat.FIO, mapped={"mapped": "third"}, seed=7)


def seeds() -> Iterator[bytes]:
    yield (
        b"fio version 3 iolog\n0 disk add\n1 disk open\n10 disk write 0 4096\n"
        b"20 disk trim 4096 8192\n30 disk sync 0 0\n"
        b"40 disk read 0 512\n50 other write 100 900\n60 disk datasync 0 0\n70 disk wait 5 0\n80 disk close\n"
    )
    yield b"fio version 2 iolog\n/x/disk add\n/x/disk open\nmapped write 1099511627000 700\n/x/disk syncfs 0 0\n\n"
    yield b"fio version 3 iolog \t\r\n1 a file write 0 1\n"
    yield b"fio version 2 iolog\n"
