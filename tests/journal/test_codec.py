"""A frame decodes to what was encoded, at its place only, and to nothing else after any change."""

from __future__ import annotations

import random
import struct
import tracemalloc
from array import array
from typing import Any

import lz4.block
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.address import ADDRESS_LIMIT
from mirrortool.checksum import Buffer
from mirrortool.journal import format as layout
from mirrortool.journal.codec import (
    FileHeader,
    FrameError,
    FrameHeader,
    ShortFrameError,
    Stored,
    compress,
    decode_body,
    decode_file_header,
    decode_frame_header,
    encode_file_header,
    encode_frame,
)
from mirrortool.journal.position import Position
from mirrortool.operation import MARK_NAME, Batch, BatchBuilder, CommitKind, Kind
from tests.journal.sample import PAGE, page_of

SEED = layout.frame_seed(bytes(16), 1, 128)
AFTER = Position(41, 42)
LAST_PAGE = ADDRESS_LIMIT // PAGE
FILE_HEADER = FileHeader(PAGE, bytes(range(16)), bytes(16), 3, 42, 5, 6, 7)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(Kind.WRITE), st.integers(0, LAST_PAGE - 3), st.binary(min_size=1, max_size=3)),
        st.tuples(st.just(Kind.ZERO), st.integers(0, LAST_PAGE - (1 << 40)), st.integers(1, 1 << 40)),
        st.tuples(st.just(Kind.RESIZE), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)),
    ),
    max_size=12,
)
COMMITS = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(CommitKind), st.integers(0, 41), st.from_regex(MARK_NAME, fullmatch=True) | st.none()),
)


def build(steps: list[tuple[Kind, int, Any]], commit: tuple[CommitKind, int, str | None] | None) -> Batch:
    builder = BatchBuilder(PAGE)
    for kind, page, what in steps:
        match kind:
            case Kind.WRITE:
                builder.write(page, b"".join(bytes([value]) * PAGE for value in what))
            case Kind.ZERO:
                builder.zero(page, what)
            case _:
                builder.resize(page, what)
    if commit:
        builder.commit(*commit)
    return builder.build()


def encode(batch: Batch, *, stored: Stored | None = None, seed: int = SEED, captured: bool = False) -> bytes:
    buffers, _ = encode_frame(
        batch, stored or compress(batch.payload), after=AFTER, time_ns=1, state_sum=2, captured=captured, seed=seed
    )
    return b"".join(buffers)


def decode(data: Buffer, seed: int = SEED) -> tuple[FrameHeader, Batch]:
    """Decode as the reader does: the frame is `data`, no more and no less."""
    header = decode_frame_header(data, seed, PAGE)
    body = memoryview(data)[layout.FRAME_HEADER.size :]
    if len(body) < header.body_bytes:
        raise ShortFrameError("short")
    return header, decode_body(header, body[: header.body_bytes], PAGE)


def columns(batch: Batch) -> tuple[object, ...]:
    return (batch.kinds, list(batch.pages), list(batch.counts), bytes(batch.sums), bytes(batch.payload), batch.name)


def sealed(*fields: Any, body: bytes = b"", seed: int = SEED) -> bytes:
    """A frame with these header fields, whatever they say, and right checksums."""
    header = layout.FRAME_HEADER.pack(*fields, xxhash.xxh3_64_intdigest(body), 0)[:-8]
    return header + struct.pack("<Q", xxhash.xxh3_64_intdigest(header, seed)) + body


def header_fields(**changes: Any) -> list[Any]:
    """The fields of a header of one ZERO, with changes."""
    fields: dict[str, Any] = {
        "magic": layout.FRAME_MAGIC, "operations": 1, "first_lsn": 42, "pages": 0, "payload": 0, "codec": 0, "flags": 0,
        "name": 0, "reserved": 0, "time": 1, "chain": 42, "state_sum": 2,
    }  # fmt: skip
    assert changes.keys() <= fields.keys()
    return list((fields | changes).values())


@given(STEPS, COMMITS, st.booleans())
def test_a_batch_survives(steps: list[Any], commit: Any, captured: bool) -> None:
    if not steps and not commit:
        return
    batch = build(steps, commit)
    expected = columns(batch)
    buffers, position = encode_frame(
        batch, compress(batch.payload), after=AFTER, time_ns=5, state_sum=6, captured=captured, seed=SEED
    )
    data = b"".join(buffers)
    header, decoded = decode(data)
    assert columns(decoded) == expected
    assert header.position == position
    assert position.lsn == AFTER.lsn + len(batch)
    assert (header.first_lsn, header.chain, header.time_ns, header.state_sum) == (42, 42, 5, 6)
    assert (header.is_captured, header.is_commit) == (captured, commit is not None)
    assert header.body_bytes == len(data) - layout.FRAME_HEADER.size


