"""The colour of a state: green where all is well, yellow while it waits or is behind, red where it is bad."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mirrortool.cli import recordnbd, replayview, ship
from mirrortool.cli.progressdisplay import Tone
from mirrortool.cli.replayfollow import BEHIND_SECONDS
from mirrortool.errors import InputOutputError, NoSpaceError


@pytest.mark.parametrize(
    ("state", "seconds", "tone"),
    [
        ("up to date", 0.0, Tone.GOOD),
        ("sending", None, Tone.GOOD),
        ("sending", BEHIND_SECONDS, Tone.WAITING),
        ("connecting", None, Tone.WAITING),
        ("waiting", 0.0, Tone.WAITING),
        ("away", 0.0, Tone.BAD),
        ("away", 3600.0, Tone.BAD),
    ],
)
def test_a_shipment(state: str, seconds: float | None, tone: Tone) -> None:
    assert ship.tone_of(state, seconds) == tone


@pytest.mark.parametrize(("waits_for", "tone"), [("", Tone.GOOD), ("blocked: no space left", Tone.WAITING)])
def test_a_replay(waits_for: str, tone: Tone) -> None:
    progress = SimpleNamespace(lsn=7, payload_bytes=4096)
    now = SimpleNamespace(progress=progress, groups=(), waits_for=waits_for)
    assert replayview.view_of(cast(Any, now), cast(Any, 3), cast(Any, SimpleNamespace(lsn=9))).tone == tone


@pytest.mark.parametrize(
    ("code", "tone"), [(NoSpaceError.exit_code, Tone.WAITING), (InputOutputError.exit_code, Tone.BAD)]
)
def test_a_recorder(code: int, tone: Tone) -> None:
    assert recordnbd.tone_of(code) == tone
