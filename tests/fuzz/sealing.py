"""Checksums, lengths and chains after a mutation, so that what is behind them is fuzzed, too.

Each function gives bytes that are sealed as the real writer seals them, and otherwise as they came. By chance one thing
is left wrong, so that the checks themselves stay reachable.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import xxhash

from mirrortool.journal import format as layout

_LEFT_WRONG = 24
"""One in this many is left as it is."""


def digest(data: bytes, seed: int = 0) -> bytes:
    """xxh3-64 in little-endian, as every checksum of the formats is."""
    return xxhash.xxh3_64_intdigest(data, seed).to_bytes(8, "little")


def is_left_wrong(chance: random.Random) -> bool:
    """Whether this one is not mended."""
    return chance.randrange(_LEFT_WRONG) == 0


@dataclass
class Chain:
    """Where the next frame continues; `None` for as it came."""

    lsn: int
    chain: int
    time_ns: int = 0
    state_sum: int | None = None


def seal_frame(data: bytes, seed: int, page_size: int, chance: random.Random, after: Chain | None = None) -> bytes:
    """One frame at the start of `data`: its counts fit into what there is, its checksums are right.

    Returns the frame alone. `after` is moved to its end.
    """
    size = layout.FRAME_HEADER.size
    data = data.ljust(size, b"\0")
    magic, operations, lsn, pages, payload, codec, flags, name, reserved, time_ns, chain, state, _, _ = (
        layout.FRAME_HEADER.unpack_from(data)
    )
    body = data[size:]
    if chance.randrange(8) == 0:
        counts = [operations, pages, payload, name]
        at = chance.randrange(len(counts))
        counts[at] = chance.choice((0, 1, 2, 3, 8, counts[at] + 1, max(0, counts[at] - 1), chance.randrange(64)))
        columns_end = min(operations, len(body) // layout.COLUMN_BYTES) * layout.COLUMN_BYTES
        if at == 3:  # what follows a name moves with its end
            body = (
                body[:columns_end] + body[columns_end:][: counts[3]].ljust(counts[3], b"x") + body[columns_end + name :]
            )
        operations, pages, payload, name = counts[0] & 0xFFFFFFFF, counts[1], counts[2], counts[3] & 0xFFFF
        pages, payload = pages & 0xFFFFFFFF, payload & 0xFFFFFFFF
    if chance.randrange(4) == 0:
        body = _other_operation(body, min(operations, len(body) // layout.COLUMN_BYTES), chance)
    if chance.randrange(8):
        magic, reserved, flags = layout.FRAME_MAGIC, 0, flags & 3
    if chance.randrange(8):
        operations, name, pages, payload = _fitting(operations, name, pages, payload, body, chance)
        if codec == layout.CODEC_RAW and chance.randrange(4):
            payload = min(payload, pages * page_size)
    body = body[: operations * layout.COLUMN_BYTES + name + 8 * pages + payload]
    if after is not None:
        if not is_left_wrong(chance):
            lsn, chain = after.lsn + 1, after.chain
        if not is_left_wrong(chance):
            time_ns = max(after.time_ns, time_ns % (1 << 62))
        if after.state_sum is not None and not is_left_wrong(chance):
            state = after.state_sum
    checksum = 0 if is_left_wrong(chance) else xxhash.xxh3_64_intdigest(body)
    head = layout.FRAME_HEADER.pack(
        magic, operations, lsn, pages, payload, codec, flags, name, reserved, time_ns, chain, state, checksum, 0
    )[:-8]
    if after is not None:
        after.lsn, after.chain, after.time_ns = lsn + operations - 1, xxhash.xxh3_64_intdigest(head), time_ns
    return head + digest(head, (seed + is_left_wrong(chance)) & (1 << 64) - 1) + body


def _other_operation(body: bytes, operations: int, chance: random.Random) -> bytes:
    """Another kind, page or count in one of the operations."""
    if not operations:
        return body
    changed, index = bytearray(body), chance.randrange(operations)
    if chance.randrange(4) == 0:
        changed[index] = chance.randrange(7)
        return bytes(changed)
    at = operations + 8 * index + chance.choice((0, 8 * operations))
    value = int.from_bytes(changed[at : at + 8], "little")
    value = chance.choice((value + 1, value - 1, chance.randrange(10), value << 1, chance.getrandbits(64)))
    changed[at : at + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")
    return bytes(changed)


def _fitting(
    operations: int, name: int, pages: int, payload: int, body: bytes, chance: random.Random
) -> tuple[int, int, int, int]:
    """Counts that add up to the body, near to those that were there."""
    left = len(body)
    operations = min(operations, left // layout.COLUMN_BYTES)
    left -= operations * layout.COLUMN_BYTES
    name = min(name, left)
    left -= name
    if chance.randrange(2):  # as the operations say
        kinds = body[:operations]
        counts = [
            int.from_bytes(body[9 * operations + 8 * i : 9 * operations + 8 * i + 8], "little")
            for i, kind in enumerate(kinds)
            if kind == 1
        ]
        pages = min(sum(counts), (1 << 32) - 1)
    pages = min(pages, left // 8)
    left -= 8 * pages
    return operations, name, pages, min(payload, left)


def seal_file_header(data: bytes, chance: random.Random) -> bytes:
    """The header of a journal file."""
    head = data[:120].ljust(120, b"\0")
    return head + (data[120:128].ljust(8, b"\0") if is_left_wrong(chance) else digest(head))


def seal_journal_file(data: bytes, uuid: bytes, page_size: int, chance: random.Random, lineage: bytes) -> bytes:
    """The header of a file of this journal, in its first epoch; what follows it as it is."""
    if is_left_wrong(chance):
        return data
    pack = layout.FILE_HEADER.pack
    head = pack(layout.FILE_MAGIC, layout.VERSION, page_size, uuid, lineage, 0, 0, 0, 0, 0, 0, 0)
    return head[:56] + data[56:]


def seal_frames(data: bytes, uuid: bytes, page_size: int, chance: random.Random) -> tuple[bytes, Chain]:
    """A journal file, and where it ends: its header is sealed, and frames continue each other from there."""
    sealed = seal_file_header(data, chance)
    first_lsn, chain, time_ns = (int.from_bytes(sealed[at : at + 8], "little") for at in (56, 64, 72))
    after = Chain(first_lsn - 1, chain, time_ns)
    rest = data[len(sealed) :]
    while len(rest) > len(layout.FRAME_MAGIC) and 0 <= after.lsn < 1 << 63:
        seed = layout.frame_seed(uuid, first_lsn, len(sealed))
        frame = seal_frame(rest, seed, page_size, chance, after)
        sealed, rest = sealed + frame, rest[len(frame) :]
    return sealed + rest, after


def shuffled(parts: list[bytes], chance: random.Random) -> list[bytes]:
    """Parts with one of them repeated, removed, moved or swapped, or none."""
    parts = list(parts)
    if not parts:
        return parts
    at, to = chance.randrange(len(parts)), chance.randrange(len(parts))
    match chance.randrange(8):
        case 0:
            parts.insert(to, parts[at])
        case 1:
            del parts[at]
        case 2:
            parts[at], parts[to] = parts[to], parts[at]
    return parts
