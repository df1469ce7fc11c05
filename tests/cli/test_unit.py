"""`unit` prints a service for exactly one command line: checked now, with paths from the root, and what it needs."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mirrortool import errors
from mirrortool.cli import unit
from mirrortool.cli.main import main
from mirrortool.cli.services import SERVICES
from mirrortool.cli.unitfile import Needs, Unit, argument_word, path_word
from mirrortool.errors import UsageError
from tests.docs.manual import items, page
from tests.fakes.unitfiles import settings
from tests.fakes.volumes import inside_fast_directory

Capture = pytest.CaptureFixture[str]
RUN = "/run/mirrortool/disk.sock"


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    """A journal J of two volumes in directories of their own, and a mirror of it, one volume of which is elsewhere."""
    with inside_fast_directory() as directory:
        for name in ("a", "b"):
            os.mkdir(f"in-{name}")
            Path(f"in-{name}/{name}.img").write_bytes(name.encode() * 10_000)
        assert main(["init", "J", "a=in-a/a.img", "b=in-b/b.img"]) == main(["record", "J", "-q"]) == 0
        os.mkdir("kept")
        assert main(["replay", "J", "made", "-q", "--volume", "b=kept/b.img"]) == 0
        yield directory


@pytest.fixture
def place(built: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> str:
    monkeypatch.chdir(built)
    capsys.readouterr()
    return built


def written(found: dict[str, str]) -> list[str]:
    """What it may write; each may be missing, else systemd ends it with 226/NAMESPACE before it can say so."""
    words = shlex.split(found["ReadWritePaths"])
    assert all(word.startswith("-/") for word in words)
    return [word[1:] for word in words]


def printed(capsys: Capture, *arguments: str) -> dict[str, str]:
    assert main(["unit", *arguments]) == 0
    return settings(capsys.readouterr().out)


REFUSED = [
    (2, "", "COMMAND"),
    (2, "verify J", "not a command that can be a service"),
    (2, "record", "JOURNAL"),
    (2, "record J", "--nbd or --every"),
    (2, "record J --nbd", "argument"),
    (2, "record J --nonsense --every 1m", "No such option"),
    (2, "record J K --every 1m", "unexpected extra argument"),
    (2, "record J --every often", "not a duration"),
    (2, "record J --nbd nonsense", "unix:PATH"),
    (2, f"record J --nbd unix:{'x' * 120}", "107"),
    (2, "record J --nbd tcp:127.0.0.1:1", "--insecure"),
    (2, "record J --nbd unix:s --every 1m", "not for --nbd"),
    (2, "record J --every 1m --insecure", "need --nbd"),
    (2, "record J --every 1m --source a=x --source a=y", "named twice"),
    (2, "--name a/b record J --every 1m", "is not a name of a unit"),
    (2, "--user-name a:b record J --every 1m", "is not a user's name"),
    (2, "record J\n --every 1m", "cannot be in a unit"),
    (14, "record nothing --every 1m", "does not exist"),
    (2, "ship J C C", "named twice"),
    (2, "ship J C --after 1", "--after is for a pipe"),
    (2, "ship J C --slot s --no-slot", "--slot names"),
    (2, "ship J C --timeout 1s", "at least 15s"),
    (2, "ship J h:C --rsh '", "--rsh"),
]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED, ids=[case[1][:40] for case in REFUSED])
def test_what_the_command_would_refuse_is_refused_now(code: int, line: str, phrase: str, capsys: Capture) -> None:
    if "\n" in line:
        os.symlink("J", "J\n")
    assert main(["unit", *filter(None, line.split(" "))]) == code
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and phrase in shown.err


def test_the_command_line_is_the_same_from_the_root(place: str, capsys: Capture) -> None:
    line = "record --metrics-file m.prom J -q --nbd unix:s --socket-mode 0660 --nbd tcp:[::1]:809 --insecure"
    found = printed(capsys, *line.split())
    words = shlex.split(found["ExecStart"])
    assert (
        words[words.index("record") :]
        == (
            f"record {place}/J --nbd unix:{place}/s --nbd tcp:[::1]:809 --socket-mode 0660 --insecure "
            f"--metrics-file {place}/m.prom --quiet"
        ).split()
    )
    assert os.path.isabs(words[0])


@pytest.mark.usefixtures("place")
def test_the_environment_does_not_count(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRRORTOOL_RECORD_EVERY", "1h")
    assert main(["unit", "record", "J"]) == 2
    monkeypatch.setenv("MIRRORTOOL_RECORD_WHEN_FULL", "nonsense")
    assert "nonsense" not in printed(capsys, "record", "J", "--every", "1m")["ExecStart"]


def test_only_what_is_needed_may_be_written(place: str, capsys: Capture) -> None:
    found = printed(capsys, "record", "J", "--nbd", f"unix:{RUN}")
    assert written(found) == [f"{place}/J", f"{place}/in-a", f"{place}/in-b"]
    assert (found["ProtectSystem"], found["PrivateDevices"], found["NoNewPrivileges"]) == ("strict", "yes", "yes")
    assert found["RestrictAddressFamilies"] == "AF_UNIX"
    assert found["RuntimeDirectory"] == "mirrortool" and found["RuntimeDirectoryPreserve"] == "yes"
    assert "libvirt-guests.service" in found["Before"] and "After" not in found
    found = printed(capsys, "record", "J", "--every", "1h", "--metrics-file", "in-c/m.prom")
    assert written(found) == [f"{place}/{name}" for name in ("J", "in-a", "in-b", "in-c")]
    assert "RuntimeDirectory" not in found and "Before" not in found


@pytest.mark.usefixtures("place")
def test_the_network_is_for_who_asks(capsys: Capture) -> None:
    found = printed(capsys, "record", "J", "--nbd", "tcp:0.0.0.0:809", "--insecure")
    assert "AF_INET6" in found["RestrictAddressFamilies"] and found["After"] == "network-online.target"
    assert "CAP_NET_BIND_SERVICE" in found["CapabilityBoundingSet"]
    assert found["RestartPreventExitStatus"].split()[0] == "11", "the address may come later"


@pytest.mark.usefixtures("place")
def test_commands_of_the_user_are_not_confined(capsys: Capture) -> None:
    before = 'lvcreate -n "a b" $HOME 100%'
    found = printed(capsys, "record", "J", "--every", "1h", "--before", before)
    assert not {"ProtectSystem", "PrivateTmp", "SystemCallFilter", "CapabilityBoundingSet", "UMask"} & found.keys()
    assert shlex.split(found["ExecStart"])[-1] == before.replace("$", "$$").replace("%", "%%")


@pytest.mark.usefixtures("place")
def test_another_user_has_no_capabilities(capsys: Capture) -> None:
    found = printed(capsys, "--user-name", "vm", "--name", "of-vm", "record", "J", "--nbd", "unix:s")
    assert (found["User"], found["CapabilityBoundingSet"], found["SyslogIdentifier"]) == ("vm", "", "of-vm")


def test_steps_go_to_stderr(place: str, capsys: Capture) -> None:
    assert main(["unit", "--user-name", "vm", "record", "J", "--nbd", "unix:new/s"]) == 0
    shown = capsys.readouterr()
    first, following = shown.err.splitlines()
    assert first == f"the unit makes {place}/new"
    (name,) = re.findall(r"put this into /etc/systemd/system/(\S+)\.service;", following)
    assert name == settings(shown.out)["SyslogIdentifier"] and following.endswith(f"enable --now {name}")
    assert main(["unit", "-q", "record", "J", "--nbd", "unix:new/s"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_missing_is_made_before_each_start(place: str, capsys: Capture) -> None:
    """And what is there is left as it is."""
    os.makedirs("new there")
    os.chmod("new there", 0o751)
    found = printed(capsys, "ship", "J", "new a/copy", "new $b")
    words = shlex.split(found["ExecStartPre"].removeprefix("+").replace("$$", "$"))
    assert words[-2:] == [f"{place}/new $b", f"{place}/new a/copy"]
    subprocess.run([*words, f"{place}/new there"], check=True)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in ("new a/copy", "new $b", "new there")]
    assert modes == [0o700, 0o700, 0o751]
    assert "ExecStartPre" not in printed(capsys, "ship", "J", "new a/copy")


@pytest.mark.usefixtures("place")
def test_no_two_services_have_one_name(capsys: Capture) -> None:
    journals = ["srv/a-b", "srv/a/b", "srv/a_b", "srv/a b", "srv/ä_b", "x" * 200, f"y{'x' * 199}"]
    os.makedirs("srv/a")
    for path in journals:
        assert main(["init", path, "a=in-a/a.img"]) == 0
    capsys.readouterr()
    lines = [
        *(["record", path, "--every", "1h"] for path in ["J", *journals]),
        ["replay", "J", "M"], ["replay", "J", "M2"], ["ship", "J", "C"], ["ship", "J", "C", "D"], ["ship", "J", "h:C"],
        ["ship", "J", "h:c"],
    ]  # fmt: skip
    names = [printed(capsys, *line)["SyslogIdentifier"] for line in lines]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9:_.-]{1,200}", name) for name in names)
    assert [printed(capsys, *line)["SyslogIdentifier"] for line in lines] == names


def test_a_name_is_the_path_where_that_is_one(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("mirrortool.cli.unit._needs", lambda _: Needs())
    assert (
        printed(capsys, "record", "/srv/journal", "--every", "1h")["SyslogIdentifier"]
        == "mirrortool-record-srv-journal"
    )
    assert printed(capsys, "replay", "/srv/journal", "/srv/m")["SyslogIdentifier"] == "mirrortool-replay-srv-m"


def test_help_is_that_of_the_command(capsys: Capture) -> None:
    assert main(["unit", "record", "--help"]) == 0
    assert "Usage: mirrortool record [OPTIONS] JOURNAL" in capsys.readouterr().out


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_a_replay_follows(place: str, capsys: Capture, follow: list[str]) -> None:
    assert (
        main(["unit", "replay", "J", "M", *follow, "--volume", "a=elsewhere/a.img", "--volume", "b=/dev/no-disk"]) == 0
    )
    shown = capsys.readouterr()
    found = settings(shown.out)
    assert found["ExecStart"].split()[-8:] == (
        f"replay {place}/J {place}/M --volume a={place}/elsewhere/a.img --volume b=/dev/no-disk --follow".split()
    )
    assert written(found) == [f"{place}/J", f"{place}/M", f"{place}/elsewhere"]
    assert found["DeviceAllow"] == "/dev/no-disk rw" and "CAP_SYS_ADMIN" in found["CapabilityBoundingSet"]
    assert shown.err.startswith(f"the unit makes {place}/M {place}/elsewhere\n")


def test_a_mirror_that_is_there_says_where_its_volumes_are(place: str, capsys: Capture) -> None:
    found = printed(capsys, "replay", "J", "made")
    assert written(found) == [f"{place}/J", f"{place}/kept", f"{place}/made"]


def test_shipping_to_a_host_needs_the_network_and_the_home(place: str, capsys: Capture) -> None:
    for destination in ("mirror.example:/srv/J", "me@host:J", "ssh://host/srv/J"):
        found = printed(capsys, "ship", "J", destination)
        assert found["ExecStart"].split()[-4:] == ["ship", f"{place}/J", destination, "--follow"]
        assert "AF_INET6" in found["RestrictAddressFamilies"] and found["ProtectHome"] == "read-only"
        assert written(found) == [f"{place}/J"]
    found = printed(capsys, "ship", "J", "copy")
    assert written(found) == [f"{place}/J", f"{place}/copy"]
    assert found["RestrictAddressFamilies"] == "AF_UNIX"
    assert main(["unit", "ship", "J", "-"]) == 2


def text_of(needs: Needs, user: str | None = None) -> dict[str, str]:
    made = Unit("n", "title", "mirrortool-replay", ["/usr/bin/mirrortool", "replay"], user, (2,), 3, needs)
    return settings(made.text())


def test_devices_of_volumes_and_no_others() -> None:
    found = text_of(Needs(writes={"/srv/m"}, devices={"/dev/sdb"}, flushes_devices=True))
    assert (found["DevicePolicy"], found["DeviceAllow"]) == ("closed", "/dev/sdb rw")
    assert "PrivateDevices" not in found and "CAP_SYS_ADMIN" in found["CapabilityBoundingSet"]
    assert "CAP_SYS_ADMIN" not in text_of(Needs(devices={"/dev/sdb"}))["CapabilityBoundingSet"]
    assert found["StateDirectory"] == "mirrortool", "a mirror's devices are registered"
    assert "StateDirectory" not in text_of(Needs(devices={"/dev/sdb"}))


@pytest.mark.parametrize(
    ("path", "homes", "temporary"),
    [("/srv/j", "yes", "yes"), ("/home/me/j", "read-only", "yes"), ("/root", "read-only", "yes"),
     ("/var/tmp/j", "yes", "no"), ("/homes/j", "yes", "yes")],
)  # fmt: skip
def test_what_is_used_is_not_hidden(path: str, homes: str, temporary: str) -> None:
    for needs in (Needs(writes={path}), Needs(reads={path}), Needs(program={path})):
        found = text_of(needs)
        assert (found["ProtectHome"], found["PrivateTmp"]) == (homes, temporary)
    assert text_of(Needs(runs_ssh=True))["ProtectHome"] == "read-only"


def test_final_codes_are_those_of_the_page_and_of_the_program() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    known = {each.exit_code for each in classes if issubclass(each, errors.MirrortoolError)}
    final = {code for service in SERVICES.values() for code in service.final_codes}
    heads = [head for head, _ in items(page("mirrortool-unit").sub_part("Start and end"))]
    assert {int(code) for head in heads for code in head.split(" , ")} == final <= known


# Escaping: read back by the rules of systemd.syntax(7) and systemd.service(5), "Command lines".


def read_back(text: str, *, variables: bool) -> list[str]:
    words = []
    for match in re.finditer(r'\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))', text):
        word = match[2] if match[1] is None else re.sub(r"\\(.)", r"\1", match[1])
        assert match[1] is not None or not re.search(r"[\"'\\;]", word)
        word = re.sub("%(.)", lambda each: {"%": "%"}[each[1]], word)
        words.append(re.sub(r"\$(.)", lambda each: {"$": "$"}[each[1]], word) if variables else word)
    return words


special = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("%$\"'\\ ;{}&#"), max_size=12)


@given(st.lists(special, min_size=1, max_size=4))
def test_any_word_is_read_back(words: list[str]) -> None:
    assume(all(word.isprintable() for word in words))
    assert read_back(" ".join(map(argument_word, words)), variables=True) == words
    assert read_back(" ".join(map(path_word, words)), variables=False) == words


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "a\x1b[0m", "a\udcff", "a\u2028b"])
def test_what_no_line_can_hold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be in a unit"):
        argument_word(text)


def test_the_program_is_found_or_run_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirrortool").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["./mirrortool"])
    assert unit._program() == [str(tmp_path / "mirrortool")]
    monkeypatch.setattr("sys.argv", [f"{tmp_path}/__main__.py"])
    assert unit._program()[1:] == ["-m", "mirrortool"]
