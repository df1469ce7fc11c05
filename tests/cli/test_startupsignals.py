"""A command that runs until it is told to stop ends with 0 when it is told so before it has begun."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.startupsignals import is_long_running
from tests.fakes.processsignals import takes
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap, wait_until

COMMANDS = [
    ["replay", "J", "M", "--follow"],
    ["record", "J", "--nbd=unix:socket"],
    ["record", "J", "--every", "1h"],
    ["ship", "J", "D", "--follow"],
    ["serve", "J", "--nbd=unix:socket"],
]
NUMBERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with fast_directory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(["init", "J", "disk=disk.img:1M"]) == main(["record", "J", "-q"]) == 0
        yield Path(directory)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        *((command, True) for command in COMMANDS),
        ([], False),
        (["replay", "J", "M"], False),
        (["ship", "J", "--follow-up"], False),
        (["unit", "replay", "J", "M", "--follow"], False),
        (["status", "--follow"], False),
    ],
)
def test_which_go_on(arguments: list[str], expected: bool) -> None:
    assert is_long_running(arguments) is expected


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("delay", [0.0, 0.15, *(pytest.param(0.02 * n, marks=pytest.mark.soak) for n in range(1, 40))])
def test_told_to_stop_at_any_time_it_ends_with_0(place: Path, command: list[str], delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mirrortool", *command], cwd=place, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            wait_until(lambda: process.poll() is not None or takes(process.pid, signal.SIGTERM))
            assert process.poll() is None
            nap(delay)  # what is interrupted is chance, what follows is not
            process.send_signal(NUMBERS[COMMANDS.index(command) % len(NUMBERS)])
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, told
    assert "Traceback" not in told
