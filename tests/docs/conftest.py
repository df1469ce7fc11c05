"""A journal and a mirror whose files and JSON the manual pages describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.workshop import make_image, run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with every kind of operation that a scan makes, a mirror with a bad page, and one kept elsewhere."""
    directory = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        make_image(Path("disk.img"))
        run("init", "journal", "disk=disk.img")
        run("record", "journal", "-q")
        run("mark", "journal", "first")
        with Path("disk.img").open("r+b") as file:
            file.write(bytes(65536))
            file.truncate(5 << 20)
        run("record", "journal", "-q")
        run("replay", "journal", "elsewhere", "-q", "--volume", "disk=copy.img")
    return directory


@pytest.fixture
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place
