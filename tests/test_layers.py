"""Only files.py and openfile.py touch files, only clock.py touches time, and only cli/ knows click and rich.

accounts.py, pipes.py and hostinfo.py, beside them, have what is not a file: users and groups, a link's descriptors,
and what the kernel says of itself.
So a test that replaces those modules sees every fault and every tick. Sockets are no files: nbd/ has its clients',
record/controlsocket.py the one in the journal's directory, whose name is bound and removed by sockets/listener.py and
files.py; sdnotify.py sends to the service manager's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mirrortool

PACKAGE = Path(mirrortool.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# Modules that do input, output or time, whole or by name; "open" is the builtin.
FORBIDDEN = {
    "os", "io", "shutil", "pathlib", "tempfile", "glob", "fcntl", "mmap", "time", "datetime", "open", "fileinput",
    "posix", "posixpath", "ctypes", "stat", "grp", "pwd", "socket", "ssl", "select", "selectors",
}  # fmt: skip
ALLOWED = {
    "accounts.py": {"grp.getgrgid", "grp.getgrnam", "os.geteuid", "os.path", "pwd.getpwuid"},
    "files.py": {"os", "stat", "tempfile", "ctypes", "open"},
    # mmap: anonymous memory that O_DIRECT takes, never a file's.
    "openfile.py": {"os", "fcntl", "stat", "ctypes", "open", "mmap.PAGESIZE", "mmap.mmap"},
    "hostinfo.py": {"os", "fcntl", "open"},
    "pipes.py": {"os", "fcntl", "select"},
    "clock.py": {"time"},
    "malloc.py": {"ctypes"},
    "mirror/volumeregistry.py": {"os.environ"},
    "errors.py": {"os.fsdecode", "os.strerror"},
    "nbd/channel.py": {"socket", "ssl"},
    "nbd/client.py": {"ssl.SSLContext"},
    "nbd/clientchannel.py": {"socket", "ssl"},
    "nbd/clientconnection.py": {"ssl.SSLCertVerificationError", "ssl.SSLError"},
    "nbd/clienthandshake.py": {"ssl.SSLContext"},
    "nbd/connection.py": {"ssl.SSLError"},
    "sockets/listener.py": {"socket"},
    "nbd/negotiation.py": {"ssl.SSLContext"},
    "nbd/server.py": {"socket.socket", "ssl.SSLContext"},
    "nbd/tls.py": {"ssl"},
    "sdnotify.py": {"socket"},
    "record/controlsocket.py": {"socket"},
    "record/liverecording.py": {"ssl.SSLContext"},
    "times.py": {f"datetime.{name}" for name in ("UTC", "date", "datetime", "timedelta", "timezone")},
}
ALLOWED_IN_CLI = {
    "os._exit", "os.environ", "os.kill", "os.getpid", "os.get_terminal_size", "os.fsdecode", "os.fsencode",
    "io.TextIOWrapper",
}  # fmt: skip
READS_THE_CLOCK = {"now", "today", "utcnow"}


STREAMS_IDIOM = {"os.open", "os.dup2", "os.devnull", "os.O_WRONLY", "os.O_RDWR", "os.fdopen", "os.set_inheritable"}
"""Of the standard streams of a process that begins or is about to end; no file of ours."""


def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each import as (name in the module, dotted name); of `from a import b` the dotted name is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.asname or each.name.partition(".")[0], each.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                yield each.asname or each.name, f"{node.module}.{each.name}"


def used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is used of an imported module, and of calls of `open`."""
    names = dict(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            yield node.lineno, f"{names[node.value.id]}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in names and "." in names[node.id]:
            yield node.lineno, names[node.id]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield node.lineno, "open"


def offences(module: str, tree: ast.Module) -> list[str]:
    allowed = ALLOWED_IN_CLI if module.startswith("cli/") else ALLOWED.get(module, set())
    if module == "cli/main.py":
        allowed = allowed | STREAMS_IDIOM
    found = []
    for line, name in used(tree):
        top = name.partition(".")[0]
        if top in FORBIDDEN and top not in allowed and not any(f"{name}.".startswith(f"{each}.") for each in allowed):
            found.append(f"{module}:{line}: {name}")
        if top == "datetime" and name.rpartition(".")[2] in READS_THE_CLOCK:
            found.append(f"{module}:{line}: {name} reads the clock")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_files_and_time_are_touched_in_one_place_each(module: str) -> None:
    assert offences(module, parsed(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_knows_click_and_rich(module: str) -> None:
    if module.startswith("cli/"):
        return
    tops = {name.partition(".")[0] for _, name in imported(parsed(module))}
    assert not tops & {"click", "rich"}


CASES = [
    ("import os\nos.stat('x')", ["os.stat"]),
    ("from os import path\npath.exists('x')", ["os.path.exists", "os.path"]),
    ("import os.path as p\np.join('a', 'b')", ["os.path.join", "os.path"]),
    ("open('x')", ["open"]),
    ("import time as t\nt.sleep(1)", ["time.sleep"]),
    ("from datetime import datetime\ndatetime.now()", ["datetime.datetime.now", "datetime.datetime"]),
    ("import socket\nsocket.create_connection('x')", ["socket.create_connection"]),
    ("import mmap\nmmap.mmap(3, 0)", ["mmap.mmap"]),
    ("def f():\n    import shutil\n    shutil.rmtree('x')", ["shutil.rmtree"]),
    ("from mirrortool import files\nfiles.open_file('x')", []),
]


@pytest.mark.parametrize(("source", "names"), CASES)
def test_the_rule_finds_what_it_forbids(source: str, names: list[str]) -> None:
    found = {offence.split(": ")[1].split(" ")[0] for offence in offences("store/x.py", ast.parse(source))}
    assert found == set(names)
