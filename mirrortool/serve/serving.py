"""Serves a state to NBD clients, from start to clean stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mirrortool import files
from mirrortool.errors import UsageError
from mirrortool.nbd.export import Export
from mirrortool.nbd.ownexports import describe_export
from mirrortool.nbd.server import Server
from mirrortool.nbd.statistics import ServerStatistics
from mirrortool.processsettings import taking_turns
from mirrortool.serve.exports import ReadOnlyExport, WritableExport
from mirrortool.serve.scratch import Scratch
from mirrortool.serve.state import ShownState
from mirrortool.times import format_time

_SWITCH_SECONDS = 100e-6
"""A client's thread that comes back from the kernel is answered soon, even if another computes."""


class Serving:
    """A state being served; `run` lasts until `stop` is called. ShownState and scratch belong to the caller."""

    def __init__(
        self,
        state: ShownState,
        scratch: Scratch | None,
        make_server: Callable[[Sequence[Export]], Server],
        on_ready: Callable[[Sequence[str]], None],
    ) -> None:
        """Prepare.

        Args:
            scratch: takes what clients change; None where they may only read.
            make_server: gives a server of these exports that is not started.
            on_ready: told the addresses when clients can connect.
        """
        self._on_ready = on_ready
        self._server = make_server(list(_exports(state, scratch)))
        self._stopping = threading.Event()  # set by stop; run waits for it

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Serve.

        Raises:
            MirrortoolError: it could not begin.
        """
        with ExitStack() as running:
            running.enter_context(taking_turns(_SWITCH_SECONDS))
            running.enter_context(self._server)
            self._on_ready([str(address) for address in self._server.addresses])
            self._stopping.wait()

    def statistics(self) -> ServerStatistics:
        """How it stands; from any thread."""
        return self._server.statistics()


def _exports(state: ShownState, scratch: Scratch | None) -> list[Export]:
    made: list[Export] = []
    for volume in state.reader.volumes:
        point = f"at LSN {state.lsn} of {format_time(state.time_ns)}"
        description = describe_export(state.journal_uuid, volume.name, point)
        if scratch:
            made.append(WritableExport(state.reader, volume, description, scratch))
        else:
            made.append(ReadOnlyExport(state.reader, volume, description))
    return made


def open_scratch(state: ShownState, directory: str, size: int | None, *, is_named: bool) -> Scratch:
    """Make the scratch file.

    Args:
        size: bytes; by default half of what is free there.
        is_named: whether the owner named the directory, so that it may be where the state lies.
    Raises:
        UsageError: what clients write would take room of the journal or mirror.
        HostError: it cannot be made there.
    """
    if not is_named:
        _check_is_elsewhere(state, directory)
    if size is None:
        size = files.free_bytes(directory) // 2
    return Scratch(directory, state.reader.page_size, size)


def _check_is_elsewhere(state: ShownState, directory: str) -> None:
    here = files.find_facts(directory)
    for place in state.places:
        facts = files.find_facts(place)
        if here and facts and not facts.identity.is_device and facts.identity.device == here.identity.device:
            raise UsageError(
                f"the scratch file would take room in the file system of {place}",
                where=directory,
                remedy=f"name a directory on another one with --scratch, or accept this with --scratch {directory}",
            )
