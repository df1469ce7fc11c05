"""What a long-running command tells its host: the service manager, when it has begun and when it ends; Prometheus,
its figures.

    service = Service(metrics_file, lambda is_running: replay_samples(...), display.warn)
    with service:
        Runner(work, service.before(cancel)).run(lambda: service.tick("following"))     and service.ready(...) in `work`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click

from mirrortool import clock
from mirrortool.cli.options import FILE
from mirrortool.cli.outputfiles import check_output
from mirrortool.metrics import FILE_BEGINS, Sample
from mirrortool.metricsfile import MetricsFile
from mirrortool.sdnotify import Notifier

STATUS_SECONDS = 5.0


def _checked(_context: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    """The path, before anything is done; the file is replaced, so an existing one must be an earlier one of ours."""
    if path is not None:
        check_output(path, "metrics", FILE_BEGINS.encode())
        if not path.endswith(".prom"):
            raise click.BadParameter(f"{path!r} does not end in .prom, and node_exporter reads no other file")
    return path


metrics_file = click.option(
    "--metrics-file", type=FILE, metavar="FILE", callback=_checked,
    help="Keep figures for Prometheus in this file, named *.prom.",
)  # fmt: skip


class Service:
    """Reports what the command does, inside the `with` block; no failure to report makes the command fail.

    `ready` may be called by the thread that does the work, the others by the main thread.
    """

    def __init__(
        self,
        metrics_path: str | None,
        collect: Callable[[bool], Iterable[Sample]],
        on_problem: Callable[[str], None],
    ) -> None:
        """Find out whether a service manager started us.

        Args:
            metrics_path: of --metrics-file; None for none.
            collect: finds what goes into it; told whether the service is running, which it is from `ready` to the end.
            on_problem: told, in a line, why the file cannot be written.
        """
        self._notifier = Notifier(os.environ, os.getpid())
        self._is_running = False
        self._metrics = (
            MetricsFile(metrics_path, lambda: collect(self._is_running), on_problem) if metrics_path else None
        )
        self._told_at = clock.monotonic()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_running = False
        if self._metrics:
            self._metrics.write()

    def ready(self, status: str) -> None:
        """It has really begun; further calls do nothing."""
        if not self._is_running:
            self._is_running = True
            self._notifier.ready(status)

    def tick(self, status: str | Callable[[], str]) -> None:
        """Its status, or a function that finds it where that is expensive; to be called about four times a second."""
        self._notifier.alive()
        if self._is_running and clock.monotonic() - self._told_at >= STATUS_SECONDS:
            self._told_at = clock.monotonic()
            self._notifier.status(status if isinstance(status, str) else status())
        if self._metrics:
            self._metrics.tick()

    def before(self, cancel: Callable[[], None]) -> Callable[[], None]:
        """`cancel`, which tells the service manager first."""

        def stop() -> None:
            self.stopping()
            cancel()

        return stop

    def stopping(self) -> None:
        """It is about to end."""
        self._notifier.stopping()
