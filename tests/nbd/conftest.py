"""An export in memory, its server and a client of it, each of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.nbd.server import Server
from tests.fakes.memory_export import MemoryExport
from tests.nbd.wire import (
    SIZE,
    Client,
    serving,
)


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(SIZE)


@pytest.fixture
def server(tmp_path: Path, export: MemoryExport) -> Iterator[Server]:
    with serving(tmp_path, export) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.addresses[0]) as client:
        yield client
