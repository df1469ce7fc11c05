"""A volume of a recorder as an NBD server sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool.change import Change
from mirrortool.files import File
from mirrortool.nbd.export import Export
from mirrortool.nbd.transmission import merged
from mirrortool.record.nbdexport import RecorderExport
from tests.fakes.recorders import based, check_everywhere, quiet_recorder
from tests.fakes.volumes import PAGE, Primary, fast_directory, make_primary, pattern


@pytest.fixture
def primary() -> Iterator[Primary]:
    with fast_directory() as path:
        yield based(make_primary(path, {"a": pattern(1, 30 * PAGE + 5), "b": 9 * PAGE}))


def test_each_volume_is_an_export_of_its_name(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        a: Export = RecorderExport(recorder, "a")
        b: Export = RecorderExport(recorder, "b")
        assert (a.name, a.size, a.page_size, a.read_only, a.zeroes_fast) == ("a", 30 * PAGE + 5, PAGE, False, True)
        assert (b.name, b.size) == ("b", 9 * PAGE)
        assert b.description == f"mirrortool volume b of journal {recorder.journal.uuid.hex()}"


def test_what_one_connection_did_all_others_see(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        one, other = RecorderExport(recorder, "b"), RecorderExport(recorder, "b")
        one.change([Change(3, 5, b"hello"), Change(5, 2, None), Change(7 * PAGE, PAGE, memoryview(b"x" * PAGE))])
        buffer = bytearray(8)
        other.read_into(1, memoryview(buffer))
        assert buffer == b"\0\0he\0\0o\0"
        assert list(other.extents(0, 9 * PAGE)) == [(PAGE, False), (6 * PAGE, True), (PAGE, False), (PAGE, True)]
        other.cache(0, PAGE)
        other.flush()
        assert recorder.statistics().durable_lsn == recorder.statistics().head_lsn
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_space_that_is_wanted_again_is_kept(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        export = RecorderExport(recorder, "a")
        export.change([Change(0, 4 * PAGE, None, True), Change(8 * PAGE, 4 * PAGE, None)])
        runs = list(export.extents(0, 12 * PAGE))
        assert sum(run for run, is_hole in runs if not is_hole) == 8 * PAGE
        assert runs[-1] == (PAGE, True)
        recorder.close()
    content = primary.contents()["a"]
    assert not any(content[: 4 * PAGE]) and not any(content[8 * PAGE : 12 * PAGE])


def test_the_first_extent_does_not_cost_a_walk_of_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks with REQ_ONE asks often; of a volume in many pieces each answer must cost one."""
    block, pieces = 4096, 300
    with fast_directory() as path:
        primary = make_primary(path, {"a": 2 * pieces * block})
        for number in range(pieces):
            primary.write("a", 2 * number * block, b"x")
        real, asked = File.data_extents, []

        def data_extents(file: File, start: int, end: int) -> Iterator[tuple[int, int]]:
            for found in real(file, start, end):
                asked.append(found)
                yield found

        monkeypatch.setattr(File, "data_extents", data_extents)
        with quiet_recorder(primary) as recorder:
            export, size = RecorderExport(recorder, "a"), recorder.volumes["a"].size
            asked.clear()
            for number in range(0, 2 * pieces, 50):
                left = size - number * block
                assert merged(export.extents(number * block, left), left, 1) == [(block, False)]
                assert len(asked) <= 3  # a run ends where the next one begins
                asked.clear()
            assert len(list(export.extents(0, size))) == len(asked) * 2 == 2 * pieces
