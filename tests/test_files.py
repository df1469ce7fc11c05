"""What the rest of the tool takes for granted of files, kept also where the kernel does half of what it was asked."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import (
    AccessError,
    ExhaustedError,
    HostError,
    InputOutputError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    host_error,
)
from tests.fakes.volumes import fill_up, loop_device, loop_mount, pattern

MEBI = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[files.File]:
    with files.open_file(str(tmp_path / "file"), write=True, create=True) as opened:
        yield opened


# Small files


STEPS = ["open_file", "_adopt", "pwrite", "half a pwrite", "fdatasync", "rename", "sync_name"]


@pytest.mark.parametrize("before", [b"old content", None])
@pytest.mark.parametrize("step", STEPS)
def test_a_small_file_is_old_or_new_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bytes | None
) -> None:
    path = str(tmp_path / "small")
    if before is not None:
        files.replace_small(path, before)

    def fail(*_: object, **__: object) -> None:
        raise NoSpaceError("full")

    def half(self: files.File, data: bytes, offset: int) -> None:
        real(self, data[: len(data) // 2], offset)
        fail()

    real = files.File.pwrite
    with monkeypatch.context() as patched:
        owner = files if hasattr(files, step) else files.File
        patched.setattr(owner, step.removeprefix("half a "), half if step.startswith("half") else fail)
        with pytest.raises(NoSpaceError):
            files.replace_small(path, b"new")
    assert files.read_small(path) == (b"new" if step == "sync_name" else before)
    files.replace_small(path, b"third")
    assert files.read_small(path) == b"third"
    assert os.listdir(tmp_path) == ["small"]


def test_a_small_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for owner, name in [(os, "pwrite"), (os, "fdatasync"), (os, "rename"), (os, "fsync")]:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _real=real, _name=name: (order.append(_name), _real(*args))[1])
    files.replace_small(str(tmp_path / "small"), b"data")
    assert order == ["pwrite", "fdatasync", "rename", "fsync"]


def test_a_small_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert files.read_small(str(tmp_path / "none")) is None
    assert files.read_small(str(tmp_path / "none" / "none")) is None
    assert files.list_directory(str(tmp_path / "none")) == []
    files.remove(str(tmp_path / "none"))


# Errors


ERRORS = [
    (errno.ENOSPC, NoSpaceError, 30), (errno.EDQUOT, NoSpaceError, 30), (errno.EFBIG, NoSpaceError, 30),
    (errno.EIO, InputOutputError, 31), (errno.EROFS, AccessError, 32), (errno.EACCES, AccessError, 32),
    (errno.EPERM, AccessError, 32), (errno.EMFILE, ExhaustedError, 33), (errno.ENOMEM, ExhaustedError, 33),
    (errno.EBADMSG, InputOutputError, 31),
]  # fmt: skip
METHODS: dict[str, tuple[str, Callable[[files.File], object]]] = {
    "pread": ("pread", lambda file: file.pread(1, 0)),
    "pread_into": ("preadv", lambda file: file.pread_into([memoryview(bytearray(1))], 0)),
    "pwrite": ("pwrite", lambda file: file.pwrite(b"x", 0)),
    "pwritev": ("pwritev", lambda file: file.pwritev([b"x"], 0)),
    "truncate": ("ftruncate", lambda file: file.truncate(1)),
    "facts": ("fstat", lambda file: file.facts()),
    "fdatasync": ("fdatasync", lambda file: file.fdatasync()),
    "drop_cache": ("posix_fadvise", lambda file: file.drop_cache()),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("code", "kind", "exit_code"), ERRORS)
def test_every_error_has_its_class_the_path_and_the_cause(
    file: files.File, monkeypatch: pytest.MonkeyPatch, method: str, code: int, kind: type[HostError], exit_code: int
) -> None:
    function, call = METHODS[method]

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail)
        with pytest.raises(kind) as caught:
            call(file)
    assert caught.value.exit_code == exit_code
    assert caught.value.where == file.path
    assert os.strerror(code) in caught.value.what
    assert caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_without_a_number_is_one_of_the_device() -> None:
    assert isinstance(host_error(OSError("strange"), "x", "read"), InputOutputError)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("no/no", AccessError), ("file/below", AccessError), ("nul\0byte", InputOutputError), ("x" * 300, AccessError)],
)
def test_a_path_that_cannot_be_is_one_line_of_error(tmp_path: Path, path: str, kind: type[HostError]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(kind):
        files.open_file(str(tmp_path / path))


def test_a_path_that_is_no_utf_8_works(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff\xfe")
    files.replace_small(path, b"data")
    assert files.list_directory(str(tmp_path)) == ["\udcff\udcfe"]
    assert files.read_small(path) == b"data"


def test_a_full_file_system_is_no_space(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        fill_up(mounted)
        with files.open_file(f"{mounted}/f", write=True, create=True) as file:
            with pytest.raises(NoSpaceError):
                file.pwrite(pattern(1, MEBI), 0)
            file.truncate(MEBI)
            with pytest.raises(NoSpaceError):
                file.reserve(0, MEBI)


def test_a_read_only_file_system_is_access_and_can_be_read(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        files.replace_small(f"{mounted}/f", b"data")
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        with pytest.raises(AccessError, match="read-only"):
            files.open_file(f"{mounted}/f", write=True)
        with files.open_file(f"{mounted}/f") as file:
            file.fdatasync()
            file.lock(exclusive=False, what="it")
            assert file.pread(10, 0) == b"data"


def test_running_out_of_descriptors_says_so(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 5, hard))
    try:
        with contextlib.ExitStack() as opened, pytest.raises(ExhaustedError, match="Too many open files"):
            any(opened.enter_context(files.open_file(str(tmp_path))) is None for _ in range(used + 10))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (errno.EACCES, AccessError, "owner and permissions"),
        (errno.ENOENT, AccessError, "check the path"),
        (errno.EMFILE, ExhaustedError, "ulimit -n"),
        (errno.EBUSY, LockedError, "unmount it first"),
        (errno.EIO, InputOutputError, "check the device"),
    ],
)
def test_opening_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[MirrortoolError], remedy: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(kind) as caught:
            files.open_file(str(tmp_path / "file"))
    assert remedy in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("write", [False, True])
def test_a_fifo_does_not_block(tmp_path: Path, write: bool) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with files.open_file(path, write=write) as file, pytest.raises(HostError):
        file.pread(1, 0)
    with pytest.raises(HostError):
        files.read_small(path)
    assert files.find_facts(path).kind == "FIFO"


def test_closing_twice_closes_nobody_elses_descriptor(tmp_path: Path) -> None:
    file = files.open_file(str(tmp_path))
    number = file.fileno()
    file.close()
    with files.open_file(str(tmp_path)) as other:
        assert other.fileno() == number
        file.close()
        assert other.facts().kind == "directory"


# What is where


def test_identity_is_that_of_the_file_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    os.link(tmp_path / "file", tmp_path / "hard")
    os.symlink(tmp_path / "file", tmp_path / "soft")
    (tmp_path / "copy").write_bytes(b"data")
    names = ["file", "hard", "soft", "copy"]
    file, hard, soft, copy = (files.find_facts(str(tmp_path / name)).identity for name in names)
    assert file == hard == soft != copy


def test_a_device_is_what_its_number_says(tmp_path: Path) -> None:
    with loop_device(tmp_path, MEBI) as device:
        os.mknod(tmp_path / "node", 0o600 | stat.S_IFBLK, os.stat(device).st_rdev)
        assert files.find_facts(device).identity == files.find_facts(str(tmp_path / "node")).identity


def test_making_a_directory_accepts_only_a_directory_that_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "made")
    files.make_directory(path)
    files.make_directory(path, exist_ok=True)
    with pytest.raises(AccessError):
        files.make_directory(path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AccessError):
        files.make_directory(str(tmp_path / "file"), exist_ok=True)


def test_a_temporary_directory_is_gone_afterwards() -> None:
    with files.temporary_directory() as path:
        assert files.is_directory(path)
    assert not files.exists(path)


def test_a_tree_is_removed_with_its_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "tree/below/empty").mkdir(parents=True)
    (tmp_path / "tree/below/file").write_bytes(b"x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"x")
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    files.remove_tree(str(tmp_path / "tree"))
    files.remove_tree(str(tmp_path / "tree"))
    (tmp_path / "tree").symlink_to(tmp_path / "kept")
    files.remove_tree(str(tmp_path / "tree"))
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


# Links that somebody else put where mirrortool writes


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that must stay as it is, whatever leads to it."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    path.chmod(0o640)
    yield path
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"precious", 0o640)
    assert os.listdir(path.parent) == ["victim"]


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_small_file_is_not_written_through_a_link(tmp_path: Path, victim: Path, is_dangling: bool) -> None:
    (tmp_path / "small.new").symlink_to(victim.with_name("none") if is_dangling else victim)
    (tmp_path / "small").symlink_to(victim)
    files.replace_small(str(tmp_path / "small"), b"data")
    assert not (tmp_path / "small").is_symlink() and (tmp_path / "small").read_bytes() == b"data"
    assert not os.path.lexists(tmp_path / "small.new")


def test_a_file_is_made_anew_in_place_of_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    with files.make_file(str(tmp_path / "link")) as made:
        made.pwrite(b"data", 0)
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_bytes() == b"data"


@pytest.mark.parametrize("is_dangling", [False, True])
@pytest.mark.parametrize(
    "opened",
    [
        lambda path: files.open_file(path, write=True, create=True),
        lambda path: files.open_file(path, write=True, create=True, exclusive=True),
        lambda path: files.open_file(path, write=True, follow=False),
        lambda path: files.open_file(path, follow=False),
        lambda path: files.open_locked(path, "it"),
    ],
)
def test_what_may_be_made_or_is_locked_is_not_opened_through_a_link(
    tmp_path: Path, victim: Path, opened: Callable[[str], files.File], is_dangling: bool
) -> None:
    path = tmp_path / "link"
    path.symlink_to(victim.with_name("none") if is_dangling else victim)
    with pytest.raises(AccessError) as refused, opened(str(path)):
        pass
    assert "is a symbolic link, and mirrortool follows none here" in str(refused.value) or "File exists" in str(
        refused.value
    )
    assert path.is_symlink()


def test_what_somebody_makes_while_it_is_to_be_made_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, is_made = tmp_path / "file", os.open, False

    def made_meanwhile(where: str, flags: int, mode: int = 0o777, **more: int) -> int:
        nonlocal is_made
        if flags & os.O_CREAT and not is_made:
            is_made = True
            path.write_bytes(b"theirs")
        return real(where, flags, mode, **more)

    monkeypatch.setattr(os, "open", made_meanwhile)
    with files.open_file(str(path), write=True, create=True) as opened:
        assert is_made and opened.pread(10, 0) == b"theirs"


def test_permissions_are_not_given_through_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(AccessError, match="is a symbolic link by now"):
        files.give_access(str(tmp_path / "link"), 0o666, os.getgid())


def test_a_rename_of_which_a_crash_left_both_names_is_completed(tmp_path: Path) -> None:
    """As without a journal: rename(2) does nothing where both are names of one file."""
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from/a").write_bytes(b"a")
    os.link(tmp_path / "from/a", tmp_path / "to/b")
    files.rename(str(tmp_path / "from/a"), str(tmp_path / "to/b"))
    assert os.listdir(tmp_path / "from") == [] and (tmp_path / "to/b").read_bytes() == b"a"


def test_a_rename_is_durable_in_both_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from/a").write_bytes(b"")
    order: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    files.rename(str(tmp_path / "from/a"), str(tmp_path / "to/b"))
    files.rename(str(tmp_path / "to/b"), str(tmp_path / "to/c"))
    assert order == ["to", "from", "to"]  # the new name first: no crash leaves the file without any


def test_when_a_file_was_made_stays_when_it_changes_and_moves(tmp_path: Path) -> None:
    before = time.time_ns()
    (tmp_path / "a").touch()
    born_ns = files.birth_ns(str(tmp_path / "a"))
    assert born_ns == 0 or before - 10**9 < born_ns < time.time_ns() + 10**9
    (tmp_path / "a").write_bytes(b"more")
    os.rename(tmp_path / "a", tmp_path / "b")
    assert files.birth_ns(str(tmp_path / "b")) == born_ns
    assert files.birth_ns(str(tmp_path / "none")) == 0 == files.birth_ns("\0")
