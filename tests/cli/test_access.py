"""Who may read what commands make, and what another user can lead them to."""

from __future__ import annotations

import grp
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from tests.docs.workshop import environment
from tests.fakes.journals import memory_directory
from tests.fakes.users import NOBODY, as_other_user, can_lock, can_open, needs_root

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must end with 0; what it prints, and what it tells."""

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == 0, (arguments, err)
        return out, err

    return run


@pytest.fixture(params=[0o022, 0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that every user of this host can reach and nobody else can write, with a volume in it."""
    with memory_directory() as path:
        path.chmod(0o755)
        monkeypatch.chdir(path)
        (path / "disk.img").write_bytes(os.urandom(64 << 10))
        (path / "disk.img").chmod(0o600)
        yield path


def change(path: Path) -> None:
    with open(path / "disk.img", "r+b") as disk:
        disk.write(os.urandom(4096))


def work(place: Path, run: Run, *group: str) -> list[Path]:
    """Every command that makes files, once; what they made: a journal, mirrors, copies."""
    run("init", "J", "disk=disk.img", "new=new.img:64K", *group)
    run("record", "J")
    run("mark", "J", "nightly")
    run("replay", "J", "M", *group)
    run("verify", "M")
    run("base", "J")
    change(place)
    run("record", "J")
    run("replay", "J", "M2", "--volume", "new=elsewhere.img", *group)
    made = ["J", "M", "M2", "elsewhere.img", "new.img"]
    if not group:
        run("ship", "J", "C")
        run("replay", "C", "M3", "--no-slot")
        made += ["C", "M3"]
    return [place / name for name in made]


def below(path: Path) -> list[Path]:
    return [path, *path.rglob("*")]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Owners only


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_its_owners_alone_whatever_the_umask(place: Path, run: Run) -> None:
    made = [path for top in work(place, run) for path in below(top)]
    assert len(made) > 50
    expected = {path: 0o700 if path.is_dir() else 0o600 for path in made}
    assert {path: mode_of(path) for path in made} == expected
    if os.geteuid():
        return
    (place / "public").write_bytes(b"")
    (place / "public").chmod(0o644)

    def reach() -> list[str]:
        locks = [path for path in made if path.name == "lock" and can_lock(path, exclusive=False)]
        return [str(path) for path in [place / "public", *made] if can_open(path)] + [str(path) for path in locks]

    assert as_other_user(reach) == [str(place / "public")]


def test_an_empty_directory_becomes_its_owners_alone(place: Path, run: Run) -> None:
    for name in ("J", "M", "C"):
        (place / name).mkdir()
        (place / name).chmod(0o755)
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("replay", "J", "M")
    run("ship", "J", "C")
    assert [mode_of(place / name) for name in ("J", "M", "C")] == [0o700] * 3


@needs_root
def test_anothers_directory_that_is_open_is_not_filled(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "J").mkdir()
    (place / "J").chmod(0o777)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refused)  # as for an ordinary user
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert main(["init", "J", "disk=disk.img"]) == 32
    assert "cannot change the permissions of: Operation not permitted" in capsys.readouterr().err
    assert not list((place / "J").iterdir())