@given(STEPS, COMMITS)
def test_without_payload_everything_else_is_there(steps: list[Any], commit: Any) -> None:
    if not steps and not commit:
        return
    batch = build(steps, commit)
    header, _ = decode(data := encode(batch))
    decoded = decode_body(header, data[layout.FRAME_HEADER.size :], PAGE, payload=False)
    assert columns(decoded) == (*columns(batch)[:4], b"", batch.name)


def test_columns_of_any_sequence_are_encoded_alike() -> None:
    batch = build([(Kind.WRITE, 1, b"ab"), (Kind.ZERO, 5, 2)], None)
    as_lists = Batch(batch.kinds, list(batch.pages), list(batch.counts), batch.sums, batch.payload)
    assert encode(as_lists) == encode(batch)


def test_data_that_does_not_compress_is_stored_as_it_is() -> None:
    noise = b"".join(xxhash.xxh3_64_digest(struct.pack("<I", n)) for n in range(64))
    stored = compress(noise)
    assert (stored.codec, bytes(stored.data)) == (layout.CODEC_RAW, noise)
    builder = BatchBuilder(PAGE)
    builder.write(3, noise)
    header, decoded = decode(encode(builder.build()))
    assert header.codec == layout.CODEC_RAW
    assert bytes(decoded.payload) == noise


def test_a_long_payload_that_hardly_shrinks_is_stored_as_it_is() -> None:
    """Of what is encrypted already, a page or two of zeros are not worth the time of LZ4 for the whole."""
    noise = random.Random(1).randbytes(1 << 20)
    payload = noise[: 500 << 10] + bytes(8 << 10) + noise[508 << 10 :]
    assert len(lz4.block.compress(payload, store_size=False)) < len(payload)
    assert compress(payload).codec == layout.CODEC_RAW
    assert compress(bytes(len(payload))).codec == layout.CODEC_LZ4


def test_the_most_compressible_payload_keeps_to_the_ratio() -> None:
    builder = BatchBuilder(PAGE)
    builder.write(0, bytes(8 << 20))
    header, decoded = decode(encode(builder.build()))
    assert header.codec == layout.CODEC_LZ4
    assert len(decoded.payload) == 8 << 20


SAMPLE = encode(build([(Kind.WRITE, 7, b"ab"), (Kind.ZERO, 3, 4)], (CommitKind.FLUSH, 3, "mark")))


@pytest.mark.parametrize("bit", range(8))
def test_a_flip_of_any_bit_is_refused(bit: int) -> None:
    for offset in range(len(SAMPLE)):
        data = bytearray(SAMPLE)
        data[offset] ^= 1 << bit
        with pytest.raises(FrameError):
            decode(data)


def test_a_frame_cut_anywhere_is_short() -> None:
    for size in range(len(SAMPLE)):
        with pytest.raises(ShortFrameError):
            decode(SAMPLE[:size])


@pytest.mark.parametrize(
    "place",
    [(bytes(16), 1, 129), (bytes(16), 2, 128), (bytes(15) + b"\1", 1, 128)],
    ids=["offset", "file", "uuid"],
)
def test_a_frame_is_refused_at_another_place(place: tuple[bytes, int, int]) -> None:
    decode(SAMPLE)
    with pytest.raises(FrameError, match="checksum"):
        decode(SAMPLE, layout.frame_seed(*place))


