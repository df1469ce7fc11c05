"""`replay --follow` and what belongs to it, as options: what is refused, what is printed, which slot is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.options import parse_rate
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import slots
from tests.fakes.journals import PAGE, Commit, Write, make_journal

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.chdir(tmp_path)
    frames = [[Write("a", n, bytes([n + 1]) * PAGE), Commit(f"m{n}")] for n in range(4)]
    return make_journal(tmp_path / "J", {"a": 10 * PAGE}, frames)


@pytest.mark.parametrize(("text", "rate"), [("10M", 10 << 20), ("10MiB/s", 10 << 20), ("512B/s", 512), (" 1K ", 1024)])
def test_a_rate_is_a_size_a_second(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "0M/s", "M/s", "10M/min", "-1", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slot", "x", "--no-slot"], "exclude each other"),
        (["--delay", "1h", "--until", "4"], "exclude each other"),
        (["--follow", "--delay", "1h", "--until", "4"], "exclude each other"),
        (["--slot", "a b"], "not a slot's name"),
        (["--bwlimit", "0"], "is a bare number"),
        (["--delay", "soon"], "not a duration"),
        (["--observer", "eye"], "eye"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    journal: Journal, capsys: Capture, options: list[str], message: str
) -> None:
    assert main(["replay", "J", "M", *options]) == 2
    assert message in capsys.readouterr().err
    assert not slots(journal)
    assert not Path("M").exists()


@pytest.mark.usefixtures("journal")
def test_following_to_a_point_ends_with_0(capsys: Capture) -> None:
    assert main(["replay", "J", "M", "--follow", "--until", "m2", "--json", "--slot", "s"]) == 0
    out = capsys.readouterr()
    report = json.loads(out.out)
    assert (report["applied_lsn"], report["target_lsn"], report["head_lsn"], report["slot"]) == (6, None, 8, "s")
    assert report["lag"]["operations"] == 2
    assert "following J; the mirror is empty" in out.err
    assert "next: mirrortool verify M" in out.err


@pytest.mark.usefixtures("journal")
def test_a_mirror_is_not_waited_for_as_a_journal() -> None:
    assert main(["replay", "J", "M", "--quiet"]) == 0
    assert main(["replay", "M", "J", "--follow"]) == 14


def test_a_restore_to_a_point_keeps_no_slot_unless_it_is_named(journal: Journal) -> None:
    assert main(["replay", "J", "M", "--until", "m1", "--quiet"]) == 0
    assert main(["replay", "J", "N", "--no-slot", "--quiet"]) == 0
    assert not slots(journal)
    assert main(["replay", "J", "O", "--until", "m1", "--slot", "mine", "--quiet"]) == 0
    assert main(["replay", "J", "P", "--quiet", "--bwlimit", "1G/s", "--delay", "1s"]) == 0
    assert [(slot.name.split("-")[0], slot.position.lsn) for slot in slots(journal)] == [("P", 8), ("mine", 4)]


@pytest.mark.usefixtures("journal")
def test_the_slot_of_another_mirror_is_refused(capsys: Capture) -> None:
    assert main(["replay", "J", "M", "--slot", "s", "--quiet"]) == 0
    assert main(["replay", "J", "N", "--slot", "s", "--quiet"]) == 2
    assert "--replace-slot" in capsys.readouterr().err


def test_status_says_since_when_the_primary_is_silent(journal: Journal, capsys: Capture) -> None:
    assert main(["replay", "J", "M", "--quiet"]) == 0
    capsys.readouterr()
    for path in ("J", "M"):
        assert main(["status", path]) == 0
        assert "silent" not in capsys.readouterr().out, "who stopped cleanly owes no news"
    journal.save_clean_end(None)  # as if its recorder had been killed
    for path in ("J", "M"):
        assert main(["status", path]) == 0
        assert "the last word of the primary is of 20" in capsys.readouterr().out
        with journal.lock("scan"):  # which appends nothing for as long as nothing differs
            assert main(["status", path]) == 0
        assert "silent" not in capsys.readouterr().out
    assert main(["status", "M", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["silent_seconds"] > 30
