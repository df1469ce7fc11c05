"""Small JSON files, in which every field is checked, because they may come from another host.

A file that does not parse, or a field of another type or outside its limits, raises the error class that the caller
names. Integers that must survive other JSON readers (sums, chain values) are written as hexadecimal text.

Each has a format, 1 where the field is missing. One of a later format was written by a newer mirrortool, which then
says with `needs` which one reads it. It is refused, by NewerJournalError or NewerMirrorError, and not taken for one
that is not valid: what is not valid is made anew in some places, or ignored.

Paths are bytes. In JSON they are what UTF-8 makes of these, with surrogates for bytes that are none; in the program
what the locale makes of them. So what was recorded under one locale is found under another, such as cron's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mirrortool import files
from mirrortool.errors import USE_A_LATER_ONE, JournalError, MirrortoolError, NewerJournalError, NewerMirrorError

INTEGER_MAX = (1 << 64) - 1
FORMAT = 1
"""Of every small file now, but mirror.json."""
MIRROR_FORMAT = 3
"""Of mirror.json, the newest; mirror/keptvolume.py says what needs which."""
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", re.ASCII)


class Fields:
    """A JSON object, read field by field."""

    def __init__(
        self, values: Mapping[str, Any], path: str, error: type[MirrortoolError], remedy: str | None = None
    ) -> None:
        self._values = values
        self._path = path
        self._error = error
        self._remedy = remedy

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def integer(self, name: str, most: int = INTEGER_MAX) -> int:
        """A number from 0 to `most`."""
        value = self._values.get(name)
        if type(value) is not int or not 0 <= value <= most:
            raise self.wrong(name)
        return value

    def signed(self, name: str) -> int:
        """A number that may be negative, such as a file's time before 1970."""
        value = self._values.get(name)
        if type(value) is not int or not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise self.wrong(name)
        return value

    def text(self, name: str) -> str:
        """Text that can be a path: without null bytes, and without surrogates that stand for no byte."""
        value = self._values.get(name)
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(name)
        try:
            files.path_bytes(value)
        except UnicodeEncodeError:
            raise self.wrong(name) from None
        return value

    def flag(self, name: str) -> bool:
        value = self._values.get(name)
        if not isinstance(value, bool):
            raise self.wrong(name)
        return value

    def hexadecimal(self, name: str, length: int) -> bytes:
        """Exactly `length` bytes, written as hexadecimal digits."""
        text = self.text(name)
        if len(text) != 2 * length:
            raise self.wrong(name)
        try:
            value = bytes.fromhex(text)
        except ValueError:
            raise self.wrong(name) from None
        if len(value) != length:  # there was white space
            raise self.wrong(name)
        return value

    def object(self, name: str) -> Fields:
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name)
        return Fields(value, self._path, self._error, self._remedy)

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(name)
        return [Fields(item, self._path, self._error, self._remedy) for item in value]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name)
        return value

    def integers(self, name: str) -> list[int]:
        """A list of numbers from 0 on."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(type(item) is int and 0 <= item <= INTEGER_MAX for item in value):
            raise self.wrong(name)
        return value

    def pairs(self, name: str) -> list[tuple[int, int]]:
        """A list of pairs of numbers from 0 on."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(map(_is_pair, value)):
            raise self.wrong(name)
        return [(first, second) for first, second in value]

    def names(self) -> list[str]:
        """The names of the fields."""
        return list(self._values)

    def named_objects(self) -> Iterator[tuple[str, Fields]]:
        """The fields of this object, each itself an object."""
        for name in self._values:
            yield name, self.object(name)

    def check_format(self, newer: type[MirrortoolError] | None = None, known: int = FORMAT) -> None:
        """Refuse what a newer mirrortool wrote in a later format.

        Args:
            newer, known: as of `load`.
        Raises:
            MirrortoolError: it is, or its format is not valid.
        """
        number = self.integer("format") if "format" in self else FORMAT
        if number > known:
            usual = NewerJournalError if issubclass(self._error, JournalError) else NewerMirrorError
            needs = self._values.get("needs")
            text = needs if isinstance(needs, str) and _VERSION.fullmatch(needs) else ""
            raise later_format(newer or usual, self._path, number, known, text)

    def changed(self, **values: Any) -> dict[str, Any]:
        """All fields, some with other values."""
        return {**self._values, **values}

    def wrong(self, name: str) -> MirrortoolError:
        """The error for a field that is missing or not valid."""
        return self._error(f"field {name!r} is missing or not valid", where=self._path, remedy=self._remedy)


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and 0 <= each <= INTEGER_MAX for each in value)
    )


def load(
    path: str,
    error: type[MirrortoolError],
    remedy: str | None = None,
    *,
    newer: type[MirrortoolError] | None = None,
    known: int = FORMAT,
) -> Fields | None:
    """The object in a file; None if there is no such file.

    Args:
        error: raised where it is not valid.
        remedy: what helps where it, or a field of it, is not valid.
        newer: raised where it is of a later format; by default NewerJournalError or NewerMirrorError, as `error` is.
        known: the newest format that is read.
    """
    data = files.read_small(path)
    if data is None:
        return None
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise error("is not JSON, or was cut short", where=path, remedy=remedy) from None
    if not isinstance(values, dict):
        raise error("is not a JSON object", where=path, remedy=remedy)
    fields = Fields(to_local(values), path, error, remedy)
    fields.check_format(newer, known)
    return fields


def later_format(error: type[MirrortoolError], where: str, number: int, known: int, needs: str = "") -> MirrortoolError:
    """The error for something of a later format.

    Args:
        needs: the mirrortool that reads it, as "0.3.0"; nothing where that is not known.
    """
    what = f"is of format {number}, and this mirrortool knows formats up to {known}: a newer one wrote it"
    remedy = f"use mirrortool {needs} or a later one" if needs else USE_A_LATER_ONE
    return error(what, where=where, remedy=remedy)


def save(path: str, values: Mapping[str, Any]) -> None:
    """Replace a file atomically and durably with an object."""
    files.replace_small(path, json.dumps(to_portable(values), indent=1).encode() + b"\n")


def to_portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the program's as it is written to a file, or sent to another host."""
    return dict(values) if _is_utf8() else _each_text(values, files.portable_path)


def to_local(values: Mapping[str, Any]) -> dict[str, Any]:
    """An object of a file, or of another host's, as the program has it."""
    return dict(values) if _is_utf8() else _each_text(values, files.local_path)


def _is_utf8() -> bool:
    return sys.getfilesystemencoding() == "utf-8"


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _each_text(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(each, change) for each in value]
    return value
