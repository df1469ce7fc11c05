"""For all tests of commands."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.badinput import build, restore
from tests.fakes.volumes import inside_fast_directory


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of the test run come back: a command that was stopped leaves its own, as it is about to end."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    """What `build` made: input of every kind."""
    with inside_fast_directory() as directory:
        build()
        yield directory


@pytest.fixture
def place(built: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `build` made, as the current directory: for what changes nothing in it."""
    monkeypatch.chdir(built)
    return built


@pytest.fixture
def copy(built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal and the mirror, to be damaged; the volume is the one in `built`."""
    monkeypatch.chdir(tmp_path)
    restore(built)
    return tmp_path
