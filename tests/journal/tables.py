"""Reads tables of `offset size field` rows: from docstrings, and from manual pages, rendered or not."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

_ROW = re.compile(r"^\s*(\d+)\s+(\d+)\s+([a-z][a-z_]*)\b", re.MULTILINE)
_STRUCT_FIELD = re.compile(r"(\d*)([sxBHIQ])")
_SIZES = {"s": 1, "x": 1, "B": 1, "H": 2, "I": 4, "Q": 8}


class Row(NamedTuple):
    """A field of a header; offset and size in bytes."""

    offset: int
    size: int
    name: str


def tables_of(text: str) -> list[list[Row]]:
    """The tables in a text; each begins with a row for offset 0."""
    tables: list[list[Row]] = []
    for offset, size, name in _ROW.findall(text):
        if offset == "0":
            tables.append([])
        if tables:
            tables[-1].append(Row(int(offset), int(size), name))
    return tables


def plain(roff: str) -> str:
    """A manual page's source with the columns of its tables side by side: mdoc lists and tbl alike."""
    text = re.sub(r"\\f[A-Z]|\\f\([A-Z]{2}|\\f\[\w*\]|\\&|T[{}]", "", roff).replace("\\(ha", "^").replace("\\-", "-")
    text = re.sub(r"^\.It\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\s+Ta\s+|\t|[;|@]", " ", text)
    return re.sub(r"\b(?:Va|Li|Fa|Cm|Dv|No|Sy|Em|Ql)\s+(?=[a-z])", "", text).replace('"', "")


def struct_fields(header: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of the fields of a little-endian struct; a run of padding is one field."""
    fields, offset = [], 0
    for count, code in _STRUCT_FIELD.findall(header.format.removeprefix("<")):
        number = int(count or 1)
        sizes = [number] if code in "sx" else [_SIZES[code]] * number
        for size in sizes:
            fields.append((offset, size))
            offset += size
    return fields
