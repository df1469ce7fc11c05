"""An index is believed only as far as it is sound and of this very file; without one, all is read as well."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from mirrortool import files
from mirrortool.errors import CorruptJournalError, MirrortoolError, NoSpaceError
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.lsn import LAST_LSN, Lsn
from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.points import indexpart
from mirrortool.points.view import open_point
from mirrortool.replay.makebase import MakeBase
from tests.fakes.histories import History
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write
from tests.fakes.pointviews import check, contents, make_large_history
from tests.fakes.serial import volumes_at


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(indexpart, "PART_OPERATIONS", 9)
    return make_large_history(tmp_path / "journal", 3)


def indexes(journal: Journal) -> list[Path]:
    return sorted(Path(journal.indexes_path).glob("*"))


def bytes_read(journal: Journal, lsn: int, expected: dict[str, bytes]) -> int:
    """How much of the journal's files was read without an index, to see what was expected."""
    done = [0]

    def note(now: int, total: int) -> None:
        assert done[0] < now <= total
        done[0] = now

    with open_point(journal, Until(lsn=lsn), on_progress=note) as view:
        check(view, expected)
    return done[0]


def test_what_was_indexed_is_not_read_again(history: History) -> None:
    journal, lsn = history.journal, history.commits[-1]
    size = sum(Path(journal.file_path(start)).stat().st_size for start in journal.file_starts())
    assert bytes_read(journal, lsn, history.states[lsn]) > size // 2
    names = [path.name for path in indexes(journal)]
    assert len(names) >= len(journal.file_starts()) - 1
    assert all(name.endswith(".mj.index") for name in names)
    assert bytes_read(journal, lsn, history.states[lsn]) < size // 8  # the last file has frames that fill no part yet


def test_an_index_grows_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexpart, "PART_OPERATIONS", 4)
    maker = JournalMaker(tmp_path / "journal", {"a": 64 * PAGE})
    sizes = []
    for number in range(12):
        maker.frame(Write("a", number, bytes([number + 1]) * PAGE), Commit())
        bytes_read(maker.journal, maker.commits[-1], volumes_at(maker.journal, maker.commits[-1]))
        sizes.append(sum(path.stat().st_size for path in indexes(maker.journal)))
    maker.close()
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 7  # two frames fill a part


def flipped(path: Path) -> Iterator[None]:
    """Each byte of a header, and some of the columns, wrong in turn."""
    data = path.read_bytes()
    for place in (*range(128), *range(128, len(data), 97)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        yield
    for length in (0, 1, 127, 128, 200, len(data) - 1):
        path.write_bytes(data[:length])
        yield
    path.write_bytes(data)


@pytest.mark.parametrize("based", [False, True], ids=["file", "base"])
def test_a_damaged_index_is_made_anew(history: History, *, based: bool) -> None:
    journal, lsn = history.journal, history.commits[2]
    if based:
        with MakeBase(journal.path, Until(lsn=lsn)) as making:
            making.run()
    expected = history.states[lsn]
    assert bytes_read(journal, lsn, expected)
    path = next(path for path in indexes(journal) if path.name.endswith(".base.index") == based)
    for _ in flipped(path):
        bytes_read(journal, lsn, expected)


def test_the_index_of_another_history_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexpart, "PART_OPERATIONS", 2)
    maker = JournalMaker(tmp_path / "one", {"a": 64 * PAGE})
    maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for number in range(6):
        maker.frame(Write("a", number, bytes([number + 1]) * PAGE), Commit())
    maker.abandon()
    other = Journal(str(tmp_path / "other"))
    with JournalReader(other) as end:
        end.read_to(LAST_LSN)
        writer = JournalWriter(other, end)
    for number in range(6):
        builder = BatchBuilder(PAGE)
        builder.write(other.volumes.first_page(other.volumes["a"]) + number, bytes([number + 101]) * PAGE)
        builder.commit(CommitKind.FLUSH, Lsn(0))
        writer.append(builder.build(), captured=False, state_sum=0, time_ns=writer.time_ns)
    writer.sync()
    writer.abandon()
    newest = maker.commits[-1]
    bytes_read(maker.journal, newest, volumes_at(maker.journal))
    shutil.copytree(tmp_path / "one/index", tmp_path / "other/index")
    kept = indexes(other)[0].read_bytes()
    assert bytes_read(other, newest, volumes_at(other))
    assert bytes_read(other, newest, volumes_at(other)) == 0
    made = indexes(other)[0].read_bytes()
    first = len(made) // 7  # every part has a frame of the same size; that which both have is kept
    assert (kept[:first], len(kept)) == (made[:first], len(made))
    assert kept[first : 2 * first] != made[first : 2 * first]


