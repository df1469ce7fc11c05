"""`base`, `prune` and `slot` as a user tries them, and the points in time of `replay` and `log`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.options import SlotLimit, parse_slot_limit
from mirrortool.journal.bases.listing import lock_bases
from mirrortool.journal.directory import Journal
from tests.fakes.histories import History, make_history

Run = Callable[..., str]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.chdir(tmp_path)
    return make_history(Path("J"), 5)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str, expected: int = 0) -> str:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == expected, (arguments, code, err)
        lines = [line for line in err.splitlines() if line.startswith("mirrortool:")]
        assert len(lines) == (1 if expected else 0), err
        return out + err

    return call


def test_from_base_to_prune_to_restore(history: History, run: Run) -> None:
    run("replay", "J", "M", "--slot", "second-site")
    held = run("prune", "J", "--keep-size", "0")
    assert "removed 0 files" in held and "next: mirrortool base J" in held
    assert f"base of the commit at LSN {history.commits[-1]} " in run("base", "J")
    assert "already has a base" in run("base", "J")
    assert "removed 0 files" not in run("prune", "J", "--keep-size", "0")
    assert f"replaying from the base of LSN {history.commits[-1]} to" in run("replay", "J", "M2", "--no-slot")
    assert Path("M2/volumes/a.img").read_bytes() == history.states[history.commits[-1]]["a"]
    assert "1 base, " in run("verify", "J")
    run("verify", "M2")
    run("replay", "J", "M3", "--until", str(history.commits[0]), expected=2)
    assert not Path("M3").exists()


def test_slots_are_listed_and_dropped(history: History, run: Run) -> None:
    assert "no slots" in run("slot", "list", "J")
    run("replay", "J", "M", "--slot", "second-site", "--until", str(history.commits[3]))
    run("base", "J")
    assert "slot second-site, which is at" in run("prune", "J", "--keep-size", "0")
    listed = run("slot", "list", "J")
    assert "second-site" in listed and str(history.commits[3]) in listed
    found = json.loads(run("slot", "list", "J", "--json"))["slots"]
    assert [(slot["name"], slot["lsn"], slot["is_lost"]) for slot in found] == [
        ("second-site", history.commits[3], False)
    ]
    assert found[0]["held_bytes"] > 0
    would = run("prune", "J", "--keep-size", "0", "--max-slot-lag", "1K", "--dry-run")
    assert "would be LOST" in would and "would remove" in would
    assert "dropped slot second-site" in run("slot", "drop", "J", "second-site")
    run("slot", "drop", "J", "second-site", expected=2)
    run("slot", "drop", "J", "../journal", expected=2)
    assert "no slots" in run("slot", "list", "J")
    assert "removed 0 files" not in run("prune", "J", "--keep-size", "0")
    # The mirror is not lost for it.
    assert f"replaying from the base of LSN {history.commits[-1]}" in run("replay", "J", "M")
    assert Path("M/volumes/b.img").read_bytes() == history.states[history.commits[-1]]["b"]


def test_a_slot_that_lags_too_far_is_named(history: History, run: Run) -> None:
    run("replay", "J", "M", "--slot", "m", "--until", str(history.commits[3]))
    run("base", "J")
    assert "slot m is LOST: " in run("prune", "J", "--keep-size", "0", "--max-slot-lag", "1s")
    assert "LOST" in run("slot", "list", "J")
    run("replay", "J", "M", "--slot", "m")
    assert "LOST" not in run("slot", "list", "J")
    run("verify", "M")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["prune", "J"], 2),
        (["prune", "J", "--keep", "soon"], 2),
        (["prune", "J", "--keep", "1d", "--max-slot-lag", "much"], 2),
        (["prune", "nowhere", "--keep", "1d"], 14),
        (["base", "nowhere"], 14),
        (["base", "J", "--at", "nomark"], 2),
        (["base", "J", "--at", "1"], 2),
        (["base", "J", "--max-size", "1K"], 20),
        (["slot", "list", "nowhere"], 14),
        (["slot", "drop", "nowhere", "x"], 14),
        (["slot", "give"], 2),
        (["replay", "J", "M", "--follow", "--dry-run"], 2),
        (["replay", "J", "M", "--follow", "--flush-only"], 2),
        (["log", "J", "--ops", "--flush-only"], 2),
    ],
)
@pytest.mark.usefixtures("history")
def test_what_makes_no_sense_is_one_line(run: Run, arguments: list[str], code: int) -> None:
    run(*arguments, expected=code)
    assert not Path("M").exists()
    assert not Path("J/bases/work").exists()


@pytest.mark.usefixtures("history")
def test_one_at_a_time(run: Run) -> None:
    with lock_bases(Journal("J")):
        run("base", "J", expected=22)
        run("prune", "J", "--keep", "1d", expected=22)
        run("prune", "J", "--keep", "1d", "--dry-run")


@pytest.mark.usefixtures("history")
def test_a_slot_that_makes_no_sense_stops_what_must_know_it(run: Run) -> None:
    Path("J/slots").mkdir()
    Path("J/slots/m.json").write_text("{}")
    run("prune", "J", "--keep", "1d", expected=14)
    run("slot", "drop", "J", "m")
    run("prune", "J", "--keep", "1d")


def test_flush_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk.img").write_bytes(random.Random(1).randbytes(65536))
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("replay", "J", "M", "--flush-only", expected=3)
    run("mark", "J", "first")
    with Path("disk.img").open("r+b") as file:
        file.write(b"later")
    run("record", "J")
    assert run("log", "J", "--flush-only").count("first") == 1
    assert len(run("log", "J", "--all", "--flush-only").splitlines()) == 1
    run("replay", "J", "M", "--flush-only")
    assert Path("M/volumes/disk.img").read_bytes()[:5] != b"later"
    run("replay", "J", "M", "--flush-only")
    run("replay", "J", "M")
    assert Path("M/volumes/disk.img").read_bytes()[:5] == b"later"
    run("replay", "J", "M", "--flush-only", expected=23)


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("10m", SlotLimit(None, 600)),
        ("10M", SlotLimit(10 << 20, None)),
        ("2d", SlotLimit(None, 172800)),
        ("7", SlotLimit(7, None)),
    ],
)
def test_lags(text: str, lag: SlotLimit) -> None:
    assert parse_slot_limit(text) == lag
