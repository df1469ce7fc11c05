"""Bytes as a file header, or as a frame at one place of one journal: codec.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mirrortool.journal import codec
from mirrortool.journal import format as layout
from mirrortool.journal.codec import FrameError, FrameHeader, Stored
from mirrortool.journal.position import Position
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from tests.fuzz import sealing

MODULES = ("mirrortool.journal.codec", "mirrortool.operation")
PAGE = 512
SEED = 0x5EED
TOKENS = (layout.FRAME_MAGIC, layout.FILE_MAGIC, b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"mark")


def fuzz_one(data: bytes) -> None:
    if data[:8] == layout.FILE_MAGIC:
        _file_header(data)
        return
    try:
        header = codec.decode_frame_header(data[: layout.FRAME_HEADER.size], SEED, PAGE)
        body = data[layout.FRAME_HEADER.size :][: header.body_bytes]
        assert codec.stored_bytes(data) == layout.FRAME_HEADER.size + header.body_bytes
        if len(body) < header.body_bytes:
            return
        batch = codec.decode_body(header, body, PAGE)
    except FrameError:
        return
    _check(data, header, body, batch)


def _file_header(data: bytes) -> None:
    try:
        header = codec.decode_file_header(data)
    except FrameError:
        return
    again = codec.decode_file_header(codec.encode_file_header(header))
    assert again == header and header.start.lsn == header.first_lsn - 1


def _check(data: bytes, header: FrameHeader, body: bytes, batch: Batch) -> None:
    """What was decoded is what the writer would write so, and nothing else."""
    bare = codec.decode_body(header, body, PAGE, payload=False)
    assert (bare.kinds, bare.pages, bare.counts, bare.sums) == (batch.kinds, batch.pages, batch.counts, batch.sums)
    assert len(batch.payload) == PAGE * header.pages and batch.page_count == header.pages
    assert len(list(batch.operations(header.first_lsn))) == header.operations
    stored = Stored(header.codec, body[len(body) - header.payload_bytes :])
    buffers, position = codec.encode_frame(
        batch, stored, after=Position(header.first_lsn - 1, header.chain), time_ns=header.time_ns,
        state_sum=header.state_sum, captured=header.is_captured, seed=SEED,
    )  # fmt: skip
    assert b"".join(map(bytes, buffers)) == data[: layout.FRAME_HEADER.size + len(body)]
    assert position == header.position


def frame(batch: Batch, *, is_packed: bool = True) -> bytes:
    """A frame that the real writer makes of these operations."""
    stored = codec.compress(batch.payload) if is_packed else Stored(layout.CODEC_RAW, batch.payload)
    buffers, _ = codec.encode_frame(
        batch, stored, after=Position(40, 7), time_ns=10**18, state_sum=5, captured=is_packed, seed=SEED
    )
    return b"".join(map(bytes, buffers))


def batches() -> Iterator[Batch]:
    """Some of each kind."""
    for name, kind in ((None, CommitKind.FLUSH), ("nightly", CommitKind.SCAN), (None, CommitKind.HEARTBEAT)):
        builder = BatchBuilder(PAGE)
        builder.write(3, b"a" * PAGE + b"b" * PAGE)
        builder.zero(9, 5)
        builder.resize(1 << 39, 4096)
        builder.commit(kind, 12, name)
        yield builder.build()
    builder = BatchBuilder(PAGE)
    builder.write(1, bytes(range(256)) * 2)
    yield builder.build()
    builder = BatchBuilder(PAGE)
    builder.commit(CommitKind.INTERVAL, 1)
    yield builder.build()


def seeds() -> Iterator[bytes]:
    for batch in batches():
        yield frame(batch)
        yield frame(batch, is_packed=False)
    yield codec.encode_file_header(codec.FileHeader(PAGE, b"u" * 16, b"l" * 16, 3, 41, 7, 10**18, 5))


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    mutated = bytes(libfuzzer(data, bytes_max))
    if mutated[:8] == layout.FILE_MAGIC:
        return sealing.seal_file_header(mutated, chance)
    return sealing.seal_frame(mutated, SEED, PAGE, chance)
