"""The service manager is told what sd_notify(3) says, and whatever becomes of it, the program continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import sdnotify
from mirrortool.sdnotify import Notifier
from tests.conftest import FakeClock
from tests.fakes.servicemanager import Manager

SELF = 4711


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@mirrortool-test{tmp_path}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    listening = Manager(address)
    yield listening
    listening.close()


def test_start_and_stop_are_told(address: str, manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, SELF)
    notifier.ready("serving")
    notifier.status("serving")
    notifier.status("no room\nREADY=0\x1b")
    notifier.alive()
    notifier.stopping()
    assert manager.heard() == ["READY=1\nSTATUS=serving", "STATUS=no room READY=0\x1b", "STOPPING=1\nSTATUS=stopping"]


def test_watchdog_is_answered_twice_in_its_time(address: str, manager: Manager, fake_clock: FakeClock) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(SELF)}, SELF)
    for _ in range(80):
        notifier.alive()
        fake_clock.advance(0.25)
    assert manager.heard() == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1"}, {"WATCHDOG_USEC": "-1"}])
def test_no_watchdog_of_ours_is_not_answered(address: str, manager: Manager, variables: dict[str, str]) -> None:
    Notifier({"NOTIFY_SOCKET": address, **variables}, SELF).alive()
    assert manager.heard() == []


@pytest.mark.parametrize("address", ["", "/nothing/there", "@nobody-listens", "vsock:2:1", "relative", "/" + "x" * 500])
def test_nobody_who_listens_does_not_matter(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, SELF)
    notifier.ready("serving")
    notifier.stopping()


def test_a_manager_that_does_not_read_does_not_stop_us(
    address: str, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdnotify, "SEND_SECONDS", 0.0001)
    notifier = Notifier({"NOTIFY_SOCKET": address}, SELF)
    for number in range(1000):  # a queue of datagrams holds fewer
        notifier.status(str(number))
    assert 0 < len(manager.heard()) < 1000
