"""FIG. 7: four groups over the whole 62-bit space, by the program itself, with volumes that span it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.errors import HostError
from tests.fakes.journals import Commit, JournalMaker, Write
from tests.fakes.volumes import fast_directory

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
    lines = list(map(json.loads, Path(trace).read_text().splitlines()))
    return {line["footprint"][0][0]: line["group"] for line in lines if line["type"] == "unit"}


def can_hold(directory: str, offset: int) -> bool:
    with files.open_file(f"{directory}/probe", write=True, create=True) as file:
        try:
            file.truncate(offset)
        except HostError:
            return False
        finally:
            files.remove(file.path)
    return True


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
