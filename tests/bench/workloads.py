"""Data and floors for the ratios: what a bare loop, or the system's own tool, does with the same bytes."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.recovery import OpenJournal

PAGE = 4096
CHUNK = 1 << 20


@dataclass(frozen=True)
class Ratio:
    """Medians of interleaved runs; `ratio` above 1 means faster than the floor."""

    ours_s: float
    floor_s: float
    ratio: float
    runs: int

    def __str__(self) -> str:
        return f"{self.ratio:.2f} x  (ours {self.ours_s:.3f} s, floor {self.floor_s:.3f} s, median of {self.runs})"


def compare(ours: Callable[[], float], floor: Callable[[], float], runs: int = 5) -> Ratio:
    """Run both in turn, after one run that is not counted; the ratio is the median of the pairs'."""
    pairs = [(ours(), floor()) for _ in range(runs + 1)][1:]
    ratio = statistics.median(f / o for o, f in pairs)
    return Ratio(statistics.median(o for o, _ in pairs), statistics.median(f for _, f in pairs), ratio, runs)


def half_compressible(length: int, seed: int = 1) -> bytes:
    """Bytes of which LZ4 saves about half: each page is half random, half one byte."""
    source = random.Random(seed)
    pages = (
        source.randbytes(PAGE // 2) + bytes([source.randrange(1, 256)]) * (PAGE // 2) for _ in range(length // PAGE)
    )
    return b"".join(pages)


def make_image(path: Path, size: int) -> None:
    """A fully allocated image of half-compressible data."""
    block = half_compressible(16 * CHUNK)
    with path.open("wb") as file:
        for number in range(0, size, len(block)):
            # Distinct pages: the first bytes of each chunk carry its place.
            file.write(number.to_bytes(8, "big") + block[8:][: size - number])
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def random_write_journal(directory: Path, *, writes: int, space: int, frame_pages: int = 256) -> Journal:
    """A journal of random page writes over `space` bytes, each frame `frame_pages` of them, one commit at the end."""
    init(str(directory / "J"), [NewVolume("disk", str(directory / "disk.img"), space)], PAGE)
    source = random.Random(2)
    data = half_compressible(1 << 20)
    builder = BatchBuilder(PAGE)
    with OpenJournal(str(directory / "J")) as opened:
        writer, sums = opened.writer, opened.sums
        for first in range(0, writes, frame_pages):
            for _ in range(min(frame_pages, writes - first)):
                at = source.randrange(len(data) // PAGE) * PAGE
                builder.write(source.randrange(space // PAGE), data[at : at + PAGE])
            batch = builder.build()
            sums.apply_batch(batch)
            writer.append(batch, captured=True, state_sum=sums.state_sum)
        builder.commit(CommitKind.SCAN, writer.durable.lsn)
        writer.append(builder.build(), captured=True, state_sum=sums.state_sum)
        writer.sync()
        opened.save_checkpoint({})
    return Journal(str(directory / "J"))


def decoded_writes(journal: Journal) -> list[tuple[int, memoryview]]:
    """Every write of a journal as (offset, page), for a volume based at address 0."""
    writes = []
    with JournalReader(journal) as reader:
        while frame := reader.next_frame():
            payload = memoryview(frame.batch.payload)
            pages = frame.batch.pages[: frame.batch.page_count]
            writes += [(page * PAGE, payload[i * PAGE : i * PAGE + PAGE]) for i, page in enumerate(pages)]
    return writes


def pwrite_loop(path: Path, size: int, writes: Iterable[tuple[int, memoryview]]) -> float:
    """Seconds that a bare Python loop needs to write them to a fresh sparse file, and to make it durable."""
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, size)
    for offset, data in writes:
        os.pwrite(descriptor, data, offset)
    os.fdatasync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - started


def copy_and_sync(source: Path, target: Path) -> float:
    """Seconds of `cp` to a fresh file, and of making that durable."""
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(["cp", "--sparse=never", str(source), str(target)], check=True)
    subprocess.run(["sync", str(target)], check=True)
    return time.perf_counter() - started


def hash_loop(path: Path) -> float:
    """Seconds of a bare loop in two threads: pread a megabyte, xxh3-64 of each page."""
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size

    def work(first: int) -> None:
        buffer = memoryview(bytearray(CHUNK))
        digest = xxhash.xxh3_64_intdigest
        for offset in range(first, size, 2 * CHUNK):
            got = os.preadv(descriptor, [buffer], offset)
            for at in range(0, got, PAGE):
                digest(buffer[at : at + PAGE])

    threads = [threading.Thread(target=work, args=(number * CHUNK,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    return time.perf_counter() - started
