"""Runs tests on a copy of the tree in which one mutant's source is in the place of the real one.

The package and the tests are copied once, so that nothing is changed in the tree, and nobody's work there disturbs a
long run. Programs that tests start find the package beside the tests (fakes/environment.py), so they have the mutant.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from tests.mutation.mutant import ROOT, Mutant

TEST_SECONDS = 120
"""One test may take this long; then it hangs."""
RUN_SECONDS = 600
"""All tests of one mutant may take this long."""
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Result:
    """What became of one mutant.

    Attributes:
        outcome: "found", "hang" (found, by a test that did not end), "survived", or "new" (no test is known).
        test: that found it, or hung; "" if none did.
    """

    outcome: str
    test: str
    seconds: float

    @property
    def is_found(self) -> bool:
        return self.outcome in ("found", "hang")


class NoTestsError(Exception):
    """The tests cannot be run, or there are none, so nothing is known of the mutant."""


class Workshop:
    """A copy of the tree, in which one module at a time is another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for entry in ROOT.iterdir():
            if entry.name in ("mirrortool", "tests"):
                shutil.copytree(entry, root / entry.name)
            elif not entry.name.startswith(".") or entry.name in (".ci", ".figures"):
                (root / entry.name).symlink_to(entry)

    def run(
        self, mutant: Mutant, tests: Sequence[str] = (), *, test_seconds: float = TEST_SECONDS,
        run_seconds: float = RUN_SECONDS, options: Sequence[str] = (),
    ) -> Result:  # fmt: skip
        """Run a mutant's tests, or others, up to the first that fails."""
        with self._mutated(mutant):
            return self._run_tests(tests or mutant.tests, test_seconds, run_seconds, options)

    def require_passing(self, tests: Sequence[str]) -> None:
        """NoTestsError if these do not pass with the real source: then a test that fails with a mutant says nothing."""
        result = self._run_tests(tests, RUN_SECONDS, 10 * RUN_SECONDS, ())
        if result.is_found:
            raise NoTestsError(f"{result.test} fails without a mutant")

    @contextmanager
    def _mutated(self, mutant: Mutant) -> Iterator[None]:
        path = self.root / mutant.path
        real = path.read_text(encoding="utf-8")
        try:
            _write(path, mutant.source())
            yield
        finally:
            _write(path, real)

    def _run_tests(
        self, tests: Sequence[str], test_seconds: float, run_seconds: float, options: Sequence[str]
    ) -> Result:
        command = [sys.executable, "-m", "pytest", "-x", "-vv", "--tb=no", "-p", "no:cacheprovider", "--no-header"]
        if all("::" in test for test in tests):
            command += ["-m", "not bench"]  # what finds it may be a soak
        command += ["-o", f"timeout={test_seconds}", *options, *tests]
        started = time.monotonic()
        with tempfile.TemporaryFile(dir=self.root) as output:
            process = subprocess.Popen(
                command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                code = process.wait(run_seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                self._end(process)
            output.seek(0)
            text = output.read().decode(errors="replace")
        return _result(code, text, time.monotonic() - started)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the tests, and what a test that failed left running: it has our copy in its environment."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ours = f"PYTHONPATH={self.root}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if ours in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A copy in memory, if there is room for one."""
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=_MEMORY if _MEMORY.is_dir() else None) as root:
        yield Workshop(Path(root))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)  # it tells sources by second and size alone


def _result(code: int | None, text: str, seconds: float) -> Result:
    if code == 0:
        return Result("survived", "", seconds)
    if code is None or "Timeout (>" in text or "+ Timeout +" in text:
        started = re.findall(r"^(tests/\S+)", text, re.MULTILINE)
        return Result("hang", started[-1] if started else "", seconds)
    if code == 4 and "while loading conftest" in text:
        return Result("found", "tests/conftest.py", seconds)
    failed = re.search(r"^(tests/.+?) (?:FAILED|ERROR)|^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    if failed is None or code not in (1, 2):
        raise NoTestsError(text[-2000:])
    return Result("found", failed[1] or failed[2], seconds)
