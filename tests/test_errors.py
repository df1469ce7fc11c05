"""The tree in the docstring of mirrortool/errors.py is the tree of classes; errors say what, where, and the remedy."""

from __future__ import annotations

import errno
import inspect
import re

import pytest

from mirrortool import errors
from mirrortool.errors import HostError, MirrortoolError, TornJournalError, host_error

ROW = re.compile(r"^    ( *)(\w+Error) +(\d+)(?:-(\d+))?", re.MULTILINE)


def classes() -> dict[str, type[MirrortoolError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: each for name, each in found if issubclass(each, MirrortoolError)}


def documented() -> list[tuple[str, str, int, int]]:
    """(name, name of its base, lowest code, highest code), by indentation."""
    rows, above = [], ["Exception"]
    for indent, name, low, high in ROW.findall(errors.__doc__ or ""):
        depth = len(indent) // 2
        above[depth + 1 :] = [name]
        rows.append((name, above[depth], int(low), int(high or low)))
    return rows


def test_every_class_is_in_the_tree() -> None:
    assert {name for name, *_ in documented()} == set(classes())


@pytest.mark.parametrize(("name", "base", "low", "high"), documented())
def test_a_class_has_the_base_and_exit_code_of_the_tree(name: str, base: str, low: int, high: int) -> None:
    each = classes()[name]
    assert each.__base__ is not None
    assert each.__base__.__name__ == base
    assert low <= each.exit_code <= high


def test_only_bugs_end_with_70_and_only_what_verify_found_with_1() -> None:
    codes = {name: each.exit_code for name, each in classes().items()}
    assert [name for name, code in codes.items() if code in (0, 1)] == ["KnownBadError"]
    assert [name for name, code in codes.items() if code > errors.EXIT_CODE_MAX] == ["MirrortoolError"]
    assert MirrortoolError.exit_code == 70


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MirrortoolError("broken"), "broken"),
        (MirrortoolError("broken", where="/x"), "/x: broken"),
        (MirrortoolError("broken", remedy="mend it"), "broken; mend it"),
        (MirrortoolError("broken", where="/x", remedy="mend it"), "/x: broken; mend it"),
        (TornJournalError("torn", where="f", remedy="wait", offset=7), "f: torn; wait"),
    ],
)
def test_an_error_says_where_what_and_the_remedy(error: MirrortoolError, text: str) -> None:
    assert str(error) == text


def test_a_torn_tail_says_where_it_begins() -> None:
    error = TornJournalError("torn", where="f", remedy="wait", offset=7)
    assert (error.path, error.offset) == ("f", 7)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.NoSpaceError),
        (errno.EDQUOT, errors.NoSpaceError),
        (errno.EFBIG, errors.NoSpaceError),
        (errno.EACCES, errors.AccessError),
        (errno.EROFS, errors.AccessError),
        (errno.ENOENT, errors.AccessError),
        (errno.EMFILE, errors.ExhaustedError),
        (errno.ENOMEM, errors.ExhaustedError),
        (errno.EIO, errors.InputOutputError),
        (errno.EREMOTEIO, errors.InputOutputError),
        (None, errors.InputOutputError),
    ],
)
def test_every_errno_has_a_class_and_a_remedy(number: int | None, kind: type[HostError]) -> None:
    cause = OSError("odd") if number is None else OSError(number, "text of the system")
    error = host_error(cause, "/x", "write")
    assert type(error) is kind
    assert error.where == "/x"
    assert error.what.startswith("cannot write: ")
    assert error.remedy
