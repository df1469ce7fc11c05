"""Reads a unit of systemd."""

from __future__ import annotations


def settings(text: str) -> dict[str, str]:
    """The settings of a unit by name; none comes twice, but for DeviceAllow."""
    lines = [line.partition("=") for line in text.splitlines() if line and line[0] not in "#["]
    assert (
        len({name for name, _, _ in lines if name != "DeviceAllow"} | {"DeviceAllow"})
        == len([name for name, _, _ in lines if name != "DeviceAllow"]) + 1
    )
    return {name: value for name, _, value in lines}
