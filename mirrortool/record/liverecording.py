"""A recorder at work: with its NBD server, its initial scan and its control socket, from start to clean stop."""

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
    """A live recording; `run` lasts until `stop` is called or the recorder fails. `with` closes what never ran."""

    def __init__(
        self,
        recorder: Recorder,
        make_server: Callable[[Sequence[Export]], Server],
        on_event: Callable[[str], None],
        on_ready: Callable[[Sequence[str]], None],
    ) -> None:
        """Take over the recorder: it is closed at the end of `run`, or if this raises.

        Args:
            make_server: gives a server of these exports that is not started.
            on_event: told, on any thread, a line of what happened.
            on_ready: told the addresses when clients can come.
        """
        self.recorder = recorder
        self._on_event, self._on_ready = on_event, on_ready
        with ExitStack() as taking_over:
            taking_over.enter_context(recorder)
            self._server = make_server([RecorderExport(recorder, volume.name) for volume in recorder.volumes])
            self.base = InitialScan(recorder)
            self._owned = taking_over.pop_all()

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
            base = threading.Thread(target=self._scan_base, name="mirrortool-base", daemon=True)
            base.start()
            running.callback(base.join)
            running.callback(self.base.stop)
            self._on_ready([str(address) for address in self._server.addresses])
            self.recorder.ending.wait()
        if self.recorder.failure:
            raise self.recorder.failure

    def statistics(self) -> tuple[RecorderStatistics, ServerStatistics]:
        """How it stands; from any thread."""
        return self.recorder.statistics(), self._server.statistics()

    @property
    def base_problem(self) -> str:
        """Why the initial scan does not get on, or nothing."""
        problem = self.base.problem  # once: the scan may get on meanwhile
        return str(problem) if problem else ""

    def _scan_base(self) -> None:
        try:
            self.base.run()
        except MirrortoolError as error:
            self._on_event(f"the initial scan stopped: {error}")

    def _status(self, _request: Mapping[str, Any]) -> Answer:
        recorder, server = self.statistics()
        base = [self.base.pages_done, self.base.pages_total]
        return {**asdict(recorder), "base": base, "base_problem": self.base_problem, **asdict(server)}

    def _mark(self, request: Mapping[str, Any]) -> Answer:
        name = request.get("name")
        if not isinstance(name, str):
            raise UsageError("a mark needs a name")
        position = self.recorder.commit(name)
        return {"lsn": position.lsn, "chain": f"{position.chain:016x}"}
