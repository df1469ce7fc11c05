"""What a sender sends to a receiver: receiver.py, and the copy that it writes.

The first byte says what the receiver has before: nothing, a copy, or one that ends before the sender's oldest file. At
the end the copy must be a sound journal, whatever was said.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from mirrortool.errors import JournalError, PrunedJournalError, TornJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.basefile import check_sums
from mirrortool.journal.bases.listing import base_lsns, open_base
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.receiver import Receiver
from tests.fakes.journals import PAGE
from tests.fuzz import sealing
from tests.fuzz.memoryfiles import WritableFiles
from tests.fuzz.place import known_numbers, scratch
from tests.fuzz.targets.messages import decoded, encoded, mutate_messages
from tests.fuzz.targets.sending import conversation, shipped

MODULES = (
    "mirrortool.ship.receiver", "mirrortool.journal.copies.copy", "mirrortool.journal.copies.basetransfer",
    "mirrortool.journal.copies.arrivalchecks", "mirrortool.journal.copies.directory",
)  # fmt: skip
BYTES_MAX = 6000
TOKENS = (b"MJS1", layout.FRAME_MAGIC, layout.FILE_MAGIC, b'"offset": 0', b'"file": 1')


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    path = str(scratch() / "shipped/C")
    contents = shipped()[2] if data[0] & 1 else {}
    with WritableFiles(contents, [str(scratch() / "shipped")]), known_numbers():
        receiver = Receiver(path)
        try:
            for message in decoded(data[1:], 1 << 16):
                encoded(*receiver.handle(message))
                if data[0] & 2:
                    receiver.make_durable()
        finally:
            had_copy = receiver.has_copy
            receiver.close()
            if had_copy:
                _check(path, is_new=not data[0] & 1)


class UnsoundCopyError(Exception):
    """A copy holds what no reader accepts."""


def _check(path: str, *, is_new: bool) -> None:
    """What was stored passes verify. Of a copy that was there before, sizes of volumes are not known any more."""
    try:
        if is_new:
            Audit(path).run()
        else:
            _read(Journal(path))
    except (TornJournalError, PrunedJournalError):
        return
    except JournalError as error:
        raise UnsoundCopyError(str(error)) from error


def _read(journal: Journal) -> None:
    """Every frame decodes, continues the one before, and its pages have their sums; so do those of bases."""
    with JournalReader(journal) as reader:
        while frame := reader.next_frame():
            assert check_sums(frame.batch, PAGE)
    for lsn in base_lsns(journal):
        with open_base(journal, lsn) as base:
            assert sum(1 for _ in base.frames()) >= 0


def seeds() -> Iterator[bytes]:
    for is_behind in (False, True):
        sent = conversation(is_behind=is_behind).sent
        yield bytes([is_behind]) + encoded(*sent)
        yield bytes([is_behind + 2]) + encoded(*sent[:-2])
    yield b"\1" + encoded(Message(MessageKind.ALIVE, {}))


class _Stream:
    """Mends what DATA and PART carry, as what follows what the messages before carried."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._after: sealing.Chain | None = None
        self._place = (0, 0)

    def mend(self, kind: int, values: bytes, data: bytes) -> tuple[bytes, bytes]:
        if kind != MessageKind.DATA or self._chance.randrange(32) == 0:
            return values, data
        journal = shipped()[0]
        if data[:8] == layout.FILE_MAGIC:
            head = data[: layout.FILE_HEADER.size]
            first_lsn = int.from_bytes(head[56:64], "little")
            if self._after and self._chance.randrange(4):
                first_lsn = self._after.lsn + 1 & (1 << 64) - 1
                head = head[:56] + first_lsn.to_bytes(8, "little") + self._after.chain.to_bytes(8, "little") + head[72:]
            data, self._after = sealing.seal_frames(
                sealing.seal_journal_file(head, journal.uuid, PAGE, self._chance, journal.lineage)
                + data[layout.FILE_HEADER.size :], journal.uuid, PAGE, self._chance,
            )  # fmt: skip
            at, self._place = 0, (first_lsn, len(data))
        elif self._after:
            first_lsn, at = self._place
            sealed = b""
            while len(data) > 8 and 0 <= self._after.lsn < 1 << 63:
                seed = layout.frame_seed(journal.uuid, first_lsn & (1 << 64) - 1, at + len(sealed))
                frame = sealing.seal_frame(data, seed, PAGE, self._chance, self._after)
                sealed, data = sealed + frame, data[len(frame) :]
            data, self._place = sealed + data, (first_lsn, at + len(sealed))
        else:
            return values, data
        return json.dumps({"file": first_lsn, "offset": at}).encode(), data


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    if chance.randrange(3):
        data = bytes(libfuzzer(data, bytes_max))
    return data[:1] + mutate_messages(data[1:], chance, _Stream(chance).mend)
