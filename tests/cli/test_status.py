"""`status --max-lag` and `--watch` as a person and a monitoring program meet them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mirrortool.cli import status
from mirrortool.cli.main import main
from mirrortool.errors import MirrortoolError
from mirrortool.status import Found
from tests.fakes.volumes import inside_fast_directory, make_old

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A mirror in sync, one that is behind, and one whose journal is gone."""
    with inside_fast_directory() as directory:
        for name in ("gone", "kept"):
            Path(f"{name}.img").write_bytes(name.encode() * 10_000)
            make_old(f"{name}.img")
            assert main(["init", f"J-{name}", f"disk={name}.img"]) == main(["record", f"J-{name}"]) == 0
        assert main(["init", "J-bare", "disk=bare.img:1M"]) == 0
        assert main(["replay", "J-gone", "lost"]) == main(["replay", "J-kept", "behind"]) == 0
        os.rename("J-gone", "J-moved")
        Path("kept.img").write_bytes(b"new!" * 10_000)
        make_old("kept.img")
        assert main(["record", "J-kept"]) == main(["replay", "J-kept", "level"]) == 0
        yield directory


CASES = [
    ("level --max-lag 0s", 0, ""),
    ("level --max-lag 0s --json", 0, ""),
    ("behind --max-lag 1h", 0, ""),
    ("behind --max-lag 0s", 50, "behind: "),
    ("level behind --max-lag 0s --json", 50, "behind: "),
    ("level lost behind --max-lag 1h", 50, "lost: its lag is not known"),
    ("J-bare --max-lag 1h", 2, "needs a mirror"),
    ("J-kept --max-lag 1h", 0, ""),
    ("J-kept --max-lag 0s", 50, "slot behind-"),
    ("J-kept level --max-lag 1h", 0, ""),
    ("level --max-lag soon", 2, "not a duration"),
    ("level behind --watch --max-lag 0s", 50, "behind: "),
    ("level nothing --watch", 14, "does not exist"),
    ("nothing", 14, "does not exist"),
    ("nothing --json", 14, "does not exist"),
    ("nothing level --json", 14, "does not exist"),
    ("behind nothing --max-lag 0s", 14, "does not exist"),
    ("J-bare nothing --max-lag 0s", 14, "does not exist"),
]


@pytest.mark.parametrize(("line", "code", "phrase"), CASES, ids=[case[0] for case in CASES])
def test_lag_is_judged(
    line: str, code: int, phrase: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(place)
    assert main(["status", *line.split()]) == code
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == bool(code) and phrase in printed.err
    if "--json" in line:
        assert json.loads(printed.out)


def test_one_bad_path_does_not_hide_the_others(place: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(place)
    Path("kept.img").write_bytes(b"")
    assert main(["status", "nothing", "level", "kept.img"]) == 14
    printed = capsys.readouterr()
    assert "mirror level of J-kept" in printed.out.replace(f"{place}/", "")
    assert printed.out.count(" is a file, not") == printed.err.count("does not exist") == 1
    assert main(["status", "nothing", "level", "--json"]) == 14
    nothing, level = json.loads(capsys.readouterr().out)["paths"]
    assert (nothing["type"], nothing["problems"][0]["exit_code"], level["problems"]) == (None, 14, [])


def stop_at_third_look(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.001)
    shown = []
    show = status._show

    def counted(found: Sequence[Found], as_json: bool, ends_with: MirrortoolError | None, verbose: bool) -> None:
        show(found, as_json, ends_with, verbose)
        shown.append(found)
        if len(shown) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(status, "_show", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watch_ends_with_zero(
    number: int, form: list[str], place: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(place)
    stop_at_third_look(monkeypatch, number)
    assert main(["status", "level", "--watch", *form]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "\x1b" not in printed.out
    if form:
        assert [json.loads(line)["path"] for line in printed.out.splitlines()] == ["level"] * 3
    else:
        assert printed.out.count("mirror level of ") == 3


def test_watch_shows_damage_and_goes_on(place: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(place)
    stop_at_third_look(monkeypatch, signal.SIGTERM)
    (newest,) = Path("J-moved/files").iterdir()
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1])
    try:
        assert main(["status", "J-moved", "--watch"]) == 0
    finally:
        newest.write_bytes(whole)
    assert capsys.readouterr().out.count("damaged at offset") == 3


def test_watch_clears_a_terminal(place: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mirrortool", "status", "level", "--watch"]
    with subprocess.Popen(command, cwd=place, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        while b"verify proves" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[2J")