@pytest.mark.usefixtures("place")
def test_a_file_system_without_permissions_holds_a_mirror(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as vfat: whoever owns what is there is told EPERM."""
    run("init", "J", "disk=disk.img")
    run("record", "J")

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refused)
    run("replay", "J", "M")
    run("verify", "M")


@pytest.mark.usefixtures("umask")
def test_new_files_of_an_open_journal_and_mirror_are_as_open(place: Path, run: Run) -> None:
    """Of 0.1.0: who could read it by the permissions of its directory still can, after each new file."""
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("replay", "J", "M")
    (place / "M/seen.json").unlink()  # not of 0.1.0
    for top, directory_mode in ((place / "J", 0o750), (place / "M", 0o755)):
        for path in below(top):
            path.chmod(directory_mode if path.is_dir() else directory_mode & 0o664)
    before = set(below(place / "J")) | set(below(place / "M"))
    change(place)
    run("record", "J")
    run("base", "J")
    run("verify", "M")
    run("replay", "J", "M")
    after = [*below(place / "J"), *below(place / "M")]
    assert len(set(after) - before) >= 4  # a base and its directory, its lock, a receipt
    for path in after:
        expected = 0o750 if path.is_relative_to(place / "J") else 0o755
        assert mode_of(path) == (expected if path.is_dir() else expected & 0o664), path


# A group


@pytest.fixture
def group() -> grp.struct_group:
    """One that root can give away, or that this user is in; not his first one, where that can be."""
    numbers = [number for number in os.getgroups() if number != os.getegid()]
    return grp.getgrnam("daemon") if os.geteuid() == 0 else grp.getgrgid((numbers or [os.getegid()])[0])


@pytest.mark.usefixtures("umask")
def test_a_group_may_read_what_is_made_and_have_slots(place: Path, run: Run, group: grp.struct_group) -> None:
    made = [path for top in work(place, run, "--group", group.gr_name) for path in below(top)]
    for path in made:
        is_slot = "slots" in path.parts
        expected = (0o770 if path.is_dir() else 0o660) if is_slot else (0o750 if path.is_dir() else 0o640)
        assert (mode_of(path), path.stat().st_gid) == (expected, group.gr_gid), path
    if os.geteuid():
        return
    lock = place / "J/slots/lock"
    files_made = [path for path in made if path.is_file()]

    def reach() -> list[object]:
        denied = [str(path) for path in files_made if not can_open(path)]
        written = [str(path) for path in files_made if can_open(path, write=True)]
        return [denied, all("/slots/" in path for path in written), can_lock(lock, exclusive=True)]

    assert as_other_user(reach, [group.gr_gid]) == [[], True, True]
    assert as_other_user(lambda: [str(path) for path in files_made if can_open(path)]) == []


def test_a_copy_that_is_received_is_shared(place: Path, run: Run, group: grp.struct_group) -> None:
    rsh = place / "rsh"
    rsh.write_text(f'#!/bin/sh\nexec sh -c "$2 --group {group.gr_gid}"\n')
    rsh.chmod(0o755)
    run("init", "J", "disk=disk.img")
    run("record", "J")
    environment(place / "bin")
    program = str(place / "bin/mirrortool")
    run("ship", "J", f"host:{place}/C", "--rsh", str(rsh), "--remote-path", program)
    assert {(mode_of(path), path.stat().st_gid) for path in below(place / "C") if "slots" not in path.parts} == {
        (0o750, group.gr_gid), (0o640, group.gr_gid)
    }  # fmt: skip
    assert mode_of(place / "C/slots") == 0o770


@needs_root
def test_new_files_have_the_group_of_their_directory(place: Path, run: Run) -> None:
    run("init", "J", "disk=disk.img", "--group", "daemon")
    for name in ("other", "set-group-ID"):
        run("record", "J")
        run("replay", "J", "M")
        for path in below(place / "J"):
            os.chown(path, -1, grp.getgrnam("bin").gr_gid)
        (place / "J").chmod(0o2750 if name == "set-group-ID" else 0o750)
        shutil.rmtree(place / "J/slots")
        change(place)
        run("record", "J")
        run("base", "J")
        run("replay", "J", "M2")
        assert {path.stat().st_gid for path in below(place / "J")} == {grp.getgrnam("bin").gr_gid}
        shutil.rmtree(place / "J/bases")
        shutil.rmtree(place / "M")
        shutil.rmtree(place / "M2")


def test_a_group_that_is_not_there_is_a_usage_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "J", "disk=disk.img", "--group", "none-such"]) == 2
    assert "there is no group 'none-such'" in capsys.readouterr().err
    assert not (place / "J").exists()


# status


def test_status_warns_of_what_every_user_can_read(place: Path, run: Run) -> None:
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("replay", "J", "M")
    for name in ("J", "M"):
        assert "open" not in run("status", name)[0]
        assert json.loads(run("status", "--json", name)[0])["is_open"] is False
        for path in below(place / name):
            path.chmod(0o755 if path.is_dir() else 0o644)
        run("verify", name)  # so they were before the last replay
        out, _ = run("status", name)
        assert f"  open: every local user may read and lock {name}/lock; chmod o= {name} closes it" in out
        assert json.loads(run("status", "--json", name)[0])["is_open"] is True
        place.chmod(0o750)  # nobody comes so far
        assert json.loads(run("status", "--json", name)[0])["is_open"] is False
        place.chmod(0o755)
        os.system(f"chmod o= {name}")
        assert "open" not in run("status", name)[0]
    change(place)
    run("record", "J")
    run("replay", "J", "M")


def test_status_warns_of_a_volume_elsewhere_that_every_user_can_read(place: Path, run: Run) -> None:
    run("init", "J", "disk=disk.img")
    run("record", "J")
    (place / "target.img").write_bytes(b"")
    (place / "target.img").chmod(0o644)
    run("replay", "J", "M", "--volume", "disk=target.img")
    assert mode_of(place / "target.img") == 0o644, "it was there"
    assert (
        f"  open: every local user may read and lock {place}/target.img; chmod o= {place}/target.img, and "
        "mirrortool verify M if no replay is running, closes it"
    ) in run("status", "M")[0]
    (place / "target.img").chmod(0o640)
    run("verify", "M")
    run("replay", "J", "M")
    (place / "target.img").chmod(0o644)
    run("verify", "M")
    run("promote", "M", "--yes")
    assert "open" not in run("status", "M")[0], "it is a primary's volume now, and its mode is its user's"


# root in another's directory


COMMANDS = [
    "init J2 disk=other.img", "record J", "mark J night", "replay J M", "verify M", "base J", "ship J C",
    "prune J --keep 1d", "slot drop J s", "promote M --yes", "import J log --format fio",
]  # fmt: skip
REPLAY = ["replay J2 M2", "ship J2 C"]


@needs_root
@pytest.mark.parametrize("opened", ["another user's", "any user's", "a group's", "another user's above"])
def test_root_is_told_who_else_may_write(
    place: Path, run: Run, capsys: pytest.CaptureFixture[str], opened: str
) -> None:
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("replay", "J", "M", "--slot", "s")
    shutil.copy("disk.img", "other.img")
    if opened == "another user's above":
        os.chown(place, NOBODY, -1)
        who, tops = "user nobody", [place]
    else:
        who = {"another user's": "user nobody", "any user's": "any user", "a group's": "group daemon"}[opened]
        tops = [place / "J", place / "M"]
        for top in tops:
            os.chown(top, *{"another user's": (NOBODY, 0), "a group's": (0, 1)}.get(opened, (0, 0)))
            top.chmod(0o777 if opened == "any user's" else 0o770)
    for line in COMMANDS:
        if line.startswith("init") and opened != "another user's above":
            continue
        capsys.readouterr()
        code = main(line.split())
        err = capsys.readouterr().err
        told = [each for each in err.splitlines() if "could lead root" in each]
        assert len(told) == 1, (line, err)
        assert any(told[0].startswith(f"mirrortool: {who} may write in {top}, and") for top in tops), told
        assert ("run mirrortool as nobody, or keep" in told[0]) == ("nobody" in who)
        if not line.startswith("import"):
            assert code == 0, (line, err)
    main(["record", "-q", "J"])
    assert "could lead root" not in capsys.readouterr().err


@needs_root
def test_root_is_told_nothing_where_only_root_can_write(place: Path, run: Run) -> None:
    """The sticky bit of /tmp, in which the place lies, keeps others from replacing what root has there."""
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    os.chdir(place / "sticky")
    shutil.copy("../disk.img", "disk.img")
    for line in ["init J disk=disk.img", "record J", "replay J M", "ship J C", "base J"]:
        assert "could lead root" not in run(*line.split())[1]
    os.chown("J", NOBODY, -1)
    assert "user nobody may write in" in run("record", "J")[1]


# Links that another user put there


PLANTED = [
    "J/journal.json.new", "J/local.json.new", "J/recorder.json.new", "J/lock", "J/seen.json", "J/reserve",
    "J/detached.json.new", "J/detached.log", "J/slots/lock", "J/slots/s.json.new", "J/bases/lock", "J/control.sock",
    "J/bases/0000000000000001.base.new", "J/files/000000000000000a.mj", "J/sums/disk.sums", "J/sums/disk.segments",
    "M/mirror.json.new", "M/checkpoint.json.new", "M/last-replay.json.new", "M/lock", "M/sums/disk.sums",
    "C/journal.json.new", "C/copy.json.new", "C/received.json.new", "C/lock", "C/files/0000000000000002.mj",
    "trace", "metrics.prom", "metrics.prom.new",
]  # fmt: skip
WORK = [
    "record J", "mark J night", "replay J M --slot s --trace trace --metrics-file metrics.prom", "verify M", "base J",
    "ship J C", "prune J --keep-size 1M", "slot drop J s", "promote M --yes",
]  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_no_command_writes_through_a_link(
    place: Path, run: Run, capsys: pytest.CaptureFixture[str], planted: str
) -> None:
    run("init", "J", "disk=disk.img")
    run("record", "J")
    run("base", "J")
    run("replay", "J", "M", "--slot", "s")
    run("ship", "J", "C")
    change(place)
    victim = place / "victim"
    victim.write_bytes(b'{"precious": 1}' * 400)
    victim.chmod(0o600)
    path = place / planted
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    for line in WORK:
        code = main(line.split())
        err = capsys.readouterr().err
        assert code not in (39, 70), (line, code, err)
        assert (victim.read_bytes(), mode_of(victim)) == (b'{"precious": 1}' * 400, 0o600), line


def test_whatever_is_made_is_made_exclusively_and_what_is_ours_is_written_through_no_link(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind, and not only what somebody thought of: every opening of every command."""
    real = os.open
    wrong: list[tuple[str, str]] = []
    opened: set[str] = set()
    tops = tuple(f"{place}/{name}/" for name in ("J", "M", "M2", "M3", "C"))

    def watch(path: str, flags: int, mode: int = 0o777, **other: int) -> int:
        where = os.path.join(place, str(path))
        if flags & os.O_CREAT and not flags & os.O_EXCL:
            wrong.append((where, "made, but not exclusively"))
        is_ours = where.startswith(tops) and "/volumes/" not in where
        if is_ours and flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_NOFOLLOW:
            wrong.append((where, "written through a link"))
        if os.path.basename(where) == "lock" and not flags & os.O_NOFOLLOW:
            wrong.append((where, "locked through a link"))
        opened.add(os.path.basename(where))
        return real(path, flags, mode, **other)

    monkeypatch.setattr(files.os, "open", watch)
    work(place, run)
    for line in WORK:
        run(*line.split())
    run("record", "J")
    assert not wrong
    assert {"lock", "checkpoint.json.new", "disk.sums", "trace", "metrics.prom.new"} <= opened
