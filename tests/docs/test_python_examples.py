"""The Python of README and manual runs, and is what mypy makes of it under --strict, as its users' programs are."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mirrortool
from mirrortool.cli.main import main
from tests.docs.manual import ROOT, page, unescape

README = (ROOT / "README.md").read_text()


def blocks() -> Iterator[str]:
    """The programs of the manual, in order."""
    block: list[str] | None = None
    for line in page("mirrortool", 3).part("EXAMPLES"):
        if line.startswith(".Bd"):
            block = []
        elif line == ".Ed":
            assert block is not None
            yield "\n".join(block) + "\n"
            block = None
        elif block is not None:
            block.append(unescape(line))


MANUAL = list(blocks())
(OF_README,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(program: str, place: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_manuals_examples_run(tmp_path: Path) -> None:
    first, second, _ = (run(program, tmp_path) for program in MANUAL)
    assert first.splitlines()[-2] == "right" and "greeted" in first and first.endswith(" 2\n")
    assert first.count("FLUSH") >= 2
    assert second.startswith("copy ") and second.endswith("['greeted']\n")


def test_the_manuals_key_value_log_is_replayed_in_order_for_each_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(MANUAL[2], names)
    parallel = dict(names["values"])
    names["values"].clear()
    for each in names["log"]:
        names["apply"](*each)
    assert parallel == names["values"]
    told = capsys.readouterr().out
    assert "mini-queue" in told and "counter wait" in told
    assert main(["trace", "calls.jsonl"]) == 0
    assert "in order: 49 units" in capsys.readouterr().out


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    journal = str(tmp_path / "J")
    mirrortool.init(journal, [mirrortool.NewVolume("disk", str(tmp_path / "disk.img"), 1 << 20)])
    with mirrortool.Scan(journal) as scan:
        scan.run()
    run(OF_README, tmp_path)
    assert [each.name for each in mirrortool.marks(mirrortool.Journal(journal))] == ["greeted"]
    assert (tmp_path / "disk.img").read_bytes()[4096:4101] == b"HELLO"


EVERY_NAME = f"""
from mirrortool import {", ".join(mirrortool.__all__)}
found: tuple[Position, list[Commit]] = mark("J", "m"), marks(Journal("J"))
with Verify("M") as verify:
    result: VerifyResult = verify.run()
    first: BadRun = result.bad_runs[0]
try:
    init("J", [NewVolume("a", "b")])
except MirrortoolError as error:
    told: tuple[str, str | None, int] = error.what, error.remedy, error.exit_code
"""
WRONG = """
import mirrortool
mirrortool.nothing_of_this_name
mirrortool.Recorder.open(1)
"""


def test_their_types_are_right(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    programs = {"readme.py": OF_README, "every.py": EVERY_NAME, "wrong.py": WRONG}
    programs |= {f"manual{number}.py": program for number, program in enumerate(MANUAL)}
    for name, program in programs.items():
        (tmp_path / name).write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={ROOT}/.mypy_cache", *programs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(\S+?): error: .*\[(.*)\]$", done.stdout, re.MULTILINE)
    assert found == [("wrong.py:3", "attr-defined"), ("wrong.py:4", "arg-type")], done.stdout + done.stderr
