"""The tables in mirrortool-journal(5) are those of journal/format.py, row by row."""

from __future__ import annotations

import os
import pathlib

import pytest

from mirrortool.journal import format as layout
from tests.journal.tables import plain, tables_of

MAN = pathlib.Path(__file__).parent.parent / "man"


@pytest.fixture
def page() -> str:
    found = list(MAN.rglob("mirrortool-journal.5"))
    if not found and os.environ.get("CI") != "true":
        pytest.skip("mirrortool-journal(5) is not written yet")
    (path,) = found
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [0, 1], ids=["file header", "frame header"])
def test_the_manual_page_has_the_rows_of_the_docstring(page: str, number: int) -> None:
    assert tables_of(plain(page))[number] == tables_of(layout.__doc__ or "")[number]


@pytest.mark.parametrize(
    "roff",
    [
        ".It 0 Ta 8 Ta magic Ta what\n.It 8 Ta 4 Ta first_lsn Ta more",
        ".It 0 Ta 8 Ta Va magic Ta what\n.It 8 Ta 4 Ta Va first_lsn Ta more",
        "0;8;magic;what\n8;4;first_lsn;more",
        "0\t8\t\\fBmagic\\fR\tT{\nwhat\nT}\n8\t4\tfirst_lsn\tmore",
        "    0      8    magic    what\n    8      4    first_lsn  more",
    ],
)
def test_every_way_to_set_a_table_is_understood(roff: str) -> None:
    assert tables_of(plain(roff)) == [[(0, 8, "magic"), (8, 4, "first_lsn")]]
