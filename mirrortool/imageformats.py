"""Image files that are containers: what a guest sees as its disk lies somewhere inside, and tables beside it.

Known by what they begin with, or by a footer. LUKS is not among them: it is what the guest itself wrote.
"""

from __future__ import annotations

from typing import Protocol

_BEGINNINGS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"\x89MBK\r\n\x1a\n", "backing of a mirror"),
)
_FOOTERS = ((b"conectix", "vhd"), (b"koly", "dmg"))
_FOOTER_BYTES = 512
_HEAD_BYTES = 128


class Readable(Protocol):
    """What may be a container."""

    def pread(self, length: int, offset: int) -> bytes:
        """Read `length` bytes at `offset`."""


def container_format(file: Readable, size: int) -> str | None:
    """The name of the format of a container of `size` bytes; None for a raw image, and for what nobody knows."""
    head = file.pread(min(_HEAD_BYTES, size), 0)
    for offset, magic, name in _BEGINNINGS:
        if head[offset : offset + len(magic)] == magic:
            return name
    if size < _FOOTER_BYTES:
        return None
    foot = file.pread(_FOOTER_BYTES, size - _FOOTER_BYTES)
    return next((name for magic, name in _FOOTERS if foot.startswith(magic)), None)