def test_a_payload_cannot_pass_for_a_frame() -> None:
    """A client writes the very bytes of a frame of this journal, aligned as it likes; nowhere do they decode."""
    payload = SAMPLE.ljust(PAGE, b"\0")
    builder = BatchBuilder(PAGE)
    builder.write(0, payload)
    batch = builder.build()
    data = encode(batch, stored=Stored(layout.CODEC_RAW, batch.payload))
    inside = data.find(layout.FRAME_MAGIC, 1)
    assert inside > 0
    with pytest.raises(FrameError):
        decode_frame_header(data[inside:], layout.frame_seed(bytes(16), 1, 128 + inside), PAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"operations": 0},
        {"operations": layout.OPERATIONS_MAX + 1},
        {"operations": 0xFFFFFFFF},
        {"first_lsn": 0},
        {"first_lsn": (1 << 63) - 0},
        {"first_lsn": (1 << 64) - 1},
        {"pages": 1},
        {"pages": 0xFFFFFFFF, "payload": 0xFFFFFFFF},
        {"pages": layout.PAYLOAD_BYTES_MAX // PAGE + 1, "payload": layout.PAYLOAD_BYTES_MAX + PAGE},
        {"pages": 1, "payload": PAGE + 1},
        {"pages": 1, "payload": PAGE - 1},
        {"pages": 1, "payload": PAGE + 1, "codec": 1},
        {"pages": 1, "payload": 2, "codec": 1},
        {"payload": 1},
        {"codec": 2},
        {"codec": 255},
        {"flags": 4},
        {"flags": 255},
        {"reserved": 1},
        {"magic": b"MJF2"},
    ],
    ids=str,
)
def test_a_header_beyond_a_limit_is_refused_whatever_its_checksum_says(changes: dict[str, Any]) -> None:
    assert decode_frame_header(sealed(*header_fields()), SEED, PAGE)
    with pytest.raises(FrameError):
        decode_frame_header(sealed(*header_fields(**changes)), SEED, PAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"pages": 0xFFFFFFFF, "payload": 0xFFFFFFFF},
        {"operations": 0xFFFFFFFF},
        {"pages": layout.PAYLOAD_BYTES_MAX // PAGE, "payload": layout.PAYLOAD_BYTES_MAX},
        {"pages": layout.PAYLOAD_BYTES_MAX // PAGE, "payload": layout.PAYLOAD_BYTES_MAX // 200, "codec": 1},
    ],
    ids=str,
)
def test_what_a_small_file_claims_is_not_allocated(changes: dict[str, Any]) -> None:
    data = sealed(*header_fields(**changes)).ljust(100, b"\0")
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


