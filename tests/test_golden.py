"""What earlier versions wrote stays readable: tests/golden/VERSION.tar.xz, made by tests/golden/make.sh.

`unreleased` is of a state between two releases: the next archive takes its place.
Each archive is unpacked and its paths are set to where it lies now, as its owner would after moving it. What its
journal holds is known from expected.jsonl (the commits, as `log --all --json` printed them) and expected.sha256 (each
volume as of each commit).
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirrortool.cli.main import main

ARCHIVES = sorted((Path(__file__).parent / "golden").glob("*.tar.xz"))
MADE_AT = "/tmp/mirrortool-golden"

FILTER: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Which Python 3.12 asks for, and 3.11.2, which Debian 12 has, does not know."""

Run = Callable[..., str]


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def golden(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked directory, which is also the working directory."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, **FILTER)
    for path in tmp_path.rglob("*.json"):
        path.write_text(path.read_text().replace(MADE_AT, str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must end with 0, and returns what it prints."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == 0, (arguments, err)
        return out

    return run


def commits(golden: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (golden / "expected.jsonl").read_text().splitlines()]


def newest(golden: Path) -> int:
    return int(commits(golden)[-1]["lsn"])


def volumes_at(golden: Path, lsn: int) -> dict[str, str]:
    """The SHA-256 of each volume's image as of a commit."""
    found = {}
    for line in (golden / "expected.sha256").read_text().splitlines():
        digest, name = line.split()
        if name.startswith(f"{lsn}/"):
            found[name.split("/")[1]] = digest
    assert set(found) == {"a.img", "b.img"}
    return found


def volumes_of(mirror: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (mirror / "volumes").glob("*.img")}


def test_there_is_one_of_each_version_that_was_released() -> None:
    """mirrortool(1) has a list of changes since each, and before a release one of what comes."""
    manual = (Path(__file__).parents[1] / "man/man1/mirrortool.1").read_text()
    changes = re.findall(r"^\.Ss (\S+), since (\S+)$", manual, re.MULTILINE)
    assert changes and changes[0][0] == project_version(), "the newest list is of this version"
    names = {path.name.removesuffix(".tar.xz") for path in ARCHIVES}
    assert names - {"unreleased", project_version()} == {since for _, since in changes}
    assert len(names & {"unreleased", project_version()}) == 1, "the archive of a release replaces that of no release"


def project_version() -> str:
    with open(Path(__file__).parents[1] / "pyproject.toml", "rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def test_every_commit_is_listed_as_it_was(golden: Path, run: Run) -> None:
    listed = [json.loads(line) for line in run("log", "--all", "--json", "journal").splitlines()]
    assert len(listed) == len(commits(golden)) >= 10
    for now, then in zip(listed, commits(golden), strict=True):
        assert {key: now[key] for key in then} == then


def test_every_commit_is_replayed_to_the_same_bytes(golden: Path, run: Run) -> None:
    for commit in commits(golden):
        mirror = f"at-{commit['lsn']}"
        run("replay", "-q", "--no-slot", "journal", mirror, "--until", str(commit["lsn"]))
        assert volumes_of(golden / mirror) == volumes_at(golden, commit["lsn"])


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("journal", ["journal", "copy", "apart", "pruned"])
def test_every_journal_is_verified(run: Run, journal: str) -> None:
    run("verify", journal)


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize(
    ("journal", "mirror"), [("journal", "mirror"), ("copy", "copymirror"), ("apart", "afterwards")]
)
def test_every_mirror_is_verified(golden: Path, run: Run, journal: str, mirror: str) -> None:
    lsn = json.loads((golden / mirror / "checkpoint.json").read_text())["position"]["lsn"]
    assert f"no bad page at LSN {lsn} " in run("verify", mirror, "--journal", journal)


def test_a_mirror_goes_on(golden: Path, run: Run) -> None:
    run("replay", "-q", "journal", "mirror")
    assert volumes_of(golden / "mirror") == volumes_at(golden, newest(golden))
    run("verify", "-q", "mirror")


def test_a_copy_and_its_mirror_go_on(golden: Path, run: Run) -> None:
    run("ship", "-q", "journal", "copy")
    run("replay", "-q", "copy", "copymirror")
    assert volumes_of(golden / "copymirror") == volumes_at(golden, newest(golden))


def test_a_base_begins_a_mirror_where_older_files_are_gone(golden: Path, run: Run) -> None:
    run("replay", "-q", "pruned", "from-base")
    assert volumes_of(golden / "from-base")["a.img"] == volumes_at(golden, newest(golden))["a.img"]
    run("verify", "-q", "from-base", "--journal", "pruned")


@pytest.mark.usefixtures("golden")
def test_slots_are_listed(run: Run) -> None:
    names = [slot["name"] for slot in json.loads(run("slot", "list", "--json", "journal"))["slots"]]
    assert len(names) == 4
    assert sum("copymirror" in name for name in names) == 1  # the far slot, told by the copy


@pytest.mark.usefixtures("golden")
def test_a_promoted_mirror_is_known_as_one(run: Run) -> None:
    assert "epoch 1" in run("status", "promoted")


def test_recording_goes_on_with_files_that_were_moved(golden: Path, run: Run) -> None:
    (golden / "a.img").write_bytes(b"new" * 1000)
    run("record", "-q", "journal", "--scan")
    run("replay", "-q", "journal", "mirror")
    assert (golden / "mirror/volumes/a.img").read_bytes() == (golden / "a.img").read_bytes()
    run("verify", "-q", "mirror")


# What came after 0.1.0, and what a crash leaves: `features` of the archives that have it.


@pytest.fixture
def features(golden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory, which is also the working directory."""
    if golden.joinpath("expected.jsonl").exists() and not (golden / "features").exists():
        pytest.skip("0.1.0 had none of these")
    monkeypatch.chdir(golden / "features")
    return golden / "features"


def digests(path: Path) -> dict[str, str]:
    return {name: digest for digest, name in map(str.split, (path / "expected.sha256").read_text().splitlines())}


def test_start_addresses_are_kept_and_what_traced_a_replay_is_read(features: Path, run: Run) -> None:
    run("replay", "-q", "addressed", "addressedmirror")
    assert volumes_of(features / "addressedmirror") == digests(features)
    assert str(0x3100000000000000) in (features / "addressed/journal.json").read_text()
    run("trace", "trace.jsonl")


def test_a_mirror_that_was_starting_over_continues(features: Path, run: Run) -> None:
    assert json.loads((features / "startingover/checkpoint.json").read_text())["resync_lsn"]
    run("replay", "-q", "based", "startingover")
    assert volumes_of(features / "startingover") == digests(features)
    run("verify", "-q", "startingover", "--journal", "based")


@pytest.mark.usefixtures("features")
def test_a_killed_recording_is_recovered(run: Run) -> None:
    run("record", "-q", "killed", "--scan")
    run("verify", "killed")


def test_what_a_promotion_dropped_is_where_it_was_moved(features: Path, run: Run) -> None:
    assert list((features / "forkedcopy/forked").iterdir())
    run("record", "-q", "forkedcopy", "--scan")
    run("verify", "forkedcopy")


def test_a_promotion_that_was_begun_is_completed(features: Path, run: Run) -> None:
    assert main(["verify", "promoting"]) == 16
    run("promote", "-q", "promotingmirror", "--yes")
    assert not (features / "promoting/promoting.json").exists()
    run("verify", "promoting")


def test_a_journal_without_room_catches_up(features: Path, run: Run) -> None:
    assert (
        (features / "detached/detached.log").stat().st_size % 16
        == 0
        < (features / "detached/detached.log").stat().st_size
    )
    run("record", "-q", "detached", "--scan")
    assert not (features / "detached/detached.json").exists()
    run("replay", "-q", "detached", "caughtup")
    assert (features / "caughtup/volumes/a.img").read_bytes() == (features / "full.img").read_bytes()


@pytest.mark.usefixtures("features")
def test_what_a_verification_found_is_still_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "wrong"]) == 1
    assert "bad" in capsys.readouterr().out
