"""The README's transcript is what happens; its commands are those that CI runs."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def transcript() -> list[tuple[str, list[str]]]:
    """The commands of the console block, each with the lines that it prints."""
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL)
    assert block
    steps: list[tuple[str, list[str]]] = []
    for line in block[1].splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def matches(expected: list[str], printed: str) -> bool:
    """Whether the text is as expected; … stands for anything, blanks for any blanks."""
    parts = [re.escape(part) for part in re.split("…", " ".join(" ".join(expected).split()))]
    return re.fullmatch(".*".join(parts) + ".*", " ".join(printed.split())) is not None


def test_transcript_is_what_happens(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(random.Random(1).randbytes(8 << 20) + bytes(8 << 20))
    for command, expected in transcript():
        mirrortool = f"{shlex.quote(sys.executable)} -m mirrortool"
        done = subprocess.run(
            re.sub(r"^mirrortool\b", mirrortool, command),
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        # A terminal shows both streams; the order between them is that of the writing, which a pipe does not keep.
        assert (
            matches(expected, done.stdout + done.stderr)
            or matches(expected, done.stderr + done.stdout)
            or matches(expected, _interleaved(done.stdout, done.stderr))
        ), (command, expected, done.stdout, done.stderr)


def _interleaved(stdout: str, stderr: str) -> str:
    """A first note, the result, and the next step: how a replay looks on a terminal."""
    first, _, rest = stderr.partition("\n")
    return f"{first}\n{stdout}{rest}"


def test_ci_runs_the_readmes_test_command() -> None:
    assert "<!-- test command -->\n```sh\n" in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
