"""The wrong kind of path has the same words and the same exit code in every command, and no name of ours shows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.volumes import inside_fast_directory, make_old

JOURNAL = [
    "record {}", "replay {} new", "replay --dry-run {} new", "replay --follow {} new", "verify M --journal {}",
    "log {}", "mark {} x", "base {}", "prune {} --keep 1d", "slot list {}", "slot drop {} x",
    "import --format fio {} disk.img",
    "ship {} new", "ship --follow {} new", "promote M --yes --journal {}", "unit record --every 1h {}",
]  # fmt: skip
"""Commands that want a journal at {}."""
MIRROR = ["promote --yes {}", "promote --dry-run {}", "replay J {}", "replay --dry-run J {}", "replay --follow J {}"]
EITHER = ["status {}", "status --json {}", "verify {}", "export {} disk made", "serve --nbd unix:made {}"]
MAKES_OR_WAITS = {"replay --follow {} new", "replay J {}", "replay --dry-run J {}", "replay --follow J {}"}
"""Those for which a path that is not there, or an empty directory, is right."""

WRONG = {
    "disk.img": "is a file, not {}",
    "fifo": "is a FIFO, not {}",
    "terminal": "is a character device, not {}",
    "J/journal.json": "lies inside {here}/J, and is not {} itself; name {here}/J",
    "M/volumes/disk.img": "lies inside {here}/M, and is not {} itself; name {here}/M",
    "missing": "does not exist; check the path",
    "directory": "is a directory, but not {}",
}
A_JOURNAL = [("M", "is a mirror, not a journal; its journal is {here}/J")]
A_MIRROR = [
    ("J", "is a journal, not a mirror; name a mirror of it; mirrortool replay J MIRROR makes one"),
    ("C", "is a copy of a journal, not a mirror; name a mirror of it; mirrortool replay C MIRROR makes one"),
]


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    with inside_fast_directory() as directory:
        Path("disk.img").write_bytes(bytes(range(256)) * 64)
        make_old("disk.img")
        assert main(["init", "-q", "J", "disk=disk.img"]) == main(["record", "-q", "J"]) == 0
        assert main(["replay", "-q", "J", "M"]) == main(["ship", "-q", "J", "C"]) == 0
        os.mkdir("directory")
        os.mkfifo("fifo")
        os.symlink(os.ttyname(os.openpty()[1]), "terminal")  # no device of the machine's: wrong code must not harm that
        yield directory


def cases() -> Iterator[tuple[int, str, str]]:
    """Exit code, command line, what it says."""
    for commands, wanted, code, others in (
        (JOURNAL, "a journal", 14, A_JOURNAL),
        (MIRROR, "a mirror", 24, A_MIRROR),
        (EITHER, "a journal or a mirror", 14, []),
    ):
        for command in commands:
            may_be_new = command in MAKES_OR_WAITS
            for path, phrase in (*WRONG.items(), *others):
                is_new = path in ("missing", "directory")
                makes_there = command.startswith("replay") and command.endswith("{}") and path in ("J", "C")
                if not (is_new and may_be_new) and not makes_there:
                    yield code, command.format(path), phrase.replace("{}", wanted)


@pytest.mark.parametrize(("code", "line", "phrase"), list(cases()), ids=lambda value: str(value).replace("/", ":"))
def test_wrong_kind_of_path(
    code: int, line: str, phrase: str, built: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built)
    capsys.readouterr()
    assert main(line.split()) == code
    err = capsys.readouterr().err
    assert err.startswith("mirrortool: ") and err.count("\n") == 1, err
    assert phrase.replace("{here}", os.path.realpath(built)) in err
    told = err.replace("J/journal.json: lies inside", "")  # the user's own word
    assert not re.search(r"\w+\.json", told), err
    assert not os.path.exists("new")


@pytest.mark.parametrize("command", ["init {} d=new:1M", "ship J {}"])
@pytest.mark.parametrize(
    ("path", "phrase"),
    [
        ("disk.img", "is a file, not a directory"),
        ("fifo", "is a FIFO, not a directory"),
        ("M", "a mirror is here already"),
        (".", "the directory is not empty"),
    ],
)
def test_what_is_in_the_way_of_a_new_journal_or_copy_is_named(
    command: str,
    path: str,
    phrase: str,
    built: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(built)
    capsys.readouterr()
    assert main(command.format(path).split()) == 32
    assert f"{path}: {phrase}; choose another path" in capsys.readouterr().err
    assert not os.path.exists("new")
