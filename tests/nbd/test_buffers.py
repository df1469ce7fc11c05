"""Buffers: what a client announces uses no memory before it comes."""

from __future__ import annotations

import os
from pathlib import Path

from mirrortool.nbd.buffers import _memory_for


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_for_what_is_announced_is_not_touched() -> None:
    before = resident_bytes()
    announced = [_memory_for(32 << 20) for _ in range(16)]
    assert resident_bytes() < before + (32 << 20)
    assert not any(each[-1] for each in announced)
