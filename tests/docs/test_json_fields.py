"""The pages have every field that --json of the commands that make something prints.

test_documented_fields.py has the other commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.jsonfields import documented, keys_of
from tests.docs.manual import page
from tests.docs.workshop import make_image, run
from tests.fakes.served import Served


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")


def result(*arguments: str) -> dict[str, Any]:
    """What a command prints, which is one object."""
    value = json.loads(run(*arguments))
    assert isinstance(value, dict)
    return value


def test_fields_of_init() -> None:
    value = result("init", "other", "a=a.img:1M", "b=b.img:2M", "--json")
    assert set(keys_of(value)) == documented(page("mirrortool-init").sub_part("JSON"))
    assert [(each["name"], each["size"]) for each in value["volumes"]] == [("a", 1 << 20), ("b", 2 << 20)]
    assert value["volumes"][0]["path"] == str(Path("a.img").absolute())


def test_fields_of_mark() -> None:
    value = result("mark", "journal", "before-upgrade", "--json")
    assert set(keys_of(value)) == documented(page("mirrortool-mark").sub_part("JSON"))
    newest = result("log", "journal", "--json")["commits"][-1]
    assert {key: newest[key] for key in ("lsn", "chain", "mark")} == {
        key: value[key] for key in ("lsn", "chain", "mark")
    }


def test_fields_of_a_dropped_slot() -> None:
    run("replay", "journal", "mirror", "-q", "--slot", "second")
    value = result("slot", "drop", "journal", "second", "--json")
    assert set(keys_of(value)) == documented(page("mirrortool-slot").sub_part("JSON of a drop"))
    assert value["name"] == "second" and value["where"] == str(Path("mirror").absolute())


def test_a_slot_whose_file_is_damaged_is_dropped_as_one_object_too() -> None:
    run("replay", "journal", "mirror", "-q", "--slot", "second")
    Path("journal/slots/second.json").write_text("{")
    value = result("slot", "drop", "journal", "second", "--json")
    assert value == {"name": "second", "where": None, "held_bytes": None}


def test_fields_of_volume_set() -> None:
    before = str(Path("disk.img").absolute())
    Path("disk.img").rename("moved.img")
    value = result("volume", "set", "journal", "disk=moved.img", "--json")
    assert set(keys_of(value)) == documented(page("mirrortool-volume").sub_part("JSON of a set"))
    assert value["volumes"] == [{"name": "disk", "path": str(Path("moved.img").absolute()), "was": before}]


def test_fields_of_listed_volumes() -> None:
    expected = documented(page("mirrortool-volume").sub_part("JSON of a list"))
    run("replay", "journal", "mirror", "-q")
    for path, kind, place in (("journal", "path", "disk.img"), ("mirror", "image", "mirror/volumes/disk.img")):
        value = result("volume", "list", path, "--json")
        assert set(keys_of(value)) == expected
        size = Path("disk.img").stat().st_size
        assert value["path"] == path and value["page_size"] == 4096
        assert value["volumes"] == [
            {"name": "disk", "size": size, "address": f"0x{0:016x}", "kind": kind, "path": str(Path(place).absolute())}
        ]


def test_fields_of_a_resized_volume() -> None:
    size = Path("disk.img").stat().st_size
    value = result("volume", "resize", "journal", "disk", str(size + 4096), "--json")
    assert set(keys_of(value)) == documented(page("mirrortool-volume").sub_part("JSON of a resize"))
    assert (value["volume"], value["size"], value["was"]) == ("disk", size + 4096, size)


def test_fields_of_unit() -> None:
    arguments = "record", "journal", "--every", "10m"
    value = result("unit", "--json", *arguments)
    assert set(keys_of(value)) == documented(page("mirrortool-unit").sub_part("JSON"))
    assert value["text"] == run("unit", *arguments)
    assert value["path"] == f"/etc/systemd/system/{value['name']}.service"


def test_fields_of_export() -> None:
    value = result("export", "journal", "disk", "out.img", "--json", "-q")
    assert set(keys_of(value)) == documented(page("mirrortool-export").sub_part("JSON"))
    assert value["data_bytes"] == 1 << 20 and value["size"] == 4 << 20


def test_fields_of_diff() -> None:
    run("mark", "journal", "before", "-q")
    with Path("disk.img").open("r+b") as file:
        file.write(b"changed")
    run("record", "journal", "-q")
    value = result("diff", "journal", "disk", "before", "newest", "--json", "-q")
    assert set(keys_of(value)) == documented(page("mirrortool-diff").sub_part("JSON"))
    assert value["ranges"] == [{"offset": 0, "length": 4096, "is_zero": False}]


def test_fields_of_serve(tmp_path: Path) -> None:
    served = Served(tmp_path / "journal", tmp_path / "s", "--json")
    served.start()
    value = json.loads(served.stop())
    assert set(keys_of(value)) == documented(page("mirrortool-serve").sub_part("JSON"))
