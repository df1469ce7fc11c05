"""Runs a target in a process of its own, and says what came of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.place import VARIABLE

_SECONDS_MAX = 20
"""One input that runs for longer ends the process; see judging.py for what is only slow."""
_LAST = re.compile(r"#(\d+)\s+(?:DONE|INITED|NEW|REDUCE|pulse|RELOAD)\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


@dataclass(frozen=True)
class Outcome:
    """What a run of a target came to.

    Attributes:
        edges: that the inputs reached; atheris instruments every module of mirrortool.
        corpus: inputs that each reach something that no other does.
        findings: what was wrong, a line each.
        ended: how the process ended, if not well.
    """

    target: str
    executions: int
    seconds: float
    edges: int
    features: int
    corpus: int
    findings: tuple[str, ...]
    ended: str = ""

    HEADING = f"{'target':15}{'executions':>11}{'seconds':>9}{'a second':>10}{'edges':>7}{'corpus':>8}{'findings':>10}"

    def __str__(self) -> str:
        rate = self.executions / max(self.seconds, 0.001)
        line = f"{self.target:15}{self.executions:11}{self.seconds:9.0f}{rate:10.0f}{self.edges:7}{self.corpus:8}"
        return "\n".join([f"{line}{len(self.findings):10}", *self.findings, *([self.ended] if self.ended else [])])


def run(
    name: str,
    runs: int,
    corpus: Path,
    findings: Path,
    *,
    bytes_max: int,
    tokens: tuple[bytes, ...],
    seconds_max: int = 0,
) -> Outcome:
    """Fuzz one target.

    Args:
        corpus: a directory of inputs to begin with; those that reach more are added.
        findings: a directory for inputs that show something wrong.
        seconds_max: it ends after that, whatever `runs` says; 0 for no limit.
    """
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        words = Path(place) / "tokens"
        words.write_text("".join(map(_token, tokens)))
        options = [
            f"-runs={runs}", f"-max_len={bytes_max}", "-len_control=20", f"-timeout={_SECONDS_MAX}",
            f"-artifact_prefix={findings}/", "-rss_limit_mb=2048", "-print_final_stats=1", "-detect_leaks=0",
            f"-max_total_time={seconds_max}",
            *([f"-dict={words}"] if tokens else []), str(corpus),
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.fuzzer", name, str(findings), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, VARIABLE: place},
        )  # fmt: skip
        seconds = time.monotonic() - began
    return _outcome(name, done, seconds)


def _token(word: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    escaped = "".join(f"\\x{byte:02x}" for byte in word)
    return f'"{escaped}"\n'


def _outcome(name: str, done: subprocess.CompletedProcess[str], seconds: float) -> Outcome:
    lines = done.stdout.splitlines()
    numbers = [match for line in lines if (match := _LAST.search(line))]
    executions, edges, features, corpus = (int(numbers[-1][i]) for i in range(1, 5)) if numbers else (0, 0, 0, 0)
    found = tuple(line for line in lines if line.startswith("FINDING "))
    ended = "" if done.returncode == 0 else "\n".join([f"ended with {done.returncode}", *lines[-30:]])
    return Outcome(name, executions, seconds, edges, features, corpus, found, ended)
