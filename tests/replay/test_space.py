"""FIG. 7: four groups over the whole 62-bit space, by the program itself; volumes span it, or lie far apart in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.journals import Commit, JournalMaker, Write
from tests.fakes.volumes import can_hold, fast_directory

PAGE = 4096
ADDRESS = 0x310000D400000000
SPACE = 1 << 62
QUARTER = SPACE // 4
SPREAD = {"low": 0, "mid": 0x1000 << 48, "fourth": 0x3100 << 48, "last": 0x3FFF << 48}
"""Bases of volumes that lie in the first, the second and, two of them, in the fourth quarter of the space."""


def groups_by_page(place: str, sizes: dict[str, int], bases: dict[str, int], addresses: list[int]) -> dict[int, int]:
    """Journal a page at each address, replay it, verify; which group the trace shows for each page."""
    maker = JournalMaker(f"{place}/J", sizes, bases=bases, page_size=PAGE)
    writes = []
    for number, address in enumerate(addresses, 1):
        name = max((name for name, base in bases.items() if base <= address), key=bases.__getitem__)
        writes.append(Write(name, (address - bases[name]) // PAGE, bytes([number]) * PAGE))
    maker.frame(*writes)
    maker.frame(Commit())
    maker.close()
    trace = f"{place}/trace.jsonl"
    options = ["--ranges", "space", "--groups", "4", "--unit", "op", "--trace", trace, "--max-size", "4E"]
    assert main(["replay", f"{place}/J", f"{place}/M", *options]) == 0
    assert main(["verify", f"{place}/M"]) == 0
    return groups_shown(trace)


def groups_shown(trace: str) -> dict[int, int]:
    """The group of each unit in a trace, by its first page."""
    lines = list(map(json.loads, Path(trace).read_text().splitlines()))
    return {line["footprint"][0][0]: line["group"] for line in lines if line["type"] == "unit"}


def test_address_in_the_fourth_quarter_is_shown_with_the_fourth_group(tmp_path: Path) -> None:
    """On any file system: the volumes lie far apart, and each is small enough for it."""
    sizes = {"low": 1 << 20, "mid": 1 << 20, "fourth": 1 << 40, "last": 1 << 20}
    addresses = [0, SPREAD["mid"], ADDRESS, SPREAD["last"]]
    found = groups_by_page(str(tmp_path), sizes, SPREAD, addresses)
    assert found == {0: 0, SPREAD["mid"] // PAGE: 1, ADDRESS // PAGE: 3, SPREAD["last"] // PAGE: 3}


def test_one_volume_that_is_the_whole_space() -> None:
    """Where the file system holds such a file, as tmpfs does: every address is in a group of its quarter."""
    with fast_directory() as directory:
        if not can_hold(directory, SPACE):
            pytest.skip("no file of 2^62 bytes on this file system")
        addresses = [0, QUARTER - PAGE, QUARTER, 2 * QUARTER, 3 * QUARTER - PAGE, ADDRESS, SPACE - PAGE]
        found = groups_by_page(directory, {"space": SPACE}, {"space": 0}, addresses)
    assert found == {address // PAGE: address // QUARTER for address in addresses}
    assert found[ADDRESS // PAGE] == 3


def test_page_of_the_patent_in_a_volume_placed_by_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text: the page that begins at address 310000D400000000 goes to the task group of the fourth range."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", "J", "low=low.img:1M", "fourth=fourth.img:1T@3100000000000000h", "-q"]) == 0
    for image, offset in [("low.img", 0), ("fourth.img", ADDRESS - SPREAD["fourth"])]:
        with open(image, "r+b") as file:
            file.seek(offset)
            file.write(bytes([7]) * PAGE)
    assert main(["record", "J", "-q"]) == 0
    options = ["--ranges", "space", "--groups", "4", "--trace", "trace.jsonl", "-q"]
    assert main(["replay", "J", "M", *options]) == 0
    assert groups_shown("trace.jsonl") == {0: 0, ADDRESS // PAGE: 3}
    assert main(["verify", "M", "-q"]) == 0


NOTE = "--ranges space leaves all work to one of "


@pytest.mark.parametrize(
    ("volumes", "options", "is_told"),
    [
        ("a=a.img:1M b=b.img:1M", "--ranges space --groups 4", True),
        ("a=a.img:1M b=b.img:1M", "--ranges space", True),
        ("a=a.img:1M b=b.img:1M", "--ranges space --groups 4 -q", False),
        ("a=a.img:1M b=b.img:1M", "--ranges space --groups 1", False),
        ("a=a.img:1M b=b.img:1M", "--ranges equal --groups 4", False),
        ("a=a.img:1M b=b.img:1M", "--groups 4", False),
        ("a=a.img:1M b=b.img:1M@0x3100000000000000", "--ranges space --groups 4", False),
        ("a=a.img:1M b=b.img:1M@0x1000000000000000", "--ranges space --groups 2", True),
    ],
)
def test_replay_says_when_one_group_has_all_the_work(
    volumes: str,
    options: str,
    is_told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "J", *volumes.split(), "-q"]) == main(["record", "J", "-q"]) == 0
    capsys.readouterr()
    assert main(["replay", "J", "M", *options.split()]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if NOTE in line]
    assert len(told) == is_told
    assert all("--ranges equal" in line and "init NAME=PATH@ADDRESS" in line for line in told)
