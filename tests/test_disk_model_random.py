"""The disk of other tests against a plain model: what is synced survives whatever is done; nothing else appears."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirrortool import files
from tests.fakes.disk import faulty, no_fault
from tests.fakes.disknodes import JOURNALED, SECTOR, Reality
from tests.fakes.disktrees import Tree, make, rename, sampled, sync, tree_of, write
from tests.fakes.volumes import fast_directory


class Plain:
    """What must be there, as far as it is simple to say: for each synced name its file, and the bytes synced in it."""

    def __init__(self) -> None:
        self.now: dict[str, list[bytes]] = {}  # name: the versions of its bytes, [0] is durable
        self.durable: dict[str, list[bytes]] = {}
        self.ever: dict[str, list[list[bytes]]] = {}

    def point(self, name: str, file: list[bytes] | None) -> None:
        if file is None:
            self.now.pop(name, None)
        else:
            self.now[name] = file
            self.ever.setdefault(name, []).append(file)

    def sync_names(self) -> None:
        self.durable = dict(self.now)
        self.ever = {name: [file] for name, file in self.now.items()}


NAMES = st.sampled_from("xyz")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), NAMES),
        st.tuples(st.just("write"), NAMES, st.integers(0, 3), st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("resize"), NAMES, st.integers(0, 3 * SECTOR)),
        st.tuples(st.just("sync"), NAMES),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("names")),
    ),
    max_size=14,
)


def _do(step: tuple, root: Path, plain: Plain) -> None:
    kind, *rest = step
    path = root / rest[0] if rest else root
    file = plain.now.get(rest[0]) if rest else None
    if kind == "names":
        files.sync_directory(str(root))
        plain.sync_names()
    elif kind == "make":
        if file is None:
            make(path)
            plain.point(rest[0], [b""])
    elif file is None:
        return
    elif kind == "write":
        data = rest[2] * (SECTOR // len(rest[2]))
        write(path, data, rest[1] * SECTOR)
        file.append(path.read_bytes())
    elif kind == "resize":
        with files.open_file(str(path), write=True) as opened:
            opened.truncate(rest[1])
        file.append(path.read_bytes())
    elif kind == "sync":
        sync(path)
        file[:] = [file[-1]]
    elif kind == "rename" and rest[0] != rest[1]:
        rename(path, root / rest[1])
        plain.point(rest[1], file)
        plain.point(rest[0], None)
    elif kind == "remove":
        files.remove(str(path))
        plain.point(rest[0], None)


def _check_left(tree: Tree, plain: Plain) -> None:
    for name, data in tree.items():
        assert any(_may_be(data or b"", file) for file in plain.ever.get(name, [])), name
    for name, file in plain.durable.items():
        if plain.now.get(name) is file and plain.ever[name] == [file]:
            assert name in tree and _may_be(tree[name] or b"", file), name


def _may_be(data: bytes, versions: list[bytes]) -> bool:
    """Each sector is of some version, and the size is none that the file never had."""
    sizes = [len(version) for version in versions]
    if not min(sizes) <= len(data) <= max(sizes):
        return False
    for at in range(0, len(data), SECTOR):
        part = data[at : at + SECTOR]
        if not any(version[at : at + len(part)].ljust(len(part), b"\0") == part for version in versions):
            return False
    return True


@contextmanager
def _in_new_root() -> Iterator[Path]:
    with fast_directory() as path:
        (Path(path) / "root").mkdir()
        yield Path(path) / "root"


@given(STEPS, st.integers(0, 1000), st.sampled_from([Reality(), JOURNALED, Reality(split_renames=True)]))
def test_what_is_synced_survives_whatever_else_is_lost(steps: list[tuple], seed: int, reality: Reality) -> None:
    with _in_new_root() as root:
        plain = Plain()
        with faulty(no_fault, reality=reality) as system:
            for step in steps:
                _do(step, root, plain)
            for each in range(seed, seed + 5):
                tree = sampled(system, root, each)
                assert tree == sampled(system, root, each), "the same seed, the same tree"
                _check_left(tree, plain)
            system.disk.cut_power(random.Random(seed))
            assert [path.name for path in root.parent.iterdir()] == ["root"]
            _check_left(tree_of(root), plain)
            assert not system.disk.dirty() and not system.disk.state.name_count()


@given(STEPS, st.integers(0, 1000))
def test_in_place_and_as_a_copy_the_same_survives(steps: list[tuple], seed: int) -> None:
    with _in_new_root() as root:
        with faulty(no_fault) as system:
            for step in steps:
                _do(step, root, _plain_of(root))
            expected = sampled(system, root, seed)
            system.disk.cut_power(random.Random(seed))
        assert tree_of(root) == expected


def _plain_of(root: Path) -> Plain:
    plain = Plain()
    for path in root.iterdir():
        plain.point(path.name, [path.read_bytes()])
    return plain
