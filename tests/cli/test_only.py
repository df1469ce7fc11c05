"""`replay --only`, and what the other commands say of such a mirror."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.volumes import make_old

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """In a directory with a journal J of a.img, b.img and c.img, and a mirror A of a alone."""
    monkeypatch.chdir(tmp_path)

    def call(line: str, expected: int = 0) -> str:
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expected, (line, code, err)
        assert len([each for each in err.splitlines() if each.startswith("mirrortool:")]) == bool(expected), err
        return out + err

    for name in "abc":
        Path(f"{name}.img").write_bytes(name.encode() * 8192)
        make_old(f"{name}.img")
    call("init J a=a.img b=b.img c=c.img")
    call("record J")
    call("replay J A --only a")
    return call


def test_a_mirror_of_one_volume_is_verified_and_the_others_are_named(run: Run) -> None:
    told = run("verify A")
    assert "no bad page" in told and "2 pages checked, state sum as in the journal" in told
    assert "not held by this mirror, and not looked at: volumes b, c" in told
    assert json.loads(run("verify A --json -q"))["volumes_not_held"] == ["b", "c"]
    assert os.listdir("A/volumes") == ["a.img"]
    run("replay J BC --only b --only c -q")
    told = run("verify BC")
    assert "4 pages checked" in told and told.count("not looked at: volume a") == 1


def test_status_and_list_say_what_is_not_held(run: Run) -> None:
    assert run("status A").count("not held here") == 2
    kinds = [volume["kind"] for volume in json.loads(run("status A --json"))["paths"][0]["volumes"]]
    assert kinds == ["image", "elsewhere", "elsewhere"]
    assert "elsewhere  not held here" not in run("volume list A")
    assert run("volume list A").splitlines()[2].split()[-2:] == ["elsewhere", "-"]
    assert json.loads(run("volume list A --json"))["volumes"][2]["path"] is None


def test_it_is_followed_without_being_told_and_not_promoted(run: Run) -> None:
    Path("b.img").write_bytes(b"B" * 8192)
    Path("a.img").write_bytes(b"A" * 8192)
    run("record J -q")
    run("replay J A -q")
    assert Path("A/volumes/a.img").read_bytes() == b"A" * 8192
    assert "state sum as in the journal" in run("verify A")
    told = run("promote A --yes", 20)
    assert "the mirror holds only a, and a primary has b, c, too" in told
    assert "NEW makes a mirror with them, too; promote that" in told


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("replay J M --only d", "its volumes: a, b, c"),
        ("replay J M --only d --dry-run", "its volumes: a, b, c"),
        ("replay J M --only a --volume b=x.img", "volume b is not held"),
        ("replay J A --only b", "made to hold a, which cannot be changed"),
    ],
)
def test_refused(run: Run, line: str, phrase: str) -> None:
    assert phrase in run(line, 2)
    assert not os.path.exists("M")
