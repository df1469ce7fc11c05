"""Journal files, read as `verify`, `ship`, `log` and a search for a commit read them: reader.py and what it uses.

The first byte says how they are read. The others are the files, one after another: each begins where a file's magic is,
and has the name that its header asks for.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from mirrortool import files
from mirrortool.journal import commits, pointlookup
from mirrortool.journal import format as layout
from mirrortool.journal.audit import Audit
from mirrortool.journal.description import Description
from mirrortool.journal.directory import Journal
from mirrortool.journal.newest import HeadWatch
from mirrortool.journal.point import Until
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import RunReader, find_end, position_at
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import Batch, CommitKind
from tests.fakes.journals import PAGE, START_NS, Commit, Resize, Write, Zero
from tests.fuzz import sealing
from tests.fuzz.memoryfiles import MemoryFiles
from tests.fuzz.place import journal_maker

MODULES = (
    "mirrortool.journal.reader", "mirrortool.journal.journalfile", "mirrortool.journal.judgement",
    "mirrortool.journal.audit", "mirrortool.journal.rawframes", "mirrortool.journal.codec", "mirrortool.journal.bounds",
    "mirrortool.journal.commits", "mirrortool.journal.newest", "mirrortool.journal.pointlookup",
)  # fmt: skip
BYTES_MAX = 3000
FILES_MAX = 3
TOKENS = (layout.FRAME_MAGIC, layout.FILE_MAGIC, b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"nightly")
SIZES = {"a": 8 * PAGE, "b": 5 * PAGE + 100}


@functools.cache
def journal() -> Journal:
    """The journal of which the files are."""
    return journal_maker("journalfiles", SIZES).abandon()


@functools.cache
def _described() -> tuple[Description, bytes]:
    """What journal.json says, and its bytes."""
    return journal().description, Path(journal().path, "journal.json").read_bytes()


def _files_in(data: bytes) -> dict[str, bytes]:
    """The files of an input, by path."""
    parts = data.split(layout.FILE_MAGIC)[: FILES_MAX + 1]
    found = {f"{journal().path}/journal.json": _described()[1]}
    for number, part in enumerate(parts if len(parts) == 1 else parts[1:]):
        content = layout.FILE_MAGIC + part if len(parts) > 1 else part
        first_lsn = int.from_bytes(content[56:64], "little") if number else 1
        found.setdefault(journal().file_path(first_lsn or 1), content)
    return found


def fuzz_one(data: bytes) -> None:
    read = WAYS[data[0] % len(WAYS)] if data else _audit
    path = journal().path
    with MemoryFiles(_files_in(data[1:])):
        read(Journal(path, description=_described()[0]))


def _audit(found: Journal) -> None:
    seen = [0, 0]

    def count(_: object, batch: Batch) -> None:
        seen[0] += 1
        seen[1] += len(batch)

    result = Audit(found.path, on_frame=count).run()
    assert (result.frames, result.operations) == tuple(seen)


def _runs(found: Journal) -> None:
    """What is shipped is the bytes of the files, in order."""
    end = find_end(found)
    sent = bytearray()
    with RunReader(found) as reader:
        while run := reader.next_run(1000):
            sent += run.data
            assert run.start.lsn < run.position.lsn <= reader.position.lsn
    assert reader.position.lsn <= end.lsn
    assert len(sent) <= sum(files.open_file(found.file_path(each)).size() for each in found.file_starts())


def _newest(found: Journal) -> None:
    with HeadWatch(found) as watch:
        head = watch.look()
        assert 0 <= head.commit_lsn <= head.lsn
    list(commits.newest_commits(found, 5))
    pointlookup.require_commit(found)


def _point(text: str) -> Callable[[Journal], None]:
    def look_up(found: Journal) -> None:
        commit = pointlookup.require_commit(found, Until.parse(text), commits.is_state)
        assert commit.lsn and len(list(pointlookup.commits_from(found, Until.parse(text)))) >= 0

    return look_up


def _seek(found: Journal) -> None:
    position_at(found, 3)
    with JournalReader(found, Position(5, 1)) as reader:
        while reader.next_frame():
            pass


def _headers(found: Journal) -> None:
    with JournalReader(found, headers_only=True) as reader:
        lsn = 0
        while header := reader.next_header():
            assert header.position.lsn > lsn
            lsn = header.position.lsn
            reader.batch(payload=False)


WAYS: tuple[Callable[[Journal], None], ...] = (
    _audit, _runs, _newest, _seek, _headers, _point("3"), _point("nightly"), _point(f"@{START_NS + 2_000_000}"),
)  # fmt: skip


def _bytes(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted((path / "files").iterdir()))


@functools.cache
def _made() -> tuple[bytes, ...]:
    """What the writer made: one file, and several."""
    made = []
    for number, file_bytes in enumerate((64 << 20, 400)):
        maker = journal_maker(f"made{number}", SIZES, file_bytes=file_bytes)
        maker.frame(Write("a", 1, b"a" * PAGE), Commit())
        maker.frame(Zero("b", 0, 3), Resize("a", 3 * PAGE), Commit("nightly"))
        maker.frame(Write("b", 0, bytes(range(256)) * 4))
        maker.frame(Commit(kind=CommitKind.SCAN))
        made.append(_bytes(Path(maker.abandon().path)))
    return tuple(made)


def seeds() -> Iterator[bytes]:
    for way in range(len(WAYS)):
        for data in _made():
            yield bytes([way]) + data
    yield b"\0" + _made()[0][:-5]
    yield b"\0"


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    mutated = bytes(libfuzzer(data, bytes_max))
    way, parts = mutated[:1], mutated[1:].split(layout.FILE_MAGIC)
    if len(parts) == 1:
        parts = [b"", *parts]
    sealed = [
        sealing.seal_journal_file(layout.FILE_MAGIC + part, journal().uuid, PAGE, chance, journal().lineage)
        for part in parts[1:]
    ]
    return way + b"".join(_linked(sealed, chance))


def _linked(files: list[bytes], chance: random.Random) -> list[bytes]:
    """Files of which each begins where the one before ends."""
    linked: list[bytes] = []
    after = sealing.Chain(0, layout.first_chain(journal().uuid))
    for number, each in enumerate(files):
        head = bytearray(each[:128].ljust(128, b"\0"))
        if number == 0 or not sealing.is_left_wrong(chance):
            head[56:64] = (after.lsn + 1 & (1 << 64) - 1).to_bytes(8, "little")
            head[64:72] = after.chain.to_bytes(8, "little")
            head[72:80] = after.time_ns.to_bytes(8, "little")
        part, after = sealing.seal_frames(bytes(head) + each[128:], journal().uuid, PAGE, chance)
        linked.append(part)
        if not 0 <= after.lsn < 1 << 63:
            break
    return linked
