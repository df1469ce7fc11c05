"""Volumes at both ends of the address space, and one between them, go through every command like any others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirrortool import InitialScan, Journal, Recorder
from mirrortool.cli.main import main
from tests.fakes.recorders import drop
from tests.fakes.volumes import inside_fast_directory, make_old, pattern, small_journal_files

MIB = 1 << 20
PLACES = {"low": "0x0", "mid": "0x1000000000000000", "last": "3fff000000000000h"}
SIZES = {"low": 3 * MIB, "mid": 40 * MIB, "last": MIB + 700}
RANGES = {"M": ("space", 4), "M2": ("equal", 3), "M3": ("space", 16), "M4": ("interleaved", 2)}


def run(*arguments: object) -> None:
    assert main([*map(str, arguments), "-q"]) == 0, arguments


def write(number: int, share: float) -> None:
    """Change a stretch of each volume, which begins after this share of it."""
    for name in SIZES:
        image = f"{name}.img"
        with open(image, "r+b") as file:
            file.seek(int(os.path.getsize(image) * share))
            file.write(pattern(number, 5000))
        make_old(image)


def resize(**sizes: int) -> None:
    for name, size in sizes.items():
        os.truncate(f"{name}.img", size)
        make_old(f"{name}.img")


def replay_and_compare(journal: str, mirror: str) -> None:
    """Bring a mirror to the newest commit, prove it, and compare it with the primary's volumes."""
    ranges, groups = RANGES[mirror]
    run("replay", journal, mirror, "--ranges", ranges, "--groups", groups, "--tasks", 2)
    run("verify", mirror)
    for name in SIZES:
        assert Path(mirror, "volumes", f"{name}.img").read_bytes() == Path(f"{name}.img").read_bytes()


def write_and_kill() -> None:
    """What a client flushed is in the journal, and not on the volumes yet."""
    recorder = Recorder("J", background=False)
    InitialScan(recorder).run()
    for name in SIZES:
        recorder.write(name, MIB - 100, b"written" * 100)
        recorder.zero(name, 1000, 10000)
        assert bytes(recorder.read(name, MIB - 100, 7)) == b"written"
    recorder.flush()
    drop(recorder)


@pytest.mark.parametrize("page_size", [512, 4096])
def test_from_init_to_promotion(page_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_journal_files(monkeypatch, 4096)
    with inside_fast_directory():
        volumes = [f"{name}={name}.img:{SIZES[name]}@{PLACES[name]}" for name in SIZES]
        run("init", "J", *volumes, "--page-size", page_size)
        write(1, 0)
        run("record", "J")
        replay_and_compare("J", "M")
        write(2, 0.5)
        resize(low=2 * MIB + 100, mid=60 * MIB, last=2 * MIB)
        write(3, 0.9)
        run("record", "J")
        run("base", "J")
        write(4, 0.3)
        run("record", "J")
        replay_and_compare("J", "M")
        run("base", "J")
        run("prune", "J", "--keep-size", "0")
        assert Journal("J").file_starts()[0] > 1  # so that a new mirror begins with a base
        replay_and_compare("J", "M2")
        write_and_kill()
        run("record", "J")  # which first writes to the volumes what they lack
        assert Path("last.img").read_bytes()[MIB - 100 :].startswith(b"written")
        run("ship", "J", "copy")
        replay_and_compare("copy", "M3")
        run("promote", "M3", "--yes", "--no-verify")
        for name in SIZES:
            Path(f"{name}.img").write_bytes(Path("M3/volumes", f"{name}.img").read_bytes())
        run("verify", "copy")
        replay_and_compare("copy", "M4")
