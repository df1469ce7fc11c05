"""Which signals a process handles, ignores or blocks, as the kernel tells."""

from __future__ import annotations

from pathlib import Path


def takes(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal."""
    return has(pid, "SigCgt", number)


def has(pid: int, field: str, number: int) -> bool:
    """Whether a process has a signal in a set of its signals (proc(5), /proc/PID/status)."""
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith(f"{field}:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
