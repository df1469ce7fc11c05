"""What the journal lacks is noted durably, at the same cost however much that is, whatever ends the recorder."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import files
from mirrortool.errors import InputOutputError
from mirrortool.journal.directory import Journal
from mirrortool.record import missingsegments as module
from mirrortool.record.missingsegments import NotedSegments, load_noted
from tests.fakes.disk import fail_at, faulty
from tests.fakes.journals import JournalMaker, memory_directory


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def journal(directory: Path) -> Journal:
    shutil.rmtree(directory / "j", ignore_errors=True)
    return JournalMaker(directory / "j", {"disk": 8192}).close()


def log_of(journal: Journal) -> Path:
    return Path(journal.detached_log_path)


CHANGES = st.lists(
    st.tuples(st.booleans(), st.sets(st.integers(0, 1 << 38), min_size=1, max_size=4) | st.just({1, 2})), max_size=12
)


@given(changes=CHANGES, records_min=st.integers(0, 8), data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_of_the_last_append_is_lost_the_others_hold(
    directory: Path, changes: list[tuple[bool, set[int]]], records_min: int, data: st.DataObject
) -> None:
    shutil.rmtree(directory / "g", ignore_errors=True)
    journal = JournalMaker(directory / "g", {"disk": 8192}).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RECORDS_MIN", records_min)
        noted, model = NotedSegments(journal), set[int]()
        states = [set(model)]
        for is_gone, segments in changes:
            for segment in sorted(segments):
                states.append(set(model))
                if is_gone and segment in model:
                    noted.remove(segment)
                    model.discard(segment)
                elif not is_gone:
                    noted.add({segment})
                    model.add(segment)
            assert noted.segments == model == load_noted(journal).segments
        log = log_of(journal)
        whole = log.read_bytes()
        if whole:  # the last record is torn, or only its block was written and others are zeros
            at = data.draw(st.integers(len(whole) - 16, len(whole) - 1))
            tail = data.draw(st.sampled_from([b"", bytes(len(whole) - at), b"\xff"]))
            log.write_bytes(whole[:at] + tail)
            again = NotedSegments(journal)
            assert again.segments == model or again.segments in states
            again.add({7})
            assert load_noted(journal).segments == again.segments | {7}


def test_a_record_behind_one_that_was_lost_never_counts_again(journal: Journal) -> None:
    noted = NotedSegments(journal)
    noted.add({1, 2, 3})
    log = log_of(journal)
    whole = log.read_bytes()
    log.write_bytes(bytes(16) + whole[16:])  # a power cut may lose any blocks of what was being appended
    noted = NotedSegments(journal)
    assert noted.segments == set()
    noted.add({5})
    assert load_noted(journal).segments == {5}


def test_the_log_of_a_detachment_before_says_nothing(journal: Journal) -> None:
    noted = NotedSegments(journal)
    noted.add({1, 2})
    Path(journal.detached_path).unlink()  # what promote and a scan do
    assert load_noted(journal) == (set(), 0)
    noted = NotedSegments(journal)
    assert noted.segments == set() == load_noted(journal).segments
    noted.end()
    assert not log_of(journal).exists() and not Path(journal.detached_path).exists()


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
def test_what_could_not_be_noted_is_not_noted(journal: Journal, name: str) -> None:
    noted = NotedSegments(journal)
    noted.add({1})
    with faulty(fail_at(1, errno.EIO, lambda call: call.name == name)), pytest.raises(InputOutputError):
        noted.add({2, 3, 4})
    assert noted.segments == {1}
    noted.add({9})
    assert load_noted(journal).segments == {1, 9}


def test_noting_costs_the_same_however_much_is_noted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is written anew for each would write a hundred times as much."""
    written = 0
    real = files.File.pwrite

    def pwrite(file: files.File, data: bytes, offset: int) -> None:
        nonlocal written
        written += len(data)
        real(file, data, offset)

    monkeypatch.setattr(files.File, "pwrite", pwrite)
    monkeypatch.setattr(files.File, "fdatasync", lambda _: None)
    monkeypatch.setattr(files, "sync_name", lambda _: None)
    monkeypatch.setattr(module, "RECORDS_MIN", 64)
    noted, count = NotedSegments(journal), 3000
    for segment in range(count):
        noted.add({segment * 1000})
    for segment in range(count):
        noted.remove(segment * 1000)
    assert load_noted(journal).segments == set()
    assert written < 2 * count * 16 * 20
