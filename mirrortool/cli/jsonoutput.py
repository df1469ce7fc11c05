"""What --json prints: one object in one line, with every time as a number and as text.

Rule: beside each time `X_ns`, nanoseconds since 1970 UTC, `X` is the same as text in this host's zone; null if there
is none. A value that has an `X` of its own keeps that: `time` of `mirrortool log` is a number since 0.1.0.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from mirrortool import times
from mirrortool.address import format_address
from mirrortool.journal.holds import JournalHold
from mirrortool.volume import Volume

TIMES = {
    "time_ns",
    "from_time_ns",
    "to_time_ns",
    "head_time_ns",
    "commit_time_ns",
    "acknowledged_time_ns",
    "updated_ns",
    "since_ns",
    "next_scan_ns",
}
"""The fields that are times."""
_NAMED_BY_DATA = {"changed"}
"""Fields whose own fields are names of volumes."""


def print_json(value: dict[str, Any]) -> None:
    """Print an object in one line."""
    click.echo(json_line(value))


def json_line(value: dict[str, Any]) -> str:
    """An object as a line."""
    return json.dumps(with_texts(value))


def volume_to_json(volume: Volume) -> dict[str, object]:
    """A volume among others; its address as text, as `init` takes it."""
    return {"name": volume.name, "size": volume.size, "address": format_address(volume.start)}


def hold_to_json(hold: JournalHold, held_bytes: int) -> dict[str, object]:
    """What a running process reads of a journal, and so keeps."""
    return {"lsn": hold.lsn, "held_bytes": held_bytes, "worker": asdict(hold.worker)}


def with_texts(value: Any) -> Any:
    """The same with a text beside each time, at every depth."""
    if isinstance(value, list | tuple):
        return [with_texts(each) for each in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found[key] = inner if key in _NAMED_BY_DATA else with_texts(inner)
        text = key.removesuffix("_ns")
        if key in TIMES and text not in value:
            found[text] = times.format_time(inner) if inner else None
    return found
