"""Container formats are told from raw images by their first or last bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mirrortool.files import open_file
from mirrortool.imageformats import container_format
from tests.fakes.volumes import unavailable

CASES = [
    (b"QFI\xfb" + bytes(600), "qcow2"),
    (b"KDMV" + bytes(600), "vmdk"),
    (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
    (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe" + bytes(600), "vdi"),
    (b"vhdxfile" + bytes(600), "vhdx"),
    (b"conectix" + bytes(600), "vhd"),
    (bytes(4096) + b"conectix" + bytes(504), "vhd"),
    (bytes(4096) + b"koly" + bytes(508), "dmg"),
    (b"LUKS\xba\xbe" + bytes(600), None),
    (bytes(510) + b"\x55\xaa" + bytes(1024), None),
    (b"QFI", None),
    (b"", None),
]


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_formats_by_their_magic(tmp_path: Path, data: bytes, expected: str | None) -> None:
    (tmp_path / "image").write_bytes(data)
    with open_file(str(tmp_path / "image")) as file:
        assert container_format(file, len(data)) == expected


@pytest.mark.parametrize("kind", ["qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels", "raw"])
def test_images_that_qemu_makes(tmp_path: Path, kind: str) -> None:
    if not shutil.which("qemu-img"):
        unavailable("needs qemu-img")
    path = str(tmp_path / "image")
    made = subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "4M"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(made.stderr)  # a build of QEMU may lack some formats
    with open_file(path) as file:
        expected = {"vpc": "vhd", "raw": None}.get(kind, kind)
        assert container_format(file, file.size()) == expected
