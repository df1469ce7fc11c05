"""The public API: what `import mirrortool` lists is there, does the main job, and is not loaded before it is wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mirrortool


@pytest.mark.parametrize("name", mirrortool.__all__)
def test_each_name_is_there_and_in_the_docstring(name: str) -> None:
    assert callable(getattr(mirrortool, name))
    assert mirrortool.__doc__ is not None
    assert name in mirrortool.__doc__


def test_the_main_job_from_python(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * 10_000)
    journal, mirror = str(tmp_path / "J"), str(tmp_path / "M")
    mirrortool.init(journal, [mirrortool.NewVolume("disk", str(tmp_path / "disk.img"))], 4096)
    with mirrortool.Scan(journal) as scan:
        scan.run()
    mirrortool.mark(journal, "first")
    with mirrortool.Replay(journal, mirror, until=mirrortool.Until(mark="first")) as replay:
        replay.run()
    with mirrortool.Verify(mirror) as verify:
        assert verify.run().is_right
    assert (tmp_path / "M" / "volumes" / "disk.img").read_bytes() == b"x" * 10_000


def test_live_recording_from_python(tmp_path: Path) -> None:
    journal, mirror = str(tmp_path / "J"), str(tmp_path / "M")
    mirrortool.init(journal, [mirrortool.NewVolume("disk", str(tmp_path / "disk.img"), 1 << 20)], 4096)
    with mirrortool.Recorder.open(journal) as recorder:
        mirrortool.BaseScan(recorder).run()
        recorder.write("disk", 5000, b"hello")
        recorder.commit("greeted")
        recorder.write("disk", 5000, b"HELLO")
        assert recorder.read("disk", 4999, 7) == b"\0HELLO\0"
    with mirrortool.Replay(journal, mirror, until=mirrortool.Until(mark="greeted")) as replay:
        replay.run()
    with mirrortool.Verify(mirror) as verify:
        assert verify.run().is_right
    assert (tmp_path / "M" / "volumes" / "disk.img").read_bytes()[5000:5005] == b"hello"
    assert (tmp_path / "disk.img").read_bytes()[5000:5005] == b"HELLO"


def test_importing_it_loads_nothing() -> None:
    code = "import sys, mirrortool; sys.exit(any(name.startswith('mirrortool.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
