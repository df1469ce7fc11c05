"""A live recording: a recorder with its NBD server, initial scan and control socket, from start to clean stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from mirrortool.errors import MirrortoolError, UsageError
from mirrortool.nbd.export import Export
from mirrortool.nbd.server import Server
from mirrortool.nbd.statistics import ServerStatistics
from mirrortool.processsettings import taking_turns
from mirrortool.record.controlsocket import Answer, ControlSocket
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.nbdexport import RecorderExport
from mirrortool.record.recorder import Recorder, RecorderStatistics

_SWITCH_SECONDS = 100e-6
"""A client's thread that comes back from the kernel is answered soon, even if another computes."""


class LiveRecording:
    """A live recording; `run` lasts until `stop` is called or the recorder fails. `with` closes one that never ran."""

    def __init__(
        self,
        recorder: Recorder,
        make_server: Callable[[Sequence[Export]], Server],
        on_event: Callable[[str], None],
        on_ready: Callable[[Sequence[str]], None],
    ) -> None:
        """Own the recorder: it is closed at the end of `run`, or if this raises.

        Args:
            make_server: gives a server of these exports that is not started.
            on_event: told, on any thread, a line of what happened.
            on_ready: told the addresses when clients can connect.
        """
        self.recorder = recorder
        self._on_event, self._on_ready = on_event, on_ready
        with ExitStack() as owning:
            owning.enter_context(recorder)
            self._server = make_server([RecorderExport(recorder, volume.name) for volume in recorder.volumes])
            self.initial_scan = InitialScan(recorder)
            self._owned = owning.pop_all()

    def __enter__(self) -> LiveRecording:
        return self

    def __exit__(self, *exc: object) -> None:
        self._owned.close()

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self.recorder.ending.set()

    def run(self) -> None:
        """Serve; everything acknowledged is on the volumes when it returns.

        Raises:
            MirrortoolError: the recorder failed, or could not begin.
        """
        with ExitStack() as running:
            running.enter_context(taking_turns(_SWITCH_SECONDS))
            running.enter_context(self._owned)
            handlers = {"status": self._status, "mark": self._mark}
            running.enter_context(ControlSocket(self.recorder.journal.path, handlers))
            running.enter_context(self._server)  # first: where it cannot listen, nothing is scanned
            scanning = threading.Thread(target=self._scan, name="mirrortool-initial-scan", daemon=True)
            scanning.start()
            running.callback(scanning.join)
            running.callback(self.initial_scan.stop)
            self._on_ready([str(address) for address in self._server.addresses])
            self.recorder.ending.wait()
        if self.recorder.failure:
            raise self.recorder.failure

    def statistics(self) -> tuple[RecorderStatistics, ServerStatistics]:
        """How it stands; from any thread."""
        return self.recorder.statistics(), self._server.statistics()

    @property
    def initial_scan_problem(self) -> str:
        """Why the initial scan makes no progress, or nothing."""
        problem = self.initial_scan.problem  # once: the scan may continue meanwhile
        return str(problem) if problem else ""

    def _scan(self) -> None:
        try:
            self.initial_scan.run()
        except MirrortoolError as error:
            self._on_event(f"the initial scan stopped: {error}")

    def _status(self, _request: Mapping[str, Any]) -> Answer:
        recorder, server = self.statistics()
        scan = {"base": list(self.initial_scan.progress()), "base_problem": self.initial_scan_problem}
        return {**asdict(recorder), **scan, **asdict(server)}

    def _mark(self, request: Mapping[str, Any]) -> Answer:
        name = request.get("name")
        if not isinstance(name, str):
            raise UsageError("a mark needs a name")
        position = self.recorder.commit(name)
        return {"lsn": position.lsn, "chain": f"{position.chain:016x}"}
