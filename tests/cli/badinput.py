"""What the tests of bad input work with: a directory of everything, damage, and a command that must say one line."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.volumes import make_old

REMARKS = ("replaying to ", "next: ", "no commit yet; ", "mirrortool: WARNING")
ESCAPES = "a\x1b[31m\nb"
DIGITS = "9" * 400
PATH_MAX = "x" * 5000
Capture = pytest.CaptureFixture[str]


def write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    make_old(path)


def build() -> None:
    """In the current directory: two volumes with journals, mirrors, and things that are neither."""
    write("disk.img", bytes(range(256)) * 64)
    write("other.img", b"other" * 1000)
    for name, volume in (("J", "disk.img"), ("J2", "other.img"), ("empty", "disk.img")):
        assert main(["init", name, f"disk={volume}"]) == 0
    assert main(["record", "J"]) == main(["mark", "J", "first"]) == 0
    write("disk.img", bytes(range(255, -1, -1)) * 64)
    assert main(["record", "J"]) == main(["record", "J2"]) == 0
    assert main(["replay", "J", "M"]) == 0
    assert main(["mark", "empty", "x"]) == 3  # it makes a table of sums
    assert main(["ship", "J2", "C"]) == 0
    os.makedirs("begun/files")
    write("begun/copy.json", b"{")
    os.symlink("J2/torn", "inside")
    write("qcow2", b"QFI\xfb" + bytes(508))
    os.mkdir("directory")
    os.mkdir("full")
    write("full/x", b"x")
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")
    os.symlink("disk.img", "symlink")
    os.link("disk.img", "hardlink")
    socket.socket(socket.AF_UNIX).bind("socket")
    os.symlink(os.ttyname(os.openpty()[1]), "terminal")  # no device of the machine's: wrong code must not harm that


def restore(built: str) -> None:
    for name in ("J", "M"):
        shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(os.path.join(built, name), name)


def tree(directory: str) -> dict[str, str]:
    """Everything in a directory, with a digest of each file's content."""
    found = {}
    for path in sorted(Path(directory).rglob("*")):
        if path.is_symlink() or not path.is_file():
            found[str(path)] = "special"
        elif "receipts" not in path.parts:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run(capsys: Capture, *arguments: str) -> tuple[int, list[str]]:
    """Exit code, and the lines on stderr without remarks; no bug, and nothing that a terminal obeys."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert code != 70 and "Traceback" not in captured.err, (arguments, lines)
    assert all(line.isprintable() for line in (*lines, *captured.out.splitlines())), arguments
    return code, [line for line in lines if not line.startswith(REMARKS)]


def refused(capsys: Capture, *arguments: str) -> tuple[int, str]:
    """Run what must be refused; returns the exit code and the one line."""
    code, lines = run(capsys, *arguments)
    assert code and len(lines) == 1 and lines[0].startswith("mirrortool: "), (arguments, code, lines)
    return code, lines[0]


def remove(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def turn_into_a_device(path: str) -> None:
    remove(path)
    os.symlink("/dev/zero", path)


def turn_into_a_fifo(path: str) -> None:
    remove(path)
    os.mkfifo(path)


def turn_into_a_directory(path: str) -> None:
    remove(path)
    os.mkdir(path)


def flip_a_bit(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 16
    Path(path).write_bytes(data)


def cut_short(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 7)


FILE = "J/files/0000000000000001.mj"
