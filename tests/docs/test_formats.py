"""The pages of formats say what the code says: metrics, tables of bytes, limits, and what a directory holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mirrortool.checksum import SUM_BYTES
from mirrortool.journal import format as layout
from mirrortool.journal import judgement
from mirrortool.journal.bases import basefile
from mirrortool.metrics import METRICS, PREFIX
from mirrortool.points import indexpart
from mirrortool.store import backingformat
from tests.docs.manual import items, page, table, value_of
from tests.docs.workshop import make_image, run
from tests.fakes.live import LiveRecorder

NOW_AND_THEN = {"copy.json", "received.json", "detached.json", "detached.log", "forked", "index", "promoting.json"}
"""In the directory of a journal that was without room, was promoted or read at a commit, or is a copy."""


def test_metrics_are_those_of_the_table() -> None:
    manual = page("mirrortool-metrics", 5)
    written = [(head, text) for head, text in items(manual.part("METRICS")) if "_" in head]
    assert written == [
        (f"Va {PREFIX}{each.name}", f"{each.kind.capitalize()} by {', '.join(each.labels)}. {each.help}")
        for each in METRICS
    ]
    labels = {head.removeprefix("Va ") for head, _ in items(manual.sub_part("Labels"))}
    assert labels == {label for each in METRICS for label in each.labels}


def format_tables() -> dict[str, list[tuple[str, ...]]]:
    """The tables of format.py's docstring by heading, each row as a tuple."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    heading = ""
    for line in (layout.__doc__ or "").splitlines():
        if re.fullmatch(r"(File|Frame) (header|body)", line):
            heading = line
            tables[heading] = []
        elif not line.startswith("    "):
            continue
        elif match := re.fullmatch(r" {4}(\d+) +(\d+) +(\w+) +(.+)| {4}(\w+) {2,}(.+)", line):
            tables[heading].append(tuple(filter(None, match.groups())))
        elif line.startswith(" " * 12):
            *row, meaning = tables[heading][-1]
            tables[heading][-1] = (*row, f"{meaning} {line.strip()}")
    return tables


@pytest.mark.parametrize(
    ("heading", "struct"), [("header", basefile.HEADER), ("volume", basefile.VOLUME), ("end record", basefile.END)]
)
def test_tables_of_a_base_are_those_of_the_code(heading: str, struct: Any) -> None:
    lines = page("mirrortool-journal", 5).sub_part(f"Base {heading}")
    rows = table(lines)
    in_code = " ".join((basefile.__doc__ or "").split())
    assert all(" ".join(row) in in_code for row in rows)
    assert lines[0].startswith(f"{struct.size} bytes")
    assert sum(int(size) for _, size, *_ in rows) == struct.size


def test_tables_of_an_index_are_those_of_the_code() -> None:
    in_code = " ".join((indexpart.__doc__ or "").split())
    header = table(page("mirrortool-journal", 5).sub_part("Index header"))
    columns = table(page("mirrortool-journal", 5).sub_part("Index columns"))
    assert all(" ".join(row) in in_code for row in (*header, *columns))
    assert sum(int(size) for _, size, *_ in header) == indexpart.HEADER.size
    sizes = [int(meaning.split()[0]) for _, meaning in columns]
    assert sizes == [*(column.itemsize for column in indexpart.FrameTable().columns()), 1, 8, 8, SUM_BYTES]


@pytest.mark.parametrize(("heading", "struct"), [("header", backingformat.HEADER), ("record", backingformat.RECORD)])
def test_tables_of_a_backing_are_those_of_the_code(heading: str, struct: Any) -> None:
    lines = page("mirrortool-mirror", 5).sub_part(f"Backing {heading}")
    rows = table(lines)
    in_code = " ".join((backingformat.__doc__ or "").split())
    assert len(rows) > 3 and all(" ".join(row) in in_code for row in rows)
    assert lines[0].startswith(f"{struct.size} bytes")
    assert sum(int(size) for _, size, *_ in rows) == struct.size


@pytest.mark.parametrize("heading", ["File header", "Frame header", "Frame body"])
def test_format_table_is_that_of_the_code(heading: str) -> None:
    rows = format_tables()[heading]
    assert len(rows) > 5
    assert table(page("mirrortool-journal", 5).sub_part(heading)) == rows


HEADERS = [("File header", layout.FILE_HEADER), ("Frame header", layout.FRAME_HEADER)]


@pytest.mark.parametrize(("heading", "struct"), HEADERS)
def test_format_table_has_no_gap(heading: str, struct: Any) -> None:
    lines = page("mirrortool-journal", 5).sub_part(heading)
    end = 0
    for offset, size, *_ in table(lines):
        assert int(offset) == end
        end += int(size)
    assert end == struct.size
    assert lines[0] == f"{end} bytes."


def test_format_has_the_chain_value() -> None:
    last = (layout.__doc__ or "").strip().split("\n\n")[-1]
    assert " ".join(last.split()) in page("mirrortool-journal", 5).plain()


def test_limits_are_those_of_the_code() -> None:
    rows = [(value, meaning) for value, meaning in table(page("mirrortool-journal", 5).sub_part("Limits"))]
    limits = [value_of(value) for value, _ in rows]
    assert limits == [
        layout.OPERATIONS_MAX,
        layout.PAYLOAD_BYTES_MAX,
        layout.LZ4_RATIO_MAX,
        layout.FILE_BYTES_TARGET,
        layout.FILE_AGE_NS_MAX // 10**9,
        64,
        (1 << 63) - 1,
        (1 << 62) - 1,
    ]


def test_torn_or_damage_table_is_that_of_the_code() -> None:
    rows: list[tuple[str, str]] = []
    for line in (judgement.__doc__ or "").splitlines():
        if match := re.fullmatch(r" {4}(\S.+?) {2,}(.+)", line):
            rows.append((match[1], match[2]))
        elif rows and line.startswith(" " * 20):
            rows[-1] = rows[-1][0], f"{rows[-1][1]} {line.strip()}"
    assert len(rows) > 4
    assert table(page("mirrortool-journal", 5).sub_part("Torn tail or damage")) == rows


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(("manual", "path"), [("mirrortool-journal", "journal"), ("mirrortool-mirror", "elsewhere")])
def test_directory_is_described(manual: str, path: str) -> None:
    heads = {head.removeprefix("Pa ").rstrip("/") for head, _ in items(page(manual, 5).sub_part("Directory"))}
    is_journal = manual == "mirrortool-journal"
    now_and_then = {"control.sock", "reserve", "seen.json", *NOW_AND_THEN} if is_journal else set()
    assert now_and_then <= heads
    assert {each.name for each in Path(path).iterdir()} == heads - now_and_then


def test_directory_of_a_live_recording_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    heads = {
        head.removeprefix("Pa ").rstrip("/") for head, _ in items(page("mirrortool-journal", 5).sub_part("Directory"))
    }
    with LiveRecorder(tmp_path / "journal", "--when-full", "detach"):
        # What ends with .new is there only while the recorder replaces a small file.
        names = {each.name for each in Path("journal").iterdir() if each.suffix != ".new"}
        assert names == heads - NOW_AND_THEN - {"slots"}
