"""`init` places a volume where its argument says, and takes for an address only what is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.cli.init import parse_new_volume
from mirrortool.cli.main import main
from mirrortool.record.createjournal import NewVolume

FOURTH = 0x3100 << 48
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("place", "path", "size", "address"),
    [
        ("disk.img", "disk.img", None, None),
        ("disk.img@0x3100000000000000", "disk.img", None, FOURTH),
        ("disk.img@3100000000000000h", "disk.img", None, FOURTH),
        ("disk.img@3100000000000000H", "disk.img", None, FOURTH),
        ("disk.img@0X3AB0000000000000", "disk.img", None, 0x3AB << 52),
        ("disk.img@1000000000000h", "disk.img", None, 1 << 48),
        ("disk.img@0x0", "disk.img", None, 0),
        ("disk.img:64M@0x0", "disk.img", 64 << 20, 0),
        ("disk.img@0x123", "disk.img", None, 0x123),
        # snapshots, and other paths with an @
        ("/dev/zvol/tank/vm@monday", "/dev/zvol/tank/vm@monday", None, None),
        ("/dev/zvol/tank/vm@24h", "/dev/zvol/tank/vm@24h", None, None),
        ("/dev/zvol/tank/vm@each", "/dev/zvol/tank/vm@each", None, None),
        ("/dev/zvol/tank/vm@202611282300h", "/dev/zvol/tank/vm@202611282300h", None, None),
        ("/dev/zvol/tank/vm@3100000000000000", "/dev/zvol/tank/vm@3100000000000000", None, None),
        ("/dev/zvol/tank/vm@monday@0x0", "/dev/zvol/tank/vm@monday", None, 0),
        ("vm@monday:1G@0x0", "vm@monday", 1 << 30, 0),
        ("vm@monday:1G", "vm@monday", 1 << 30, None),
        ("vm@0x0@0x0", "vm@0x0", None, 0),
        ("vm@0x0:1G@0x0", "vm@0x0", 1 << 30, 0),
        ("vm@", "vm@", None, None),
        ("vm@0x", "vm@0x", None, None),
        ("vm@0x1g", "vm@0x1g", None, None),
        ("vm@-0x1", "vm@-0x1", None, None),
        ("vm@ 0x1", "vm@ 0x1", None, None),
        ("vm@0x1_0", "vm@0x1_0", None, None),
        ("vm@٣100000000000000h", "vm@٣100000000000000h", None, None),
        ("vm@a/0x0", "vm@a/0x0", None, None),
        ("@0x0", "@0x0", None, None),
        (":1G@0x0", ":1G", None, 0),
    ],
)
def test_an_at_sign_belongs_to_the_path_unless_an_address_follows_the_last_one(
    place: str, path: str, size: int | None, address: int | None
) -> None:
    assert parse_new_volume(f"disk={place}") == NewVolume("disk", path, size, address)


@given(st.text(st.sampled_from("ab@:=/.0x1hG"), min_size=1))
def test_before_a_size_and_an_address_there_can_be_any_path(path: str) -> None:
    """One that ends like an address, too."""
    assert parse_new_volume(f"disk={path}:1K@0x0") == NewVolume("disk", path, 1024, 0)


@pytest.mark.parametrize("place", ["a@0x3100000000000000:1M", "a@3100000000000000h:1M", "a@0x1:0"])
def test_a_size_after_the_address_makes_no_file_of_such_a_name(place: str, capsys: Capture) -> None:
    assert main(["init", "J", f"disk={place}"]) == 2
    assert "has the size after the address; write NAME=PATH:SIZE@ADDRESS" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_volumes_are_listed_by_address_with_it(capsys: Capture) -> None:
    volumes = ["a=a.img:1M@3100000000000000h", "b=b.img:1M", "c=c.img:1M@0x0", "d=d.img:1M"]
    assert main(["init", "J", *volumes]) == 0
    expected = [("c", 0), ("b", 1 << 48), ("d", 2 << 48), ("a", FOURTH)]
    here = Path().absolute()
    assert capsys.readouterr().out.splitlines() == [
        f"{name}  1.0 MiB  {here}/{name}.img  at {address:#018x}" for name, address in expected
    ]
    assert main(["status", "J", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["volumes"]
    assert [(each["name"], int(each["address"], 16)) for each in listed] == expected
    # and what is printed can be given again
    again = [f"{each['name']}={each['name']}.img@{each['address']}" for each in listed]
    assert main(["init", "K", *again, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["volumes"]
    assert [(each["name"], each["address"]) for each in made] == [(each["name"], each["address"]) for each in listed]


def test_without_addresses_nothing_is_said_of_them_but_in_json(capsys: Capture) -> None:
    assert main(["init", "J", "a=a.img:1M", "b=b.img:1M", "-q"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [name, "1.0", "MiB", str(Path(f"{name}.img").absolute())] for name in "ab"
    ]
    assert main(["init", "K", "a=a.img", "b=b.img", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["volumes"]
    assert [each["address"] for each in made] == ["0x0000000000000000", "0x0001000000000000"]


@pytest.mark.parametrize(
    ("volumes", "refusal"),
    [
        ("a=a.img:1M@0x3100000000000001", "not a multiple of 2^48; place it at 0x3100000000000000 or 0x31010"),
        ("a=a.img:1M@4000000000000000h", "addresses are 0x0000000000000000 to 0x3fffffffffffffff"),
        (f"a=a.img:1M@0x{'f' * 300}", "addresses are 0x0000000000000000 to 0x3fffffffffffffff"),
        ("a=a.img:1M@0x0 b=b.img:1M@0x0", "volumes a and b overlap: both start at 0x0000000000000000; place b at"),
        ("a=a.img:300T@0x0 b=b.img:1M@0x1000000000000", "volumes a and b overlap: the first ends at"),
        ("a=a.img:257T@0x3fff000000000000", "reach beyond the last address; place it at 0x3ffe000000000000 or lower"),
        ("a=a.img:1M@0x2000000000000000 b=b.img:3E", "volume b is too large for what the others leave"),
    ],
)
def test_a_place_that_no_volume_can_have_is_refused_in_one_line_and_nothing_made(
    volumes: str, refusal: str, capsys: Capture
) -> None:
    assert main(["init", "J", *volumes.split()]) == 2
    told = capsys.readouterr().err
    assert refusal in told and told.count("\n") == 1
    assert not list(Path().iterdir())
