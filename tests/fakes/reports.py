"""What became of a test, as text that any runner can pass on.

Text with bytes that are not UTF-8 (a file's name, a program's output) ends pytest-xdist's workers, and with them the
run, without the name of the test that failed.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def sendable(value: object) -> object:
    """The same lists, mappings and numbers, with text that UTF-8 can hold: other characters are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {sendable(key): sendable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(sendable(each) for each in value)
    return value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Of a worker: what it sends to the runner."""
    return sendable((yield))
