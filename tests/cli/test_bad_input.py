"""Bad input of every kind: exactly one line on stderr that says what, where and what to do; the documented exit code;
and nothing changed that the user did not ask to change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.journal.directory import Journal
from tests.cli.badinput import (
    DIGITS,
    ESCAPES,
    FILE,
    PATH_MAX,
    Capture,
    refused,
    run,
    tree,
    write,
)
from tests.fakes.volumes import fill_up, loop_device, loop_mount, make_old

REFUSED = [
    # paths that are no volume
    (20, "init new d=missing", "does not exist"),
    (20, "init new d=directory", "is a directory"),
    (20, "init new d=fifo", "is a FIFO"),
    (20, "init new d=socket", "is a socket"),
    (20, "init new d=terminal", "is a character device"),
    (20, "init new d=dangling", "does not exist"),
    (32, "init new d=loop", "symbolic links"),
    (20, f"init new d={ESCAPES}", r"a\x1b[31m\nb"),
    (20, "init new d=\udcff\udcfe", r"\xff\xfe"),
    (32, f"init new d={PATH_MAX}", "too long"),
    (20, "init new d=disk.img:1", "has 16.0 KiB, not 1 B"),
    (20, "init new d=made:1M e=missing", "missing: does not exist"),
    (32, "init new d=missing/made:1M", "No such file"),
    # one file under two names
    (20, "init new a=disk.img b=disk.img", "one and the same"),
    (20, "init new a=disk.img b=./disk.img", "one and the same"),
    (20, "init new a=disk.img b=hardlink", "one and the same"),
    (20, "init new a=disk.img b=symlink", "one and the same"),
    (20, "init new a=made:1M b=./made", "one and the same"),
    # names and sizes
    (2, "init new disk.img", "not NAME=PATH"),
    (2, "init new d=", "not NAME=PATH"),
    (2, "init new =disk.img", "not NAME=PATH"),
    (2, "init new ..=disk.img", "not a volume name"),
    (2, f"init new {'a' * 65}=disk.img", "not a volume name"),
    (2, "init new é=disk.img", "not a volume name"),
    (2, "init new a/b=disk.img", "not a volume name"),
    (2, f"init new {ESCAPES}=disk.img", "not a volume name"),
    (2, "init new a=disk.img a=other.img", "same name"),
    (2, "init new d=made:9223372036854775808", "too large"),
    (2, "init new d=made:8E", "too large"),
    (2, "init new --page-size 511 d=disk.img", "not a page size"),
    (2, "init new --page-size 0 d=disk.img", "not a page size"),
    (2, "init new --page-size 128K d=disk.img", "not a page size"),
    (2, f"init new --page-size {DIGITS} d=disk.img", "is not a size"),
    (2, "init new", "Missing argument"),
    # where no journal can be made
    (32, "init full d=disk.img", "not empty"),
    (32, "init J d=disk.img", "a journal is here already"),
    (32, "init disk.img d=disk.img", "disk.img: is a file, not a directory"),
    (32, "init disk.img/new d=disk.img", "Not a directory"),
    (32, "init missing/new d=disk.img", "No such file"),
    (32, "init dangling d=disk.img", "exists"),
    (32, "init loop d=disk.img", "symbolic links"),
    (32, f"init {PATH_MAX} d=disk.img", "too long"),
    # no journal, no mirror
    (14, f"log {ESCAPES}", r"a\x1b[31m\nb: does not exist"),
    (14, "status J missing", "does not exist"),
    (15, "verify M --journal J2", "another journal"),
    (15, "replay J2 M", "another journal"),
    (32, "replay J J", "J: a journal is here already; choose another path"),
    (32, "replay J full", "the directory is not empty"),
    (24, "replay J disk.img", "is a file, not a mirror"),
    (32, "replay J missing/new", "No such file"),
    (32, "replay J dangling", "exists"),
    (2, "verify J --journal J", "for a mirror"),
    (2, "verify J --cached", "for a mirror"),
    (3, "replay empty new", "no commit yet"),
    (3, "mark empty x", "no commit yet"),
    (2, "replay empty new --until 5", "above the newest, 0"),
    # options
    (2, "bogus", "No such command"),
    (2, "replay J M --nope", "No such option"),
    (2, "replay J", "Missing argument"),
    (2, "replay J M extra", "unexpected extra argument"),
    (2, "replay J M --groups 0", "groups are 1 to"),
    (2, "replay J M --groups -1", "groups are 1 to"),
    (2, "replay J M --groups x", "not a valid integer"),
    (2, "replay J M --tasks 100000", "tasks 1 to"),
    (2, f"replay J M --tasks {DIGITS}", "tasks 1 to"),
    (2, "replay J M --groups 256 --tasks 1024", "more than 4096 threads"),
    (2, "replay J M --ranges nonsense", "not one of"),
    (2, "replay J M --unit nonsense", "not one of"),
    (2, "replay J M --volume x", "not NAME=PATH"),
    (2, "replay J M --volume x=y", "no volume x"),
    (2, "replay J M --volume disk=y", "cannot be moved"),
    (2, "replay J M --volume disk=y --volume disk=z", "named twice"),
    (2, "record J --every -1s", "not a duration"),
    (2, "record J --every x", "not a duration"),
    (2, f"record J --every {DIGITS}d", "not a duration"),
    (2, "record J --every 999999999w", "longer than a hundred years"),
    (2, "record J --source x", "not NAME=PATH"),
    (2, "record J --source disk=a --source disk=b", "named twice"),
    (20, "record J --source x=disk.img", "no volume x"),
    (20, "record J --source disk=missing", "does not exist"),
    (20, "record J --source disk=directory", "is a directory"),
    (34, "record J --before false", "--before exited with 1"),
    (34, "record J --before kill${IFS}-9${IFS}$$", "--before was killed by signal 9"),
    (2, "log J --newest 0", "not in the range"),
    (2, "log J --newest x", "not a valid integer"),
    (2, "log J --since x", "no mark x"),
    (2, f"log J --since -{DIGITS}d", "nor a time"),
    (2, "log J --since fisrt", "near: first"),
    (2, "log J --since 2999-01-01", "not known yet"),
    (2, "log J --since 99", "above the newest"),
    (2, "mark J 1a", "is not a mark"),
    (2, f"mark J {'a' * 65}", "is not a mark"),
    (2, f"mark J {ESCAPES}", "is not a mark"),
    (2, "completion tcsh", "not one of"),
    (2, "demo --size 1M", "64M or more"),
    (2, "demo --size 67108865", "whole pages"),
    (2, "demo --steps --size 64M", "--size has no meaning"),
    (2, "demo --keep new --steps", "--keep has no meaning"),
    (32, "demo --keep J", "exists"),
    (32, "demo --keep missing/new", "No such file"),
    # points in time
    (2, "replay J M --until 0", "no commit at or before"),
    (2, "replay J M --until -1", "neither an LSN"),
    (2, f"replay J M --until {DIGITS}", "neither an LSN"),
    (2, "replay J M --until 1970-01-01", "no commit at or before"),
    (2, "replay J M --until 0000-01-01", "there is no time"),
    (2, "replay J M --until 2024-02-29", "no commit at or before"),
    (2, "replay J M --until 2023-02-29", "there is no time"),
    (2, "replay J M --until 2024-02-30", "there is no time"),
    (2, "replay J M --until 2026-11-23T25:00", "there is no time"),
    (2, "replay J M --until 2026-11-23T10:00+99:99", "there is no time"),
    (2, "replay J M --until -10m", "no commit at or before"),
    (2, f"replay J M --until -{DIGITS}w", "neither an LSN"),
    (2, "replay J M --until unknown", "no mark unknown"),
    (2, "replay J M --until fisrt", "no mark fisrt; near: first"),
    (2, "replay J M --until 99", "LSN 99 is above the newest, "),
    (2, "replay J M --until 1764343696", "as seconds since 1970 it is @1764343696"),
    (2, "replay J M --until 1764343696123456789", "are @1764343696123456789"),
    (2, "replay J M --until 2999-12-31T23:59:59.999999999Z", "is not known yet"),
    (2, "replay J M --until -0s", "is not known yet"),
    (2, "replay J M --follow --until 1970-01-01", "no commit at or before"),
    (2, "base J --until 1970-01-01", "the oldest is"),
    (2, "promote M --dry-run --until 99", "above the newest"),
    (2, "status s3://bucket/J", "is a URL"),
    (2, "init s3://bucket/J d=disk.img", "is a URL"),
    (2, "ship J s3://bucket/J", "does not ship to s3://"),
    (2, "ship J ./new file:///new", "does not ship to file://"),
    (2, f"replay J M --until {'x' * 65}", "neither an LSN"),
    (2, f"replay J M --until {ESCAPES}", "neither an LSN"),
    (23, "replay J M --until first", "--until"),
    # targets that must not be overwritten
    (20, "replay J new --volume disk=disk.img --overwrite", "primary's own volume"),
    (20, "replay J new --volume disk=hardlink --overwrite", "primary's own volume"),
    (20, "replay J new --volume disk=symlink --overwrite", "primary's own volume"),
    (20, "replay J new --volume disk=other.img", "--overwrite if that data may be lost"),
    (20, "replay J new --volume disk=J/lock --overwrite", "lies inside the journal"),
    (20, "replay J new --volume disk=J/files/0000000000000001.mj --overwrite", "lies inside the journal"),
    (20, "replay J new --volume disk=J2/new.img", "lies inside the journal"),
    (20, "replay J new --volume disk=M/volumes/disk.img --overwrite", "lies inside the mirror"),
    (20, "replay J2 new --volume disk=M/volumes/disk.img --overwrite", "lies inside the mirror"),
    (20, "replay J new --volume disk=qcow2 --overwrite", "in the format qcow2"),
    (20, "replay J new --volume disk=qcow2", "or give --raw"),
    # volumes that are another's, or no disk
    (20, "init new d=M/volumes/disk.img", "lies inside the mirror"),
    (20, "init new d=J/lock", "lies inside the journal"),
    (20, "init new d=M/volumes/made:1M", "lies inside the mirror"),
    (20, "init new d=qcow2", "in the format qcow2"),
    # what would lie inside another's
    (32, "init J/new d=disk.img", "lies inside the journal"),
    (32, "init J/files/new d=disk.img", "lies inside the journal"),
    (32, "init M/volumes/new d=disk.img", "lies inside the mirror"),
    (32, "init inside/new d=disk.img", "lies inside the journal"),
    (32, "replay J J/mirror", "lies inside the journal"),
    (32, "replay J J2/torn", "lies inside the journal"),
    (32, "replay J M/receipts/x", "lies inside the mirror"),
    (32, "ship J J/files/C", "lies inside the journal"),
    (32, "ship J J2/slots", "lies inside the journal"),
    (32, "ship J M/receipts", "lies inside the mirror"),
    (32, "ship J C/slots", "lies inside the copy"),
    (32, "ship J C/bases", "lies inside the copy"),
    (32, "ship J begun/files/C", "lies inside the copy"),
    (32, "demo --keep M/demo", "lies inside the mirror"),
    (32, "replay J new --trace J/trace", "lies inside the journal"),
    (32, "replay J M --metrics-file J/slots/x.prom", "lies inside the journal"),
    (32, "record J --metrics-file M/volumes/disk.img", "lies inside the mirror"),
    (32, "record J --metrics-file disk.img", "does not hold metrics"),
    (32, "ship J new --metrics-file directory", "is a directory"),
    (2, "record J --metrics-file metrics.txt", "does not end in .prom"),
    (2, "ship J new --bwlimit 10", "is a bare number; give bytes a second, such as 10M"),
    (2, "replay J M --follow --bwlimit 10/s", "is a bare number"),
    (2, "replay J M --bwlimit 0K", "is not a rate"),
    (32, "import J fifo --format fio", "is a FIFO, and a log is read twice; save it into a file first"),
    (32, "import J /dev/null --format fio", "is a character device, and a log is read twice"),
    (32, "bench --figure other.img", "does not hold a figure"),
    (32, "bench --figure J/figure.svg", "lies inside the journal"),
    (32, "bench --timeline other.img", "does not hold a figure"),
    (32, "bench --timeline M/tasks.svg", "lies inside the mirror"),
    (20, "replay J new --volume disk=new/checkpoint.json", "lies in the mirror's directory"),
    (20, "replay J new --volume disk=/dev/no-such-disk", "no such device"),
    (20, "init new d=/dev/no-such-disk:1M", "no such device"),
    (20, "replay J new --volume disk=directory", "is a directory"),
    (20, "replay J new --volume disk=fifo", "is a FIFO"),
    (20, "replay J new --volume disk=terminal", "is a character device"),
    (32, "replay J new --volume disk=missing/x", "No such file"),
    (2, "replay J new --trace new", "--trace and MIRROR have the same path"),
    (2, "replay J M --trace new --until nowhere", "nowhere"),
    # a trace does not replace what is none
    (32, "replay J M --trace disk.img", "does not hold a trace"),
    (32, "replay J M --trace J/journal.json", "lies inside the journal"),
    (32, "replay J M --trace fifo", "is a FIFO"),
    (32, "replay J M --trace terminal", "is a character device"),
    (32, "replay J M --trace missing/trace", "No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_refused(code: int, line: str, phrase: str, place: str, capsys: Capture) -> None:
    arguments = line.split(" ")  # a newline or an escape belongs to its word
    before = tree(place)
    assert refused(capsys, *arguments)[0] == code
    assert phrase in refused(capsys, *arguments)[1]
    made = [name for name in ("new/journal.json", "new/mirror.json", "made") if os.path.exists(name)]
    assert made == []
    shutil.rmtree(
        "new", ignore_errors=True
    )  # an empty mirror's directories may be left, and are taken by the next call
    assert tree(place) == before


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "words",
    [
        ["init", "", "d=disk.img"], ["log", ""], ["verify", ""], ["status", ""], ["mark", "J", ""], ["replay", "J", ""],
        ["replay", "J", "M", "--until", ""], ["record", "J", "--every", ""],
    ],
)  # fmt: skip
def test_empty_words_are_refused(words: list[str], capsys: Capture) -> None:
    _, line = refused(capsys, *words)
    assert "''" in line


@pytest.mark.usefixtures("copy")
def test_accepted_oddities(built: str, capsys: Capture) -> None:
    for arguments in (
        ["log", "J", "--newest", DIGITS],
        ["log", "J", "-n", DIGITS, "--all"],
        ["log", "J", "--since", "0001-01-01"],
        ["log", "J", "--since", "-0s"],
        ["log", "J", "--since", "first"],
        ["replay", "J", "M", "--until", "newest"],
        ["replay", "J/", "./M/.", "--volume", "disk=M/volumes/disk.img"],
        ["init", ESCAPES, f"a.b-c_{'d' * 58}={built}/disk.img"],
        ["record", ESCAPES],
        ["status", "--json", ESCAPES],
        ["init", "\udcff", "0=made:511"],
        ["record", "\udcff"],
        ["replay", "\udcff", "M\udcff"],
        ["verify", "M\udcff"],
        ["mark", "J", "a.-_9"],
        ["replay", "J", "M", "--trace", "trace"],
        ["replay", "J", "M", "--trace", "trace"],
    ):
        assert run(capsys, *arguments) == (0, []), arguments


VARIABLES = [
    ("MIRRORTOOL_INIT_PAGE_SIZE", ["init", "new", "d=disk.img"]), ("MIRRORTOOL_RECORD_EVERY", ["record", "J"]),
    ("MIRRORTOOL_RECORD_SCAN", ["record", "J"]), ("MIRRORTOOL_RECORD_SOURCE", ["record", "J"]),
    ("MIRRORTOOL_REPLAY_UNTIL", ["replay", "J", "M"]), ("MIRRORTOOL_REPLAY_GROUPS", ["replay", "J", "M"]),
    ("MIRRORTOOL_REPLAY_VOLUME", ["replay", "J", "M"]), ("MIRRORTOOL_REPLAY_OVERWRITE", ["replay", "J", "M"]),
    ("MIRRORTOOL_VERIFY_CACHED", ["verify", "M"]), ("MIRRORTOOL_LOG_N", ["log", "J"]),
    ("MIRRORTOOL_DEMO_SIZE", ["demo"]),
]  # fmt: skip


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("name", "arguments"), VARIABLES)
def test_rubbish_in_a_variable(
    name: str, arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("rubbish.", ESCAPES):
        monkeypatch.setenv(name, value)
        assert refused(capsys, *arguments)[0] == 2, value


@pytest.mark.usefixtures("copy")
def test_files_of_another_user(capsys: Capture) -> None:
    if not os.geteuid():
        pytest.skip("root may read everything")
    for path, arguments in (
        ("J/journal.json", ["log", "J"]),
        ("J/files", ["verify", "J"]),
        ("M/lock", ["verify", "M"]),
    ):
        os.chmod(path, 0)
        assert refused(capsys, *arguments)[0] == 32
        os.chmod(path, 0o700)


@pytest.mark.usefixtures("copy")
def test_locked_journal_and_mirror(capsys: Capture) -> None:
    with Journal("J").lock():
        assert refused(capsys, "record", "J")[0] == refused(capsys, "mark", "J", "x")[0] == 22
        assert run(capsys, "status", "J") == run(capsys, "log", "J") == (0, [])
    with files.open_file("M/lock", write=True) as lock:
        lock.lock(exclusive=True, what="the mirror")
        assert refused(capsys, "verify", "M")[0] == refused(capsys, "replay", "J", "M")[0] == 22
        assert refused(capsys, "export", "M", "disk", "new")[0] == 22
        assert refused(capsys, "serve", "M", "--nbd", "unix:s")[0] == 22
        assert run(capsys, "status", "M") == (0, [])
    os.mkdir("new")
    with files.open_file("new/lock", write=True, create=True) as lock:
        lock.lock(exclusive=True, what="the journal")
        assert refused(capsys, "init", "new", "d=made:1M")[0] == 22
    assert not os.path.exists("made")


@pytest.mark.usefixtures("copy")
def test_what_is_being_appended_is_no_torn_tail(capsys: Capture) -> None:
    os.unlink("J/recorder.json")
    fields = json.loads(Path("J/journal.json").read_text())
    Path("J/journal.json").write_text(json.dumps(fields | {"end": None}))
    with open(FILE, "ab") as file:
        file.write(Path(FILE).read_bytes()[64:164])
    readers = [
        ["status", "J"],
        ["log", "J"],
        ["log", "--all", "J"],
        ["log", "--ops", "J"],
        ["verify", "J"],
        ["replay", "J", "M"],
    ]
    with Journal("J").lock():
        for arguments in readers:
            assert run(capsys, *arguments) == (0, []), arguments
    for arguments in readers:
        assert refused(capsys, *arguments)[0] == 10, arguments


def test_moved_journal_is_found_again(copy: Path, capsys: Capture) -> None:
    os.rename("J", "elsewhere")
    os.rename("M", "mirror")
    assert run(capsys, "replay", "elsewhere", "mirror") == (0, [])
    assert main(["verify", "mirror", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["journal_agrees"] is True
    assert main(["status", "mirror", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["journal"] == str(copy / "elsewhere")


@pytest.mark.usefixtures("place")
def test_time_zone_that_is_none(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrortool.clock.utc_offset_seconds", lambda _: 86400)
    assert run(capsys, "log", "J") == run(capsys, "status", "J", "M") == (0, [])


@pytest.mark.usefixtures("copy")
def test_no_thread_left(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    for arguments in (["record", "J"], ["replay", "J", "new"], ["verify", "M"], ["verify", "J"]):
        assert refused(capsys, *arguments)[0] == 33


@pytest.mark.usefixtures("no_sync")
def test_sizes_that_are_no_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for page_size in ("512", "64K"):
        for size in (0, 1, 511, 512, 4097, 65537):
            for name in ("J", "M"):
                shutil.rmtree(name, ignore_errors=True)
            write("v", os.urandom(size))
            assert main(["init", "J", "v=v", "--page-size", page_size]) == 0
            for now in (size, size + 1, 0, 3 * 4096 + 7, 1):
                os.truncate("v", now)
                make_old("v")
                emptied = ["--scan"] if not now else []  # which is for its owner to say
                assert main(["record", "J", *emptied]) == main(["replay", "J", "M"]) == main(["verify", "M"]) == 0
                assert Path("M/volumes/v.img").read_bytes() == Path("v").read_bytes()


def test_full_file_system(tmp_path: Path, capsys: Capture) -> None:
    with loop_mount(tmp_path, 8 << 20) as full:
        volume = str(tmp_path / "v")
        write(volume, os.urandom(2 << 20))
        arguments = ["init", f"{full}/J", f"v={volume}"]
        fill_up(full)
        assert refused(capsys, *arguments)[0] == 30
        os.truncate(f"{full}/filler", 0)
        shutil.rmtree(f"{full}/J", ignore_errors=True)
        assert run(capsys, *arguments) == (0, [])
        fill_up(full, leave=1 << 20)
        assert refused(capsys, "record", f"{full}/J")[0] == 30
        assert refused(capsys, "verify", f"{full}/J")[0] == 3, "sound, but there is no commit"
        os.truncate(f"{full}/filler", 0)
        assert run(capsys, "record", f"{full}/J") == (0, [])
        fill_up(full, leave=1 << 20)
        assert refused(capsys, "replay", f"{full}/J", f"{full}/M")[0] == 30
        os.truncate(f"{full}/filler", 0)
        assert run(capsys, "replay", f"{full}/J", f"{full}/M") == (0, [])


def test_read_only_file_system(tmp_path: Path, built: str, capsys: Capture) -> None:
    with loop_mount(tmp_path, 8 << 20) as mounted:
        shutil.copytree(f"{built}/J", f"{mounted}/J")
        shutil.copytree(f"{built}/M", f"{mounted}/M")
        assert os.system(f"mount -o remount,ro {mounted}") == 0
        for line in ("log J", "status J M", "verify J", "verify M", "verify M --journal J"):
            words = [f"{mounted}/{word}" if word in "JM" else word for word in line.split()]
            assert run(capsys, *words) == (0, []), line
        code, message = refused(capsys, "replay", f"{mounted}/J", str(tmp_path / "M"))
        assert (code, "--no-slot" in str(message)) == (32, True)
        assert run(capsys, "replay", f"{mounted}/J", str(tmp_path / "M"), "--no-slot") == (0, [])
        for line in ("record J", "mark J x", "replay J M", "replay J N", "init N v=v:1M"):
            words = [f"{mounted}/{word}" if word in "JMN" else word for word in line.split()]
            words = [f"v={tmp_path}/v:1M" if word.startswith("v=") else word for word in words]
            assert refused(capsys, *words)[0] == 32, line


def test_journal_on_its_own_volume(tmp_path: Path, capsys: Capture) -> None:
    with loop_mount(tmp_path, 8 << 20) as mounted:
        image = str(tmp_path / "mounted-disk.backing")
        link = str(tmp_path / "link")
        os.mkdir(f"{mounted}/directory")
        os.symlink(f"{mounted}/directory", link)
        for journal in (f"{mounted}/J", f"{mounted}/directory", link):
            code, line = refused(capsys, "init", journal, f"v={image}")
            assert code == 20 and "lies on this volume" in line
        assert os.listdir(f"{mounted}/directory") == []


def test_file_that_holds_the_primary_is_no_target(tmp_path: Path, capsys: Capture) -> None:
    with loop_device(tmp_path, 1 << 20) as device:
        journal, backing = str(tmp_path / "J"), tmp_path / "disk.backing"
        backing.write_bytes(b"precious" * (1 << 17))
        assert main(["init", journal, f"v={device}"]) == main(["record", journal]) == 0
        arguments = ["replay", journal, str(tmp_path / "M"), "--volume", f"v={backing}", "--overwrite"]
        code, line = refused(capsys, *arguments)
        assert code == 20 and "holds the primary's own volume" in line
        assert backing.read_bytes() == b"precious" * (1 << 17)
