"""What a guest put at the start and the end of its disk, and is looked at to know a container: imageformats.py."""

from __future__ import annotations

from collections.abc import Iterator

from mirrortool import files
from mirrortool.imageformats import container_format
from tests.fuzz.memoryfiles import MemoryFiles

MODULES = ("mirrortool.imageformats",)
BYTES_MAX = 1100
TOKENS = (b"QFI\xfb", b"QED\0", b"KDMV", b"conectix", b"koly", b"vhdxfile", b"\x7f\x10\xda\xbe", b"WithoutFreeSpace")


def fuzz_one(data: bytes) -> None:
    with MemoryFiles({"disk": data}):
        found = container_format(files.open_file("disk"), len(data))
    assert found is None or found.isalnum()


def seeds() -> Iterator[bytes]:
    yield b"QFI\xfb" + bytes(508)
    yield bytes(512) + b"conectix" + bytes(504)
    yield bytes(64) + b"\x7f\x10\xda\xbe"
    yield b"short"