@pytest.mark.parametrize("method", ["make_directory_unsynced", "open_file", "pwritev", "rename_unsynced"])
def test_a_journal_that_takes_no_index_is_read(history: History, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    place = files if hasattr(files, method) else File
    real: Callable[..., object] = getattr(place, method)

    def refuse(*args: object, **options: object) -> object:
        path = args[0] if place is files else args[0].path  # type: ignore[attr-defined]
        if "/index" in str(path) and (options.get("create") or method != "open_file"):
            raise NoSpaceError("full", where=path)
        return real(*args, **options)

    monkeypatch.setattr(place, method, refuse)
    for lsn in history.commits[:3]:
        assert bytes_read(history.journal, lsn, history.states[lsn])
    assert not any(path.is_file() for path in indexes(history.journal))


def test_what_is_done_of_an_index_is_kept_when_it_ends_early(history: History) -> None:
    journal, lsn = history.journal, history.commits[-1]
    calls = 0

    def stop(_done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_point(journal, Until(lsn=lsn), on_progress=stop)
    assert {path.suffix for path in indexes(journal)} == {".index"}
    bytes_read(journal, lsn, history.states[lsn])


def test_damage_in_a_page_is_named_when_it_is_read(history: History) -> None:
    journal, lsn = history.journal, history.commits[-1]
    bytes_read(journal, lsn, history.states[lsn])
    path = Path(journal.file_path(journal.file_starts()[0]))
    data = bytearray(path.read_bytes())
    data[300:] = bytes(byte ^ 1 for byte in data[300:])
    path.write_bytes(data)
    with pytest.raises(CorruptJournalError, match=r"damaged at offset|does not continue"):
        bytes_read(journal, lsn, history.states[lsn])


@pytest.mark.parametrize("based", [False, True], ids=["file", "base"])
def test_an_index_that_was_made_to_do_harm_ends_in_an_error_at_worst(history: History, *, based: bool) -> None:
    """Its checksums are right; the fields are not. It is in the journal, which is no more to be trusted."""
    journal, lsn = history.journal, history.commits[-3]
    if based:
        with MakeBase(journal.path, Until(lsn=lsn)) as making:
            making.run()
    bytes_read(journal, lsn, history.states[lsn])
    path = next(path for path in indexes(journal) if path.name.endswith(".base.index") == based)
    whole = path.read_bytes()
    draw = random.Random(based)
    ends = 0
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])):
            place, size = draw.randrange(40, len(data) - 8), draw.choice([1, 4, 8])
            data[place : place + size] = draw.choice([bytes(size), b"\xff" * size, draw.randbytes(size)])
        path.write_bytes(sealed(data))
        try:
            with open_point(journal, Until(lsn=lsn)) as view:
                contents(view)
                for volume in view.volumes:
                    list(view.data_runs(view.volumes.first_page(volume), view.volumes.page_count(volume)))
        except MirrortoolError:
            ends += 1
    assert based or ends


def sealed(data: bytearray) -> bytes:
    """An index with the checksums that its parts must have, as far as their headers still say how long they are."""
    at = 0
    while at + indexpart.HEADER.size <= len(data):
        frames, operations, pages = struct.unpack_from("<III", data, at + 76)
        length = frames * indexpart.TABLE_ROW_BYTES + operations * 17 + pages * 8
        body = at + indexpart.HEADER.size
        struct.pack_into("<Q", data, at + 88, xxhash.xxh3_64_intdigest(data[body : body + length]))
        struct.pack_into("<Q", data, at + 120, xxhash.xxh3_64_intdigest(data[at : at + 120]))
        at = body + length
    return bytes(data)
