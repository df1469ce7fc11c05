"""A mirror of a volume that changed while it was scanned is nowhere called right."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from mirrortool.store.flat import FlatStore
from tests.fakes.volumes import Primary, make_scanned, pattern

SIZE = 1 << 20


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"disk": pattern(1, SIZE)}, 4096)


def test_mirror_at_a_fuzzy_commit_says_so(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = FlatStore.read_into

    def change_meanwhile(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
        read(self, page, buffers)
        primary.write("disk", 5, b"changed")

    with monkeypatch.context() as patch:
        patch.setattr(FlatStore, "read_into", change_meanwhile)
        assert main(["record", "-q", primary.journal_path]) == 25
    mirror = str(tmp_path / "mirror")
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert Mirror(mirror).checkpoint.is_fuzzy
    assert "FUZZY" in capsys.readouterr().out
    assert main(["verify", "-q", mirror]) == 25
    assert main(["verify", "-q", "--allow-fuzzy", mirror]) == 0
    primary.scan()
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert main(["verify", "-q", mirror]) == 0
