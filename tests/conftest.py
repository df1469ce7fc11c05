"""Fixtures for every test. Keep them few: what one folder needs alone belongs in that folder."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mirrortool import clock, files, hostinfo
from mirrortool.mirror import volumeregistry
from tests.fakes import environment
from tests.fakes.reports import pytest_report_to_serializable as pytest_report_to_serializable  # a hook

environment.clean_ours()
_numbers = map(str, itertools.count())

# Examples touch files, so the time of one says nothing.
settings.register_profile("mirrortool", deadline=None)
settings.load_profile("mirrortool")


@pytest.fixture(scope="session")
def _registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The registry of what fixtures make for several tests; below it, each test has one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("registries")
        patch.setenv(volumeregistry.PLACE, str(place))
        yield place


@pytest.fixture(autouse=True)
def _registry(_registries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes that are made mirrors' are noted in a registry of the test, by the programs that it starts, too.

    A loop device, or an inode, that one test gave back may be another's next.
    """
    monkeypatch.setenv(volumeregistry.PLACE, str(_registries / next(_numbers)))


@pytest.fixture(autouse=True)
def _process_settings() -> Iterator[None]:
    """What a test left set for the whole process, by dropping a recorder or a replay as a crash would, ends with it."""
    switch_seconds, collect_after = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(switch_seconds)
    gc.set_threshold(*collect_after)


def pytest_collection_finish() -> None:
    """What was collected stays as long as the process does: no garbage collection need visit it again.

    The others come a tenth as often as by default: tests make little garbage with cycles, and much that has none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7000)


class FakeClock:
    """Time that passes only when it is told to, or slept through.

    Attributes:
        ns: what `clock.now_ns` answers; set it back to see a clock that steps.
        elapsed: what `clock.monotonic` answers, in seconds.
    """

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * 10**9
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)
        self.elapsed += seconds


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Replaces the time of the whole tool."""
    fake = FakeClock()
    monkeypatch.setattr(clock, "now_ns", lambda: fake.ns)
    monkeypatch.setattr(clock, "monotonic", lambda: fake.elapsed)
    monkeypatch.setattr(clock, "sleep", fake.advance)
    return fake


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes nothing durable: for tests that read back what the same kernel wrote, thousands of times."""
    monkeypatch.setattr(files.File, "fdatasync", lambda _: None)
    monkeypatch.setattr(files, "sync_directory", lambda _: None)


@pytest.fixture
def other_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that wrote what is there is gone, and with it what it had not made durable."""
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another-boot")
