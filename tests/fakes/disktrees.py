"""What the model of a disk (disk.py) may leave of a directory, as a test can compare it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from mirrortool import files
from tests.fakes.disk import DiskOs

Tree = dict[str, bytes | None]
"""What is below a directory: bytes of a file, None of a directory."""


def tree_of(root: Path) -> Tree:
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }


def outcomes(system: DiskOs, root: Path, most: int = 600) -> list[Tree]:
    """Every tree that a cut may leave now."""
    found = []
    for number, survivors in enumerate(system.disk.state.every_survivor(most)):
        into = root.parent / f"copy-{number}"
        system.disk.state.copy(str(root), str(into), survivors)
        if (tree := tree_of(into)) not in found:
            found.append(tree)
        shutil.rmtree(into)
    return found


def write(path: Path, data: bytes, offset: int = 0) -> None:
    with files.open_file(str(path), write=True) as file:
        file.pwrite(data, offset)


def make(path: Path, data: bytes = b"") -> None:
    with files.open_file(str(path), write=True, create=True) as file:
        if data:
            file.pwrite(data, 0)


def sync(path: Path) -> None:
    with files.open_file(str(path), write=True) as file:
        file.fdatasync()


def rename(source: Path, target: Path) -> None:
    """Without a sync."""
    files._on_path(str(source), "rename", files.os.rename, str(target))


def sampled(system: DiskOs, root: Path, seed: int) -> Tree:
    """What a cut may leave now, of these chances."""
    into = root.parent / "sampled"
    system.disk.state.copy(str(root), str(into), system.disk.state.survivors(random.Random(seed)))
    tree = tree_of(into)
    shutil.rmtree(into)
    return tree
