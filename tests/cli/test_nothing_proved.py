"""No claim of rightness that is true of nothing: of empty journals, and of mirrors into which nothing was replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror import newmirror
from mirrortool.mirror.receipts import newest
from mirrortool.verify import Verify
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, replay_all


@pytest.fixture
def maker(tmp_path: Path) -> JournalMaker:
    """A journal without a commit."""
    return JournalMaker(tmp_path / "J", {"a": 40 * PAGE})


def test_verify_of_an_empty_mirror_proves_nothing(
    maker: JournalMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    maker.close()
    mirror = newmirror.create(str(tmp_path / "M"), maker.journal)
    assert main(["verify", mirror.path]) == 3
    said = capsys.readouterr()
    assert said.out.startswith("nothing proved at LSN 0: 40 pages checked")
    assert "state sum as in the journal" not in said.out
    assert "nothing was replayed into the mirror yet" in said.err
    assert newest(mirror) is None, "it was not verified"
    assert main(["verify", mirror.path, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["is_commit"] is False
    assert main(["status", mirror.path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_consistent"] is False
    with open(tmp_path / "M/volumes/a.img", "r+b") as file:
        file.write(b"not of the primary")
    assert main(["verify", mirror.path]) == 1


@pytest.mark.parametrize("has_frames", [False, True])
def test_verify_of_a_journal_without_a_commit_is_no_success(
    maker: JournalMaker, has_frames: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_frames:
        maker.frame(Write("a", 0, b"a" * PAGE))
    maker.close()
    assert main(["verify", maker.journal.path]) == 3
    said = capsys.readouterr()
    assert ("is whole up to LSN 1" in said.out) == has_frames
    assert "no commit yet" in said.err


@pytest.mark.parametrize("command", ["verify {}", "promote --yes {}"])
def test_a_journal_that_has_another_state_sum_proves_nothing(
    command: str,
    maker: JournalMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    maker.close()
    replay_all(maker.journal, tmp_path / "M")
    run = Verify.run
    monkeypatch.setattr(Verify, "run", lambda verify: replace(run(verify), journal_agrees=False))
    assert main(command.format(tmp_path / "M").split()) == 11
    said = capsys.readouterr().err
    assert "the journal does not have the state sum of the" in said
    assert "mirrortool verify of the journal tells whether its state sums are right" in said


def test_a_copy_to_which_nothing_was_sent_is_not_to_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "-q", "J", "disk=disk.img:1M"]) == 0
    assert main(["ship", "J", "C"]) == 0
    assert "next:" not in capsys.readouterr().err, "there is nothing to be replayed"
    for line, code in (("status C", 0), ("log C", 0), ("replay C M", 3), ("verify C", 3)):
        assert main(line.split()) == code
        said = "".join(capsys.readouterr())
        assert "record" not in said, line
        assert "mirrortool ship, where its journal is, sends one" in said, line
    for line, code in (("status J", 0), ("log J", 0)):
        assert main(line.split()) == code
        assert "no commit yet; next: mirrortool record J\n" in "".join(capsys.readouterr())