def forged(
    kinds: bytes,
    pages: list[int],
    counts: list[int],
    *,
    name: bytes = b"",
    sums: bytes = b"",
    payload: bytes = b"",
    **changes: Any,
) -> bytes:
    """A frame with right checksums of whatever operations."""
    body = kinds + array("Q", pages).tobytes() + array("Q", counts).tobytes() + name + sums + payload
    flags = layout.FLAG_COMMIT if kinds and kinds[-1] in (Kind.COMMIT, Kind.MARK) else 0
    given = {"operations": len(kinds), "flags": flags, "name": len(name), "payload": len(payload)}
    return sealed(*header_fields(**(given | {"pages": len(sums) // 8} | changes)), body=body)


def lz4_of(size: int) -> bytes:
    packed: bytes = lz4.block.compress(bytes(size), store_size=False)
    return packed


ONE_PAGE: dict[str, Any] = {"sums": bytes(8), "payload": bytes(PAGE)}
MANY = (1 << 64) - 1


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("kind that", forged(b"\0", [0], [1])),
        ("kind that", forged(b"\6", [0], [1])),
        ("kind that", forged(b"\2\xff", [0, 0], [1, 1])),
        ("not flagged", forged(b"\4", [1], [0], flags=0)),
        ("not flagged", forged(b"\2", [0], [1], flags=layout.FLAG_COMMIT)),
        ("without a name", forged(b"\5", [1], [0])),
        ("without a name", forged(b"\4", [1], [0], name=b"mark")),
        ("without a name", forged(b"\2", [0], [1], name=b"mark")),
        ("proper name", forged(b"\5", [1], [0], name=b"1st")),
        ("proper name", forged(b"\5", [1], [0], name=b"m" * 65)),
        ("proper name", forged(b"\5", [1], [0], name=b"m\xff")),
        ("proper name", forged(b"\5", [1], [0], name=b"m\n")),
        ("proper name", forged(b"\5", [1], [0], name=b"m\x1b[2J")),
        ("commit of a kind", forged(b"\4", [0], [0])),
        ("commit of a kind", forged(b"\4", [7], [0])),
        ("durable", forged(b"\4", [1], [42])),
        ("durable", forged(b"\2\4", [0, 1], [1, 43])),
        ("durable", forged(b"\4", [1], [MANY])),
        ("last operation", forged(b"\4\2", [1, 0], [0, 1])),
        ("last operation", forged(b"\4\4", [1, 1], [0, 0])),
        ("no page", forged(b"\2", [0], [0])),
        ("no page", forged(b"\2\3", [0, 0], [0, 0])),
        ("address space", forged(b"\2", [LAST_PAGE], [1])),
        ("address space", forged(b"\2", [0], [LAST_PAGE + 1])),
        ("address space", forged(b"\2", [MANY], [1])),
        ("address space", forged(b"\2", [1], [MANY])),
        ("address space", forged(b"\1", [LAST_PAGE], [1], **ONE_PAGE)),
        ("add up", forged(b"\1", [0], [2], **ONE_PAGE)),
        ("add up", forged(b"\2", [0], [1], **ONE_PAGE)),
        ("add up", forged(b"\3", [0], [1], **ONE_PAGE)),
        ("add up", forged(b"\1", [0], [1])),
        ("add up", forged(b"\1\1", [0, 0], [1, 1], **ONE_PAGE)),
        ("decompress", forged(b"\1", [0], [1], sums=bytes(8), payload=b"\xff" * 20, codec=1)),
        ("another length", forged(b"\1", [0], [1], sums=bytes(8), payload=lz4_of(PAGE - 1), codec=1)),
        ("decompress", forged(b"\1", [0], [1], sums=bytes(8), payload=lz4_of(PAGE + 1), codec=1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_operation_that_no_recorder_writes_is_refused(why: str, data: bytes) -> None:
    with pytest.raises(FrameError, match=why):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        forged(b"\2", [LAST_PAGE - 1], [1]),
        forged(b"\2", [0], [LAST_PAGE]),
        forged(b"\3", [MANY], [MANY]),
        forged(b"\4", [4], [41]),
        forged(b"\2\4", [0, 1], [1, 42]),
        forged(b"\1", [0], [1], **ONE_PAGE),
    ],
)
def test_the_limits_themselves_are_allowed(data: bytes) -> None:
    decode(data)


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_error(data: bytes) -> None:
    for each in (data, layout.FRAME_MAGIC + data):
        with pytest.raises(FrameError):
            decode(each)


@given(st.binary(min_size=0, max_size=120), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1))
def test_garbage_with_right_checksums_decodes_or_is_a_frame_error(
    body: bytes, operations: int, pages: int, codec: int
) -> None:
    payload = len(body) - operations * 17 - pages * 8
    if payload >= 0:
        data = sealed(*header_fields(operations=operations, pages=pages, payload=payload, codec=codec), body=body)
        try:
            decode(data)
        except FrameError:
            pass


@pytest.mark.parametrize(
    "batch",
    [
        Batch(),
        Batch(b"\2" * (layout.OPERATIONS_MAX + 1)),
        Batch(b"\1", payload=memoryview(bytes(layout.PAYLOAD_BYTES_MAX + 1))),
    ],
    ids=["empty", "operations", "payload"],
)
def test_what_could_not_be_read_is_not_written(batch: Batch) -> None:
    with pytest.raises(AssertionError):
        encode(batch, stored=Stored(layout.CODEC_RAW, b""))


def test_a_file_header_survives() -> None:
    data = encode_file_header(FILE_HEADER)
    assert len(data) == layout.FILE_HEADER.size
    assert decode_file_header(data) == FILE_HEADER
    assert decode_file_header(data + b"frames") == FILE_HEADER
    assert FILE_HEADER.start == Position(41, 5)


def test_a_flip_of_any_bit_of_a_file_header_is_refused() -> None:
    whole = encode_file_header(FILE_HEADER)
    for offset in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[offset] ^= 1 << bit
            with pytest.raises(FrameError):
                decode_file_header(bytes(data))


def test_a_file_header_cut_anywhere_is_short() -> None:
    whole = encode_file_header(FILE_HEADER)
    for size in range(len(whole)):
        with pytest.raises(ShortFrameError):
            decode_file_header(whole[:size])


@pytest.mark.parametrize(
    "header",
    [FileHeader(0, bytes(16), bytes(16), 0, 1, 0, 0, 0), FileHeader(513, bytes(16), bytes(16), 0, 1, 0, 0, 0),
     FileHeader(PAGE, bytes(16), bytes(16), 0, 0, 0, 0, 0)],
    ids=["no page size", "odd page size", "LSN 0"],
)  # fmt: skip
def test_a_file_header_that_makes_no_sense_is_refused(header: FileHeader) -> None:
    with pytest.raises(FrameError):
        decode_file_header(encode_file_header(header))


def test_the_sample_pages_differ() -> None:
    assert len({page_of(value) for value in range(200)}) == 200
