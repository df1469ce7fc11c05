"""Damaged files of every kind: one line that says what, where and what to do; the documented exit code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrortool.cli.main import main
from tests.cli.badinput import (
    FILE,
    Capture,
    cut_short,
    flip_a_bit,
    refused,
    remove,
    restore,
    run,
    turn_into_a_device,
    turn_into_a_directory,
    turn_into_a_fifo,
    write,
)

SMALL_FILES = ["J/journal.json", "J/local.json", "J/recorder.json", "M/mirror.json", "M/checkpoint.json"]
READERS = [["status", "J"], ["log", "J"], ["verify", "J"], ["status", "M"], ["verify", "M"]]
WRITERS = [["record", "J"], ["mark", "J", "x"], ["replay", "J", "M"]]
RAW = [
    b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", bytes(100), b"NaN", b'{"format": 2}', b"[" * 100_000,
    b'{"format": ' + b"9" * 5000 + b"}", b'{"a":' * 50_000, b"{}" + b" " * (17 << 20),
]  # fmt: skip
WRONG: list[Any] = [None, -1, 1 << 63, 1 << 200, 1.5, True, "", "\x1b[31m", "\ud800", "\0", "../../x", [], {}]
OF_DAMAGE = {0, 3, 11, 12, 13, 14, 15, 20, 21, 24, 25, 32}


def readers_of(path: str) -> list[list[str]]:
    return [each for each in READERS if path[0] in each]


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("path", SMALL_FILES)
def test_small_file_is_no_json(path: str, capsys: Capture, built: str) -> None:
    for raw in RAW:
        Path(path).write_bytes(raw)
        for arguments in readers_of(path):
            code, lines = run(capsys, *arguments)
            assert code in (0, 14, 24) and len(lines) == bool(code), (raw[:20], arguments, code, lines)
        for arguments in WRITERS:
            code, lines = run(capsys, *arguments)
            assert code in (0, 14, 24) and len(lines) == bool(code), (raw[:20], arguments, code, lines)
    assert (Path(built) / "disk.img").read_bytes() == bytes(range(255, -1, -1)) * 64


@pytest.mark.usefixtures("copy", "no_sync")
@pytest.mark.parametrize("path", SMALL_FILES)
def test_field_makes_no_sense(path: str, capsys: Capture) -> None:
    whole = Path(path).read_text()
    for keys in list(leaves(json.loads(whole))):
        for value in WRONG:
            Path(path).write_text(json.dumps(replaced(json.loads(whole), keys, value)))
            for arguments in readers_of(path):
                code, lines = run(capsys, *arguments)
                assert code in OF_DAMAGE and len(lines) == bool(code), (keys, value, arguments, code, lines)


@pytest.mark.usefixtures("copy", "no_sync")
@pytest.mark.parametrize("path", SMALL_FILES)
def test_recorder_and_replay_survive_a_field_that_makes_no_sense(path: str, built: str, capsys: Capture) -> None:
    keys_of = list(leaves(json.loads(Path(path).read_text())))
    for number, keys in enumerate(keys_of):
        for arguments in WRITERS:
            restore(built)
            value = WRONG[number % len(WRONG)]
            Path(path).write_text(json.dumps(replaced(json.loads(Path(path).read_text()), keys, value)))
            code, lines = run(capsys, *arguments)
            assert code in OF_DAMAGE and len(lines) == bool(code), (keys, value, arguments, code, lines)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[key], (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return value


DAMAGED: list[tuple[str, Callable[[str], None], dict[str, int]]] = [
    # what, how, and the exit codes of commands
    (FILE, remove, {"status J": 12, "log J": 12, "verify J": 12, "replay J new": 12, "record J": 12, "verify M": 0}),
    (FILE, cut_short, {"status J": 11, "log J": 11, "verify J": 11, "replay J new": 11, "record J": 11}),
    (FILE, flip_a_bit, {"export J disk new": 11, "verify J": 11, "replay J new": 11}),
    (FILE, turn_into_a_device, {"status J": 11, "verify J": 11, "replay J new": 11, "record J": 11}),
    (FILE, turn_into_a_fifo, {"status J": 31, "verify J": 31, "replay J new": 31, "record J": 31}),
    (FILE, turn_into_a_directory, {"status J": 32, "verify J": 32, "replay J new": 32, "record J": 32}),
    (FILE, remove, {"export J disk new": 12, "export M disk out": 0}),
    (FILE, cut_short, {"export J disk new": 11, "serve J --nbd unix:s": 11}),
    (FILE, turn_into_a_device, {"export J disk new": 11}),
    (FILE, turn_into_a_fifo, {"export J disk new": 31}),
    ("J/files", remove, {"status J": 12, "log J": 12, "verify J": 12, "replay J new": 12, "record J": 12}),
    ("J/sums", remove, {"export J disk out2": 0, "record J": 0, "verify J": 0, "mark J x": 0}),
    ("J/sums/disk.sums", flip_a_bit, {"verify J": 11, "record J": 11}),
    ("J/sums/disk.sums", turn_into_a_device, {"status J": 0, "verify J": 11}),
    ("J/torn", remove, {"record J": 0}),
    ("J/lock", remove, {"record J": 0, "status J": 0}),
    ("J/recorder.json", remove, {"record J": 14, "status J": 0, "replay J new": 0}),
    ("J/local.json", remove, {"export J disk out3": 0, "record J": 20, "status J": 0, "replay J new": 0}),
    ("M/mirror.json", remove, {"export M disk new": 14, "status M": 14, "verify M": 14, "replay J M": 32}),
    ("M/checkpoint.json", remove, {"export M disk new": 24, "status M": 24, "verify M": 24, "replay J M": 24}),
    ("M/volumes/disk.img", remove, {"export M disk new": 20, "status M": 0, "verify M": 20, "replay J M": 20}),
    ("M/volumes/disk.img", flip_a_bit, {"export M disk new": 21}),
    ("M/volumes/disk.img", cut_short, {"export M disk new": 21, "verify M": 21, "replay J M": 21}),
    ("M/volumes/disk.img", turn_into_a_fifo, {"export M disk new": 20, "verify M": 20, "replay J M": 20}),
    ("M/volumes/disk.img", turn_into_a_device, {"verify M": 20, "replay J M": 20}),
    ("M/volumes", remove, {"verify M": 20, "replay J M": 20}),
    ("M/sums/disk.sums", flip_a_bit, {"export M disk new": 21}),
    ("M/sums", remove, {"export M disk new": 32, "verify M": 32, "replay J M": 32}),
    ("M/sums/disk.sums", turn_into_a_device, {"verify M --journal J": 21}),
    ("M/lock", remove, {"export M disk new": 32, "verify M": 32, "replay J M": 0}),
    ("M/receipts", remove, {"verify M": 0, "replay J M": 0}),
]  # fmt: skip


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(("path", "damage", "expected"), DAMAGED)
def test_damaged_file(
    path: str, damage: Callable[[str], None], expected: dict[str, int], built: str, capsys: Capture
) -> None:
    for line, wanted in expected.items():
        restore(built)
        shutil.rmtree("new", ignore_errors=True)
        damage(path)
        code, lines = run(capsys, *line.split(" "))
        assert (code, len(lines)) == (wanted, bool(wanted)), (line, lines)


@pytest.mark.usefixtures("copy")
def test_bad_pages_of_a_mirror(capsys: Capture) -> None:
    flip_a_bit("M/volumes/disk.img")
    assert run(capsys, "verify", "M") == (1, [])
    code, line = refused(capsys, "replay", "J", "M")
    assert code in (0, 21) and "M" in line


@pytest.mark.usefixtures("copy")
def test_damaged_table_is_not_blamed_on_the_pages(capsys: Capture) -> None:
    os.truncate("M/sums/disk.sums", 0)
    assert main(["verify", "M"]) == 1
    assert "--journal" in capsys.readouterr().err
    code, line = refused(capsys, "verify", "M", "--journal", "J")
    assert (code, "M/sums/disk.sums: " in line) == (21, True)


@pytest.mark.usefixtures("copy")
def test_image_replaced_by_another(capsys: Capture) -> None:
    write("own.img", b"1" * 4096)
    assert main(["init", "JO", "disk=own.img"]) == main(["record", "JO"]) == 0
    write("next.img", b"2" * 4096)
    os.rename("next.img", "own.img")
    code, line = refused(capsys, "record", "JO")
    assert (code, "--scan" in line) == (21, True)
    assert run(capsys, "record", "JO", "--scan") == (0, [])
    for replace, phrase in ((remove, "does not exist"), (os.mkdir, "is a directory")):
        replace("own.img")
        code, line = refused(capsys, "record", "JO")
        assert code == 20 and phrase in line
