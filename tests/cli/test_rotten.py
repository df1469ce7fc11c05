"""What rotted in a journal, or in its sums, is said by the command that meets it, and stays where it is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.volumes import Primary, make_primary, make_scanned, pattern, small_journal_files

SIZE = 1 << 20


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"disk": pattern(1, SIZE)}, 4096)


def test_rotten_sum_does_not_poison_the_journal(
    primary: Primary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = Path(primary.journal.sums_path, "disk.sums")
    data = bytearray(sums.read_bytes())
    data[8 * 7] ^= 1
    sums.write_bytes(data)
    assert main(["record", "-q", primary.journal_path]) == 11
    assert "run record again" in capsys.readouterr().err
    assert main(["record", "-q", primary.journal_path]) == 0
    mirror = str(tmp_path / "mirror")
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert main(["verify", "-q", mirror]) == 0


def test_log_does_not_hide_damage_in_an_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_journal_files(monkeypatch, 8192)
    primary = make_primary(tmp_path, {"disk": pattern(1, 16384)}, 4096)
    for number in range(4):
        primary.write("disk", 0, random.Random(number).randbytes(8192))
        primary.scan()
    starts = primary.journal.file_starts()
    assert len(starts) > 3
    damaged = Path(primary.journal.file_path(starts[1]))
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    assert main(["log", primary.journal_path]) == 11
    printed = capsys.readouterr()
    assert "scan" in printed.out
    assert damaged.name in printed.err
