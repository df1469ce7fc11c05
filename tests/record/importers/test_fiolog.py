"""fio's iologs: lines become steps, data is what the manual page says, and what is no line of fio's is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.errors import BadLogError, UsageError
from mirrortool.files import open_file
from mirrortool.record.importers.fiolog import LINE_BYTES_MAX, FileMap, FioLog, seeded_data
from mirrortool.record.importers.logstep import PIECE_BYTES, Action, Step
from mirrortool.volume import place
from tests.record.importers.logs import fio_data, written

ONE = place([("disk", 1 << 30)], 4096)
TWO = place([("a", 1 << 30), ("b", 1 << 30)], 4096)
MEANINGS = {
    "write": Action.WRITE, "trim": Action.ZERO, "sync": Action.FLUSH, "datasync": Action.FLUSH, "syncfs": Action.FLUSH,
}  # fmt: skip
SILENT = ("read", "wait", "sync_file_range")
NAMES = ("/data/a", "/dev/b", "relative/a file")
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IO = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([*MEANINGS, *SILENT]), st.integers(0, 1 << 40), st.integers(0, 1 << 24)
)
FILE = st.tuples(st.sampled_from(NAMES), st.sampled_from(["add", "open", "close"]))


@contextmanager
def opened(path: str, file_map: FileMap | None = None, seed: int = 0) -> Iterator[FioLog]:
    with open_file(path) as file:
        yield FioLog(file, file_map or FileMap(ONE, {}, "disk"), seed)


def steps_of(path: str, file_map: FileMap | None = None) -> list[Step]:
    with opened(path, file_map) as log:
        return list(log.steps())


def text_of(version: int, lines: list[tuple[object, ...]]) -> bytes:
    """A log as fio writes it."""
    text = f"fio version {version} iolog\n"
    for number, line in enumerate(lines):
        time = (number * 7,) if version == 3 else ()
        text += " ".join(map(str, (*time, *line))) + "\n"
    return text.encode()


@FAST
@given(st.sampled_from([2, 3]), st.lists(st.one_of(IO, FILE), max_size=20))
def test_what_was_written_is_read(tmp_path: Path, version: int, lines: list[tuple[object, ...]]) -> None:
    mapped = {NAMES[0]: "a", NAMES[1]: "b", NAMES[2]: "a"}
    path = written(tmp_path / "log", text_of(version, lines))
    expected = []
    for number, line in enumerate(lines, 2):
        if len(line) == 4 and line[1] in MEANINGS:
            name, act, offset, length = line
            if MEANINGS[str(act)] == Action.FLUSH:
                expected.append((Action.FLUSH, number, "", 0, 0))
            elif length:
                expected.append((MEANINGS[str(act)], number, mapped[str(name)], offset, length))
    with opened(path, FileMap(TWO, mapped)) as log:
        found = [(step.action, step.number, step.volume, step.offset, step.length) for step in log.steps()]
        assert log.count() == len(lines) + 1
        assert found == expected
        assert [step.number for step in log.steps()] == [each[1] for each in expected], "a log can be read again"


def test_steps_know_where_their_line_is(tmp_path: Path) -> None:
    data = text_of(3, [("/x", "write", 0, 512), ("/x", "write", 512, 512)])
    found = steps_of(written(tmp_path / "log", data))
    assert [data[step.at :].split(b"\n")[0] for step in found] == [b"0 /x write 0 512", b"7 /x write 512 512"]


@pytest.mark.parametrize("count", [1000, 60_000])
def test_lines_across_what_is_read_at_once(tmp_path: Path, count: int) -> None:
    lines: list[tuple[object, ...]] = [("/a/long/enough/name", "write", 512 * number, 512) for number in range(count)]
    found = steps_of(written(tmp_path / "log", text_of(3, lines)))
    assert [step.offset for step in found] == [512 * number for number in range(count)]


# Data.


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
@pytest.mark.parametrize("length", [1, 512, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES - 5])
def test_data_is_what_the_manual_page_says(tmp_path: Path, seed: int, length: int) -> None:
    path = written(tmp_path / "log", text_of(2, [("/x", "read", 0, 512), ("/x", "write", 4608, length)]))
    with opened(path, seed=seed) as log:
        (step,) = log.steps()
        pieces = list(log.pieces(step))
    assert all(piece.data and len(piece.data) == piece.length <= PIECE_BYTES for piece in pieces)
    assert b"".join(piece.data or b"" for piece in pieces) == fio_data(seed, 3, 4608, length)


def test_data_of_a_known_write() -> None:
    """printf '0 17 4096' | openssl dgst -shake128 -xoflen 16"""
    assert seeded_data(0, 17, 4096, 16).hex() == "418c498f872db1514df34684440a26b2"


# Files and volumes.

MAPS: list[tuple[Mapping[str, str], str | None, list[str], list[str] | str]] = [
    ({}, None, ["/x/a", "/y/b", "/x/a"], ["a", "b", "a"]),
    ({"/x": "a", "/y": "b"}, None, ["/x", "/y"], ["a", "b"]),
    ({"/x": "a", "/y": "a"}, None, ["/x", "/y"], ["a", "a"]),
    ({"/x/b": "a"}, None, ["/x/b", "/y/b"], ["a", "b"]),
    ({}, "a", ["/x"], ["a"]),
    ({}, "a", ["/x", "/b"], ["a", "b"]),
    ({}, None, ["/x"], "line 2: no volume stands for /x; give --map FILE=VOLUME"),
    ({}, "a", ["/x", "/y"], "line 3: no volume stands for /y, as volume a stands for /x; give --map FILE=VOLUME"),
    ({}, None, ["/x/a", "/y/a"], "line 3: no volume stands for /y/a, as volume a stands for /x/a"),
    ({"/x": "a"}, "a", ["/y"], "line 2: no volume stands for /y, as volume a stands for /x"),
]


@pytest.mark.parametrize(("mapped", "default", "names", "expected"), MAPS)
def test_volumes_stand_for_files(
    tmp_path: Path, mapped: Mapping[str, str], default: str | None, names: list[str], expected: list[str] | str
) -> None:
    path = written(tmp_path / "log", text_of(3, [(name, "write", 0, 512) for name in names]))
    file_map = FileMap(TWO, mapped, default)
    if isinstance(expected, str):
        with pytest.raises(UsageError) as caught:
            steps_of(path, file_map)
        assert str(caught.value).startswith(f"{path}: {expected}")
    else:
        assert [step.volume for step in steps_of(path, file_map)] == expected


def test_file_that_is_only_read_needs_no_volume(tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = [("/y", "add"), ("/y", "read", 0, 512), ("/y", "sync", 0, 0)]
    found = steps_of(written(tmp_path / "log", text_of(3, lines)), FileMap(TWO, {}))
    assert [step.action for step in found] == [Action.FLUSH]


def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    found = steps_of(written(tmp_path / "log", b"fio version 2 iolog\n/\xff write 0 512\n"))
    assert [step.volume for step in found] == ["disk"]


# What is refused.

V2, V3 = b"fio version 2 iolog\n", b"fio version 3 iolog\n"
REFUSED = [
    (b"", "not a log of fio's"),
    (b"fio version 1 iolog\n", "not a log of fio's"),
    (b"fio version 22 iolog\n", "not a log of fio's"),
    (b"0,0,4096\n", "not a log of fio's"),
    (b"\x72\x68\x73\x77\x66\x73\x6a\x00" + bytes(1000) + b"\n", "give --format logwrites"),
    (bytes(1 << 20), "not a log of fio's"),
    (V3[:-1], "not a log of fio's"),
    (V3 + b"0 /x add\n7 /x write 0 40", "line 3: the last line has no end: the log was cut short"),
    (V3 + b"/x write 0 512\n", "line 2: it does not begin with a time"),
    (V3 + b"-1 /x write 0 512\n", "line 2: it does not begin with a time"),
    (V3 + b"7\n", "line 2: it is not FILE ACTION OFFSET LENGTH"),
    (V3 + b"7 /x\n", "line 2: it is not"),
    (V2 + b"/x\n", "line 2: it is not"),
    (V2 + b"/x write\n", "line 2: it is not"),
    (V2 + b"/x write 0\n", "line 2: it is not"),
    (V2 + b"/x write 0 -512\n", "line 2: it is not"),
    (V2 + b"/x write 0 0x200\n", "line 2: it is not"),
    (V2 + b"/x write 0 512.0\n", "line 2: it is not"),
    (V2 + b"/x write 0 " + b"9" * 21 + b"\n", "line 2: it is not"),
    (V2 + b"write 0 512\n", "line 2: it is not"),
    (V2 + b"/x remove\n", "line 2: it is not"),
    (V2 + b"/x add\n\n/x append 0 512\n", "line 4: append is not an action of fio's"),
    (
        V2 + b"/x write 0 99999999999999999999\n",
        "line 2: it reaches to byte 99999999999999999999, after the end of any volume",
    ),
    (V2 + b"/x trim 4611686018427387904 1\n", "after the end of any volume"),
    (V2 + b"/x" + b"x" * LINE_BYTES_MAX + b" write 0 512\n", "line 2: it has more than 4096 bytes"),
    (V2 + b"/x write 0 512\n" + b" " * (2 << 20), "line 3: it has more than 4096 bytes"),
]


@pytest.mark.parametrize(("data", "phrase"), REFUSED)
def test_refused(tmp_path: Path, data: bytes, phrase: str) -> None:
    path = written(tmp_path / "log", data)
    with pytest.raises(BadLogError) as caught:
        steps_of(path)
    assert phrase in str(caught.value) and str(caught.value).startswith(f"{path}: ")


def test_log_cut_at_any_byte_is_refused_or_ends_with_a_whole_line(tmp_path: Path) -> None:
    whole = text_of(3, [("/x", "add"), ("/x", "write", 0, 512), ("/x", "sync", 0, 0), ("/x", "trim", 512, 4096)])
    for end in range(len(whole)):
        path = written(tmp_path / "log", whole[:end])
        if end and whole[end - 1 : end] == b"\n":
            assert len(steps_of(path)) == max(0, whole[:end].count(b"\n") - 2)
        else:
            with pytest.raises(BadLogError):
                steps_of(path)


@FAST
@given(st.sampled_from([V2, V3]), st.binary(max_size=300))
def test_garbage_is_refused_or_makes_sense(tmp_path: Path, title: bytes, garbage: bytes) -> None:
    try:
        found = steps_of(written(tmp_path / "log", title + garbage))
    except (BadLogError, UsageError):
        return
    assert len(found) <= garbage.count(b"\n")
