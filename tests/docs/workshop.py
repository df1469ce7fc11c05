"""What the tests of this folder share: the tools they need, and the program as a shell sees it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.environment import clean

IS_CI = os.environ.get("CI") == "true"


def require(tool: str) -> str:
    """The path of a tool. Without it the test is skipped, but fails where everything must be there."""
    path = shutil.which(tool)
    if path is None:
        message = f"{tool} is not installed"
        pytest.fail(message) if IS_CI else pytest.skip(message)
    return path


def environment(directory: Path) -> dict[str, str]:
    """A clean environment whose PATH finds the program under test, in a directory of its own."""
    directory.mkdir(exist_ok=True)
    program = directory / "mirrortool"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mirrortool "$@"\n')
    program.chmod(0o755)
    return clean(os.environ) | {"PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def make_image(path: Path) -> None:
    """A disk image of 4 MiB, sparse behind its first."""
    with path.open("wb") as file:
        file.write(bytes(range(256)) * 4096)
        file.truncate(4 << 20)


def run(*arguments: str, expected: int | Sequence[int] = 0) -> str:
    """Run a command in this process; returns its standard output."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(arguments)
    assert code in ([expected] if isinstance(expected, int) else expected), (arguments, code, errors.getvalue())
    return output.getvalue()
