"""The README's transcript is what happens; its commands are those that CI runs."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import mirrortool
from tests.docs.manual import literal_lines, page
from tests.docs.readme import README, ROOT


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


def block(language: str) -> str:
    """The only block of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert isinstance(found, str)
    return found


def test_python_example_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mirrortool.init("J", [mirrortool.NewVolume("disk", "disk.img", 1 << 20)], 4096)
    with mirrortool.Scan("J") as scan:
        scan.run()
    exec(block("python"), {})
    assert Path("disk.img").read_bytes()[4096:4101] == b"HELLO"
    with mirrortool.Replay("J", "M", until=mirrortool.Until(mark="greeted")) as replay:
        replay.run()
    assert Path("M/volumes/disk.img").read_bytes()[4096:4101] == b"hello"


def test_guests_disk_is_the_one_that_is_moved_and_served() -> None:
    """libvirt, QEMU and QMP name one socket and one export, in the README and in the page of guests."""
    text = "\n".join(literal_lines(page("mirrortool-guests", 7).lines))
    (xml,) = re.findall(r"^<disk.*?^</disk>$", text, re.DOTALL | re.M)
    source = ElementTree.fromstring(xml).find("source")
    assert source is not None
    host = source.find("host")
    assert host is not None
    commands = [json.loads(each) for each in re.findall(r"^{.*?}}+$", text, re.DOTALL | re.M)]
    added = commands[0]["arguments"]
    assert [each["execute"] for each in commands] == ["blockdev-add", "blockdev-mirror", "block-job-complete"]
    assert (source.get("name"), host.get("socket")) == (added["export"], added["server"]["path"])
    for place in (README, re.sub(r"\\\n *", "", text)):
        assert f"export={added['export']},server.type=unix,server.path={added['server']['path']}," in place
        assert f"--nbd unix:{added['server']['path']} " in place


def test_a_source_distribution_has_what_its_tests_read() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    there = {"pyproject.toml", *project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    read = set(re.findall(r'(?:ROOT|parents\[\d\]) / "([^"/]+)', tests))
    assert "man" in read and read <= there
    assert {path.split("/")[0] for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)} <= there


def test_ci_runs_the_readmes_test_command() -> None:
    assert "<!-- test command -->\n```sh\n" in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
